//! Which endpoint of a service a request is carried to: for `services/proxy`, and for the webhooks and API servers that
//! services name.

use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use keelson_api::status::{ApiError, ApiResult};
use rand::seq::SliceRandom as _;

use super::Lookup;

/// Address and port of a ready endpoint of a service that a pod of its namespace has: nobody reaches other addresses
/// through `services/proxy` by writing endpoints. `port` is the name of an endpoint's port, or the number of one of the
/// service's; `asked` is what the request calls the service, port and all.
///
/// # Errors
/// 404 for a service that is not there, 503 for one without the port's number or without such endpoints.
pub(super) async fn proxied(
    lookup: &dyn Lookup,
    namespace: &str,
    (name, port): (&str, &str),
    asked: &str,
) -> ApiResult<(String, u16)> {
    let service = lookup.service(namespace, name).await?;
    let port_name = match port.parse::<i64>() {
        Ok(number) => port_name(&service, name, number)?,
        Err(_) => port,
    };
    let slices = lookup.endpoint_slices(namespace, name).await?;
    if slices
        .iter()
        .all(|slice| slice.endpoints.as_deref().is_none_or(<[_]>::is_empty))
    {
        return Err(nobody(name));
    }
    for (endpoint, address, port) in in_any_order(&slices, port_name) {
        if is_a_pods(lookup, namespace, endpoint.target_ref.as_ref(), &address).await {
            return Ok((address, port));
        }
    }
    Err(nobody(asked))
}

/// Where a webhook or another API server behind a service is: a ready endpoint, or what an `ExternalName` service names.
///
/// # Errors
/// 404 when there is no such service, 503 when it does not have the port or nothing is behind it.
pub async fn extension_endpoint(
    lookup: &dyn Lookup,
    namespace: &str,
    name: &str,
    port: i32,
) -> ApiResult<(String, u16)> {
    let mut service = lookup.service(namespace, name).await?;
    let spec = service.spec.get_or_insert_default();
    if spec.type_.as_deref() == Some("ExternalName")
        && let (Some(host), Ok(port)) = (spec.external_name.take(), u16::try_from(port))
    {
        return Ok((host, port));
    }
    let port_name = port_name(&service, name, port.into())?;
    let slices = lookup.endpoint_slices(namespace, name).await?;
    let first = in_any_order(&slices, port_name).into_iter().next();
    let (_, address, port) = first.ok_or_else(|| nobody(name))?;
    Ok((address, port))
}

fn nobody(service: &str) -> ApiError {
    ApiError::service_unavailable(format!("no endpoints available for service {service:?}"))
}

/// The name of the service's port of a number; endpoints know their ports by it.
fn port_name<'a>(service: &'a Service, name: &str, number: i64) -> ApiResult<&'a str> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref());
    let found = ports
        .unwrap_or_default()
        .iter()
        .find(|port| i64::from(port.port) == number);
    let found = found.ok_or_else(|| {
        ApiError::service_unavailable(format!("no service port {number} found for service {name:?}"))
    })?;
    Ok(found.name.as_deref().unwrap_or_default())
}

/// A ready endpoint, its address, and the number of the port there.
type Ready<'a> = (&'a Endpoint, String, u16);

/// The ready endpoints of all slices that have the port; chance decides who comes first.
fn in_any_order<'a>(slices: &'a [EndpointSlice], port_name: &str) -> Vec<Ready<'a>> {
    let mut all: Vec<_> = slices.iter().flat_map(|slice| ready(slice, port_name)).collect();
    all.shuffle(&mut rand::rng());
    all
}

/// The ready endpoints of a slice that has the port.
fn ready<'a>(slice: &'a EndpointSlice, port_name: &str) -> impl Iterator<Item = Ready<'a>> + use<'a> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports
        .find(|port| port.name.as_deref().unwrap_or_default() == port_name)
        .and_then(|port| u16::try_from(port.port?).ok());
    let is_ready = |endpoint: &&Endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready).unwrap_or(true)
    };
    let endpoints = slice.endpoints.iter().flatten().filter(is_ready);
    endpoints.filter_map(move |endpoint| Some((endpoint, endpoint.addresses.first()?.clone(), port?)))
}

