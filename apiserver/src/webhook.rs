//! Calling out: one HTTPS request to a webhook, wherever its configuration says it is.
//!
//! A webhook is at a URL, or at a service: then any ready endpoint of the service answers, and shows a certificate for
//! the service's name.

mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
pub use trust::trusting;

use crate::connect::endpoints;
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
    let place = Place::of(config)?;
    let url = format!("{}?timeout={}s", place.url, timeout.as_secs());
    let authority = config.ca_bundle.as_ref().map(|bundle| bundle.0.as_slice());
    let called = async {
        let dialed = dialed(server, config, &place).await?;
        exchange(&place, dialed, authority, body, timeout).await
    };
    let answered = tokio::time::timeout(timeout, called).await;
    answered
        .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
        .map_err(|why| format!("failed to call webhook: Post \"{url}\": {why}"))
}

impl Place {
    fn of(config: &WebhookClientConfig) -> Result<Self, String> {
        if let Some(url) = &config.url {
            let parsed: http::Uri = url
                .parse()
                .map_err(|error| format!("invalid URL {url:?}: {error}"))?;
            let host = parsed.host().unwrap_or_default();
            return Ok(Self {
                name: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                port: parsed.port_u16().unwrap_or(HTTPS),
                path: parsed.path().to_owned(),
                url: url.clone(),
            });
        }
        let Some(service) = &config.service else {
            return Err("webhook has neither a URL nor a service".to_owned());
        };
        let port = service.port.map_or(Ok(HTTPS), u16::try_from);
        let port = port.map_err(|error| format!("invalid port of a service: {error}"))?;
        let path = match service.path.as_deref().unwrap_or("") {
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let name = format!("{}.{}.svc", service.name, service.namespace);
        Ok(Self {
            url: format!("https://{name}:{port}{path}"),
            name,
            port,
            path,
        })
    }
}

/// The host and port to connect to. To find them is part of the call, and errors say so.
async fn dialed(
    server: &Arc<Server>,
    config: &WebhookClientConfig,
    place: &Place,
) -> Result<(String, u16), String> {
    let Some(service) = config.service.as_ref().filter(|_| config.url.is_none()) else {
        return Ok((place.name.clone(), place.port));
    };
    let port = i32::from(place.port);
    endpoints::extension_endpoint(server.as_ref(), &service.namespace, &service.name, port)
        .await
        .map_err(|error| match error.is_not_found() {
            // In upstream it is a cache that does not have it, which speaks of one.
            true => format!("service {:?} not found", service.name),
            false => error.to_string(),
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
    (host, port): (String, u16),
    authority: Option<&[u8]>,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let tls = trusting(&authorities(authority)?, None)?;
    let tcp = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| format!("dial tcp {host}:{port}: connect: {error}"))?;
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
