//! Watches: one line an event, framed once for everybody who wants it whole.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Response;
use keelson_api::protobuf;
use keelson_api::status::{ApiError, ApiResult};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::answer::{Body, Telling, answer, encode, streamed, with_warnings};
use super::negotiate::{Encoding, Form, Shape};
use super::resources::{Wish, present};
use crate::flow_control::{Place, Sending};
use crate::handlers::Call;
use crate::handlers::watch::Watch;
use crate::metrics::Running;
use crate::registry::catalog::Served;
use crate::storage::cache::Signal;
use crate::storage::delivery::Delivery;
use crate::storage::entry::{CLOSING, Entry, EventType};
use crate::table::{self, IncludeObject};

/// Lines that are there are told together up to about this size.
const AT_A_TIME: usize = 64 << 10;

/// The answer to a watch: a stream that has begun.
pub fn respond(call: &Call<'_>, watch: Watch, wish: Wish, place: Place) -> Response<Body> {
    let content_type = match wish.form.encoding {
        Encoding::Json => "application/json",
        Encoding::Yaml => "application/yaml;stream=watch",
        Encoding::Protobuf => protobuf::STREAM_TYPE,
    };
    let body = streamed(telling(call, watch, wish, place));
    with_warnings(answer(200, content_type, body), &call.warnings())
}

/// The lines of a watch. The place is given back when the watch has begun.
pub fn telling(call: &Call<'_>, watch: Watch, wish: Wish, place: Place) -> Telling {
    let running = call.server.metrics.watch(call.served.group(), call.info().plural);
    let lines = Lines {
        served: call.served.clone(),
        form: wish.form,
        include: wish.include,
        told_columns: false,
    };
    stream(lines, watch, (running, place), call.server.shutdown.clone())
}

/// Turns signals into lines.
struct Lines {
    served: Served,
    form: Form,
    include: IncludeObject,
    told_columns: bool,
}

impl Lines {
    fn stored_form(&self) -> bool {
        self.form.shape == Shape::Whole && self.form.encoding == Encoding::Json
    }

    fn initial(&mut self, entry: &Entry) -> Bytes {
        let line = entry.line(EventType::Added);
        self.shaped(EventType::Added, line)
    }

    fn signal(&mut self, signal: &Signal) -> Bytes {
        match signal {
            Signal::Event(kind, event) => {
                let line = event.line(*kind);
                self.shaped(*kind, line)
            }
            Signal::Bookmark(revision) => self.bookmark(*revision, ""),
            Signal::Failed(error) => self.framed("ERROR", &error.to_json()),
        }
    }

    fn shaped(&mut self, kind: EventType, line: Bytes) -> Bytes {
        let object = kind.object_of(&line);
        if self.stored_form() && self.served.shows(object) {
            return line;
        }
        match self.reshape(line.slice_ref(object)) {
            Ok(object) => self.framed(kind.as_str(), &object),
            Err(error) => self.framed("ERROR", &error.to_json()),
        }
    }

    fn reshape(&mut self, object: Bytes) -> ApiResult<Bytes> {
        match self.form.shape {
            Shape::Whole => Ok(present(&self.served, object)),
            Shape::Metadata => table::partial(&object),
            Shape::Table => {
                let with_columns = !std::mem::replace(&mut self.told_columns, true);
                let served = &self.served;
                let whole = |json| present(served, json);
                table::of_object(served.strategy(), &object, self.include, with_columns, &whole)
            }
        }
    }