/// Whether the endpoint stands for a pod of the namespace that has the address.
async fn is_a_pods(
    lookup: &dyn Lookup,
    namespace: &str,
    target: Option<&ObjectReference>,
    address: &str,
) -> bool {
    let Some(target) = target.filter(|target| target.namespace.as_deref() == Some(namespace)) else {
        return false;
    };
    let name = target.name.as_deref().unwrap_or_default();
    let Ok(pod) = lookup.pod(namespace, name).await else {
        return false;
    };
    let mut addresses = pod
        .status
        .iter()
        .flat_map(|status| status.pod_ips.iter().flatten());
    addresses.any(|has| has.ip == address)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{Value, json};

    use super::*;

    /// A service with two ports and what is behind it.
    struct One {
        slices: Vec<EndpointSlice>,
    }

    fn typed<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    #[async_trait]
    impl Lookup for One {
        async fn pod(&self, _: &str, name: &str) -> ApiResult<Pod> {
            match name {
                "p" => Ok(typed(
                    json!({"status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}),
                )),
                _ => Err(ApiError::not_found(
                    &keelson_api::names::GroupResource::new("", "pods"),
                    name,
                )),
            }
        }

        async fn node(&self, name: &str) -> ApiResult<Node> {
            Err(ApiError::internal(name))
        }

        async fn service(&self, _: &str, _: &str) -> ApiResult<Service> {
            Ok(typed(json!({"spec": {"type": "ClusterIP", "ports": [
                {"name": "web", "port": 80}, {"name": "more", "port": 81}]}})))
        }

        async fn endpoint_slices(&self, _: &str, _: &str) -> ApiResult<Vec<EndpointSlice>> {
            Ok(self.slices.clone())
        }
    }

    /// A service whose endpoints are all of port `web` 8080.
    fn with(endpoints: Value) -> One {
        One {
            slices: vec![typed(json!({"addressType": "IPv4", "endpoints": endpoints,
                "ports": [{"name": "web", "port": 8080}]}))],
        }
    }

    fn of_pod(address: &str, namespace: &str, pod: &str) -> Value {
        json!({"addresses": [address], "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod}})
    }

    async fn through(one: &One, port: &str) -> Result<String, (u16, String, String)> {
        let asked = format!("s:{port}");
        told(proxied(one, "n", ("s", port), &asked).await)
    }

    fn told(result: ApiResult<(String, u16)>) -> Result<String, (u16, String, String)> {
        let named = |error: ApiError| {
            (
                error.code(),
                error.reason().to_owned(),
                error.message().to_owned(),
            )
        };
        result.map(|(host, port)| format!("{host} {port}")).map_err(named)
    }

    fn unavailable(message: &str) -> Result<String, (u16, String, String)> {
        Err((503, "ServiceUnavailable".to_owned(), message.to_owned()))
    }

    #[tokio::test]
    async fn a_proxy_finds_ports_by_name_and_number() {
        let one = with(json!([of_pod("10.0.0.1", "n", "p")]));
        for port in ["web", "80"] {
            assert_eq!(through(&one, port).await, Ok("10.0.0.1 8080".to_owned()));
        }
        assert_eq!(
            through(&one, "9").await,
            unavailable("no service port 9 found for service \"s\"")
        );
        // A name is looked for among the endpoints' ports alone, and none stands for the one without a name.
        for port in ["more", "81", "nope", ""] {
            let message = format!("no endpoints available for service \"s:{port}\"");
            assert_eq!(through(&one, port).await, unavailable(&message));
        }
        let empty = with(json!([]));
        assert_eq!(
            through(&empty, "web").await,
            unavailable("no endpoints available for service \"s\"")
        );
    }

    #[tokio::test]
    async fn a_proxy_reaches_nothing_but_pods_of_the_namespace() {
        for strange in [
            json!({"addresses": ["10.0.0.1"]}),
            of_pod("10.0.0.9", "n", "p"),
            of_pod("10.0.0.1", "other", "p"),
            of_pod("10.0.0.1", "n", "gone"),
        ] {
            let refused = unavailable("no endpoints available for service \"s:web\"");
            assert_eq!(through(&with(json!([strange])), "web").await, refused);
            let both = with(json!([strange, of_pod("fd00::1", "n", "p")]));
            assert_eq!(through(&both, "web").await, Ok("fd00::1 8080".to_owned()));
        }
    }

    #[tokio::test]
    async fn an_extension_is_told_which_port_is_missing() {
        let one = with(json!([{"addresses": ["10.0.0.9"]}]));
        let at = async |port| told(extension_endpoint(&one, "n", "s", port).await);
        assert_eq!(at(80).await, Ok("10.0.0.9 8080".to_owned()));
        assert_eq!(
            at(81).await,
            unavailable("no endpoints available for service \"s\"")
        );
        assert_eq!(
            at(443).await,
            unavailable("no service port 443 found for service \"s\"")
        );
    }
}
