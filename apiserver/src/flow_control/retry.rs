//! When those who are turned away may come again: later, the more of them there are.

use std::time::{Duration, Instant};

const LEAST: i32 = 1;
const MOST: i32 = 32;
/// More than this many refusals a second, and the next ones are asked to wait twice as long.
const MANY: i32 = 3;

/// How long a level tells those it refuses to wait, in seconds.
#[derive(Debug)]
pub struct RetryAfter {
    seconds: i32,
    refused: i32,
    since: Option<Instant>,
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::from(count.unsigned_abs()))
}

impl Default for RetryAfter {
    fn default() -> Self {
        Self {
            seconds: LEAST,
            refused: 0,
            since: None,
        }
    }
}

impl RetryAfter {
    /// Counts a refusal, and says what it is told.
    pub fn refused(&mut self, now: Instant) -> i32 {
        let since = *self.since.get_or_insert(now);
        let passed = now.saturating_duration_since(since);
        if passed >= seconds(self.seconds) {
            let few = self.refused < self.seconds || passed > seconds(2 * MOST);
            let many = !few && self.refused >= MANY.saturating_mul(self.seconds);
            self.seconds = match (many, few) {
                (true, _) => (self.seconds * 2).min(MOST),
                (_, true) => (self.seconds - 1).max(LEAST),
                _ => self.seconds,
            };
            self.since = Some(now);
            self.refused = 0;
        }
        self.refused = self.refused.saturating_add(1);
        self.seconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_asked_to_wait_longer_and_a_drizzle_is_not() {
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        let mut retry = RetryAfter::default();
        let mut told = 0;
        for millis in 0..10_000 {
            told = retry.refused(at(millis));
        }
        assert_eq!(told, 8, "after 1, 2 and 4 seconds, each full of refusals");
        for second in 10..600 {
            told = retry.refused(at(second * 2_000));
        }
        assert_eq!(told, 1);
    }
}
