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
        let unpublished = std::mem::replace(&mut inner.published, published) + 1;
        let subscribers = std::mem::take(&mut inner.subscribers);
        let single = subscribers.single.into_values().flatten();
        for subscriber in single.chain(subscribers.ranges) {
            subscriber.fall_behind(unpublished);
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
                self.fall_behind(change.revision);
                return false;
            }
            self.next = change.revision + 1;
        }
        true
    }

    /// It has been offered everything before `missed`.
    fn fall_behind(&self, missed: i64) {
        self.mailbox.post(Mail::Behind {
            wanted: self.wanted.clone(),
            next: self.next.max(missed),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::index::Life;
    use crate::mvcc::revision::Revision;

    fn change(revision: i64) -> Arc<Change> {
        let record = Record {
            revision: Revision::start_of(revision),
            deleted: false,
            life: Life::default(),
            key: Bytes::from_static(b"other"),
            value: Bytes::new(),
        };
        Arc::new(Change {
            revision,
            records: [record].into_iter().collect(),
        })
    }

    /// Otherwise it would be told that history which it needs not is compacted.
    #[test]
    fn a_silent_watch_that_falls_behind_has_seen_what_it_did_not_want() {
        let (hub, mailbox) = (Hub::new(5), Arc::<Mailbox>::default());
        let wanted = Arc::new(Wanted {
            id: 0,
            range: KeyRange::One(Bytes::from_static(b"mine")),
            filter: Filter::default(),
        });
        assert_eq!(hub.join(&wanted, 0, &mailbox), Some(6));
        hub.publish(&[change(6), change(7)]);
        hub.jump(100);
        let mail = mailbox.take();
        let next = mail.iter().map(|mail| match mail {
            Mail::Behind { next, .. } => Some(*next),
            Mail::Change { .. } => None,
        });
        assert_eq!(next.collect::<Vec<_>>(), [Some(8)]);
    }
}
