//! HTTP servers inside of a test: what a webhook, an issuer of tokens or another API server would be.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A request as handlers see it.
pub struct Asked {
    /// Method, path and headers.
    pub head: http::request::Parts,
    /// The whole body.
    pub body: Bytes,
}

/// Who a server is, for clients that speak TLS.
pub struct Identity {
    config: Arc<ServerConfig>,
    /// The server's certificate, PEM.
    pub certificate: String,
}

impl Identity {
    /// A new certificate for these names and addresses, which has signed itself.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of(names: Vec<String>) -> Result<Self> {
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).context("making a certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        Self::with(cert.der().clone(), key, cert.pem())
    }

    /// A certificate and its key, from PEM files.
    ///
    /// # Errors
    /// When they cannot be read, or are not of each other.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self> {
        let pem = std::fs::read_to_string(certificate).with_context(|| certificate.display().to_string())?;
        let parsed = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| anyhow::anyhow!("{e}"))?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|e| anyhow::anyhow!("{e}"))?;
        Self::with(parsed, key, pem)
    }

    fn with(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>, pem: String) -> Result<Self> {
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)?;
        Ok(Self {
            config: Arc::new(config),
            certificate: pem,
        })
    }
}

type Handler = dyn Fn(Asked) -> (u16, String) + Send + Sync;

/// A server that answers until it is dropped.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Server {
    /// Answers with status and JSON on a free port of an address, by TLS if it has an identity.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(
        address: impl Into<IpAddr>,
        identity: Option<&Identity>,
        handler: impl Fn(Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        let acceptor = identity.map(|identity| TlsAcceptor::from(identity.config.clone()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((address.into(), 0)))?;
        let address = listener.local_addr()?;
        let handler: Arc<Handler> = Arc::new(handler);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                tokio::spawn(async move {
                    let served = match acceptor {
                        None => serve(tcp, handler).await,
                        // Clients that do not trust the certificate go at once: that is theirs to report.
                        Some(acceptor) => match acceptor.accept(tcp).await {
                            Ok(stream) => serve(stream, handler).await,
                            Err(_) => Ok(()),
                        },
                    };
                    if let Err(error) = served {
                        eprintln!("a connection to a test's server: {error}");
                    }
                });
            }
        });
        Ok(Self {
            address,
            runtime: Some(runtime),
        })
    }

    /// Answers on the loopback until the program ends.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn for_good(
        identity: Option<&Identity>,
        handler: impl Fn(Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<u16> {
        let server = Self::start(Ipv4Addr::LOCALHOST, identity, handler)?;
        let port = server.address.port();
        std::mem::forget(server);
        Ok(port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    handler: Arc<Handler>,
) -> hyper::Result<()> {
    let service = service_fn(|request| answer(request, handler.clone()));
    hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(
    request: Request<Incoming>,
    handler: Arc<Handler>,
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    // Handlers may take their time, as a story has it.
    let answered = tokio::task::spawn_blocking(move || handler(Asked { head, body })).await;
    let (code, json) = answered.unwrap_or_else(|error| (500, error.to_string()));
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
