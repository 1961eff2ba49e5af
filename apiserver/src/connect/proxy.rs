//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP to what runs behind the API.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::validation::{is_global_unicast, parse_ip};
use keelson_daemon::tls::client_config;

use super::forward::{Backend, Transport, forward};
use super::{Body, KubeletAccess, Lookup, Target, endpoints};
use crate::http::answer::full;
use crate::http::arriving::Arriving;

/// Carries a request to the pod, the service's endpoint or the node's kubelet.
pub(super) async fn serve(
    access: &KubeletAccess,
    lookup: &dyn Lookup,
    target: Target<'_>,
    request: Request<Arriving>,
) -> ApiResult<Response<Body>> {
    if let Some(elsewhere) = below(&target, &request) {
        return Ok(elsewhere);
    }
    let name = ProxyName::parse(target.name).ok_or_else(|| {
        let kind = target.resource.trim_end_matches('s');
        ApiError::bad_request(format!("invalid {kind} request {:?}", target.name))
    })?;
    let backend = match target.resource {
        "nodes" => node_backend(access, lookup, &name).await?,
        "pods" => pod_backend(lookup, target.namespace, &name).await?,
        _ => service_backend(lookup, target.namespace, target.name, &name).await?,
    };
    let rest = if target.rest.is_empty() { "/" } else { target.rest };
    let path = match request.uri().query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    };
    forward(&backend, &path, request).await
}

/// Whoever reads the root without its slash is sent there: the links of a page are relative to it.
fn below(target: &Target<'_>, request: &Request<Arriving>) -> Option<Response<Body>> {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads || !target.rest.is_empty() || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let uri = request.uri();
    let location = match uri.query() {
        Some(query) => format!("{}/?{query}", uri.path()),
        None => format!("{}/", uri.path()),
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    let location = HeaderValue::try_from(location).ok()?;
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

/// A node's kubelet, or what else listens on the node.
async fn node_backend(
    access: &KubeletAccess,
    lookup: &dyn Lookup,
    name: &ProxyName<'_>,
) -> ApiResult<Backend> {
    let kubelet = access.backend(&lookup.node(name.name).await?)?;
    if name.port.is_empty() || name.port == kubelet.port.to_string() {
        return Ok(kubelet);
    }
    let (host, port) = (kubelet.host, name.port_number()?);
    let found = tokio::net::lookup_host((host.as_str(), port)).await;
    let allowed = found.map(|mut addresses| addresses.all(|address| is_global_unicast(address.ip())));
    if !allowed.map_err(|error| ApiError::bad_request(format!("lookup {host}: {error}")))? {
        return Err(not_allowed());
    }
    name.backend(host, port)
}

/// Whoever may read pods does not get to what listens for this machine alone.
fn not_allowed() -> ApiError {
    ApiError::bad_request("address not allowed")
}

async fn pod_backend(lookup: &dyn Lookup, namespace: &str, name: &ProxyName<'_>) -> ApiResult<Backend> {
    let pod = lookup.pod(namespace, name.name).await?;
    let container_port = || {
        let containers = &pod.spec.as_ref()?.containers;
        let port = containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten())
            .next()?;
        u16::try_from(port.container_port).ok()
    };
    let port = match name.port {
        "" => container_port().unwrap_or(if name.https { 443 } else { 80 }),
        _ => name.port_number()?,
    };
    let address = pod
        .status
        .as_ref()
        .and_then(|status| parse_ip(status.pod_ip.as_deref()?));
    let address = address
        .filter(|address| is_global_unicast(*address))
        .ok_or_else(not_allowed)?;
    name.backend(address.to_string(), port)
}

async fn service_backend(
    lookup: &dyn Lookup,
    namespace: &str,
    asked: &str,
    name: &ProxyName<'_>,
) -> ApiResult<Backend> {
    let (host, port) = endpoints::proxied(lookup, namespace, (name.name, name.port), asked).await?;
    name.backend(host, port)
}

/// A name as it stands in a proxy path: `name`, `name:port`, `scheme:name:port`.
struct ProxyName<'a> {
    https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> ProxyName<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts.as_slice() {
            [""] | [_, "", _] | ["", _] => None,
            [name] => Some(Self {
                https: false,
                name,
                port: "",
            }),
            [name, port] => Some(Self {
                https: false,
                name,
                port,
            }),
            [scheme @ ("" | "http" | "https"), name, port] => Some(Self {
                https: *scheme == "https",
                name,
                port,
            }),
            _ => None,
        }
    }

    fn port_number(&self) -> ApiResult<u16> {
        let port = self.port;
        port.parse()
            .map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))
    }

    /// Backends behind `https:` show certificates nobody here can know, so they are not verified, as upstream.
    fn backend(&self, host: String, port: u16) -> ApiResult<Backend> {
        let transport = match self.https {
            false => Transport::Plain,
            true => Transport::Tls(Arc::new(client_config(None, None).map_err(ApiError::internal)?)),
        };
        Ok(Backend {
            host,
            port,
            name: None,
            transport,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_a_scheme_and_a_port() {
        let parts = |text| ProxyName::parse(text).map(|name| (name.https, name.name, name.port));
        assert_eq!(parts("web"), Some((false, "web", "")));
        assert_eq!(parts("web:http"), Some((false, "web", "http")));
        assert_eq!(parts("https:web:443"), Some((true, "web", "443")));
        for none in ["ftp:web:21", "", ":80", "https::443", "a:b:c:d"] {
            assert_eq!(parts(none), None, "{none}");
        }
    }
}
