//! What is waiting for one client's stream.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::hub::Wanted;
use crate::mvcc::recent::Change;

/// A client that is further behind than this is served from the history instead of from memory.
const CAPACITY_BYTES: usize = 8 << 20;

/// News for a stream.
#[derive(Debug)]
pub enum Mail {
    /// A change that a watch wants.
    Change {
        /// The watch.
        wanted: Arc<Wanted>,
        /// The change.
        change: Arc<Change>,
    },
    /// A watch is out of step and has to catch up.
    Behind {
        /// The watch.
        wanted: Arc<Wanted>,
        /// The first revision it has not seen.
        next: i64,
    },
}

#[derive(Default)]
struct Queue {
    mails: VecDeque<Mail>,
    bytes: usize,
}

/// A queue between the applying thread, which never waits, and a client's stream.
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    arrived: Notify,
}

impl Mailbox {
    /// Adds a change. `false`: there is no room.
    pub fn deliver(&self, wanted: &Arc<Wanted>, change: &Arc<Change>) -> bool {
        let mut queue = self.queue.lock();
        if queue.bytes > CAPACITY_BYTES {
            return false;
        }
        queue.bytes += change.bytes();
        queue.mails.push_back(Mail::Change {
            wanted: wanted.clone(),
            change: change.clone(),
        });
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// Adds what must not be lost.
    pub fn post(&self, mail: Mail) {
        self.queue.lock().mails.push_back(mail);
        self.arrived.notify_one();
    }

    /// Takes everything there is.
    pub fn take(&self) -> VecDeque<Mail> {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::take(&mut queue.mails)
    }

    /// Waits until there is something.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
