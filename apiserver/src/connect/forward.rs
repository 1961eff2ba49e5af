//! One HTTP/1.1 request carried to another server. When both sides switch protocols (SPDY/3.1, WebSocket), the
//! connection becomes a tunnel of bytes: whatever the two ends speak, it is not looked into.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use keelson_api::status::{ApiError, ApiResult};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

use super::{Body, carried};
use crate::http::arriving::Arriving;

/// How long a backend may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers to the server's own questions may not be larger than this.
const ANSWER_MAX: usize = 32 << 20;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Headers that belong to one hop (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [CONNECTION, KEEP_ALIVE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What lies between us and the backend.
#[derive(Clone)]
pub enum Transport {
    /// Plain HTTP.
    Plain,
    /// HTTPS.
    Tls(Arc<rustls::ClientConfig>),
}

/// A server to carry requests to.
#[derive(Clone)]
pub struct Backend {
    /// Name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The name its certificate is for, and it is asked by; `None` for the host itself.
    pub name: Option<String>,
    /// Plain or TLS.
    pub transport: Transport,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Backend {
    fn authority(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    async fn connect(&self) -> std::io::Result<Pin<Box<dyn Stream>>> {
        let connecting = async {
            let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
            tcp.set_nodelay(true)?;
            match &self.transport {
                Transport::Plain => Ok(Box::pin(tcp) as Pin<Box<dyn Stream>>),
                Transport::Tls(config) => {
                    let name = self.name.as_ref().unwrap_or(&self.host).clone();
                    let name = ServerName::try_from(name).map_err(std::io::Error::other)?;
                    let connector = tokio_rustls::TlsConnector::from(config.clone());
                    Ok(Box::pin(connector.connect(name, tcp).await?) as Pin<Box<dyn Stream>>)
                }
            }
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::new(std::io::ErrorKind::TimedOut, "i/o timeout")))
    }
}

/// Sends the request on to `path_and_query` at the backend and brings back its answer.
///
/// # Errors
/// 503 when the backend cannot be reached, 500 when it breaks off.
pub async fn forward(
    backend: &Backend,
    path_and_query: &str,
    request: Request<Arriving>,
) -> ApiResult<Response<Body>> {
    let dial_error = |error: &dyn std::fmt::Display| {
        ApiError::internal(format_args!(
            "error dialing backend: dial tcp {}: {error}",
            backend.authority()
        ))
    };
    let uri: Uri = path_and_query
        .parse()
        .map_err(|error| ApiError::bad_request(format!("invalid path {path_and_query:?}: {error}")))?;
    let stream = backend.connect().await.map_err(|error| dial_error(&error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| dial_error(&error))?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to a backend");
        }
    });

    let upgrade = request.headers().get(UPGRADE).cloned();
    let (mut parts, body) = request.into_parts();
    let client = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    let mut outgoing = Request::new(());
    *outgoing.method_mut() = parts.method;
    *outgoing.uri_mut() = uri;
    *outgoing.headers_mut() = end_to_end(&parts.headers);
    let host = HeaderValue::from_str(&backend.authority()).map_err(|error| dial_error(&error))?;
    outgoing.headers_mut().insert(HOST, host);
    outgoing.headers_mut().remove(AUTHORIZATION);

    let Some((protocol, client)) = upgrade.zip(client) else {
        let response = sender
            .send_request(outgoing.map(|()| body.boxed_unsync()))
            .await
            .map_err(|error| dial_error(&error))?;
        return Ok(plain(response));
    };
    outgoing.headers_mut().insert(UPGRADE, protocol);
    outgoing
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let empty = Empty::<Bytes>::new()
        .map_err(|never| match never {})
        .boxed_unsync();
    let mut response = sender
        .send_request(outgoing.map(|()| empty))
        .await
        .map_err(|error| dial_error(&error))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(plain(response));
    }
    let backend_side = hyper::upgrade::on(&mut response);
    tokio::spawn(tunnel(client, backend_side));
    let mut switched = Response::new(empty_body());
    *switched.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *switched.headers_mut() = response.headers().clone();
    Ok(switched)
}

/// An answer whose body is still to come. The connection ends with it.
pub struct Answering {
    response: Response<Incoming>,
    _connection: AbortOnDropHandle<()>,
}

impl Answering {
    /// HTTP status.
    pub fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// The body as it comes.
    pub fn body(&mut self) -> &mut Incoming {
        self.response.body_mut()
    }

    /// All of the body.
    ///
    /// # Errors
    /// What went wrong, in words.
    pub async fn whole(self) -> Result<Bytes, String> {
        let body = Limited::new(self.response.into_body(), ANSWER_MAX)
            .collect()
            .await;
        Ok(body.map_err(|error| error.to_string())?.to_bytes())
    }
}

/// Asks a backend something that is no client's request.
///
/// # Errors
/// What went wrong, in words.
pub async fn begin(backend: &Backend, mut request: Request<Bytes>) -> Result<Answering, String> {
    let stream = backend.connect().await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let connection = AbortOnDropHandle::new(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to a backend");
        }
    }));
    let host = HeaderValue::from_str(&backend.authority()).map_err(|error| error.to_string())?;
    request.headers_mut().insert(HOST, host);
    let response = sender
        .send_request(request.map(Full::new))
        .await
        .map_err(|error| error.to_string())?;
    Ok(Answering {
        response,
        _connection: connection,
    })
}

/// The same; the whole answer.
///
/// # Errors
/// What went wrong, in words.
pub async fn fetch(backend: &Backend, request: Request<Bytes>) -> Result<(StatusCode, Bytes), String> {
    let answering = begin(backend, request).await?;
    Ok((answering.status(), answering.whole().await?))
}

async fn tunnel(client: hyper::upgrade::OnUpgrade, backend: hyper::upgrade::OnUpgrade) {
    match tokio::try_join!(client, backend) {
        Ok((client, backend)) => {
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut backend).await {
                tracing::debug!(%error, "tunnel ended");
            }
        }
        Err(error) => tracing::debug!(%error, "switching protocols"),
    }
}

fn plain(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    parts.headers = end_to_end(&parts.headers);
    parts.extensions.clear();
    parts.version = http::Version::default();
    Response::from_parts(parts, carried(body))
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

/// A body without bytes.
pub(super) fn empty_body() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}
