//! Leases: the replicated part, and the leader's clock over it.
//!
//! Which leases exist, for how long they were granted and which keys hang on them is agreed through Raft.
//! When one ends is the leader's affair alone: it keeps the deadlines, renews them on keep-alives, and
//! proposes to revoke what has run out. A new leader gives every lease its full time again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use keelson_proto::store::LeaseExpiry;
use parking_lot::Mutex;

use crate::mvcc::schema;
use crate::time::Time;

/// Longest lease in seconds, as in etcd.
pub const MAX_TTL: i64 = 9_000_000_000;

/// A lease as agreed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lease {
    /// Granted time to live in seconds.
    pub ttl: i64,
    /// Keys that go when it ends, in order.
    pub keys: BTreeSet<Box<[u8]>>,
}

/// The leases that exist.
#[derive(Debug, Default)]
pub struct Leases {
    leases: BTreeMap<i64, Lease>,
    /// Leases that changed since the engine was last told; `None` are gone.
    changed: HashMap<i64, Option<i64>>,
}

impl Leases {
    /// A lease.
    #[must_use]
    pub fn get(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    /// All of them by number.
    pub fn all(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// Adds one; `false` if its number is taken.
    pub fn grant(&mut self, id: i64, ttl: i64) -> bool {
        if self.leases.contains_key(&id) {
            return false;
        }
        self.restore(id, ttl);
        self.changed.insert(id, Some(ttl));
        true
    }

    /// Adds one that was read from the engine.
    pub fn restore(&mut self, id: i64, ttl: i64) {
        self.leases.insert(
            id,
            Lease {
                ttl,
                keys: BTreeSet::new(),
            },
        );
    }

    /// Removes one and returns its keys, in order.
    pub fn revoke(&mut self, id: i64) -> Option<BTreeSet<Box<[u8]>>> {
        let lease = self.leases.remove(&id)?;
        self.changed.insert(id, None);
        Some(lease.keys)
    }

    /// Hangs a key on a lease and takes it off another. 0 is no lease.
    pub fn attach(&mut self, key: &[u8], from: i64, to: i64) {
        if from == to {
            return;
        }
        if from != 0
            && let Some(lease) = self.leases.get_mut(&from)
        {
            lease.keys.remove(key);
        }
        if to != 0
            && let Some(lease) = self.leases.get_mut(&to)
        {
            lease.keys.insert(key.into());
        }
    }

    /// The changes for the engine since the last call, as its records.
    pub fn take_changed(&mut self) -> Vec<(Vec<u8>, Option<bytes::Bytes>)> {
        self.changed
            .drain()
            .map(|(id, ttl)| {
                let value = ttl.map(|ttl| bytes::Bytes::copy_from_slice(&ttl.to_be_bytes()));
                (schema::lease_key(id), value)
            })
            .collect()
    }

    /// Whether the engine has something to be told.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }
}

/// The leader's deadlines.
#[derive(Debug, Default)]
pub struct LeaseClock {
    inner: Mutex<Deadlines>,
    time: Time,
}

#[derive(Debug, Default)]
struct Deadlines {
    /// The term in which this member leads; 0 if it does not.
    term: u64,
    by_id: HashMap<i64, (Instant, Duration)>,
    by_time: BTreeSet<(Instant, i64)>,
}

impl Deadlines {
    fn set(&mut self, id: i64, ttl: Duration, now: Instant) {
        self.remove(id);
        // A lease of centuries has no deadline that a clock could hold.
        let deadline = now
            .checked_add(ttl)
            .unwrap_or_else(|| now + Duration::from_secs(u64::from(u32::MAX)));
        self.by_id.insert(id, (deadline, ttl));
        self.by_time.insert((deadline, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some((deadline, _)) = self.by_id.remove(&id) {
            self.by_time.remove(&(deadline, id));
        }
    }
}

fn seconds(ttl: i64) -> Duration {
    Duration::from_secs(u64::try_from(ttl).unwrap_or(0))
}

impl LeaseClock {
    /// Deadlines by this clock.
    #[must_use]
    pub fn new(time: Time) -> Self {
        Self {
            inner: Mutex::default(),
            time,
        }
    }

    /// The clock.
    #[must_use]
    pub fn time(&self) -> &Time {
        &self.time
    }

    /// This member leads from now on, in `term`: every lease gets its full time, and `grace` for the election.
    pub fn lead(&self, term: u64, leases: impl Iterator<Item = (i64, i64)>, grace: Duration) {
        let now = self.time.now();
        let mut inner = self.inner.lock();
        inner.term = term;
        inner.by_id.clear();
        inner.by_time.clear();
        for (id, ttl) in leases {
            inner.set(id, seconds(ttl), now + grace);
        }
    }

    /// This member does not lead any more.
    pub fn follow(&self) {
        *self.inner.lock() = Deadlines::default();
    }

    /// A lease was granted.
    pub fn granted(&self, id: i64, ttl: i64) {
        let mut inner = self.inner.lock();
        if inner.term != 0 {
            inner.set(id, seconds(ttl), self.time.now());
        }
    }

    /// A lease was revoked.
    pub fn revoked(&self, id: i64) {
        self.inner.lock().remove(id);
    }

    /// The term in which this member leads, or 0. What [`Self::renew`] returned holds if this member was the leader
    /// all the while: it has to be asked for before, and confirmed by the others afterwards.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.inner.lock().term
    }

    /// Gives a lease its full time again and returns that time in seconds. `None`: it has run out or never was.
    #[must_use]
    pub fn renew(&self, id: i64) -> Option<i64> {
        let now = self.time.now();
        let mut inner = self.inner.lock();
        let (deadline, ttl) = *inner.by_id.get(&id)?;
        if deadline <= now {
            return None;
        }
        inner.set(id, ttl, now);
        i64::try_from(ttl.as_secs()).ok()
    }

    /// Seconds a lease has left. `None`: it has run out or never was.
    #[must_use]
    pub fn remaining(&self, id: i64) -> Option<i64> {
        let (deadline, _) = *self.inner.lock().by_id.get(&id)?;
        let left = deadline.checked_duration_since(self.time.now())?;
        i64::try_from(left.as_secs()).ok()
    }

    /// Proposals to end the leases that have run out, at most `limit`. They are named again until they are revoked.
    #[must_use]
    pub fn expired(&self, limit: usize) -> Vec<LeaseExpiry> {
        let now = self.time.now();
        let inner = self.inner.lock();
        inner
            .by_time
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .take(limit)
            .map(|(_, id)| LeaseExpiry {
                id: *id,
                term: inner.term,
            })
            .collect()
    }
}