    /// The least an object of the kind can be: its version, and annotations if there are any.
    fn bookmark(&mut self, revision: i64, annotations: &str) -> Bytes {
        let metadata = format!(r#"{{"resourceVersion":"{revision}"{annotations}}}"#);
        let object = match self.form.shape {
            Shape::Whole => format!(
                r#"{{"kind":"{}","apiVersion":"{}","metadata":{metadata}}}"#,
                self.served.info().kind,
                self.served.api_version()
            ),
            Shape::Metadata => {
                format!(
                    r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{metadata}}}"#
                )
            }
            Shape::Table => format!(
                r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{{"resourceVersion":"{revision}"}},"columnDefinitions":null,"rows":[{{"cells":[],"object":{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{metadata}}}}}]}}"#
            ),
        };
        self.framed("BOOKMARK", object.as_bytes())
    }

    fn framed(&self, kind: &str, object: &[u8]) -> Bytes {
        if self.form.encoding == Encoding::Protobuf {
            return match protobuf::encode(object) {
                Ok(object) => protobuf::watch_frame(kind, &object).into(),
                Err(error) => {
                    let status = protobuf::encode(&error.to_json()).unwrap_or_default();
                    protobuf::watch_frame("ERROR", &status).into()
                }
            };
        }
        let mut line = BytesMut::with_capacity(object.len() + 48);
        line.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
        line.extend_from_slice(object);
        line.extend_from_slice(CLOSING);
        let line = line.freeze();
        if self.form.encoding == Encoding::Json {
            return line;
        }
        let mut text = BytesMut::from(&b"---\n"[..]);
        text.extend_from_slice(&encode(line, Encoding::Yaml, false).unwrap_or_default());
        text.freeze()
    }
}

struct State {
    lines: Lines,
    initial: std::vec::IntoIter<Arc<Entry>>,
    /// Told after the initial objects.
    initial_end: Option<i64>,
    backlog: VecDeque<Signal>,
    delivery: Delivery,
    bookmarks: bool,
    deadline: Instant,
    /// The server stops: what watches it may go on elsewhere at once.
    shutdown: CancellationToken,
    _running: Running,
    /// Until the initial objects are sent.
    beginning: Option<Sending>,
}

fn stream(
    lines: Lines,
    watch: Watch,
    (running, place): (Running, Place),
    shutdown: CancellationToken,
) -> Telling {
    let watching = match watch.watching {
        Ok(watching) => watching,
        Err(error) => {
            let line = lines.framed("ERROR", &error_object(&error));
            return Box::pin(futures::stream::once(async move { vec![line] }));
        }
    };
    let beginning = (!watching.initial.is_empty()).then(|| place.while_sending());
    let state = State {
        lines,
        initial: watching.initial.into_iter(),
        initial_end: watch.initial_end,
        backlog: watching.backlog.into(),
        delivery: Delivery::new(watching.queue),
        bookmarks: watch.bookmarks,
        deadline: Instant::now() + watch.timeout,
        shutdown,
        _running: running,
        beginning,
    };
    Box::pin(futures::stream::unfold(state, |mut state| async move {
        let lines = state.next().await?;
        Some((lines, state))
    }))
}

fn error_object(error: &ApiError) -> Vec<u8> {
    error.to_json()
}

/// Lines that are told together.
#[derive(Default)]
struct Told {
    lines: Vec<Bytes>,
    length: usize,
}

impl Told {
    fn add(&mut self, line: Bytes) {
        self.length += line.len();
        self.lines.push(line);
    }

    fn enough(&self) -> bool {
        self.length >= AT_A_TIME
    }
}

impl State {
    /// The next lines; `None` when the watch is over.
    async fn next(&mut self) -> Option<Vec<Bytes>> {
        let mut told = Told::default();
        while !told.enough() {
            let Some(entry) = self.initial.next() else { break };
            told.add(self.lines.initial(&entry));
        }
        if self.initial.len() == 0
            && let Some(revision) = self.initial_end.take()
        {
            const END: &str = r#","annotations":{"k8s.io/initial-events-end":"true"}"#;
            told.add(self.lines.bookmark(revision, END));
        }
        if !told.lines.is_empty() {
            return Some(told.lines);
        }
        self.beginning = None;
        if self.backlog.is_empty() {
            let mut batch = Vec::new();
            tokio::select! {
                biased;
                count = self.delivery.next(&mut batch) => {
                    if count == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = self.shutdown.cancelled() => return None,
            }
            self.backlog.extend(batch);
        }
        while !told.enough() {
            let Some(signal) = self.backlog.pop_front() else {
                break;
            };
            debug_assert!(self.bookmarks || !matches!(signal, Signal::Bookmark(_)));
            told.add(self.lines.signal(&signal));
        }
        Some(told.lines)
    }
}
