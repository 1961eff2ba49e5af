//! What waits for a watcher, in order: so many signals and so many bytes, and no more.
//!
//! Signals are shared between watchers, but one that does not read keeps alive what everybody else has long forgotten.
//! What is left for one that was told to start again can therefore be thrown away from outside.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::cache::Signal;

/// Room for so many signals stays when they are read.
const KEPT: usize = 64;

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Signals.
    pub signals: usize,
    /// Bytes of the objects they are about. One signal always has room.
    pub bytes: usize,
}

/// Who still holds an end of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Both.
    Both,
    /// The watcher: nothing more will come.
    Watcher,
    /// Nobody who would want what is told.
    Teller,
}

/// Why a signal was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// There is no room.
    Full,
    /// Nobody listens.
    Gone,
}

#[derive(Debug)]
struct Waiting {
    signals: VecDeque<Signal>,
    bytes: usize,
    ends: Ends,
}

#[derive(Debug)]
struct Shared {
    room: Room,
    waiting: Mutex<Waiting>,
    /// Something came, or nothing more will.
    news: Notify,
    /// Something was taken out.
    taken: Notify,
    /// The watcher left.
    left: Notify,
}

/// A queue with that much room: the end where signals go in, and the one where they come out.
pub fn queue(room: Room) -> (Teller, Queue) {
    let shared = Arc::new(Shared {
        room,
        waiting: Mutex::new(Waiting {
            signals: VecDeque::new(),
            bytes: 0,
            ends: Ends::Both,
        }),
        news: Notify::new(),
        taken: Notify::new(),
        left: Notify::new(),
    });
    (Teller(shared.clone()), Queue(shared))
}

/// The end where signals go in. Nothing more comes when it is dropped.
#[derive(Debug)]
pub struct Teller(Arc<Shared>);

impl Teller {
    /// Adds a signal.
    ///
    /// # Errors
    /// When there is no room for it, or nobody to tell.
    pub fn try_tell(&self, signal: Signal) -> Result<(), Refused> {
        self.add(signal).map_err(|(_, why)| why)
    }

    fn add(&self, signal: Signal) -> Result<(), (Signal, Refused)> {
        let mut waiting = self.0.waiting.lock();
        if waiting.ends != Ends::Both {
            return Err((signal, Refused::Gone));
        }
        let (size, room) = (signal.size(), self.0.room);
        let count = waiting.signals.len();
        if count >= room.signals || (count > 0 && waiting.bytes + size > room.bytes) {
            return Err((signal, Refused::Full));
        }
        waiting.bytes += size;
        waiting.signals.push_back(signal);
        drop(waiting);
        self.0.news.notify_one();
        Ok(())
    }

    /// Adds a signal as soon as there is room; false when nobody listens.
    pub async fn tell(&self, mut signal: Signal) -> bool {
        loop {
            signal = match self.add(signal) {
                Ok(()) => return true,
                Err((_, Refused::Gone)) => return false,
                Err((signal, Refused::Full)) => signal,
            };
            self.0.taken.notified().await;
        }
    }

    /// Whether nobody listens.
    pub fn is_left(&self) -> bool {
        self.0.waiting.lock().ends == Ends::Teller
    }

    /// Waits until nobody listens.
    pub async fn left(&self) {
        while !self.is_left() {
            self.0.left.notified().await;
        }
    }

    /// Tells nothing more. What waits can still be read, until it is thrown away.
    pub fn end(&self) -> Remains {
        let mut waiting = self.0.waiting.lock();
        if waiting.ends == Ends::Both {
            waiting.ends = Ends::Watcher;
        }
        drop(waiting);
        self.0.news.notify_one();
        Remains(self.0.clone())
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        drop(self.end());
    }
}

/// What a watcher has not read of a queue that has ended.
#[derive(Debug)]
pub struct Remains(Arc<Shared>);

