//! `pods/proxy`, `services/proxy` and `nodes/proxy`: HTTP to what runs behind the API.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{LOCATION, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::tls::client_config;

use super::forward::{Backend, Transport, forward};
use super::{Body, KubeletAccess, Lookup, Target};
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
    let name = ProxyName::parse(target.name)
        .ok_or_else(|| ApiError::bad_request(format!("invalid proxy target {:?}", target.name)))?;
    let backend = match target.resource {
        "nodes" => access.backend(&lookup.node(name.name).await?)?,
        "pods" => pod_backend(lookup, target.namespace, &name).await?,
        _ => service_backend(lookup, target.namespace, &name).await?,
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
        "" => container_port().unwrap_or(80),
        port => port
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid port {port:?}")))?,
    };
    let host = pod
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .filter(|ip| !ip.is_empty())
        .ok_or_else(|| {
            ApiError::service_unavailable(format!(
                "address not allowed: pod {} has no address yet",
                name.name
            ))
        })?;
    Ok(Backend {
        host,
        port,
        name: None,
        transport: name.transport()?,
    })
}

async fn service_backend(lookup: &dyn Lookup, namespace: &str, name: &ProxyName<'_>) -> ApiResult<Backend> {
    let (host, port) = service_endpoint(lookup, namespace, name.name, name.port).await?;
    Ok(Backend {
        host,
        port,
        name: None,
        transport: name.transport()?,
    })
}

/// Address and port of a ready endpoint of a service. `port` is the name or number of one of the service's ports.
///
/// # Errors
/// 404 for a service that is not there, 503 for one without ready endpoints.
pub async fn service_endpoint(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    port: &str,
) -> ApiResult<(String, u16)> {
    let unavailable =
        || ApiError::service_unavailable(format!("no endpoints available for service {name:?}"));
    let service = lookup.service(namespace, name).await?;
    let port_name = service_port(&service, port).ok_or_else(unavailable)?;
    let slices = lookup.endpoint_slices(namespace, name).await?;
    let ready: Vec<(String, u16)> = slices
        .iter()
        .flat_map(|slice| ready_endpoints(slice, port_name))
        .collect();
    ready
        .get(rand::random_range(0..ready.len().max(1)))
        .cloned()
        .ok_or_else(unavailable)
}

/// Where a webhook or another API server behind a service is: a ready endpoint, or what an `ExternalName` service names.
///
/// # Errors
/// 404 when there is no such service, 503 when nothing is behind it.
pub async fn extension_endpoint(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    port: i32,
) -> ApiResult<(String, u16)> {
    let service = lookup.service(namespace, name).await?;
    let spec = service.spec.unwrap_or_default();
    match (spec.type_.as_deref(), spec.external_name, u16::try_from(port)) {
        (Some("ExternalName"), Some(host), Ok(port)) => Ok((host, port)),
        _ => service_endpoint(lookup, namespace, name, &port.to_string()).await,
    }
}

/// The name of the service port that a proxy name's port part means: its name, its number, or the only one.
fn service_port<'a>(service: &'a Service, wanted: &str) -> Option<&'a str> {
    let ports = service.spec.as_ref()?.ports.as_deref().unwrap_or_default();
    let name = |port: &'a k8s_openapi::api::core::v1::ServicePort| port.name.as_deref().unwrap_or_default();
    match (wanted, ports) {
        ("", [only]) => Some(name(only)),
        ("", several) => several.iter().map(name).find(|name| name.is_empty()),
        (wanted, ports) => ports
            .iter()
            .find(|port| name(port) == wanted || port.port.to_string() == wanted)
            .map(name),
    }
}

fn ready_endpoints<'a>(
    slice: &'a EndpointSlice,
    port_name: &str,
) -> impl Iterator<Item = (String, u16)> + 'a {
    let port = slice
        .ports
        .iter()
        .flatten()
        .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .and_then(|port| u16::try_from(port.port?).ok());
    slice
        .endpoints
        .iter()
        .flatten()
        .filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        })
        .filter_map(move |endpoint| Some((endpoint.addresses.first()?.clone(), port?)))
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

    /// Backends behind `https:` show certificates nobody here can know, so they are not verified, as upstream.
    fn transport(&self) -> ApiResult<Transport> {
        if !self.https {
            return Ok(Transport::Plain);
        }
        let config = client_config(None, None).map_err(ApiError::internal)?;
        Ok(Transport::Tls(Arc::new(config)))
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
        assert_eq!(parts("ftp:web:21"), None);
    }
}
