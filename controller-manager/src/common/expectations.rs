//! What a controller has asked for and not seen yet.
//!
//! Between a write and the watch event that shows it, the cache is behind. A controller that counted then would
//! create or delete again. So it writes down how many creations and which deletions it expects, and leaves its
//! objects alone until the cache has shown them all, or until five minutes have passed (a watch event was lost).

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

const EXPIRES_AFTER: Duration = Duration::from_secs(5 * 60);

/// Expected creations and deletions by controller.
#[derive(Debug)]
pub struct Expectations<K> {
    waiting: Mutex<HashMap<K, Expected>>,
}

#[derive(Debug)]
struct Expected {
    creations: i64,
    deletions: HashSet<String>,
    since: Instant,
}

impl<K> Default for Expectations<K> {
    fn default() -> Self {
        Self {
            waiting: Mutex::new(HashMap::new()),
        }
    }
}

impl<K: Hash + Eq + Clone> Expectations<K> {
    /// Whether everything expected has been seen.
    pub fn satisfied(&self, key: &K) -> bool {
        let mut waiting = self.waiting.lock();
        let Some(expected) = waiting.get(key) else {
            return true;
        };
        let done = expected.creations <= 0 && expected.deletions.is_empty();
        if done || expected.since.elapsed() > EXPIRES_AFTER {
            waiting.remove(key);
            return true;
        }
        false
    }

    /// Expects `count` more creations.
    pub fn expect_creations(&self, key: &K, count: usize) {
        let mut waiting = self.waiting.lock();
        let expected = waiting.entry(key.clone()).or_insert_with(Expected::new);
        expected.creations += i64::try_from(count).unwrap_or(i64::MAX);
        expected.since = Instant::now();
    }

    /// Expects the objects with these uids to go.
    pub fn expect_deletions(&self, key: &K, uids: impl IntoIterator<Item = String>) {
        let mut waiting = self.waiting.lock();
        let expected = waiting.entry(key.clone()).or_insert_with(Expected::new);
        expected.deletions.extend(uids);
        expected.since = Instant::now();
    }

    /// `count` expected creations have been seen, or will not come.
    pub fn created(&self, key: &K, count: usize) {
        if let Some(expected) = self.waiting.lock().get_mut(key) {
            expected.creations -= i64::try_from(count).unwrap_or(i64::MAX);
        }
    }

    /// An expected deletion has been seen, or will not come.
    pub fn deleted(&self, key: &K, uid: &str) {
        if let Some(expected) = self.waiting.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The controller is gone.
    pub fn forget(&self, key: &K) {
        self.waiting.lock().remove(key);
    }
}

impl Expected {
    fn new() -> Self {
        Self {
            creations: 0,
            deletions: HashSet::new(),
            since: Instant::now(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_all() {
        let expectations = Expectations::<&str>::default();
        assert!(expectations.satisfied(&"a"));
        expectations.expect_creations(&"a", 2);
        expectations.expect_deletions(&"a", ["u".to_owned()]);
        expectations.created(&"a", 1);
        assert!(!expectations.satisfied(&"a"));
        expectations.created(&"a", 1);
        assert!(!expectations.satisfied(&"a"));
        expectations.deleted(&"a", "other");
        expectations.deleted(&"a", "u");
        assert!(expectations.satisfied(&"a"));
    }
}
