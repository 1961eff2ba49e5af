//! Channels to the store: one logical connection that tries every endpoint in turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use keelson_daemon::tls::PemSource;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

/// How long one endpoint may take to answer before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that is silent this long is asked whether it lives; a dead peer is noticed after twice the time.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Flow control windows: a list of a whole resource should not wait for window updates.
const WINDOW: u32 = 4 << 20;

/// Where the store is and who we are to it.
#[derive(Debug, Clone, Default)]
pub struct StoreAddress {
    /// `https://127.0.0.1:2379`, ...
    pub servers: Vec<String>,
    /// The authorities the store's certificate may come from.
    pub authority: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Anything bytes can be sent over.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

struct Target {
    host: String,
    port: u16,
}

/// A channel that connects when first used, reconnects when broken and goes through the endpoints in turn.
pub fn channel(address: &StoreAddress) -> anyhow::Result<Channel> {
    let mut targets = Vec::new();
    let mut secure = false;
    for server in &address.servers {
        let uri: http::Uri = server
            .parse()
            .with_context(|| format!("--etcd-servers: {server:?} is not a URL"))?;
        secure |= match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => bail!("--etcd-servers: {server:?} must begin with http:// or https://"),
        };
        let host = uri
            .host()
            .with_context(|| format!("--etcd-servers: {server:?} has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        targets.push(Target {
            host,
            port: uri.port_u16().unwrap_or(2379),
        });
    }
    if targets.is_empty() {
        bail!("--etcd-servers: at least one endpoint is needed");
    }
    let tls = match secure {
        false => None,
        true => {
            let file = |path: &PathBuf| PemSource::File(path.clone());
            let identity = address
                .identity
                .as_ref()
                .map(|(cert, key)| (file(cert), file(key)));
            let authority = address
                .authority
                .as_ref()
                .context("--etcd-cafile is needed for https endpoints")?;
            let mut config = keelson_daemon::tls::client_config(Some(file(authority)), identity)
                .context("cannot prepare TLS to the store")?;
            config.alpn_protocols = vec![b"h2".to_vec()];
            Some(TlsConnector::from(Arc::new(config)))
        }
    };
    let dialer = Arc::new(Dialer {
        targets,
        next: AtomicUsize::new(0),
        tls,
    });
    let connector = tower::service_fn(move |_: http::Uri| {
        let dialer = dialer.clone();
        async move { dialer.dial().await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://store")
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW * 2)
        .tcp_nodelay(true)
        .connect_with_connector_lazy(connector))
}

struct Dialer {
    targets: Vec<Target>,
    next: AtomicUsize,
    tls: Option<TlsConnector>,
}

impl Dialer {
    /// Tries every endpoint once, beginning with the one that worked last.
    async fn dial(&self) -> std::io::Result<Box<dyn Io>> {
        let first = self.next.load(Ordering::Relaxed);
        let mut last = std::io::Error::other("no endpoint");
        for step in 0..self.targets.len() {
            let index = (first + step) % self.targets.len();
            match tokio::time::timeout(CONNECT_TIMEOUT, self.reach(&self.targets[index])).await {
                Ok(Ok(io)) => {
                    self.next.store(index, Ordering::Relaxed);
                    return Ok(io);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = std::io::Error::from(std::io::ErrorKind::TimedOut),
            }
        }
        // The next attempt begins elsewhere: an endpoint may accept connections and still be useless.
        self.next.store(first.wrapping_add(1), Ordering::Relaxed);
        Err(last)
    }

    async fn reach(&self, target: &Target) -> std::io::Result<Box<dyn Io>> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some(tls) => {
                let name = ServerName::try_from(target.host.clone()).map_err(std::io::Error::other)?;
                Ok(Box::new(tls.connect(name, stream).await?))
            }
        }
    }
}
