//! Connections to members, with or without TLS.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use keelson_proto::raft_transport::raft_transport_client::RaftTransportClient;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::urls::{Scheme, Url};

const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Messages may hold many large entries.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A client of another member.
pub type PeerClient = RaftTransportClient<Channel>;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Makes connections to members.
#[derive(Clone, Default)]
pub struct Connector {
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Connector {
    /// Connects with this TLS configuration where the URL wants TLS.
    #[must_use]
    pub fn new(tls: Option<rustls::ClientConfig>) -> Self {
        let tls = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(config)
        });
        Self { tls }
    }

    /// Connects to a member.
    ///
    /// # Errors
    /// When it does not answer, or its certificate is not trusted.
    pub async fn connect(&self, url: &Url) -> std::io::Result<PeerClient> {
        let stream = tokio::time::timeout(CONNECT_PATIENCE, self.stream(url))
            .await
            .map_err(|_| {
                std::io::Error::new(std::io::ErrorKind::TimedOut, format!("{url} does not answer"))
            })??;
        let mut stream = Some(TokioIo::new(stream));
        // The one stream is made; a channel that wants another has lost it, and the caller connects anew.
        let give = tower::service_fn(move |_: http::Uri| {
            let given = stream
                .take()
                .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::ConnectionReset));
            async move { given }
        });
        let channel = Endpoint::from_shared(format!("http://{}", url.authority()))
            .map_err(std::io::Error::other)?
            .http2_keep_alive_interval(Duration::from_secs(5))
            .keep_alive_timeout(Duration::from_secs(5))
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .connect_with_connector(give)
            .await
            .map_err(std::io::Error::other)?;
        Ok(RaftTransportClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES))
    }

    async fn stream(&self, url: &Url) -> std::io::Result<Box<dyn Stream>> {
        let host = url.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, url.port)).await?;
        tcp.set_nodelay(true)?;
        match (url.scheme, &self.tls) {
            (Scheme::Http, _) => Ok(Box::new(tcp)),
            (Scheme::Https, None) => Err(std::io::Error::other(format!(
                "{url} wants TLS, but --peer-trusted-ca-file is not given"
            ))),
            (Scheme::Https, Some(tls)) => {
                let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
                let connector = tokio_rustls::TlsConnector::from(tls.clone());
                Ok(Box::new(connector.connect(name, tcp).await?))
            }
        }
    }
}
