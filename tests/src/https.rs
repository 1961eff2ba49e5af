//! An HTTPS server inside of a test: what a webhook or another API server would be.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::isolation::NODE_IP;

/// A request as handlers see it.
pub struct Asked {
    /// Method, path and headers.
    pub head: http::request::Parts,
    /// The whole body.
    pub body: Bytes,
}

/// A server that answers until it is dropped.
pub struct HttpsServer {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate it has signed itself, PEM: for `localhost`, the node's address and the names asked for.
    pub certificate: String,
    runtime: Option<tokio::runtime::Runtime>,
}

impl HttpsServer {
    /// Serves on a free port of the node's address; every answer is JSON.
    ///
    /// # Errors
    /// When it cannot listen or make a certificate.
    pub fn start(
        names: &[String],
        handler: impl Fn(Asked) -> (u16, String) + Send + Sync + 'static,
    ) -> Result<Self> {
        let mut names = names.to_vec();
        names.extend(["localhost".to_owned(), NODE_IP.to_owned()]);
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).context("making a certificate")?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(tokio::net::TcpListener::bind((NODE_IP, 0)))?;
        let address = listener.local_addr()?;
        let handler = Arc::new(handler);
        runtime.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let service = service_fn(|request| answer(request, handler.as_ref()));
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                    if let Err(error) = served {
                        eprintln!("a connection to a test's server: {error}");
                    }
                });
            }
        });
        Ok(Self {
            address,
            certificate: cert.pem(),
            runtime: Some(runtime),
        })
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: &(dyn Fn(Asked) -> (u16, String) + Send + Sync),
) -> std::result::Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let (code, json) = handler(Asked { head, body });
    let mut response = Response::new(Full::new(Bytes::from(json)));
    *response.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
