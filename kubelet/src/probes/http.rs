//! One GET: what HTTP probes and HTTP hooks do.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::HTTPGetAction;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How much of an answer is read.
const BODY_LIMIT: usize = 10 << 10;

/// What was asked, to whom.
#[derive(Debug, Clone)]
pub struct Get {
    /// `http` or `https`.
    pub scheme: String,
    /// Whom to connect to.
    pub host: String,
    /// Where.
    pub port: u16,
    /// What for.
    pub path: String,
    /// More headers.
    pub headers: Vec<(String, String)>,
    /// Who asks.
    pub user_agent: &'static str,
}

impl Get {
    /// What an action asks for, of a pod at `ip`. `port` has been resolved.
    pub fn of(action: &HTTPGetAction, ip: &str, port: u16, user_agent: &'static str) -> Self {
        let path = action
            .path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".into());
        Self {
            scheme: action
                .scheme
                .clone()
                .unwrap_or_else(|| "HTTP".into())
                .to_lowercase(),
            host: action
                .host
                .clone()
                .filter(|host| !host.is_empty())
                .unwrap_or_else(|| ip.to_owned()),
            port,
            path: if path.starts_with('/') {
                path
            } else {
                format!("/{path}")
            },
            headers: action
                .http_headers
                .iter()
                .flatten()
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
            user_agent,
        }
    }

    /// Host and port as URLs and `Host` headers have them.
    pub fn authority(&self) -> String {
        let host = if self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!("{host}:{}", self.port)
    }

    /// The URL, for messages.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority(), self.path)
    }

    /// Asks, and returns the status and the beginning of the body.
    ///
    /// # Errors
    /// A text that says what failed, in the words of Go's client where people look for them.
    pub async fn send(&self, limit: Duration) -> Result<(StatusCode, String), String> {
        let url = self.url();
        match tokio::time::timeout(limit, self.exchange()).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
            Err(_) => Err(format!(
                "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            )),
        }
    }

    async fn exchange(&self) -> Result<(StatusCode, String), String> {
        let stream = connect(&self.host, self.port).await?;
        if self.scheme == "https" {
            // A probe asks whether the server answers, not whether it is who it says.
            let mut config =
                keelson_daemon::tls::client_config(None, None).map_err(|error| error.to_string())?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let name = ServerName::try_from(self.host.clone()).map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await
                .map_err(|error| error.to_string())?;
            self.over(stream).await
        } else {
            self.over(stream).await
        }
    }

    async fn over(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    ) -> Result<(StatusCode, String), String> {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        let connection = tokio::spawn(connection);
        let mut request = Request::get(&self.path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        let value = |text: &str| HeaderValue::from_str(text).map_err(|error| error.to_string());
        headers.insert(http::header::HOST, value(&self.authority())?);
        headers.insert(http::header::USER_AGENT, value(self.user_agent)?);
        headers.insert(http::header::ACCEPT, value("*/*")?);
        headers.insert(http::header::CONNECTION, value("close")?);
        for (name, text) in &self.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("invalid header name {name:?}"))?;
            headers.insert(name, value(text)?);
        }
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        let status = answer.status();
        let mut body = answer.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(Ok(data)) = frame.map(http_body::Frame::into_data) else {
                break;
            };
            text.extend_from_slice(&data);
            if text.len() >= BODY_LIMIT {
                text.truncate(BODY_LIMIT);
                break;
            }
        }
        connection.abort();
        Ok((status, String::from_utf8_lossy(&text).into_owned()))
    }
}

/// A TCP connection, with the failure in Go's words.
///
/// # Errors
/// What the system said.
pub async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| {
        let reason = match error.kind() {
            std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
            std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
            _ => error.to_string(),
        };
        format!("dial tcp {host}:{port}: {reason}")
    })
}
