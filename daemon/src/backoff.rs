//! Exponential back-off with jitter.

use std::time::Duration;

/// Waits that double from `initial` up to `max`, each spread by up to a quarter so that clients that
/// failed together do not come back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    current: Duration,
}

impl Backoff {
    /// A back-off whose first wait is about `initial` and whose longest is about `max`.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            current: initial,
        }
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let base = self.current;
        self.current = (base * 2).min(self.max);
        base.mul_f64(1.0 + rand::random_range(0.0..0.25))
    }

    /// An attempt succeeded: the next wait is the initial one again.
    pub fn reset(&mut self) {
        self.current = self.initial;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_resets() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits: Vec<_> = (0..4).map(|_| backoff.next_wait().as_millis()).collect();
        for (wait, base) in waits.iter().zip([100, 200, 300, 300]) {
            assert!((base..=base + base / 4).contains(wait), "{waits:?}");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_millis(125));
    }
}
