//! One client's watch stream, from requests to responses.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use keelson_proto::etcd::watch_create_request::FilterType;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{WatchCreateRequest, WatchRequest, WatchResponse};
use keelson_proto::mvcc::{Event, KeyValue, event::EventType};
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::catch_up::{self, CatchUpError};
use super::hub::{Filter, Wanted};
use super::mailbox::{Mail, Mailbox};
use crate::error::StoreError;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::recent::Record;
use crate::server::Headers;
use crate::state::State;

/// Number of a response that is about the stream and not about a watch.
const NO_WATCH: i64 = -1;

/// Sizes and times of watch streams.
#[derive(Debug, Clone, Copy)]
pub struct WatchLimits {
    /// Larger responses are split if the client allows it.
    pub fragment_bytes: usize,
    /// How often a silent watch that asked for it is told where it is.
    pub progress_interval: Duration,
}

struct Watch {
    wanted: Arc<Wanted>,
    prev_kv: bool,
    fragment: bool,
    progress: bool,
    /// Said something since the last progress notification.
    spoke: bool,
}

/// The client has gone; nothing is left to do.
struct Gone;

type Flow<T = ()> = Result<T, Gone>;

/// A stream being served.
pub struct Session {
    state: Arc<State>,
    headers: Headers,
    limits: WatchLimits,
    mailbox: Arc<Mailbox>,
    watches: BTreeMap<i64, Watch>,
    /// Watches out of step, and the first revision each has not seen.
    behind: BTreeMap<i64, i64>,
    next_id: i64,
    progress_asked: bool,
    out: mpsc::Sender<Result<WatchResponse, Status>>,
}

impl Session {
    /// Begins a stream whose responses go to `out`.
    #[must_use]
    pub fn new(
        state: Arc<State>,
        headers: Headers,
        limits: WatchLimits,
        out: mpsc::Sender<Result<WatchResponse, Status>>,
    ) -> Self {
        Self {
            state,
            headers,
            limits,
            mailbox: Arc::default(),
            watches: BTreeMap::new(),
            behind: BTreeMap::new(),
            next_id: 0,
            progress_asked: false,
            out,
        }
    }

    /// Serves the stream until the client goes or the member stops.
    pub async fn run(
        mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>>,
        shutdown: CancellationToken,
    ) {
        let served = self.serve(requests, shutdown).await;
        for watch in self.watches.values() {
            self.state.hub.leave(&watch.wanted);
        }
        if let Ok(error) = served {
            // The client may be gone already.
            let _ = self.out.send(Err(error.into())).await;
        }
    }

    async fn serve(
        &mut self,
        requests: impl Stream<Item = Result<WatchRequest, Status>>,
        shutdown: CancellationToken,
    ) -> Flow<StoreError> {
        let mut requests = pin!(requests);
        let mailbox = self.mailbox.clone();
        let start = tokio::time::Instant::now() + self.limits.progress_interval;
        let mut progress = tokio::time::interval_at(start, self.limits.progress_interval);
        loop {
            if self.behind.is_empty() {
                tokio::select! {
                    request = requests.next() => match request {
                        Some(Ok(request)) => self.request(request).await?,
                        _ => return Err(Gone),
                    },
                    () = mailbox.arrived() => self.mail().await?,
                    _ = progress.tick() => self.notify_progress().await?,
                    () = shutdown.cancelled() => return Ok(StoreError::Stopped),
                    () = self.out.closed() => return Err(Gone),
                }
                continue;
            }
            tokio::select! {
                biased;
                request = requests.next() => match request {
                    Some(Ok(request)) => self.request(request).await?,
                    _ => return Err(Gone),
                },
                () = shutdown.cancelled() => return Ok(StoreError::Stopped),
                () = std::future::ready(()) => {
                    self.mail().await?;
                    self.catch_up().await?;
                }
            }
        }
    }

    async fn send(&self, response: WatchResponse) -> Flow {
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }

