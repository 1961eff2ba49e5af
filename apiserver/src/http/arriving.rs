//! Bodies of requests, as they come in.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// What is left of a body when nobody wants more of it is read up to this many bytes.
const DRAIN_BYTES: u64 = 256 << 10;
/// How long the client has to send that.
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The body of a request.
///
/// In HTTP/1.1 the next request on a connection comes behind the body of the one before, whether that was wanted or not
/// (RFC 9112, section 9.3). A request that is refused early is therefore read to its end all the same, unless that is
/// far away: a connection that ends instead looks broken to a client that has just sent its next request.
#[derive(Debug)]
pub struct Arriving {
    body: Option<Incoming>,
    drains: bool,
}

impl Arriving {
    /// Takes over a request's body.
    pub fn of(request: Request<Incoming>) -> Request<Self> {
        let drains = request.version() == Version::HTTP_11 && !waits_to_be_asked(request.headers());
        request.map(|body| Self {
            body: Some(body),
            drains,
        })
    }
}

/// Whether the client sends its body only when the server says so (RFC 9110, section 10.1.1).
fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(http::header::EXPECT)
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Some(body) => body.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        if !self.drains || body.is_end_stream() || body.size_hint().lower() > DRAIN_BYTES {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
        }
    }
}

async fn drain(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > DRAIN_BYTES {
            return;
        }
    }
}
