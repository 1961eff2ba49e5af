//! The subsets of an Endpoints object, from a service and its pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Pod, Service};
use keelson_api::object::Object as _;

use crate::common::{pods, services};

/// An Endpoints object holds no more addresses than this; slices hold them all.
pub const CAPACITY: usize = 1000;

/// A port as it can be ordered: name, number, protocol, application protocol.
type PortKey = (String, i32, String, Option<String>);

/// The subsets, in an order that depends on nothing but their content; and whether some addresses did not fit.
#[must_use]
pub fn subsets(service: &Service, pods: &[Arc<Pod>]) -> (Vec<EndpointSubset>, bool) {
    let family = services::families(service)[0];
    let tolerates = services::publishes_not_ready(service);
    // By address and pod: what to write, and whether it is ready.
    let mut addresses: BTreeMap<(String, String), (EndpointAddress, bool)> = BTreeMap::new();
    let mut by_port: BTreeMap<Option<PortKey>, BTreeSet<(String, String)>> = BTreeMap::new();
    for pod in pods {
        if pods::is_terminal(pod) || (pod.metadata.deletion_timestamp.is_some() && !tolerates) {
            continue;
        }
        let Some(ip) = services::address(pod, family) else {
            continue;
        };
        let key = (ip.to_owned(), pod.uid().to_owned());
        let ports = ports_of(service, pod);
        if ports.is_empty() {
            continue;
        }
        let address = EndpointAddress {
            ip: ip.to_owned(),
            hostname: services::hostname(pod, service),
            node_name: Some(pods::node_name(pod).to_owned()).filter(|name| !name.is_empty()),
            target_ref: Some(services::reference(pod)),
        };
        addresses.insert(key.clone(), (address, tolerates || pods::is_ready(pod)));
        for port in ports {
            by_port.entry(port).or_default().insert(key.clone());
        }
    }
    // Ports that lead to the same addresses share a subset.
    let mut by_addresses: BTreeMap<BTreeSet<(String, String)>, Vec<PortKey>> = BTreeMap::new();
    for (port, keys) in by_port {
        by_addresses.entry(keys).or_default().extend(port);
    }
    let over = addresses.len() > CAPACITY;
    if over {
        truncate(&mut addresses);
    }
    let subsets = by_addresses
        .into_iter()
        .filter_map(|(keys, ports)| subset(&keys, ports, &addresses))
        .collect();
    (subsets, over)
}

/// The ports of a service as they are in a pod; one `None` for a headless service without ports.
fn ports_of(service: &Service, pod: &Pod) -> Vec<Option<PortKey>> {
    let declared = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.as_deref())
        .unwrap_or_default();
    if declared.is_empty() && services::is_headless(service) {
        return vec![None];
    }
    declared
        .iter()
        .filter_map(|port| {
            let number = services::target_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some(Some((
                port.name.clone().unwrap_or_default(),
                number,
                protocol,
                port.app_protocol.clone(),
            )))
        })
        .collect()
}

/// Keeps as many as fit, ready ones rather than others.
fn truncate(addresses: &mut BTreeMap<(String, String), (EndpointAddress, bool)>) {
    let mut keys: Vec<_> = addresses
        .iter()
        .map(|(key, (_, ready))| (!ready, key.clone()))
        .collect();
    keys.sort();
    for (_, key) in keys.into_iter().skip(CAPACITY) {
        addresses.remove(&key);
    }
}

fn subset(
    keys: &BTreeSet<(String, String)>,
    ports: Vec<PortKey>,
    addresses: &BTreeMap<(String, String), (EndpointAddress, bool)>,
) -> Option<EndpointSubset> {
    let some = |list: Vec<EndpointAddress>| Some(list).filter(|list| !list.is_empty());
    let (ready, unready): (Vec<_>, Vec<_>) = keys
        .iter()
        .filter_map(|key| addresses.get(key))
        .cloned()
        .partition(|(_, ready)| *ready);
    if ready.is_empty() && unready.is_empty() {
        return None;
    }
    let ports: Vec<EndpointPort> = ports
        .into_iter()
        .map(|(name, port, protocol, app_protocol)| EndpointPort {
            name: Some(name).filter(|name| !name.is_empty()),
            port,
            protocol: Some(protocol),
            app_protocol,
        })
        .collect();
    Some(EndpointSubset {
        addresses: some(ready.into_iter().map(|(address, _)| address).collect()),
        not_ready_addresses: some(unready.into_iter().map(|(address, _)| address).collect()),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{Container, ContainerPort, ServicePort, ServiceSpec};
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

    fn pod(name: &str, ip: &str, web: i32, ready: bool) -> Arc<Pod> {
        let mut pod = pods::testing::pod(name, "Running", ready);
        pod.status.get_or_insert_default().pod_ip = Some(ip.into());
        pod.spec.get_or_insert_default().containers = vec![Container {
            ports: Some(vec![ContainerPort {
                name: Some("web".into()),
                container_port: web,
                ..ContainerPort::default()
            }]),
            ..Container::default()
        }];
        Arc::new(pod)
    }

    fn service(ports: &[(&str, IntOrString)]) -> Service {
        let port = |(name, target): &(&str, IntOrString)| ServicePort {
            name: Some((*name).to_owned()),
            port: 80,
            target_port: Some(target.clone()),
            ..ServicePort::default()
        };
        Service {
            spec: Some(ServiceSpec {
                cluster_ip: Some("10.96.0.5".into()),
                ports: Some(ports.iter().map(port).collect()),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    #[test]
    fn ports_with_the_same_addresses_share_a_subset() {
        let service = service(&[("a", IntOrString::Int(1)), ("b", IntOrString::Int(2))]);
        let (subsets, over) = subsets(
            &service,
            &[
                pod("p", "10.244.0.2", 8080, true),
                pod("q", "10.244.0.1", 8080, false),
            ],
        );
        assert!(!over);
        assert_eq!(subsets.len(), 1);
        assert_eq!(subsets[0].ports.as_ref().map(Vec::len), Some(2));
        assert_eq!(
            subsets[0].addresses.as_ref().map(|list| list[0].ip.as_str()),
            Some("10.244.0.2")
        );
        assert_eq!(
            subsets[0]
                .not_ready_addresses
                .as_ref()
                .map(|list| list[0].ip.as_str()),
            Some("10.244.0.1")
        );
    }

    #[test]
    fn a_named_port_may_differ_from_pod_to_pod() {
        let service = service(&[("a", IntOrString::String("web".into()))]);
        let (subsets, _) = subsets(
            &service,
            &[pod("p", "10.244.0.1", 1, true), pod("q", "10.244.0.2", 2, true)],
        );
        let ports: Vec<_> = subsets
            .iter()
            .flat_map(|subset| subset.ports.iter().flatten())
            .map(|port| port.port)
            .collect();
        assert_eq!(ports, [1, 2]);
    }

    #[test]
    fn ready_addresses_are_kept_first() {
        let service = service(&[("a", IntOrString::Int(1))]);
        let pods: Vec<_> = (0..1200)
            .map(|n| {
                pod(
                    &format!("p{n}"),
                    &format!("10.244.{}.{}", n / 250, n % 250),
                    1,
                    n >= 600,
                )
            })
            .collect();
        let (subsets, over) = subsets(&service, &pods);
        assert!(over);
        assert_eq!(subsets[0].addresses.as_ref().map(Vec::len), Some(600));
        assert_eq!(subsets[0].not_ready_addresses.as_ref().map(Vec::len), Some(400));
    }
}
