//! A request while it is being served.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

use super::Sinks;
use super::event::{Event, Outcome, Stage};
use super::policy::Level;
use crate::authentication::User;
use crate::connect::{Body, BodyError};
use crate::http::piece::Piece;

/// A request that a rule of the policy concerns.
pub struct Record {
    event: Mutex<Event>,
    sinks: Arc<Sinks>,
    /// Whether the last event has been made.
    finished: AtomicBool,
}

/// A request that ends without having been answered ends all the same: because its caller went away, or because the
/// server failed.
impl Drop for Record {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.finished.load(Ordering::Relaxed) {
            self.panicked();
        } else {
            self.complete();
        }
    }
}

impl Record {
    /// Notes that the request came; nothing if it may not be served because that cannot be noted.
    pub(super) fn begin(event: Event, sinks: Arc<Sinks>) -> Option<Self> {
        let received = Stage::RequestReceived;
        if event.found.omitted & received.bit() == 0 && !sinks.admit(&Arc::new(event.at(received))) {
            return None;
        }
        Some(Self {
            event: Mutex::new(event),
            sinks,
            finished: AtomicBool::new(false),
        })
    }

    /// Makes an event of this stage, unless the policy leaves it out.
    pub(super) fn emit(&self, stage: Stage) {
        let event = {
            let event = self.event.lock();
            if event.found.omitted & stage.bit() != 0 {
                return;
            }
            event.at(stage)
        };
        self.sinks.send(&Arc::new(event));
    }

    /// The caller acts as somebody else.
    pub fn acting_as(&self, user: &User) {
        self.event.lock().impersonated = Some(Arc::new(user.clone()));
    }

    /// Adds an annotation. The first of a key stays.
    pub fn annotate(&self, key: &str, value: String) {
        let mut event = self.event.lock();
        event.annotations.entry(key.to_owned()).or_insert(value);
    }

    /// What the request brought, as JSON.
    pub fn request_body(&self, json: &Bytes) {
        // Also needed where it is not shown: it names the object.
        self.event.lock().request = json.clone();
    }

    pub(super) fn wants_response(&self) -> bool {
        self.event.lock().found.level >= Level::RequestResponse
    }

    /// What the request is answered with, as JSON.
    pub fn response_body(&self, json: &Bytes) {
        let mut event = self.event.lock();
        if event.found.level >= Level::RequestResponse {
            event.response = json.clone();
        }
    }

    /// The answer is an error, whose Status this is.
    pub fn failed(&self, code: u16, status: Bytes) {
        let mut event = self.event.lock();
        if event.found.level >= Level::RequestResponse {
            event.response = status.clone();
        }
        event.outcome = Some(Outcome {
            code,
            status,
            message: String::new(),
        });
    }

    /// The answer has this code. One that was said to be an error stays so.
    pub fn answered(&self, code: u16) {
        self.event.lock().outcome.get_or_insert_with(|| Outcome {
            code,
            ..Outcome::default()
        });
    }

    pub(super) fn failed_authentication(&self, message: &str) {
        self.event.lock().outcome = Some(Outcome {
            code: 401,
            status: Bytes::new(),
            message: message.to_owned(),
        });
        self.finished.store(true, Ordering::Relaxed);
        self.emit(Stage::ResponseStarted);
    }

    fn panicked(&self) {
        self.event.lock().outcome = Some(Outcome {
            code: 500,
            status: Bytes::from_static(
                br#"{"status":"Failure","reason":"InternalError","message":"APIServer panic'd"}"#,
            ),
            message: String::new(),
        });
        self.emit(Stage::Panic);
    }

    /// The answer is there whole.
    pub fn complete(&self) {
        if self.finished.swap(true, Ordering::Relaxed) {
            return;
        }
        self.answered(200);
        self.emit(Stage::ResponseComplete);
    }

    /// The answer goes on for long: its end is noted when the body ends.
    pub fn follow(self: &Arc<Self>, response: Response<Body>) -> Response<Body> {
        self.emit(Stage::ResponseStarted);
        let ending = Ending(self.clone());
        response.map(|body| {
            Followed {
                body,
                _ending: ending,
            }
            .boxed_unsync()
        })
    }
}

/// Notes the end of an answer when it goes out of existence.
struct Ending(Arc<Record>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.complete();
    }
}

struct Followed {
    body: Body,
    _ending: Ending,
}

impl hyper::body::Body for Followed {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
