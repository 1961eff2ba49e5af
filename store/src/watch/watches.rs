//! The watches of one client's stream: what arrives changes them, and makes responses.
//!
//! Nothing here waits. [`super::session`] carries the responses to the client.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::watch_create_request::FilterType;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{WatchCreateRequest, WatchRequest, WatchResponse};
use keelson_proto::mvcc::{Event, KeyValue, event::EventType};
use prost::Message;

use super::catch_up::{self, CatchUpError, Piece};
use super::hub::{Filter, Wanted};
use super::mailbox::{Mail, Mailbox};
use crate::error::StoreError;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::recent::Record;
use crate::server::Headers;
use crate::state::State;

/// Number of a response that is about the stream and not about a watch.
const NO_WATCH: i64 = -1;

struct Watch {
    wanted: Arc<Wanted>,
    prev_kv: bool,
    fragment: bool,
    progress: bool,
    /// Said something since the last progress notification.
    spoke: bool,
}

/// The watches of a stream.
pub struct Watches {
    state: Arc<State>,
    headers: Headers,
    fragment_bytes: usize,
    mailbox: Arc<Mailbox>,
    watches: BTreeMap<i64, Watch>,
    /// Watches out of step, and the first revision each has not seen.
    behind: BTreeMap<i64, i64>,
    next_id: i64,
    progress_asked: bool,
    out: VecDeque<WatchResponse>,
}

/// A watch that is out of step, and what has to be read for it.
pub struct Behind {
    id: i64,
    wanted: Arc<Wanted>,
    next: i64,
}

impl Behind {
    /// Reads the next piece of the history; may wait for the disk.
    ///
    /// # Errors
    /// When the history is gone, or cannot be read.
    pub fn read(&self, state: &State) -> Result<Piece, CatchUpError> {
        catch_up::read(state, &self.wanted, self.next)
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for watch in self.watches.values() {
            self.state.hub.leave(&watch.wanted);
        }
    }
}

impl Watches {
    /// A stream without watches. Larger responses than `fragment_bytes` are split if the client allows it.
    #[must_use]
    pub fn new(state: Arc<State>, headers: Headers, fragment_bytes: usize) -> Self {
        Self {
            state,
            headers,
            fragment_bytes,
            mailbox: Arc::default(),
            watches: BTreeMap::new(),
            behind: BTreeMap::new(),
            next_id: 0,
            progress_asked: false,
            out: VecDeque::new(),
        }
    }

    /// Where news arrive.
    #[must_use]
    pub fn mailbox(&self) -> Arc<Mailbox> {
        self.mailbox.clone()
    }

    /// The next response.
    pub fn next_response(&mut self) -> Option<WatchResponse> {
        self.out.pop_front()
    }

