//! Requests to a control plane as bytes: many at a time on one connection, answers that nobody reads, watches line by
//! line, WebSocket.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::control_plane::ControlPlane;

/// What a server may send of an answer that is not read.
const UNREAD: u32 = 65_535;
/// What it may send of all of them.
const UNREAD_OF_ALL: u32 = 64 << 20;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

async fn tls(plane: &ControlPlane, name: &str, protocol: &[u8]) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&plane.authority.certificate)?)?;
    let certificate = CertificateDer::from_pem_file(plane.path(&format!("{name}.crt")))?;
    let key = PrivateKeyDer::from_pem_file(plane.path(&format!("{name}.key")))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![protocol.to_vec()];
    let tcp = TcpStream::connect(("127.0.0.1", plane.port)).await?;
    let server = ServerName::try_from("127.0.0.1")?;
    Ok(TlsConnector::from(Arc::new(config)).connect(server, tcp).await?)
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub code: u16,
    /// Headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is none.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("{self:?}"))
    }

    /// A header, empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }
}

/// An HTTP/2 connection of one client.
#[derive(Clone)]
pub struct Wire(SendRequest<Full<Bytes>>);

impl Wire {
    /// Connects with the certificate issued under that name.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(plane: &ControlPlane, name: &str) -> Result<Self> {
        let stream = tls(plane, name, b"h2").await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(UNREAD)
            .initial_connection_window_size(UNREAD_OF_ALL)
            .handshake(TokioIo::new(stream))
            .await?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Sends a request; the answer's body is still to be read.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn begin(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Response<Incoming>> {
        self.begin_with(method, path, &[], body).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn begin_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("https://127.0.0.1{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() && headers.iter().all(|(name, _)| *name != "content-type") {
            request = request.header("content-type", "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let request = request.body(Full::new(body))?;
        let mut sender = self.0.clone();
        let answer = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        Ok(tokio::time::timeout(PATIENCE, answer)
            .await
            .with_context(|| format!("{method} {path}"))??)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        self.ask_with(method, path, &[], body).await
    }

    /// The same with headers.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn ask_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer> {
        let response = self.begin_with(method, path, headers, body).await?;
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout(PATIENCE, body.collect()).await??;
        Ok(Answer {
            code: head.status.as_u16(),
            headers: head.headers,
            body: body.to_bytes(),
        })
    }

    /// Reads something.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.ask("GET", path, None).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create(&self, path: &str, object: &Value) -> Result<Value> {
        let answer = self.ask("POST", path, Some(object)).await?;
        ensure!(answer.code == 201, "{answer:?}");
        answer.json()
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn watch(&self, path: &str) -> Result<Events> {
        let response = self.begin("GET", path, None).await?;
        if response.status() != 200 {
            let code = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            bail!("{code} {}", String::from_utf8_lossy(&body));
        }
        Ok(Events {
            body: response.into_body(),
            read: Vec::new(),
        })
    }
}

/// The events of a watch.
pub struct Events {
    body: Incoming,
    read: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the watch is over.
    ///
    /// # Errors
    /// When none comes.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return Ok(Some(serde_json::from_slice(&line)?));
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await?;
            let Some(frame) = frame else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.read.extend_from_slice(&data);
            }
        }
    }

    /// The next event, of which there must be one.
    ///
    /// # Errors
    /// When none comes.
    pub async fn one(&mut self) -> Result<Value> {
        self.next().await?.context("the watch is over")
    }
}

/// An HTTP/1.1 connection that is written to piece by piece.
pub struct Line(TlsStream<TcpStream>);

impl Line {
    /// Connects with the certificate issued under that name.
    ///
    /// # Errors
    /// When there is no connection.
    pub async fn connect(plane: &ControlPlane, name: &str) -> Result<Self> {
        Ok(Self(tls(plane, name, b"http/1.1").await?))
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write_all(bytes).await?;
        Ok(self.0.flush().await?)
    }

    /// The head of the next answer.
    ///
    /// # Errors
    /// When none comes.
    pub async fn head(&mut self) -> Result<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(tokio::time::timeout(PATIENCE, self.0.read_u8()).await??);
        }
        Ok(String::from_utf8(head)?)
    }

    /// The next answer, which says how long it is: its head and its body.
    ///
    /// # Errors
    /// When none comes.
    pub async fn answer(&mut self) -> Result<(String, String)> {
        let head = self.head().await?.to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .with_context(|| head.clone())?;
        let mut body = vec![0; length.parse()?];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut body)).await??;
        Ok((head, String::from_utf8(body)?))
    }
}

/// A watch over WebSocket.
pub struct Socket {
    stream: TlsStream<TcpStream>,
    /// The head of the server's answer.
    pub head: String,
}

impl Socket {
    /// Asks for a switch of protocols, with these headers besides.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn open(plane: &ControlPlane, name: &str, path: &str, headers: &str) -> Result<Self> {
        let mut line = Line::connect(plane, name).await?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        line.send(request.as_bytes()).await?;
        let head = line.head().await?;
        Ok(Self { stream: line.0, head })
    }

    /// The next message: the first byte of its frame, and what it says.
    ///
    /// # Errors
    /// When none comes.
    pub async fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        let read = async {
            let first = self.stream.read_u8().await?;
            let length = match self.stream.read_u8().await? {
                126 => u64::from(self.stream.read_u16().await?),
                127 => self.stream.read_u64().await?,
                short => u64::from(short),
            };
            let mut payload = vec![0; usize::try_from(length)?];
            self.stream.read_exact(&mut payload).await?;
            Ok((first, payload))
        };
        tokio::time::timeout(PATIENCE, read).await?
    }

    /// Says that no more is wanted.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn close(&mut self) -> Result<()> {
        // A closing frame without a reason, under a mask of zeros.
        Ok(self.stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).await?)
    }
}