impl Remains {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.0.waiting.lock().signals.is_empty()
    }

    /// It will not be read any more.
    pub fn throw_away(&self) {
        let thrown = std::mem::take(&mut self.0.waiting.lock().signals);
        drop(thrown);
    }
}

/// The end where signals come out.
#[derive(Debug)]
pub struct Queue(Arc<Shared>);

impl Queue {
    /// Waits for signals and adds up to `limit` of them to `batch`; 0 when there will be no more. Nothing is lost when
    /// the future is dropped before it is ready.
    pub async fn recv_many(&mut self, batch: &mut Vec<Signal>, limit: usize) -> usize {
        loop {
            if let Some(count) = self.take(batch, limit) {
                return count;
            }
            self.0.news.notified().await;
        }
    }

    /// Signals that are there; `None` when they may still come.
    fn take(&mut self, batch: &mut Vec<Signal>, limit: usize) -> Option<usize> {
        let mut waiting = self.0.waiting.lock();
        let count = waiting.signals.len().min(limit);
        if count == 0 {
            return (waiting.ends != Ends::Both).then_some(0);
        }
        let before = batch.len();
        batch.extend(waiting.signals.drain(..count));
        let taken: usize = batch[before..].iter().map(Signal::size).sum();
        waiting.bytes = waiting.bytes.saturating_sub(taken);
        // A burst that is over leaves no room behind.
        if waiting.signals.is_empty() && waiting.signals.capacity() > KEPT {
            waiting.signals = VecDeque::new();
        }
        drop(waiting);
        self.0.taken.notify_one();
        Some(count)
    }

    /// A signal that is there.
    #[cfg(test)]
    pub fn try_recv(&mut self) -> Option<Signal> {
        let mut one = Vec::new();
        self.take(&mut one, 1);
        one.pop()
    }

    /// Whether nothing more will come.
    #[cfg(test)]
    pub fn is_closed(&self) -> bool {
        self.0.waiting.lock().ends != Ends::Both
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting.lock();
        waiting.ends = Ends::Teller;
        let unread = std::mem::take(&mut waiting.signals);
        drop(waiting);
        drop(unread);
        self.0.left.notify_one();
        self.0.taken.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room {
        signals: 2,
        bytes: 100,
    };

    #[tokio::test]
    async fn a_full_queue_refuses_or_lets_wait() {
        let (teller, mut queue) = queue(ROOM);
        assert_eq!(teller.try_tell(Signal::Bookmark(1)), Ok(()));
        assert_eq!(teller.try_tell(Signal::Bookmark(2)), Ok(()));
        assert_eq!(teller.try_tell(Signal::Bookmark(3)), Err(Refused::Full));
        let mut batch = Vec::new();
        {
            let mut third = std::pin::pin!(teller.tell(Signal::Bookmark(3)));
            assert!(futures::poll!(third.as_mut()).is_pending());
            assert_eq!(queue.recv_many(&mut batch, 1).await, 1);
            assert!(third.await);
        }
        assert_eq!(queue.recv_many(&mut batch, 9).await, 2);
        assert!(futures::poll!(std::pin::pin!(queue.recv_many(&mut batch, 9))).is_pending());
        drop(teller);
        assert_eq!(queue.recv_many(&mut batch, 9).await, 0);
    }

    #[tokio::test]
    async fn what_is_left_can_be_read_until_it_is_thrown_away() {
        let (teller, mut queue) = queue(ROOM);
        for revision in [1, 2] {
            assert_eq!(teller.try_tell(Signal::Bookmark(revision)), Ok(()));
        }
        let remains = teller.end();
        assert_eq!(teller.try_tell(Signal::Bookmark(3)), Err(Refused::Gone));
        assert!(queue.try_recv().is_some() && !remains.is_empty());
        remains.throw_away();
        assert!(queue.try_recv().is_none() && queue.is_closed());
        assert!(!teller.is_left());
        drop(queue);
        teller.left().await;
    }
}
