//! One HTTPS question to a daemon.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use keelson_daemon::tls::PemSource;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(3);

/// Who asks, and whom to trust.
pub(crate) struct Identity<'a> {
    pub(crate) ca: &'a Path,
    pub(crate) certificate: &'a Path,
    pub(crate) key: &'a Path,
}

/// GETs `path` from `host:port`: status and body.
pub(crate) async fn get(
    host: &str,
    port: u16,
    path: &str,
    identity: &Identity<'_>,
) -> anyhow::Result<(u16, String)> {
    let file = |path: &Path| PemSource::File(path.to_path_buf());
    let own = (file(identity.certificate), file(identity.key));
    let tls = keelson_daemon::tls::client_config(Some(file(identity.ca)), Some(own))?;
    let asking = async {
        let stream = TcpStream::connect((host, port)).await?;
        let name = ServerName::try_from(host.to_owned())?;
        let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let request = hyper::Request::get(path)
            .header(hyper::header::HOST, host)
            .body(Empty::<hyper::body::Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        driver.abort();
        anyhow::Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .with_context(|| format!("no answer from https://{host}:{port}{path}"))?
        .with_context(|| format!("asking https://{host}:{port}{path}"))
}
