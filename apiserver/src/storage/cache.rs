//! One resource in memory: its objects in key order, what happened lately, and who is watching.
//!
//! Everything happens under one short lock: the feed applies an event and hands it to the watchers; a watch starts with
//! the present state or a place in the history and is registered in the same breath, so that it misses nothing.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use imbl::OrdMap;
use keelson_api::schema::{self, Definition};
use keelson_api::status::{ApiError, ApiResult};
use parking_lot::Mutex;

use super::entry::{Entry, EventType};
use super::filter::Filter;
use super::queue::{Queue, Refused, Remains, Room, Teller, queue};
use crate::registry::info::ResourceInfo;
use crate::registry::strategy::ErasedStrategy;

/// Events kept for watches that start in the past.
const RING_EVENTS: usize = 16 * 1024;
/// The same in bytes: a ring of large objects must not outgrow the objects.
const RING_BYTES: usize = 16 << 20;
/// What a watcher may lag behind before it is dropped and has to start again: no further in bytes than the ring reaches,
/// so that it can.
const LAG: Room = Room {
    signals: 4096,
    bytes: RING_BYTES,
};
/// What a dropped watcher has not read by then is thrown away: it would keep alive what is long gone.
const UNREAD: Duration = Duration::from_secs(30);
/// How often a watcher that wants bookmarks gets one.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Snapshots kept so that a list cut into pages shows one moment.
const SNAPSHOTS: usize = 16;
/// How long they are kept.
const SNAPSHOT_AGE: Duration = Duration::from_secs(300);

/// Objects by key. A copy costs nothing and stays as it is.
pub type Entries = OrdMap<Arc<str>, Arc<Entry>>;

/// Something that happened to one object.
#[derive(Debug)]
pub struct Event {
    /// Added, modified or deleted.
    pub kind: EventType,
    /// The object after it; for a deletion the last state with the deletion's revision.
    pub entry: Arc<Entry>,
    /// The object before it.
    pub previous: Option<Arc<Entry>>,
    /// For watchers whose selector no longer matches: the object before, as DELETED.
    left: OnceLock<Bytes>,
}

impl Event {
    /// The same event about objects in another form.
    pub fn about(&self, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self {
            kind: self.kind,
            entry,
            previous,
            left: OnceLock::new(),
        }
    }

    /// The event as a watcher with this filter sees it.
    pub fn seen_through(&self, filter: &Filter) -> Option<EventType> {
        let before = self.previous.as_deref().is_some_and(|e| filter.matches(e));
        let now = self.kind != EventType::Deleted && filter.matches(&self.entry);
        match (before, now) {
            (false, false) => None,
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
        }
    }

    /// The watch line for a watcher that sees the event as `kind`.
    pub fn line(&self, kind: EventType) -> Bytes {
        match (kind, &self.previous) {
            (EventType::Deleted, Some(previous)) if self.kind != EventType::Deleted => self
                .left
                .get_or_init(|| previous.line_at(EventType::Deleted, self.entry.revision))
                .clone(),
            _ => self.entry.line(kind),
        }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone)]
pub enum Signal {
    /// Something happened, seen as that.
    Event(EventType, Arc<Event>),
    /// Everything up to this revision has been told.
    Bookmark(i64),
    /// What happened cannot be told. Nothing follows.
    Failed(Arc<ApiError>),
}

impl Signal {
    /// Bytes of the object it is about.
    pub fn size(&self) -> usize {
        match self {
            Self::Event(_, event) => event.entry.json().len(),
            Self::Bookmark(_) | Self::Failed(_) => 0,
        }
    }
}

struct Watcher {
    filter: Arc<Filter>,
    queue: Teller,
    /// What happened until then is none of its business; it may be yet to come.
    after: i64,
    next_bookmark: Option<Instant>,
}

/// How a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With every object there is.
    Present,
    /// With what happened after this revision.
    After(i64),
}

/// A running watch.
pub struct Watching {
    /// Objects to be sent as ADDED first.
    pub initial: Vec<Arc<Entry>>,
    /// Events to be sent then.
    pub backlog: Vec<Signal>,
    /// The revision the initial objects show.
    pub revision: i64,
    /// What happens from now on; closed when the watcher is too slow or the cache starts anew.
    pub queue: Queue,
}

