//! One HTTP/2 connection over mTLS: dialled lazily, kept alive, failing over between servers.
//!
//! All calls and watches of a process share one connection. When it breaks, the next call dials again, starting with
//! the server that answered last and going round the list.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keelson_proto::resources::resources_client::ResourcesClient;
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

use crate::config::{ClientConfig, ConfigError, LiveToken};
use crate::credentials::Credentials;

/// A server that has not finished the handshake by then is passed over for the next one.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// A peer that vanished without a word is noticed after this plus [`PING_TIMEOUT`]: a dead master must not stall
/// watches for longer than a lease lasts.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Lists arrive in chunks; a window below a chunk would cost a round trip each.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// One object is at most 1.5 MiB in the store; a batch is many of them.
const MAX_MESSAGE: usize = 64 << 20;

/// The shared connection, and who calls are from that go over it.
#[derive(Clone)]
pub(crate) struct Transport {
    credentials: Arc<Credentials>,
    connector: Connector,
    channel: Arc<Mutex<(Channel, u64)>>,
    /// Instead of the token of the credentials.
    bearer: Option<LiveToken>,
    /// Who field managers and logs say we are: the program's name, as upstream's clients do.
    pub(crate) manager: String,
}

impl Transport {
    pub(crate) fn new(config: ClientConfig) -> Result<Self, ConfigError> {
        let servers = config
            .servers
            .iter()
            .map(|s| Server::parse(s))
            .collect::<Result<Vec<_>, _>>()?;
        if servers.is_empty() {
            return Err(ConfigError::Server {
                server: String::new(),
                reason: "no server is configured".into(),
            });
        }
        let credentials = Arc::new(Credentials::load(config)?);
        let connector = Connector {
            servers: servers.into(),
            last_good: Arc::new(AtomicUsize::new(0)),
            credentials: credentials.clone(),
        };
        let manager = std::env::args()
            .next()
            .and_then(|path| {
                Some(
                    std::path::Path::new(&path)
                        .file_name()?
                        .to_string_lossy()
                        .into_owned(),
                )
            })
            .unwrap_or_else(|| "keelson-client".into());
        let channel = Arc::new(Mutex::new((dial(&manager, connector.clone()), 0)));
        Ok(Transport {
            credentials,
            connector,
            channel,
            bearer: None,
            manager,
        })
    }

    /// The same connection for calls of somebody else.
    pub(crate) fn with_bearer(&self, token: LiveToken) -> Self {
        Self {
            bearer: Some(token),
            ..self.clone()
        }
    }

    /// The gRPC client to call with, and what to add to each request.
    pub(crate) fn grpc(&self) -> (ResourcesClient<Channel>, Authorize) {
        let (token, generation) = self.credentials.current();
        let token = match &self.bearer {
            Some(bearer) => bearer.get(),
            None => token,
        };
        let channel = {
            let mut current = self.channel.lock();
            if current.1 != generation {
                // Calls and watches under way finish on the old connection, which closes after them.
                *current = (dial(&self.manager, self.connector.clone()), generation);
            }
            current.0.clone()
        };
        let client = ResourcesClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE);
        (client, Authorize { token })
    }
}

/// Adds the bearer token, if there is one, to a request.
#[derive(Clone)]
pub(crate) struct Authorize {
    token: Option<tonic::metadata::MetadataValue<tonic::metadata::Ascii>>,
}

impl Authorize {
    pub(crate) fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }
}

fn dial(manager: &str, connector: Connector) -> Channel {
    // The connector decides where to go and does TLS itself; the address here only names the connection.
    let endpoint = Endpoint::from_static("http://kube-apiserver")
        .origin(http::Uri::from_static("https://kube-apiserver"))
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let endpoint = match endpoint
        .clone()
        .user_agent(format!("{manager}/{}", env!("CARGO_PKG_VERSION")))
    {
        Ok(named) => named,
        Err(_) => endpoint,
    };
    endpoint.connect_with_connector_lazy(connector)
}

#[derive(Clone, Debug)]
struct Server {
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Server {
    fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason: String| ConfigError::Server {
            server: text.to_owned(),
            reason,
        };
        let uri: http::Uri = text.parse().map_err(|error| wrong(format!("{error}")))?;
        if uri.scheme_str() != Some("https") {
            return Err(wrong("want https://host:port".into()));
        }
        let host = uri.host().ok_or_else(|| wrong("no host".into()))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|error| wrong(format!("{error}")))?;
        Ok(Server {
            host,
            port: uri.port_u16().unwrap_or(443),
            name,
        })
    }
}

/// Dials the first server that answers, beginning with the one that answered last.
#[derive(Clone)]
struct Connector {
    servers: Arc<[Server]>,
    last_good: Arc<AtomicUsize>,
    credentials: Arc<Credentials>,
}

impl Connector {
    async fn connect(self) -> std::io::Result<TokioIo<TlsStream<TcpStream>>> {
        let tls = TlsConnector::from(self.credentials.tls.clone());
        let start = self.last_good.load(Ordering::Relaxed);
        let mut last_error = std::io::Error::from(std::io::ErrorKind::NotConnected);
        for turn in 0..self.servers.len() {
            let index = (start + turn) % self.servers.len();
            let server = &self.servers[index];
            let attempt = async {
                let stream = TcpStream::connect((server.host.as_str(), server.port)).await?;
                stream.set_nodelay(true)?;
                tls.connect(server.name.clone(), stream).await
            };
            match tokio::time::timeout(DIAL_TIMEOUT, attempt).await {
                Ok(Ok(stream)) => {
                    self.last_good.store(index, Ordering::Relaxed);
                    return Ok(TokioIo::new(stream));
                }
                Ok(Err(error)) => last_error = describe(server, &error),
                Err(_) => last_error = describe(server, &std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last_error)
    }
}

fn describe(server: &Server, error: &std::io::Error) -> std::io::Error {
    std::io::Error::new(
        error.kind(),
        format!("connecting to {}:{}: {error}", server.host, server.port),
    )
}

impl tower::Service<http::Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_https_with_a_host() {
        let server = Server::parse("https://[::1]:6443").unwrap();
        assert_eq!((server.host.as_str(), server.port), ("::1", 6443));
        assert_eq!(Server::parse("https://api.example").unwrap().port, 443);
        assert!(
            Server::parse("http://10.0.0.1:6443")
                .unwrap_err()
                .to_string()
                .contains("want https://host:port")
        );
    }
}
