//! Where the applying thread leaves its news, once for all watchers.
//!
//! A watch is in the hub while it is in step: every new change that it wants goes to its client's mailbox at
//! once. A watch whose mailbox fills up is thrown out and told so; it catches up by itself and comes back.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::mailbox::{Mail, Mailbox};
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::recent::{Change, Record};

/// Which kinds of changes a watch does not want.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Not puts.
    pub no_put: bool,
    /// Not deletions.
    pub no_delete: bool,
}

/// What a watch wants.
#[derive(Debug)]
pub struct Wanted {
    /// Its number in its client's stream.
    pub id: i64,
    /// Which keys.
    pub range: KeyRange,
    /// Which kinds.
    pub filter: Filter,
}

impl Wanted {
    /// Whether it wants a change.
    #[must_use]
    pub fn wants(&self, record: &Record) -> bool {
        let kind = if record.deleted {
            !self.filter.no_delete
        } else {
            !self.filter.no_put
        };
        kind && self.range.contains(&record.key)
    }
}

/// A watch in step.
struct Subscriber {
    wanted: Arc<Wanted>,
    /// The first revision it has not seen.
    next: i64,
    mailbox: Arc<Mailbox>,
}

#[derive(Default)]
struct Subscribers {
    /// Watches of one key, by the key.
    single: HashMap<Bytes, Vec<Subscriber>>,
    /// Watches of ranges. There is one per resource and watcher: few enough to try each.
    ranges: Vec<Subscriber>,
}

struct Inner {
    published: i64,
    subscribers: Subscribers,
}

/// The watches that are in step.
pub struct Hub {
    inner: Mutex<Inner>,
}

impl Hub {
    /// No watches; everything up to `published` is old.
    #[must_use]
    pub fn new(published: i64) -> Self {
        Self {
            inner: Mutex::new(Inner {
                published,
                subscribers: Subscribers::default(),
            }),
        }
    }

    /// The last revision that watchers were told of.
    #[must_use]
    pub fn published(&self) -> i64 {
        self.inner.lock().published
    }

    /// Puts a watch in step, if it has seen everything before `next` and nothing from then on was missed.
    /// 0 is from now on. Returns the first revision it will see, or `None` if it has to catch up first.
    pub fn join(&self, wanted: &Arc<Wanted>, next: i64, mailbox: &Arc<Mailbox>) -> Option<i64> {
        let mut inner = self.inner.lock();
        let now = inner.published + 1;
        let next = if next == 0 { now } else { next };
        if next < now {
            return None;
        }
        let subscriber = Subscriber {
            wanted: wanted.clone(),
            next,
            mailbox: mailbox.clone(),
        };
        match &wanted.range {
            KeyRange::One(key) => inner
                .subscribers
                .single
                .entry(key.clone())
                .or_default()
                .push(subscriber),
            _ => inner.subscribers.ranges.push(subscriber),
        }
        Some(next)
    }

    /// Takes a watch out.
    pub fn leave(&self, wanted: &Arc<Wanted>) {
        let mut inner = self.inner.lock();
        let others = |subscriber: &Subscriber| !Arc::ptr_eq(&subscriber.wanted, wanted);
        match &wanted.range {
            KeyRange::One(key) => {
                if let Some(subscribers) = inner.subscribers.single.get_mut(key) {
                    subscribers.retain(others);
                    if subscribers.is_empty() {
                        inner.subscribers.single.remove(key);
                    }
                }
            }
            _ => inner.subscribers.ranges.retain(others),
        }
    }

    /// Tells everyone who wants to know. The changes follow those of the last call without a gap.
    pub fn publish(&self, news: &[Arc<Change>]) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        for change in news {
            inner.published = change.revision;
            if !inner.subscribers.single.is_empty() {
                for record in &change.records {
                    if let Some(subscribers) = inner.subscribers.single.get_mut(&record.key) {
                        subscribers.retain_mut(|subscriber| subscriber.offer(change));
                    }
                }
            }
            inner
                .subscribers
                .ranges
                .retain_mut(|subscriber| subscriber.offer(change));
        }
    }

    /// The state was replaced by a later one: everyone has to catch up.
    pub fn jump(&self, published: i64) {
        let mut inner = self.inner.lock();
        inner.published = published;
        let subscribers = std::mem::take(&mut inner.subscribers);
        let single = subscribers.single.into_values().flatten();
        for subscriber in single.chain(subscribers.ranges) {
            subscriber.fall_behind();
        }
    }
}

impl Subscriber {
    /// Delivers a change if it is wanted. `false`: the mailbox is full and the watch is out of step.
    fn offer(&mut self, change: &Arc<Change>) -> bool {
        if change.revision < self.next {
            return true;
        }
        if change.records.iter().any(|record| self.wanted.wants(record)) {
            if !self.mailbox.deliver(&self.wanted, change) {
                self.fall_behind();
                return false;
            }
            self.next = change.revision + 1;
        }
        true
    }

    fn fall_behind(&self) {
        self.mailbox.post(Mail::Behind {
            wanted: self.wanted.clone(),
            next: self.next,
        });
    }
}
