//! Waiting longer each time something fails again: crash loops and image pulls.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// First and longest wait before a container that ended is started again.
pub const CRASH_LOOP: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Nanoseconds since the epoch, as CRI counts time.
pub type Nanos = i64;

#[derive(Debug, Clone, Copy)]
struct Entry {
    wait: Duration,
    updated: Nanos,
}

/// A wait per key, doubled at each failure and forgotten after a while of success.
#[derive(Debug, Clone)]
pub struct BackoffMap<K> {
    first: Duration,
    longest: Duration,
    entries: HashMap<K, Entry>,
}

impl<K: Hash + Eq + Clone> BackoffMap<K> {
    /// Waits from `first` up to `longest`.
    pub fn new((first, longest): (Duration, Duration)) -> Self {
        Self {
            first,
            longest,
            entries: HashMap::new(),
        }
    }

    /// How long to wait yet, for something that failed at `failed`.
    pub fn remaining(&self, key: &K, failed: Nanos, now: Nanos) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        // A failure that is still to come tells that the clock was set back, not how long ago it was; waiting until the
        // clock gets there might take hours.
        if self.is_stale(entry, failed) || failed > now {
            return None;
        }
        let passed = nanos_between(failed, now);
        (passed < entry.wait).then(|| entry.wait - passed)
    }

    /// The wait that stands for a key.
    pub fn wait(&self, key: &K) -> Duration {
        self.entries.get(key).map_or(Duration::ZERO, |entry| entry.wait)
    }

    /// It failed at `failed` and is tried again now: the next wait is longer.
    pub fn next(&mut self, key: &K, failed: Nanos, now: Nanos) {
        let wait = match self.entries.get(key) {
            Some(entry) if !self.is_stale(entry, failed) => (entry.wait * 2).min(self.longest),
            _ => self.first,
        };
        self.entries.insert(key.clone(), Entry { wait, updated: now });
    }

    /// It is gone, or it works.
    pub fn forget(&mut self, key: &K) {
        self.entries.remove(key);
    }

    // Something that ran for twice the longest wait before it failed was well.
    fn is_stale(&self, entry: &Entry, failed: Nanos) -> bool {
        nanos_between(entry.updated, failed) > self.longest * 2
    }
}

fn nanos_between(from: Nanos, to: Nanos) -> Duration {
    Duration::from_nanos(u64::try_from(to.saturating_sub(from)).unwrap_or(0))
}

/// A duration as Go prints it: `10s`, `2m40s`, `5m0s`.
pub fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn doubles_to_the_longest_and_forgets_after_a_long_run() {
        let mut backoff = BackoffMap::new(CRASH_LOOP);
        let mut now = 0;
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(backoff.remaining(&"a", now, now + 400 * SECOND), None);
            backoff.next(&"a", now, now);
            waits.push(backoff.wait(&"a").as_secs());
            now += 300 * SECOND;
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(
            backoff.remaining(&"a", now, now + SECOND),
            Some(Duration::from_secs(299))
        );
        let much_later = now + 700 * SECOND;
        assert_eq!(backoff.remaining(&"a", much_later, much_later), None);
        backoff.next(&"a", much_later, much_later);
        assert_eq!(backoff.wait(&"a").as_secs(), 10);
    }

    #[test]
    fn a_clock_set_back_does_not_prolong_the_wait() {
        let hour = 3600 * SECOND;
        let mut backoff = BackoffMap::new(CRASH_LOOP);
        backoff.next(&"a", hour, hour);
        backoff.next(&"a", hour, hour);
        assert_eq!(backoff.remaining(&"a", hour, 0), None);
        backoff.next(&"a", hour, 0);
        assert_eq!(
            backoff.remaining(&"a", SECOND, SECOND),
            Some(Duration::from_secs(40)),
            "it goes on where it was"
        );
    }

    #[test]
    fn durations_read_like_go() {
        let texts: Vec<_> = [10, 160, 300, 3600]
            .map(|s| go_duration(Duration::from_secs(s)))
            .into();
        assert_eq!(texts, ["10s", "2m40s", "5m0s", "1h0m0s"]);
    }
}
