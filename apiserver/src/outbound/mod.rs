//! Calling out over HTTP: to the webhooks that configuration files name, and to issuers of tokens.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`kubeconfig`] | where a webhook is and who we are to it |
//!
//! Connections are kept for the next call; one that has gone away meanwhile is replaced and the call made again.

pub mod kubeconfig;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use keelson_daemon::tls::{PemSource, client_config};
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Answers may not be larger than this.
const ANSWER_MAX: usize = 8 << 20;
/// Idle connections kept to one place.
const IDLE: usize = 16;
/// Authorities the machine trusts, for servers nothing else is said about.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];

type Sender = SendRequest<Full<Bytes>>;

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// A client for a few places.
pub struct HttpClient {
    tls: TlsConnector,
    /// Name certificates have to be for, when it is not the host's.
    server_name: Option<String>,
    idle: Mutex<HashMap<String, Vec<Sender>>>,
}

impl HttpClient {
    /// A client that trusts these authorities, by default the machine's, and shows this identity.
    ///
    /// # Errors
    /// When key material cannot be used.
    pub fn new(
        authority: Option<PemSource>,
        identity: Option<(PemSource, PemSource)>,
    ) -> Result<Self, String> {
        let authority = match authority {
            Some(authority) => authority,
            None => system_authorities()?,
        };
        Self::with(Some(authority), identity)
    }

    /// A client that believes any server.
    ///
    /// # Errors
    /// When key material cannot be used.
    pub fn trusting_anybody(identity: Option<(PemSource, PemSource)>) -> Result<Self, String> {
        Self::with(None, identity)
    }

    fn with(authority: Option<PemSource>, identity: Option<(PemSource, PemSource)>) -> Result<Self, String> {
        let config = client_config(authority, identity).map_err(|error| error.to_string())?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            server_name: None,
            idle: Mutex::default(),
        })
    }

    /// Certificates have to be for this name.
    pub fn expecting(mut self, name: Option<String>) -> Self {
        self.server_name = name;
        self
    }

    /// Asks and brings the answer, whatever its status.
    ///
    /// # Errors
    /// What went wrong on the way, as upstream would put it.
    pub async fn request(
        &self,
        method: Method,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Answer, String> {
        let verb = match method {
            Method::GET => "Get",
            _ => "Post",
        };
        match tokio::time::timeout(timeout, self.exchange(method, url, headers, body)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("{verb} \"{url}\": {error}")),
            Err(_) => Err(format!("{verb} \"{url}\": context deadline exceeded")),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        url: &Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, String> {
        let place = url.authority().map(ToString::to_string).unwrap_or_default();
        let request = || {
            let path = url.path_and_query().map_or("/", |path| path.as_str());
            let mut request = Request::builder()
                .method(method.clone())
                .uri(path)
                .body(Full::new(body.clone()))
                .map_err(|error| error.to_string())?;
            *request.headers_mut() = headers.clone();
            let host = HeaderValue::from_str(&place).map_err(|error| error.to_string())?;
            request.headers_mut().insert(HOST, host);
            Ok::<_, String>(request)
        };
        while let Some(mut sender) = self.take(&place) {
            // Nobody can tell a connection that is about to be closed from one that is not.
            if sender.ready().await.is_ok()
                && let Ok(response) = sender.send_request(request()?).await
            {
                return self.finish(place, sender, response).await;
            }
        }
        let mut sender = self.connect(url).await?;
        let response = sender
            .send_request(request()?)
            .await
            .map_err(|error| error.to_string())?;
        self.finish(place, sender, response).await
    }

    async fn finish(
        &self,
        place: String,
        sender: Sender,
        response: http::Response<hyper::body::Incoming>,
    ) -> Result<Answer, String> {
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_MAX)
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        let mut idle = self.idle.lock();
        let kept = idle.entry(place).or_default();
        if kept.len() < IDLE {
            kept.push(sender);
        }
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    fn take(&self, place: &str) -> Option<Sender> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(place)?;
        while let Some(sender) = kept.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self, url: &Uri) -> Result<Sender, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let host = url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let secure = url.scheme_str() != Some("http");
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port))
            .await
            .map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))?;
        let _slower_but_works = tcp.set_nodelay(true);
        if !secure {
            let (sender, connection) = handshake(TokioIo::new(tcp)).await.map_err(|e| text(&e))?;
            tokio::spawn(connection);
            return Ok(sender);
        }
        let name = self.server_name.clone().unwrap_or_else(|| host.to_owned());
        let name = ServerName::try_from(name).map_err(|error| text(&error))?;
        let stream = self
            .tls
            .connect(name, tcp)
            .await
            .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|e| text(&e))?;
        tokio::spawn(connection);
        Ok(sender)
    }
}

fn system_authorities() -> Result<PemSource, String> {
    let found = SYSTEM_AUTHORITIES.iter().find(|path| Path::new(path).exists());
    found.map(|path| PemSource::File(path.into())).ok_or_else(|| {
        "x509: certificate signed by unknown authority (no authority given, and no system roots)".to_owned()
    })
}

/// Headers of a request whose body and answer are JSON.
pub fn json_headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, */*"));
    headers
}