    fn response(&self, id: i64, revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some(self.headers.at(revision)),
            watch_id: id,
            ..WatchResponse::default()
        }
    }

    async fn request(&mut self, request: WatchRequest) -> Flow {
        match request.request_union {
            Some(RequestUnion::CreateRequest(request)) => self.create(request).await,
            Some(RequestUnion::CancelRequest(request)) => self.cancel(request.watch_id).await,
            Some(RequestUnion::ProgressRequest(_)) => {
                self.progress_asked = true;
                self.answer_progress().await
            }
            None => Ok(()),
        }
    }

    async fn create(&mut self, request: WatchCreateRequest) -> Flow {
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
            return self.send(created).await;
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
        self.send(created).await?;
        let next = request.start_revision.max(0);
        if self.state.hub.join(&wanted, next, &self.mailbox).is_none() {
            self.behind.insert(id, next);
        }
        Ok(())
    }

    async fn cancel(&mut self, id: i64) -> Flow {
        let Some(watch) = self.watches.remove(&id) else {
            return Ok(());
        };
        self.behind.remove(&id);
        self.state.hub.leave(&watch.wanted);
        let mut response = self.response(id, self.state.revision());
        response.canceled = true;
        self.send(response).await
    }

    /// Sends what has arrived, one response a watch.
    async fn mail(&mut self) -> Flow {
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
            self.send_records(id, records).await?;
        }
        self.behind.extend(fallen);
        self.answer_progress().await
    }

    fn is_current(&self, wanted: &Arc<Wanted>) -> bool {
        self.watches
            .get(&wanted.id)
            .is_some_and(|watch| Arc::ptr_eq(&watch.wanted, wanted))
    }

    /// Brings every watch that is out of step a piece further.
    async fn catch_up(&mut self) -> Flow {
        let behind: Vec<(i64, i64)> = self.behind.iter().map(|(id, next)| (*id, *next)).collect();
        for (id, next) in behind {
            let Some(watch) = self.watches.get(&id) else {
                self.behind.remove(&id);
                continue;
            };
            if self.state.hub.join(&watch.wanted, next, &self.mailbox).is_some() {
                self.behind.remove(&id);
                continue;
            }
            let state = self.state.clone();
            let wanted = watch.wanted.clone();
            let read = tokio::task::spawn_blocking(move || catch_up::read(&state, &wanted, next)).await;
            match read {
                Ok(Ok(piece)) => {
                    self.behind.insert(id, piece.next);
                    self.send_records(id, piece.records).await?;
                }
                Ok(Err(CatchUpError::Compacted(revision))) => self.cancel_compacted(id, revision).await?,
                Ok(Err(CatchUpError::Store(error))) => {
                    tracing::error!(watch = id, %error, "reading history for a watch");
                    self.cancel_because(id, &error).await?;
                }
                Err(_) => self.cancel_because(id, &StoreError::Stopped).await?,
            }
        }
        self.answer_progress().await
    }

    async fn cancel_compacted(&mut self, id: i64, revision: i64) -> Flow {
        self.watches.remove(&id);
        self.behind.remove(&id);
        let mut response = self.response(id, self.state.revision());
        response.canceled = true;
        response.compact_revision = revision;
        response.cancel_reason = StoreError::Compacted.to_string();
        self.send(response).await
    }

    async fn cancel_because(&mut self, id: i64, error: &StoreError) -> Flow {
        self.watches.remove(&id);
        self.behind.remove(&id);
        let mut response = self.response(id, self.state.revision());
        response.canceled = true;
        response.cancel_reason = error.to_string();
        self.send(response).await
    }

    async fn send_records(&mut self, id: i64, records: Vec<Record>) -> Flow {
        let Some(last) = records.last() else {
            return Ok(());
        };
        let revision = last.revision.main;
        let Some(watch) = self.watches.get_mut(&id) else {
            return Ok(());
        };
        watch.spoke = true;
        let (prev_kv, fragment) = (watch.prev_kv, watch.fragment);
        let mut events = Vec::with_capacity(records.len());
        for record in records {
            match self.event(record, prev_kv) {
                Ok(event) => events.push(event),
                Err(error) => return self.cancel_because(id, &error).await,
            }
        }
        let mut response = self.response(id, revision);
        if !fragment {
            response.events = events;
            return self.send(response).await;
        }
        let mut bytes = 0;
        for event in events {
            let size = event.encoded_len();
            if bytes + size > self.limits.fragment_bytes && !response.events.is_empty() {
                response.fragment = true;
                let next = self.response(id, revision);
                self.send(std::mem::replace(&mut response, next)).await?;
                bytes = 0;
            }
            bytes += size;
            response.events.push(event);
        }
        self.send(response).await
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
    async fn answer_progress(&mut self) -> Flow {
        if !self.progress_asked || !self.behind.is_empty() {
            return Ok(());
        }
        // What was published by now has to be sent before the answer is.
        let revision = self.state.hub.published();
        self.progress_asked = false;
        Box::pin(self.mail()).await?;
        if !self.behind.is_empty() {
            self.progress_asked = true;
            return Ok(());
        }
        let response = self.response(NO_WATCH, revision);
        self.send(response).await
    }

    async fn notify_progress(&mut self) -> Flow {
        let revision = self.state.hub.published();
        self.mail().await?;
        let mut silent = BTreeSet::new();
        for (id, watch) in &mut self.watches {
            if watch.progress && !watch.spoke && !self.behind.contains_key(id) {
                silent.insert(*id);
            }
            watch.spoke = false;
        }
        for id in silent {
            let response = self.response(id, revision);
            self.send(response).await?;
        }
        Ok(())
    }
}