/// The history asked for is no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision a watch can start from.
    pub oldest: i64,
}

struct Inner {
    entries: Entries,
    ring: VecDeque<Arc<Event>>,
    ring_bytes: usize,
    /// Everything that happened after this revision is in the ring.
    floor: i64,
    /// The revision of the last event that concerned this resource, or of the last load.
    last_change: i64,
    watchers: Vec<Watcher>,
    /// What dropped watchers have not read yet, and since when.
    unread: Vec<(Instant, Remains)>,
    snapshots: VecDeque<(i64, Instant, Entries)>,
}

/// One resource in memory.
pub struct ResourceCache {
    strategy: Arc<dyn ErasedStrategy>,
    definition: Option<&'static Definition>,
    /// Shared with the cache that takes this one's place when a custom resource is defined anew.
    inner: Arc<Mutex<Inner>>,
    /// Why what the store holds cannot be read, if it cannot; shared as well.
    unreadable: Arc<ArcSwapOption<String>>,
}

impl ResourceCache {
    /// An empty cache.
    pub fn new(strategy: Arc<dyn ErasedStrategy>) -> Self {
        let inner = Inner {
            entries: Entries::new(),
            ring: VecDeque::new(),
            ring_bytes: 0,
            floor: 0,
            last_change: 0,
            watchers: Vec::new(),
            unread: Vec::new(),
            snapshots: VecDeque::new(),
        };
        Self {
            definition: definition(strategy.info()),
            strategy,
            inner: Arc::new(Mutex::new(inner)),
            unreadable: Arc::default(),
        }
    }

    /// The same objects and watchers under another strategy.
    pub fn with_strategy(&self, strategy: Arc<dyn ErasedStrategy>) -> Self {
        Self {
            definition: definition(strategy.info()),
            strategy,
            inner: self.inner.clone(),
            unreadable: self.unreadable.clone(),
        }
    }

    /// Some of what the store holds cannot be read: a list that leaves it out would be wrong. Whoever watches has to
    /// start again, and is refused until everything has been loaded.
    pub fn fail(&self, why: String) {
        self.unreadable.store(Some(Arc::new(why)));
        self.inner.lock().end_watches();
    }

    /// Whether what is here is everything there is.
    ///
    /// # Errors
    /// The 500 for what cannot be read.
    pub fn readable(&self) -> ApiResult<()> {
        match self.unreadable.load().as_ref() {
            None => Ok(()),
            Some(why) => Err(ApiError::internal(why)),
        }
    }

    /// Shows the same objects in the form they have now. Nothing happened to them: watchers are told nothing.
    pub fn refresh(&self, entries: Entries) {
        let mut inner = self.inner.lock();
        inner.entries = entries;
        inner.snapshots.clear();
    }

    /// Ends every watch. What happened until now is told to nobody who comes later; the objects stay.
    pub fn start_over(&self) {
        let mut inner = self.inner.lock();
        inner.ring.clear();
        inner.ring_bytes = 0;
        inner.floor = inner.last_change;
        inner.end_watches();
    }

