//! The stream of a watch.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::resources as proto;

use super::entering::Entered;
use super::{metadata_only, viewed};
use crate::flow_control::Sending;
use crate::metrics::Running;
use crate::storage::cache::Signal;
use crate::storage::delivery::Delivery;
use crate::storage::entry::{Entry, EventType};

/// Events in one message.
const BATCH: usize = 256;

/// What a watch still has to say.
pub(super) struct WatchState {
    pub(super) entered: Entered,
    pub(super) view: i32,
    pub(super) initial: std::vec::IntoIter<Arc<Entry>>,
    pub(super) initial_end: Option<i64>,
    pub(super) backlog: Vec<Signal>,
    pub(super) delivery: Delivery,
    pub(super) deadline: tokio::time::Instant,
    pub(super) _running: Running,
    /// Until the initial objects are sent.
    pub(super) beginning: Option<Sending>,
}

impl WatchState {
    /// The next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<proto::WatchBatch> {
        let mut batch = proto::WatchBatch::default();
        for entry in self.initial.by_ref().take(BATCH) {
            batch
                .events
                .push(event(&self.entered, self.view, EventType::Added, entry.object()));
        }
        if self.initial.len() == 0
            && let Some(revision) = self.initial_end.take()
        {
            batch
                .events
                .push(self.bookmark(revision, r#","annotations":{"k8s.io/initial-events-end":"true"}"#));
        }
        if !batch.events.is_empty() {
            return Some(batch);
        }
        self.beginning = None;
        if self.backlog.is_empty() {
            tokio::select! {
                biased;
                count = self.delivery.next(&mut self.backlog) => {
                    if count == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = self.entered.admitted.server.shutdown.cancelled() => return None,
            }
        }
        for signal in std::mem::take(&mut self.backlog) {
            batch.events.push(match signal {
                Signal::Bookmark(revision) => self.bookmark(revision, ""),
                Signal::Failed(error) => proto::WatchEvent {
                    r#type: proto::EventType::Error as i32,
                    object: error.to_json().into(),
                },
                Signal::Event(kind, happened) => {
                    let line = happened.line(kind);
                    let object = line.slice_ref(kind.object_of(&line));
                    event(&self.entered, self.view, kind, object)
                }
            });
        }
        Some(batch)
    }

    fn bookmark(&self, revision: i64, annotations: &str) -> proto::WatchEvent {
        let (kind, version) = match metadata_only(self.view) {
            true => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            false => (self.entered.served.info().kind, self.entered.served.api_version()),
        };
        let object = format!(
            r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#
        );
        proto::WatchEvent {
            r#type: proto::EventType::Bookmark as i32,
            object: object.into(),
        }
    }
}

fn event(entered: &Entered, view: i32, kind: EventType, object: Bytes) -> proto::WatchEvent {
    let r#type = match kind {
        EventType::Added => proto::EventType::Added,
        EventType::Modified => proto::EventType::Modified,
        EventType::Deleted => proto::EventType::Deleted,
    };
    match viewed(&entered.served, object, view) {
        Ok(object) => proto::WatchEvent {
            r#type: r#type as i32,
            object,
        },
        Err(error) => proto::WatchEvent {
            r#type: proto::EventType::Error as i32,
            object: error.to_json().into(),
        },
    }
}
