//! What a watcher gets, and how much of it at a time.
//!
//! Writing to a connection costs about the same for one event as for ten. Whoever has just been told something is told
//! the next things together, a few milliseconds later; whoever has heard nothing for that long is told at once.

use std::time::Duration;

use tokio::time::Instant;

use super::cache::Signal;
use super::queue::Queue;

/// How long events gather for a watcher that was told something just now.
const GATHER: Duration = Duration::from_millis(5);
/// Signals handed over at once, at most.
const BATCH: usize = 256;

/// The end of a watch where its signals come out.
#[derive(Debug)]
pub struct Delivery {
    queue: Queue,
    /// Not before this is the watcher told anything.
    quiet_until: Option<Instant>,
}

impl Delivery {
    /// Delivers what comes through `queue`.
    pub fn new(queue: Queue) -> Self {
        Self {
            queue,
            quiet_until: None,
        }
    }

    /// Waits for signals and adds them to `batch`; 0 when there will be no more. Nothing is lost when the future is
    /// dropped before it is ready.
    pub async fn next(&mut self, batch: &mut Vec<Signal>) -> usize {
        if let Some(until) = self.quiet_until {
            tokio::time::sleep_until(until).await;
            self.quiet_until = None;
        }
        let count = self.queue.recv_many(batch, BATCH).await;
        self.quiet_until = Some(Instant::now() + GATHER);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::queue::{Room, queue};

    #[tokio::test]
    async fn what_follows_closely_comes_together() {
        let (sender, queue) = queue(Room { signals: 8, bytes: 0 });
        let mut delivery = Delivery::new(queue);
        let mut batch = Vec::new();
        sender.try_tell(Signal::Bookmark(1)).expect("room");
        let told = Instant::now();
        assert_eq!(delivery.next(&mut batch).await, 1);

        sender.try_tell(Signal::Bookmark(2)).expect("room");
        // Looked at and given up, as a watch with a deadline does: nothing is lost.
        assert!(futures::poll!(std::pin::pin!(delivery.next(&mut batch))).is_pending());
        sender.try_tell(Signal::Bookmark(3)).expect("room");
        assert_eq!(delivery.next(&mut batch).await, 2);
        assert!(told.elapsed() >= GATHER);

        drop(sender);
        assert_eq!(delivery.next(&mut batch).await, 0);
        assert_eq!(batch.len(), 3);
    }
}
