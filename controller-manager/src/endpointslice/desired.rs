//! The endpoints a service should have, by address family and ports.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, ForNode, ForZone,
};
use keelson_api::labels::ZONE;
use keelson_api::object::Object as _;

use crate::common::pods;
use crate::common::services::{self, Family};

/// Ports as they can be ordered and compared: name, protocol, number, application protocol.
pub type Ports = Vec<(String, String, Option<i32>, Option<String>)>;

/// Every endpoint of one family, by the ports it serves. All endpoints of a slice serve the same ports.
#[must_use]
pub fn endpoints(
    service: &Service,
    pods: &[Arc<Pod>],
    family: Family,
    node: impl Fn(&str) -> Option<Arc<Node>>,
) -> BTreeMap<Ports, Vec<Endpoint>> {
    let mut by_ports: BTreeMap<Ports, Vec<Endpoint>> = BTreeMap::new();
    for pod in pods {
        if pods::is_terminal(pod) {
            continue;
        }
        let Some(address) = services::address(pod, family) else {
            continue;
        };
        let node = node(pods::node_name(pod));
        by_ports.entry(ports_of(service, pod)).or_default().push(endpoint(
            service,
            pod,
            address,
            node.as_deref(),
        ));
    }
    for endpoints in by_ports.values_mut() {
        endpoints.sort_by(|a, b| {
            a.addresses
                .cmp(&b.addresses)
                .then_with(|| identity(a).cmp(identity(b)))
        });
    }
    by_ports
}

/// What makes two endpoints the same one: the pod behind them.
#[must_use]
pub fn identity(endpoint: &Endpoint) -> &str {
    let pod = endpoint
        .target_ref
        .as_ref()
        .and_then(|target| target.uid.as_deref());
    pod.or(endpoint.addresses.first().map(String::as_str))
        .unwrap_or_default()
}

/// The ports of a slice, in comparable form.
#[must_use]
pub fn key_of(ports: Option<&[EndpointPort]>) -> Ports {
    let mut key: Ports = ports
        .unwrap_or_default()
        .iter()
        .map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            (
                port.name.clone().unwrap_or_default(),
                protocol,
                port.port,
                port.app_protocol.clone(),
            )
        })
        .collect();
    key.sort();
    key
}

/// The ports of a slice, from comparable form.
#[must_use]
pub fn ports_from(key: &Ports) -> Vec<EndpointPort> {
    key.iter()
        .map(|(name, protocol, port, app_protocol)| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: *port,
            app_protocol: app_protocol.clone(),
        })
        .collect()
}

/// The service's ports as they are in a pod. A pod without any of them still has an address to be found by name.
fn ports_of(service: &Service, pod: &Pod) -> Ports {
    let declared = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    let mut ports: Ports = declared
        .iter()
        .filter_map(|port| {
            let number = services::target_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((
                port.name.clone().unwrap_or_default(),
                protocol,
                Some(number),
                port.app_protocol.clone(),
            ))
        })
        .collect();
    ports.sort();
    ports
}

fn endpoint(service: &Service, pod: &Pod, address: &str, node: Option<&Node>) -> Endpoint {
    let serving = pods::is_ready(pod);
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let ready = services::publishes_not_ready(service) || (serving && !terminating);
    let zone = node.and_then(|node| node.labels().get(ZONE)).cloned();
    let node_name = Some(pods::node_name(pod).to_owned()).filter(|name| !name.is_empty());
    Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hints: hints(service, ready, node_name.as_deref(), zone.as_deref()),
        hostname: services::hostname(pod, service),
        node_name,
        target_ref: Some(services::reference(pod)),
        zone,
        deprecated_topology: None,
    }
}

/// Which clients an endpoint is for, where the service wants traffic to stay near.
fn hints(service: &Service, ready: bool, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let distribution = service.spec.as_ref()?.traffic_distribution.as_deref()?;
    if !ready {
        return None;
    }
    let for_zones = zone.map(|zone| {
        vec![ForZone {
            name: zone.to_owned(),
        }]
    });
    let for_nodes = match distribution {
        "PreferSameNode" => node.map(|node| {
            vec![ForNode {
                name: node.to_owned(),
            }]
        }),
        "PreferClose" | "PreferSameZone" => None,
        _ => return None,
    };
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}
