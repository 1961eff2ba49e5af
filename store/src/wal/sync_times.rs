//! How long the disk takes to make a write durable.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of etcd's histogram in microseconds: from 1 ms, doubling, to 8.192 s.
pub const BOUNDS_MICROS: [u64; 14] = [
    1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000, 128_000, 256_000, 512_000, 1_024_000, 2_048_000,
    4_096_000, 8_192_000,
];

/// A histogram of durations.
#[derive(Debug, Default)]
pub struct SyncTimes {
    counts: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
}

impl SyncTimes {
    /// One more.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// How many fell in each bucket; the last is beyond all bounds.
    pub fn counts(&self) -> impl Iterator<Item = u64> + '_ {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed))
    }

    /// The sum in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        self.micros.load(Ordering::Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_in_the_first_bucket_that_holds_it() {
        let times = SyncTimes::default();
        for millis in [1, 3, 9_000] {
            times.observe(Duration::from_millis(millis));
        }
        let counts: Vec<u64> = times.counts().collect();
        assert_eq!((counts[0], counts[1], counts[2], counts[14]), (1, 0, 1, 1));
    }
}
