//! Bodies and headers of answers.

use std::io::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _, stream};
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use keelson_api::protobuf;
use keelson_api::status::{ApiError, ApiResult};
use parking_lot::Mutex;

use super::negotiate::Encoding;
use super::piece::{Piece, Strand, cut};
use super::readable;
pub use crate::connect::Body;
use crate::connect::BodyError;
use crate::flow_control::{Place, Sending};

/// Answers larger than this are compressed for callers that accept it.
pub const GZIP_THRESHOLD: usize = 128 << 10;
/// What is in the connection's buffers before anybody could notice.
const SHORT: u64 = 64 << 10;
/// Speed matters more than the last percent.
const GZIP_LEVEL: Compression = Compression::new(1);

/// What a watch tells: lines, those together that there are at a time.
pub type Telling = Pin<Box<dyn Stream<Item = Vec<Bytes>> + Send>>;

/// A stream of parts that may end with a mistake, which cuts the answer off.
pub type Parts = Pin<Box<dyn Stream<Item = ApiResult<Piece>> + Send>>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(Piece::One(bytes.into()))
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body of lines that are sent as they are told.
pub fn streamed(telling: Telling) -> Body {
    let pieces = telling.flat_map(|lines| stream::iter(cut(lines.into_iter().map(Strand::Own))));
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
}

/// A body of parts that may not all be had.
pub fn made(parts: Parts) -> Body {
    let frames = parts.map(|part| match part {
        Ok(part) => Ok(Frame::data(part)),
        Err(error) => Err(BodyError::from(error.message())),
    });
    StreamBody::new(frames).boxed_unsync()
}

/// An answer of one content type.
pub fn answer(code: u16, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Plain text.
pub fn text(code: u16, text: impl Into<String>) -> Response<Body> {
    answer(code, "text/plain; charset=utf-8", full(text.into()))
}

/// The Status of a refusal.
pub fn refusal(error: &ApiError, encoding: Encoding, pretty: bool) -> Response<Body> {
    let json = Bytes::from(error.to_json());
    // A refusal that cannot be written as asked is better than none.
    let (body, content_type) = match encode(json.clone(), encoding, pretty) {
        Ok(body) => (body, encoding.content_type()),
        Err(_) => (json, Encoding::Json.content_type()),
    };
    let mut response = answer(error.code(), content_type, full(body));
    if let Some(seconds) = error.retry_after_seconds() {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.code() == 401 {
        response.headers_mut().insert(
            http::header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"kubernetes\""),
        );
    }
    response
}

/// The refusal of a request for which there is no room: plain text, as upstream has it.
pub fn too_many_requests(error: &ApiError) -> Response<Body> {
    let mut response = text(error.code(), format!("{}\n", error.message()));
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if let Some(seconds) = error.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The same answer, with the place its request has until it is sent. A short one is as good as sent; of a long one that
/// is not read in time the rest is forgotten.
pub fn sending(response: Response<Body>, place: Place) -> Response<Body> {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    if length.is_some_and(|length| length <= SHORT) {
        return response;
    }
    response.map(|body| {
        let body = Arc::new(Mutex::new(Some(body)));
        let late = body.clone();
        let sending = place.while_sending_or(move || drop(late.lock().take()));
        Unread {
            body,
            _sending: sending,
        }
        .boxed_unsync()
    })
}

/// A body that may be taken away when nobody reads it.
struct Unread {
    body: Arc<Mutex<Option<Body>>>,
    _sending: Sending,
}

impl hyper::body::Body for Unread {
    type Data = Piece;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Self::Error>>> {
        match self.body.lock().as_mut() {
            Some(body) => hyper::body::Body::poll_frame(Pin::new(body), context),
            None => Poll::Ready(Some(Err("the answer was not read in time".into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body
            .lock()
            .as_ref()
            .is_some_and(hyper::body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .lock()
            .as_ref()
            .map_or_else(SizeHint::default, hyper::body::Body::size_hint)
    }
}

/// Adds what the caller is to be told besides the answer.
pub fn with_warnings(mut response: Response<Body>, warnings: &[String]) -> Response<Body> {
    for warning in warnings {
        let escaped: String = warning
            .chars()
            .filter(|c| !c.is_control())
            .flat_map(|c| match c {
                '"' | '\\' => vec!['\\', c],
                c => vec![c],
            })
            .collect();
        if let Ok(value) = HeaderValue::from_bytes(format!("299 - \"{escaped}\"").as_bytes()) {
            response.headers_mut().append(http::header::WARNING, value);
        }
    }
    response
}

/// JSON in the encoding asked for. What has no protobuf form answers 406 there.
pub fn encode(json: Bytes, encoding: Encoding, pretty: bool) -> ApiResult<Bytes> {
    if encoding == Encoding::Json && !pretty {
        return Ok(json);
    }
    if encoding == Encoding::Protobuf {
        return protobuf::encode(&json).map(Bytes::from);
    }
    if encoding == Encoding::Yaml {
        return readable::yaml(&json).map(Bytes::from);
    }
    Ok(readable::indented(&json).into())
}

/// Compresses what is large enough to be worth it.
pub fn maybe_gzip(response: &mut Response<Body>, body: Bytes, accepted: bool) -> Body {
    if !accepted || body.len() < GZIP_THRESHOLD {
        return full(body);
    }
    mark_gzip(response);
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), GZIP_LEVEL);
    match encoder.write_all(&body).and_then(|()| encoder.finish()) {
        Ok(packed) => full(packed),
        // Writing to memory does not fail; were it to, an empty body is noticed by every client.
        Err(_) => full(Bytes::new()),
    }
}

/// Compresses parts as they come.
pub fn gzip_parts(response: &mut Response<Body>, parts: Parts) -> Parts {
    mark_gzip(response);
    let encoder = Some(GzEncoder::new(Vec::new(), GZIP_LEVEL));
    Box::pin(stream::unfold(
        (parts, encoder),
        |(mut parts, encoder)| async move {
            let mut encoder = encoder?;
            loop {
                let packed = match parts.next().await {
                    Some(Ok(part)) => io::copy(&mut part.reader(), &mut encoder).map_err(ApiError::internal),
                    // What ends early must not look whole.
                    Some(Err(error)) => Err(error),
                    None => {
                        let rest = encoder.finish().map_err(ApiError::internal);
                        return Some((rest.map(|rest| Bytes::from(rest).into()), (parts, None)));
                    }
                };
                if let Err(error) = packed {
                    return Some((Err(error), (parts, None)));
                }
                let packed = std::mem::take(encoder.get_mut());
                if !packed.is_empty() {
                    return Some((Ok(Bytes::from(packed).into()), (parts, Some(encoder))));
                }
            }
        },
    ))
}

fn mark_gzip(response: &mut Response<Body>) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
}
