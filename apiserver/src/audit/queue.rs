//! Events on their way to where they are kept: so many may wait, and then requests wait, or events are dropped.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use clap::ValueEnum;
use keelson_daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::event::Event;

/// What happens to requests when more events wait than there is room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// They are answered; the event is dropped and counted.
    Batch,
    /// They wait until there is room.
    #[default]
    Blocking,
    /// The same; and no request is served before it has been written down that it came. If that fails, so does the request.
    BlockingStrict,
}

/// An event, and who waits to hear whether it was kept.
pub struct Waiting {
    pub(super) event: Arc<Event>,
    heard: Option<SyncSender<bool>>,
}

impl Waiting {
    /// Says whether the event was kept.
    pub(super) fn kept(self, kept: bool) {
        if let Some(heard) = self.heard {
            // Whoever waited may have gone away.
            let _gone = heard.send(kept);
        }
    }
}

/// The name of a place where events are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Plugin {
    plugin: &'static str,
}

/// How many events there were, and how many could not be kept.
#[derive(Clone, Default)]
pub struct Counts {
    events: Counter,
    errors: Family<Plugin, Counter>,
    rejected: Counter,
}

impl Counts {
    /// Counted from zero, and shown among the server's metrics.
    pub fn new(registry: &Metrics) -> Self {
        let counts = Self::default();
        registry.register(|r| {
            r.register(
                "apiserver_audit_event",
                "Audit events sent to where they are kept",
                counts.events.clone(),
            );
            r.register(
                "apiserver_audit_error",
                "Audit events that could not be kept, by where",
                counts.errors.clone(),
            );
            r.register(
                "apiserver_audit_requests_rejected",
                "Requests refused because it could not be written down that they came",
                counts.rejected.clone(),
            );
        });
        counts
    }

    /// An event was made.
    pub fn event(&self) {
        self.events.inc();
    }

    /// A request was refused because of the audit log.
    pub fn rejected(&self) {
        self.rejected.inc();
    }

    /// Events are lost. The log of the server says so for the first, and then each time their number has doubled.
    pub fn lost(&self, plugin: &'static str, events: u64) {
        let counter = self.errors.get_or_create_owned(&Plugin { plugin });
        let before = counter.inc_by(events);
        let after = before + events;
        if before == 0 || before.ilog2() != after.ilog2() {
            tracing::warn!(plugin, lost = after, "audit events are lost");
        }
    }
}

/// The beginning of a queue.
pub struct Queue {
    plugin: &'static str,
    sender: SyncSender<Waiting>,
    mode: Mode,
    counts: Counts,
}

impl Queue {
    /// A queue with room for so many events, and its end.
    pub fn new(plugin: &'static str, room: usize, mode: Mode, counts: Counts) -> (Self, Receiver<Waiting>) {
        let (sender, receiver) = sync_channel(room.max(1));
        let queue = Self {
            plugin,
            sender,
            mode,
            counts,
        };
        (queue, receiver)
    }

    /// Puts an event at the end of the queue, as the mode says.
    pub fn send(&self, event: Arc<Event>) {
        if !self.put(Waiting { event, heard: None }) {
            self.counts.lost(self.plugin, 1);
        }
    }

    /// The same for the event that says that a request came. Whether the request may be served.
    pub fn admit(&self, event: Arc<Event>) -> bool {
        if self.mode != Mode::BlockingStrict {
            self.send(event);
            return true;
        }
        let (heard, hears) = sync_channel(1);
        let heard = Some(heard);
        if !self.put(Waiting { event, heard }) {
            self.counts.lost(self.plugin, 1);
            return false;
        }
        // Nobody says anything when the log's thread is gone. What is not kept is counted there.
        tokio::task::block_in_place(|| hears.recv()).unwrap_or(false)
    }

    fn put(&self, waiting: Waiting) -> bool {
        let waiting = match self.sender.try_send(waiting) {
            Ok(()) => return true,
            Err(TrySendError::Disconnected(_)) => return false,
            Err(TrySendError::Full(waiting)) => waiting,
        };
        // Others go on meanwhile; whoever made the event does not.
        self.mode != Mode::Batch && tokio::task::block_in_place(|| self.sender.send(waiting)).is_ok()
    }
}
