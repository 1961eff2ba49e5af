//! Bodies and headers of answers.

use std::io::Write as _;
use std::pin::Pin;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{Stream, StreamExt as _};
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use keelson_api::protobuf;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::negotiate::Encoding;
pub use crate::connect::Body;
use crate::flow_control::Place;

/// Answers larger than this are compressed for callers that accept it.
pub const GZIP_THRESHOLD: usize = 128 << 10;
/// What is in the connection's buffers before anybody could notice.
const SHORT: u64 = 64 << 10;
/// Speed matters more than the last percent.
const GZIP_LEVEL: Compression = Compression::new(1);

/// A stream of pieces.
pub type Pieces = Pin<Box<dyn Stream<Item = Bytes> + Send>>;

/// A body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// A body that is made while it is sent.
pub fn streamed(pieces: Pieces) -> Body {
    StreamBody::new(pieces.map(|piece| Ok(Frame::data(piece)))).boxed_unsync()
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
pub fn refusal(error: &ApiError, encoding: Encoding) -> Response<Body> {
    let json = Bytes::from(error.to_json());
    // A refusal that cannot be written as asked is better than none.
    let (body, content_type) = match encode(json.clone(), encoding, false) {
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

/// The same answer, with the place its request has until it is sent. A short one is as good as sent.
pub fn sending(response: Response<Body>, place: Place) -> Response<Body> {
    let length = hyper::body::Body::size_hint(response.body()).exact();
    if length.is_some_and(|length| length <= SHORT) {
        return response;
    }
    let sending = place.while_sending();
    response.map(|body| {
        let held = move |frame| {
            let _ = &sending;
            frame
        };
        body.map_frame(held).boxed_unsync()
    })
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
    let value: Value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    if encoding == Encoding::Yaml {
        return serde_yaml::to_string(&value)
            .map(Bytes::from)
            .map_err(ApiError::internal);
    }
    let mut text = serde_json::to_string_pretty(&value).map_err(ApiError::internal)?;
    text.push('\n');
    Ok(Bytes::from(text))
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

/// Compresses pieces as they come.
pub fn gzip_pieces(response: &mut Response<Body>, pieces: Pieces) -> Pieces {
    mark_gzip(response);
    let encoder = Some(GzEncoder::new(Vec::new(), GZIP_LEVEL));
    Box::pin(futures::stream::unfold(
        (pieces, encoder),
        |(mut pieces, encoder)| async move {
            let mut encoder = encoder?;
            loop {
                match pieces.next().await {
                    Some(piece) => {
                        encoder.write_all(&piece).ok()?;
                        let packed = std::mem::take(encoder.get_mut());
                        if !packed.is_empty() {
                            return Some((Bytes::from(packed), (pieces, Some(encoder))));
                        }
                    }
                    None => return Some((Bytes::from(encoder.finish().ok()?), (pieces, None))),
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
