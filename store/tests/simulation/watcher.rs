//! Watchers: they follow all keys of a prefix, and go on at another member where they left off.

use bytes::Bytes;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{WatchCreateRequest, WatchProgressRequest, WatchRequest};
use keelson_proto::mvcc::event::EventType;
use keelson_store::watch::catch_up::{CatchUpError, Piece};
use keelson_store::watch::watches::{Behind, Watches};

use crate::client::decode;
use crate::history::{Event, Told, Watched};
use crate::member::Running;

/// Small, so that responses are split often.
const FRAGMENT_BYTES: usize = 64 << 10;

/// A watcher.
pub struct Watcher {
    prefix: String,
    end: String,
    stream: Option<Stream>,
    /// The first revision it has not seen.
    next: i64,
    pub told: Vec<Told>,
}

/// A piece of the history on its way to a watch.
struct Reading {
    behind: Behind,
    read: Option<Result<Piece, CatchUpError>>,
}

struct Stream {
    watches: Watches,
    reading: Option<Reading>,
    member: u64,
    starts: u32,
}

impl Stream {
    fn read_on(&mut self, running: &Running) {
        match self.reading.take() {
            None => {
                let id = self.watches.behind().first().copied();
                let behind = id.and_then(|id| self.watches.catch_up(id));
                self.reading = behind.map(|behind| Reading { behind, read: None });
            }
            Some(Reading { behind, read: None }) => {
                let read = Some(behind.read(&running.state));
                self.reading = Some(Reading { behind, read });
            }
            Some(Reading {
                behind,
                read: Some(read),
            }) => self.watches.caught_up(&behind, read),
        }
    }
}

impl Watcher {
    pub fn new(prefix: &str, end: &str) -> Self {
        Self {
            prefix: prefix.into(),
            end: end.into(),
            stream: None,
            next: 1,
            told: Vec::new(),
        }
    }

    /// One that begins at a revision, and not at the first.
    pub fn from_revision(prefix: &str, end: &str, next: i64) -> Self {
        Self {
            next,
            ..Self::new(prefix, end)
        }
    }

    /// What became of it.
    pub fn watched(&self, stayed: bool) -> Watched {
        Watched {
            from: self.prefix.clone(),
            end: self.end.clone(),
            told: self.told.clone(),
            stayed,
        }
    }

    /// Where it is connected.
    pub fn member(&self) -> Option<(u64, u32)> {
        self.stream.as_ref().map(|stream| (stream.member, stream.starts))
    }

    /// Whether it is connected and has nothing to read from the history.
    pub fn in_step(&self) -> bool {
        let in_step = |stream: &Stream| stream.reading.is_none() && !stream.watches.is_behind();
        self.stream.as_ref().is_some_and(in_step)
    }

    pub fn disconnect(&mut self) {
        self.stream = None;
    }

    /// Goes on at a member.
    pub fn connect(&mut self, running: &Running, member: u64, starts: u32) {
        let mut watches = Watches::new(running.state.clone(), running.headers.clone(), FRAGMENT_BYTES);
        watches.request(WatchRequest {
            request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest {
                key: Bytes::copy_from_slice(self.prefix.as_bytes()),
                range_end: Bytes::copy_from_slice(self.end.as_bytes()),
                start_revision: self.next,
                progress_notify: true,
                ..WatchCreateRequest::default()
            })),
        });
        let compacted = running.state.read(|inner| inner.mvcc.compacted);
        self.told.push(Told::Begun {
            at: self.next,
            compacted,
        });
        self.stream = Some(Stream {
            watches,
            reading: None,
            member,
            starts,
        });
    }

    /// Asks where it is, or has the member say so by itself.
    pub fn progress(&mut self, ask: bool) {
        if let Some(stream) = &mut self.stream {
            if ask {
                stream.watches.request(WatchRequest {
                    request_union: Some(RequestUnion::ProgressRequest(WatchProgressRequest {})),
                });
            } else {
                stream.watches.notify_progress();
            }
        }
    }

    /// Takes what has arrived. History is read in three steps, between which anything may happen.
    pub fn poll(&mut self, running: &Running) -> Result<(), String> {
        let Some(stream) = &mut self.stream else {
            return Ok(());
        };
        stream.watches.mail();
        stream.read_on(running);
        stream.watches.answer_progress();
        while let Some(response) = stream.watches.next_response() {
            if response.created {
                continue;
            }
            if response.canceled {
                if response.compact_revision == 0 {
                    return Err(format!("a watch was cancelled: {}", response.cancel_reason));
                }
                self.told.push(Told::Compacted(response.compact_revision));
                self.next = response.compact_revision;
                self.stream = None;
                return Ok(());
            }
            let revision = response.header.map_or(0, |header| header.revision);
            if response.events.is_empty() {
                self.told.push(Told::Progress(revision));
                self.next = self.next.max(revision + 1);
                continue;
            }
            let mut events = Vec::new();
            for event in response.events {
                let deleted = event.r#type == EventType::Delete as i32;
                let kv = event.kv.ok_or("an event without a key")?;
                self.next = kv.mod_revision + 1;
                events.push((
                    kv.mod_revision,
                    Event {
                        key: String::from_utf8_lossy(&kv.key).into_owned(),
                        value: if deleted { 0 } else { decode(&kv.value) },
                        version: kv.version,
                        created: kv.create_revision,
                    },
                ));
            }
            self.told.push(Told::Events(events));
        }
        Ok(())
    }
}