    /// Forgets everything; whoever watches has seen all there will be.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.entries = Entries::new();
        inner.ring.clear();
        inner.ring_bytes = 0;
        inner.end_watches();
        inner.snapshots.clear();
    }

    /// The resource kept here.
    pub fn info(&self) -> &'static ResourceInfo {
        self.strategy.info()
    }

    /// What the table of types says of the objects as they are stored.
    pub fn definition(&self) -> Option<&'static Definition> {
        self.definition
    }

    /// The strategy of the resource kept here.
    pub fn strategy(&self) -> &Arc<dyn ErasedStrategy> {
        &self.strategy
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.inner.lock().entries.get(key).cloned()
    }

    /// Every object as of now, and the revision that shows. `reached` is the revision the feed has reached.
    pub fn snapshot(&self, reached: impl Fn() -> i64) -> (Entries, i64) {
        let inner = self.inner.lock();
        (inner.entries.clone(), reached().max(inner.last_change))
    }

    /// Every object as it was at `revision`, if that is still known: because nothing changed since, or because a
    /// snapshot was kept.
    pub fn snapshot_at(&self, revision: i64) -> Option<Entries> {
        let inner = self.inner.lock();
        if inner.last_change <= revision {
            return Some(inner.entries.clone());
        }
        inner
            .snapshots
            .iter()
            .find(|(r, ..)| *r == revision)
            .map(|(_, _, entries)| entries.clone())
    }

    /// Keeps a snapshot for the next pages of a list.
    pub fn keep_snapshot(&self, revision: i64, entries: Entries) {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        while inner.snapshots.len() >= SNAPSHOTS
            || inner
                .snapshots
                .front()
                .is_some_and(|(_, since, _)| now - *since > SNAPSHOT_AGE)
        {
            inner.snapshots.pop_front();
        }
        if !inner.snapshots.iter().any(|(r, ..)| *r == revision) {
            inner.snapshots.push_back((revision, now, entries));
        }
    }

    /// How many objects there are, and how many watch.
    pub fn sizes(&self) -> (usize, usize) {
        let inner = self.inner.lock();
        (inner.entries.len(), inner.watchers.len())
    }

    /// Begins anew with what the store holds at `revision`. Whoever watches has to start again.
    pub fn load(&self, entries: Entries, revision: i64) {
        let mut inner = self.inner.lock();
        inner.entries = entries;
        inner.ring.clear();
        inner.ring_bytes = 0;
        inner.floor = revision;
        inner.last_change = revision;
        inner.end_watches();
        inner.snapshots.clear();
        self.unreadable.store(None);
    }

    /// An object was written.
    pub fn put(&self, key: &str, revision: i64, stored: &[u8]) {
        let mut inner = self.inner.lock();
        let previous = inner.entries.get(key).cloned();
        let kind = if previous.is_some() {
            EventType::Modified
        } else {
            EventType::Added
        };
        let key: Arc<str> = previous.as_ref().map_or_else(|| key.into(), |p| p.key.clone());
        match Entry::new(self.strategy.as_ref(), key.clone(), revision, stored, kind) {
            Ok(entry) => {
                let entry = Arc::new(entry);
                inner.entries.insert(key, entry.clone());
                inner.tell(
                    Event {
                        kind,
                        entry,
                        previous,
                        left: OnceLock::new(),
                    },
                    revision,
                );
            }
            Err(error) => {
                tracing::error!(%key, revision, resource = self.info().plural, error, "stored object cannot be read");
            }
        }
    }

    /// An object was removed.
    pub fn remove(&self, key: &str, revision: i64) {
        let mut inner = self.inner.lock();
        let Some(previous) = inner.entries.remove(key) else {
            return;
        };
        let entry = Arc::new(previous.buried(revision));
        let kind = EventType::Deleted;
        inner.tell(
            Event {
                kind,
                entry,
                previous: Some(previous),
                left: OnceLock::new(),
            },
            revision,
        );
    }

    /// Gives a bookmark to everybody who is due one. `revision` has been reached by the feed.
    pub fn bookmark(&self, revision: i64, now: Instant) {
        let mut inner = self.inner.lock();
        for watcher in &mut inner.watchers {
            if watcher.after <= revision && watcher.next_bookmark.is_some_and(|due| due <= now) {
                watcher.next_bookmark = Some(now + BOOKMARK_INTERVAL);
                // A full queue gets its bookmark the next time.
                let _ = watcher.queue.try_tell(Signal::Bookmark(revision));
            }
        }
        inner.watchers.retain(|w| !w.queue.is_left());
        inner.unread.retain(|(since, remains)| {
            let keep = now.saturating_duration_since(*since) < UNREAD && !remains.is_empty();
            if !keep {
                remains.throw_away();
            }
            keep
        });
    }

    /// Starts a watch. `reached` is the revision the feed has reached.
    pub fn watch(
        &self,
        filter: Arc<Filter>,
        start: Start,
        wants_bookmarks: bool,
        reached: impl Fn() -> i64,
    ) -> Result<Watching, TooOld> {
        let mut inner = self.inner.lock();
        let reached = reached().max(inner.last_change);
        let (mut initial, mut backlog) = (Vec::new(), Vec::new());
        match start {
            Start::Present => {
                initial = select(&inner.entries, &filter, None).cloned().collect();
            }
            Start::After(revision) if revision < inner.floor => {
                return Err(TooOld { oldest: inner.floor });
            }
            Start::After(revision) => {
                let from = inner.ring.partition_point(|e| e.entry.revision <= revision);
                for event in inner.ring.range(from..) {
                    if let Some(kind) = event.seen_through(&filter) {
                        backlog.push(Signal::Event(kind, event.clone()));
                    }
                }
            }
        }
        let (teller, queue) = queue(LAG);
        let next_bookmark = wants_bookmarks.then(|| Instant::now() + BOOKMARK_INTERVAL);
        inner.watchers.push(Watcher {
            filter,
            queue: teller,
            after: match start {
                Start::Present => 0,
                Start::After(revision) => revision,
            },
            next_bookmark,
        });
        Ok(Watching {
            initial,
            backlog,
            revision: reached,
            queue,
        })
    }
}