    /// Whether a watch is out of step.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        !self.behind.is_empty()
    }

    /// The watches out of step.
    #[must_use]
    pub fn behind(&self) -> Vec<i64> {
        self.behind.keys().copied().collect()
    }

    fn send(&mut self, response: WatchResponse) {
        self.out.push_back(response);
    }

    fn response(&self, id: i64, revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some(self.headers.at(revision)),
            watch_id: id,
            ..WatchResponse::default()
        }
    }

    /// The client wants something.
    pub fn request(&mut self, request: WatchRequest) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request),
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                self.answer_progress();
            }
            None => {}
        }
    }

    fn create(&mut self, request: WatchCreateRequest) {
        let id = match request.watch_id {
            0 => {
                while self.watches.contains_key(&self.next_id) {
                    self.next_id += 1;
                }
                self.next_id += 1;
                self.next_id - 1
            }
            id => id,
        };
        let mut created = self.response(id, self.state.revision());
        created.created = true;
        if self.watches.contains_key(&id) {
            created.watch_id = NO_WATCH;
            created.canceled = true;
            created.cancel_reason = "mvcc: duplicate watch ID provided on the WatchStream".into();
            return self.send(created);
        }
        if !request.range_end.is_empty() && request.range_end[..] != [0] && request.key >= request.range_end {
            created.watch_id = NO_WATCH;
            created.canceled = true;
            created.cancel_reason = "mvcc: watcher range is empty".into();
            return self.send(created);
        }
        // No key is every key.
        let key = if request.key.is_empty() {
            Bytes::from_static(&[0])
        } else {
            request.key.clone()
        };
        let filters = |kind: FilterType| request.filters.contains(&(kind as i32));
        let wanted = Arc::new(Wanted {
            id,
            range: KeyRange::new(&key, &request.range_end),
            filter: Filter {
                no_put: filters(FilterType::Noput),
                no_delete: filters(FilterType::Nodelete),
            },
        });
        self.watches.insert(
            id,
            Watch {
                wanted: wanted.clone(),
                prev_kv: request.prev_kv,
                fragment: request.fragment,
                progress: request.progress_notify,
                spoke: false,
            },
        );
        self.send(created);
        let next = request.start_revision.max(0);
        if self.state.hub.join(&wanted, next, &self.mailbox).is_none() {
            self.behind.insert(id, next);
        }
    }

    fn cancel(&mut self, id: i64) {
        let Some(watch) = self.watches.remove(&id) else {
            return;
        };
        self.behind.remove(&id);
        self.state.hub.leave(&watch.wanted);
        let mut response = self.response(id, self.state.revision());
        response.canceled = true;
        self.send(response);
    }

    /// Answers with what has arrived, one response a watch.
    pub fn mail(&mut self) {
        let mut pending: BTreeMap<i64, Vec<Record>> = BTreeMap::new();
        let mut fallen = BTreeMap::new();
        for mail in self.mailbox.take() {
            match mail {
                Mail::Change { wanted, change } => {
                    if !self.is_current(&wanted) {
                        continue;
                    }
                    let records = change.records.iter().filter(|record| wanted.wants(record));
                    pending.entry(wanted.id).or_default().extend(records.cloned());
                }
                Mail::Behind { wanted, next } => {
                    if self.is_current(&wanted) {
                        fallen.insert(wanted.id, next);
                    }
                }
            }
        }
        for (id, records) in pending {
            self.send_records(id, records);
        }
        self.behind.extend(fallen);
        self.answer_progress();
    }

    fn is_current(&self, wanted: &Arc<Wanted>) -> bool {
        self.watches
            .get(&wanted.id)
            .is_some_and(|watch| Arc::ptr_eq(&watch.wanted, wanted))
    }

    /// What has to be read to bring a watch a piece further; nothing if it is in step again.
    pub fn catch_up(&mut self, id: i64) -> Option<Behind> {
        let next = *self.behind.get(&id)?;
        let Some(watch) = self.watches.get(&id) else {
            self.behind.remove(&id);
            return None;
        };
        if self.state.hub.join(&watch.wanted, next, &self.mailbox).is_some() {
            self.behind.remove(&id);
            return None;
        }
        Some(Behind {
            id,
            wanted: watch.wanted.clone(),
            next,
        })
    }

    /// It has been read.
    pub fn caught_up(&mut self, behind: &Behind, read: Result<Piece, CatchUpError>) {
        let id = behind.id;
        match read {
            Ok(piece) => {
                self.behind.insert(id, piece.next);
                self.send_records(id, piece.records);
            }
            Err(CatchUpError::Compacted(revision)) => self.cancel_compacted(id, revision),
            Err(CatchUpError::Store(error)) => {
                tracing::error!(watch = id, %error, "reading history for a watch");
                self.cancel_because(id, &error);
            }
        }
    }

    fn cancel_compacted(&mut self, id: i64, revision: i64) {
        self.watches.remove(&id);
        self.behind.remove(&id);
        // The revision where history begins says it all: etcd names neither a reason nor the present revision.
        let mut response = self.response(id, 0);
        response.canceled = true;
        response.compact_revision = revision;
        self.send(response);
    }

    fn cancel_because(&mut self, id: i64, error: &StoreError) {
        if let Some(watch) = self.watches.remove(&id) {
            self.state.hub.leave(&watch.wanted);
        }
        self.behind.remove(&id);
        let mut response = self.response(id, self.state.revision());
        response.canceled = true;
        response.cancel_reason = error.to_string();
        self.send(response);
    }

    fn send_records(&mut self, id: i64, records: Vec<Record>) {
        let Some(last) = records.last() else {
            return;
        };
        let revision = last.revision.main;
        let Some(watch) = self.watches.get_mut(&id) else {
            return;
        };
        watch.spoke = true;
        let (prev_kv, fragment) = (watch.prev_kv, watch.fragment);
        let mut events = Vec::with_capacity(records.len());
        for record in records {
            match self.event(record, prev_kv) {
                Ok(event) => events.push(event),
                Err(error) => return self.cancel_because(id, &error),
            }
        }
        let mut response = self.response(id, revision);
        if !fragment {
            response.events = events;
            return self.send(response);
        }
        let mut bytes = 0;
        for event in events {
            let size = event.encoded_len();
            if bytes + size > self.fragment_bytes && !response.events.is_empty() {
                response.fragment = true;
                let next = self.response(id, revision);
                self.send(std::mem::replace(&mut response, next));
                bytes = 0;
            }
            bytes += size;
            response.events.push(event);
        }
        self.send(response);
    }

    fn event(&self, record: Record, prev_kv: bool) -> Result<Event, StoreError> {
        let previous = if prev_kv {
            self.state.read(|inner| {
                let before = inner
                    .mvcc
                    .index
                    .get(&record.key)
                    .and_then(|item| item.before(record.revision));
                match before {
                    // `None` if it has been dropped meanwhile: etcd leaves it out, too.
                    Some(before) => inner.mvcc.record(&record.key, before),
                    None => Ok(None),
                }
            })?
        } else {
            None
        };
        let kind = if record.deleted {
            EventType::Delete
        } else {
            EventType::Put
        };
        let key_value = if record.deleted {
            KeyValue {
                mod_revision: record.revision.main,
                key: record.key,
                ..KeyValue::default()
            }
        } else {
            record.to_key_value()
        };
        Ok(Event {
            r#type: kind as i32,
            kv: Some(key_value),
            prev_kv: previous.map(|record| record.to_key_value()),
        })
    }

    /// Answers a client that asked where its watches are, once all of them are in step.
    pub fn answer_progress(&mut self) {
        if !self.progress_asked || !self.behind.is_empty() {
            return;
        }
        // What was published by now has to be sent before the answer is.
        let revision = self.state.hub.published();
        self.progress_asked = false;
        self.mail();
        if !self.behind.is_empty() {
            self.progress_asked = true;
            return;
        }
        let response = self.response(NO_WATCH, revision);
        self.send(response);
    }

    /// It is time to tell silent watches that asked for it where they are.
    pub fn notify_progress(&mut self) {
        let revision = self.state.hub.published();
        self.mail();
        let mut silent = BTreeSet::new();
        for (id, watch) in &mut self.watches {
            if watch.progress && !watch.spoke && !self.behind.contains_key(id) {
                silent.insert(*id);
            }
            watch.spoke = false;
        }
        for id in silent {
            let response = self.response(id, revision);
            self.send(response);
        }
    }
}
