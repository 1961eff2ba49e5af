//! Calling out: one HTTPS request to a webhook, wherever its configuration says it is.
//!
//! A webhook is at a URL, or at a service: then any ready endpoint of the service answers, and shows a certificate for
//! the service's name.

pub mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use keelson_api::status::ApiResult;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
pub use trust::trusting;

use crate::connect::proxy;
use crate::state::Server;

/// Answers may not be larger than this.
const ANSWER_MAX: usize = 8 << 20;
/// Authorities the machine trusts, for webhooks that name none of their own.
const SYSTEM_AUTHORITIES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
];
const HTTPS: u16 = 443;

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// Name the certificate has to be for.
    name: String,
    /// Address or name to connect to.
    host: String,
    port: u16,
    path: String,
    /// As errors show it.
    url: String,
}

/// Posts a body and brings back the answer's. The error says what went wrong, as upstream would.
pub async fn post(
    server: &Arc<Server>,
    config: &WebhookClientConfig,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, String> {
    let place = find(server, config).await.map_err(|error| error.to_string())?;
    let url = format!("{}?timeout={}s", place.url, timeout.as_secs());
    let authority = config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    match tokio::time::timeout(timeout, exchange(&place, authority, body, timeout)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("failed to call webhook: Post \"{url}\": {error}")),
        Err(_) => Err(format!(
            "failed to call webhook: Post \"{url}\": context deadline exceeded"
        )),
    }
}

async fn find(server: &Arc<Server>, config: &WebhookClientConfig) -> ApiResult<Place> {
    if let Some(url) = &config.url {
        let parsed: http::Uri = url
            .parse()
            .map_err(|error| keelson_api::ApiError::internal(format_args!("invalid URL {url:?}: {error}")))?;
        let host = parsed.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        return Ok(Place {
            name: host.clone(),
            host,
            port: parsed.port_u16().unwrap_or(HTTPS),
            path: parsed.path().to_owned(),
            url: url.clone(),
        });
    }
    let Some(service) = &config.service else {
        return Err(keelson_api::ApiError::internal(
            "webhook has neither a URL nor a service",
        ));
    };
    let port = service.port.unwrap_or(HTTPS.into());
    let (host, target) =
        proxy::extension_endpoint(server.as_ref(), &service.namespace, &service.name, port).await?;
    let path = match service.path.as_deref().unwrap_or("") {
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    let name = format!("{}.{}.svc", service.name, service.namespace);
    Ok(Place {
        url: format!("https://{name}:{port}{path}"),
        name,
        host,
        port: target,
        path,
    })
}

/// The authorities a webhook's certificate has to be signed by, as PEM: its own, or the machine's.
pub fn authorities(own: Option<&[u8]>) -> Result<Vec<u8>, String> {
    if let Some(bundle) = own.filter(|bundle| !bundle.is_empty()) {
        return Ok(bundle.to_vec());
    }
    let Some(path) = SYSTEM_AUTHORITIES
        .iter()
        .map(Path::new)
        .find(|path| path.exists())
    else {
        return Err(
            "x509: certificate signed by unknown authority (no caBundle, and no system roots)".to_owned(),
        );
    };
    std::fs::read(path)
        .map_err(|error| format!("unable to load root certificates: {}: {error}", path.display()))
}

async fn exchange(
    place: &Place,
    authority: Option<&[u8]>,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let tls = trusting(&authorities(authority)?, None)?;
    let tcp = TcpStream::connect((place.host.as_str(), place.port))
        .await
        .map_err(|error| format!("dial tcp {}:{}: connect: {error}", place.host, place.port))?;
    let name = ServerName::try_from(place.name.clone()).map_err(|error| text(&error))?;
    let stream = tokio_rustls::TlsConnector::from(Arc::new(tls))
        .connect(name, tcp)
        .await
        .map_err(|error| format!("tls: failed to verify certificate: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| text(&error))?;
    let connection = tokio::spawn(connection);
    let mut request = Request::post(format!("{}?timeout={}s", place.path, timeout.as_secs()))
        .body(Full::new(body))
        .map_err(|error| text(&error))?;
    let headers = request.headers_mut();
    let host = format!("{}:{}", place.name, place.port);
    headers.insert(HOST, HeaderValue::from_str(&host).map_err(|error| text(&error))?);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let answered = async {
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        if status.is_success() {
            Ok(body)
        } else {
            Err(format!("unexpected status {status}"))
        }
    }
    .await;
    connection.abort();
    answered
}

#[cfg(test)]
mod tests;