impl Inner {
    fn end_watches(&mut self) {
        let now = Instant::now();
        let ended = self.watchers.drain(..).map(|watcher| (now, watcher.queue.end()));
        self.unread.extend(ended);
    }

    fn tell(&mut self, event: Event, revision: i64) {
        self.last_change = revision;
        let event = Arc::new(event);
        self.watchers.retain(|watcher| {
            if revision <= watcher.after {
                return true;
            }
            match event.seen_through(&watcher.filter) {
                // A watcher that is gone is noticed at its next event or bookmark.
                None => true,
                // One that cannot keep up is dropped: it starts again from where it is.
                Some(kind) => match watcher.queue.try_tell(Signal::Event(kind, event.clone())) {
                    Ok(()) => true,
                    Err(Refused::Gone) => false,
                    Err(Refused::Full) => {
                        self.unread.push((Instant::now(), watcher.queue.end()));
                        false
                    }
                },
            }
        });
        self.ring_bytes += event.entry.json().len();
        self.ring.push_back(event);
        while self.ring.len() > RING_EVENTS || (self.ring_bytes > RING_BYTES && self.ring.len() > 128) {
            if let Some(oldest) = self.ring.pop_front() {
                self.ring_bytes = self.ring_bytes.saturating_sub(oldest.entry.json().len());
                self.floor = oldest.entry.revision;
            }
        }
    }
}

/// The entries a filter wants, in key order, after `after`.
pub fn select<'a>(
    entries: &'a Entries,
    filter: &'a Filter,
    after: Option<&str>,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let (begin, end) = bounds(filter.scope(), after);
    within(entries, begin, end)
        .map(|(_, entry)| entry)
        .filter(move |entry| filter.matches(entry))
}

/// How many entries of a scope come after `after`. Looks at no entry and goes no further than through the fewer of
/// those and all others, so that counting what remains of a long list costs little beside a page of it.
pub fn count_after(entries: &Entries, scope: &str, after: &str) -> usize {
    let (begin, end) = bounds(scope, Some(after));
    let behind = end.clone().map(|end| entries.range(end..));
    let mut others = entries.range(..begin.clone()).chain(behind.into_iter().flatten());
    let mut wanted = within(entries, begin, end);
    let mut counted = 0;
    loop {
        if wanted.next().is_none() {
            return counted;
        }
        if others.next().is_none() {
            return entries.len() - counted;
        }
        counted += 1;
    }
}

fn within(
    entries: &Entries,
    begin: Arc<str>,
    end: Option<Arc<str>>,
) -> impl Iterator<Item = (&Arc<str>, &Arc<Entry>)> {
    entries.range((
        Bound::Included(begin),
        end.map_or(Bound::Unbounded, Bound::Excluded),
    ))
}

/// Where the keys of a scope, `namespace/` or nothing for all, that come after `after` begin, and the first key behind
/// them.
fn bounds(scope: &str, after: Option<&str>) -> (Arc<str>, Option<Arc<str>>) {
    let begin = match after {
        // The first that a key can be followed by.
        Some(key) if key >= scope => format!("{key}\0").into(),
        _ => scope.into(),
    };
    // The first key behind a scope has the character after the slash where the scope has the slash.
    let end = scope
        .strip_suffix('/')
        .map(|namespace| format!("{namespace}0").into());
    (begin, end)
}

fn definition(info: &ResourceInfo) -> Option<&'static Definition> {
    schema::by_kind(info.group, info.version, info.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::core::config_map::ConfigMapStrategy;

    fn cache() -> ResourceCache {
        let cache = ResourceCache::new(Arc::new(ConfigMapStrategy));
        cache.load(Entries::new(), 10);
        cache
    }

    fn put(cache: &ResourceCache, key: &str, revision: i64, color: &str) {
        let (namespace, name) = key.split_once('/').expect("a namespaced key");
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"{namespace}","labels":{{"color":"{color}"}}}}}}"#
        );
        cache.put(key, revision, json.as_bytes());
    }

    fn filter(cache: &ResourceCache, labels: &str) -> Arc<Filter> {
        Arc::new(Filter::parse(cache.info(), None, "a", None, labels, "").expect("a filter"))
    }

    fn told(watching: &mut Watching) -> Vec<(&'static str, i64)> {
        let mut signals = std::mem::take(&mut watching.backlog);
        while let Some(signal) = watching.queue.try_recv() {
            signals.push(signal);
        }
        signals
            .iter()
            .map(|signal| match signal {
                Signal::Event(kind, event) => (kind.as_str(), event.entry.revision),
                Signal::Bookmark(revision) => ("BOOKMARK", *revision),
                Signal::Failed(_) => ("ERROR", 0),
            })
            .collect()
    }

    #[test]
    fn selectors_turn_changes_into_comings_and_goings() {
        let cache = cache();
        let red = filter(&cache, "color=red");
        let mut watching = cache
            .watch(red.clone(), Start::After(10), false, || 10)
            .expect("a watch");
        put(&cache, "a/x", 11, "red");
        put(&cache, "b/x", 12, "red");
        put(&cache, "a/x", 13, "blue");
        put(&cache, "a/x", 14, "red");
        put(&cache, "a/x", 15, "red");
        cache.remove("a/x", 16);
        let expected = vec![
            ("ADDED", 11),
            ("DELETED", 13),
            ("ADDED", 14),
            ("MODIFIED", 15),
            ("DELETED", 16),
        ];
        assert_eq!(told(&mut watching), expected);
        // Who comes later and starts from the same revision is told the same.
        let mut late = cache.watch(red, Start::After(10), false, || 16).expect("a watch");
        assert_eq!(told(&mut late), expected);
    }

    #[test]
    fn what_left_a_selector_is_shown_as_it_was_with_the_new_revision() {
        let cache = cache();
        let mut watching = cache
            .watch(filter(&cache, "color=red"), Start::Present, false, || 10)
            .expect("a watch");
        put(&cache, "a/x", 11, "red");
        put(&cache, "a/x", 12, "blue");
        let _added = watching.queue.try_recv().expect("added");
        let Some(Signal::Event(kind, event)) = watching.queue.try_recv() else {
            panic!("an event")
        };
        let line = String::from_utf8(event.line(kind).to_vec()).expect("text");
        assert!(line.starts_with(r#"{"type":"DELETED""#), "{line}");
        assert!(
            line.contains(r#""color":"red""#) && line.contains(r#""resourceVersion":"12""#),
            "{line}"
        );
    }

    #[test]
    fn history_ends_somewhere() {
        let cache = cache();
        let all = filter(&cache, "");
        let too_old = cache.watch(all.clone(), Start::After(9), false, || 10).err();
        assert_eq!(too_old, Some(TooOld { oldest: 10 }));
        for revision in 11..=11 + i64::try_from(RING_EVENTS).expect("small") {
            put(&cache, "a/x", revision, "red");
        }
        assert!(cache.watch(all.clone(), Start::After(10), false, || 11).is_err());
        assert!(cache.watch(all, Start::After(11), false, || 11).is_ok());
    }

    #[test]
    fn a_watch_of_what_is_to_come_tells_nothing_from_before() {
        let cache = cache();
        let all = filter(&cache, "");
        let mut early = cache.watch(all, Start::After(12), true, || 10).expect("a watch");
        put(&cache, "a/x", 11, "red");
        cache.bookmark(11, Instant::now() + BOOKMARK_INTERVAL * 2);
        put(&cache, "a/x", 12, "red");
        put(&cache, "a/x", 13, "red");
        assert_eq!(told(&mut early), [("MODIFIED", 13)]);
    }

    #[test]
    fn a_slow_watcher_is_dropped_and_others_are_not() {
        let cache = cache();
        let all = filter(&cache, "");
        let mut slow = cache
            .watch(all.clone(), Start::Present, false, || 10)
            .expect("a watch");
        for revision in 11..12 + i64::try_from(LAG.signals).expect("small") {
            put(&cache, "a/x", revision, "red");
        }
        let mut fresh = cache.watch(all, Start::Present, true, || 10).expect("a watch");
        put(&cache, "a/x", 99_999, "red");
        assert_eq!(told(&mut slow).len(), LAG.signals);
        assert!(slow.queue.is_closed());
        cache.bookmark(100_000, Instant::now() + BOOKMARK_INTERVAL * 2);
        assert_eq!(told(&mut fresh), [("MODIFIED", 99_999), ("BOOKMARK", 100_000)]);
    }

    #[test]
    fn large_objects_fill_a_watchers_room_too() {
        let cache = cache();
        let all = filter(&cache, "");
        let mut slow = cache.watch(all, Start::Present, false, || 10).expect("a watch");
        let large = "x".repeat(LAG.bytes / 8);
        for revision in 11..40 {
            put(&cache, "a/x", revision, &large);
        }
        assert!(slow.queue.is_closed());
        // Half a minute later nobody waits for it to read the rest.
        cache.bookmark(40, Instant::now() + UNREAD / 2);
        assert!(slow.queue.try_recv().is_some());
        cache.bookmark(40, Instant::now() + UNREAD * 2);
        assert!(told(&mut slow).is_empty());
    }

    #[test]
    fn pages_of_a_list_show_one_moment() {
        let cache = cache();
        put(&cache, "a/x", 11, "red");
        put(&cache, "a/y", 12, "red");
        let (entries, revision) = cache.snapshot(|| 12);
        assert_eq!(revision, 12);
        cache.keep_snapshot(revision, entries);
        cache.remove("a/y", 13);
        let all = filter(&cache, "");
        let names = |entries: &Entries, after| -> Vec<String> {
            select(entries, &all, after)
                .map(|e| e.name().to_owned())
                .collect()
        };
        assert_eq!(names(&cache.snapshot_at(12).expect("kept"), Some("a/x")), ["y"]);
        assert_eq!(names(&cache.snapshot_at(13).expect("the present"), None), ["x"]);
        assert!(cache.snapshot_at(11).is_none());
    }

    #[test]
    fn what_remains_is_counted_within_its_scope() {
        let cache = cache();
        for (revision, key) in (10..).zip(["a/x", "a/y", "a/z", "a-b/x", "a0/x", "b/x"]) {
            put(&cache, key, revision, "red");
        }
        let (entries, _) = cache.snapshot(|| 20);
        assert_eq!(count_after(&entries, "a/", "a/x"), 2);
        assert_eq!(count_after(&entries, "a/", "a/z"), 0);
        assert_eq!(count_after(&entries, "", "a/z"), 2);
        assert_eq!(count_after(&entries, "", "a-b/x"), 5);
        assert_eq!(count_after(&entries, "a/", ""), 3);
        assert_eq!(count_after(&entries, "a/", "a"), 3);
        assert_eq!(count_after(&entries, "b/", "b/x"), 0);
        assert_eq!(count_after(&entries, "c/", ""), 0);
        let all = Filter::namespace("a");
        assert_eq!(select(&entries, &all, None).count(), 3);
    }
}
