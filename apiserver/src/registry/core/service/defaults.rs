//! What is filled into a service, and what a change of its type drops or keeps.

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{ClientIPConfig, Service, ServiceSpec, SessionAffinityConfig};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::registry::common::defaults::{drop_empty, drop_false, drop_zero, fill};

/// Seconds a client stays with the same pod.
const AFFINITY_SECONDS: i32 = 10800;

/// Defaults of a service.
pub fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    fill(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec
                .session_affinity_config
                .get_or_insert_with(SessionAffinityConfig::default);
            let client = config.client_ip.get_or_insert_with(ClientIPConfig::default);
            client.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
    fill(&mut spec.type_, "ClusterIP");
    for port in spec.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
        drop_empty(&mut port.name);
        drop_zero(&mut port.node_port);
        let unset = match &port.target_port {
            None => true,
            Some(IntOrString::Int(number)) => *number == 0,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        if unset {
            port.target_port = Some(IntOrString::Int(port.port));
        }
    }
    for text in [
        &mut spec.cluster_ip,
        &mut spec.external_name,
        &mut spec.external_traffic_policy,
        &mut spec.load_balancer_ip,
    ] {
        drop_empty(text);
    }
    drop_zero(&mut spec.health_check_node_port);
    drop_false(&mut spec.publish_not_ready_addresses);
    if spec.selector.as_ref().is_some_and(|s| s.is_empty()) {
        spec.selector = None;
    }
    if externally_accessible(spec) {
        fill(&mut spec.external_traffic_policy, "Cluster");
    }
    if matches!(
        spec.type_.as_deref(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer")
    ) {
        spec.internal_traffic_policy
            .get_or_insert_with(|| "Cluster".to_owned());
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = spec.cluster_ip.clone().map(|ip| vec![ip]);
    } else if spec.cluster_ip.is_none() {
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned());
    }
}

/// Whether traffic from outside of the cluster can arrive.
pub fn externally_accessible(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("LoadBalancer" | "NodePort") => true,
        Some("ClusterIP") => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        _ => false,
    }
}

/// Whether the service has an address in the cluster, be it `None`.
pub fn needs_cluster_ip(spec: &ServiceSpec) -> bool {
    matches!(
        spec.type_.as_deref(),
        Some("ClusterIP" | "NodePort" | "LoadBalancer")
    )
}

/// Whether the service has a port on every node.
pub fn needs_node_port(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether balancers ask the nodes if they have pods of the service.
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Whether the service has no address of its own.
pub fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ips
        .as_ref()
        .is_some_and(|ips| ips.len() == 1 && ips[0] == "None")
        || spec.cluster_ip.as_deref() == Some("None")
}

/// `IPv4` or `IPv6`.
pub fn family(range: IpNet) -> &'static str {
    match range {
        IpNet::V4(_) => "IPv4",
        IpNet::V6(_) => "IPv6",
    }
}

fn other(family: &str) -> &'static str {
    if family == "IPv4" { "IPv6" } else { "IPv4" }
}

/// The address families of a service in a cluster that has services in one family.
pub fn address_families(service: &mut Service, old: Option<&Service>, cluster: &str) {
    let Some(spec) = &mut service.spec else { return };
    if !needs_cluster_ip(spec) {
        return;
    }
    // What was once decided stays, unless it is given anew.
    if let Some(old) = old.and_then(|o| o.spec.as_ref())
        && needs_cluster_ip(old)
    {
        if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
            spec.ip_families.clone_from(&old.ip_families);
        }
        if spec.ip_family_policy.is_none() {
            spec.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    // Without a selector and an address it is nobody's business here what is behind the name: both families may be.
    let anything = is_headless(spec) && spec.selector.as_ref().is_none_or(|s| s.is_empty());
    let default_policy = if anything {
        "RequireDualStack"
    } else {
        "SingleStack"
    };
    let policy = spec
        .ip_family_policy
        .get_or_insert_with(|| default_policy.to_owned())
        .clone();
    let families = spec.ip_families.get_or_insert_default();
    if families.is_empty() {
        let of_address = spec
            .cluster_ip
            .as_deref()
            .and_then(keelson_api::validation::parse_ip);
        let first = match of_address {
            Some(address) => {
                if address.is_ipv4() {
                    "IPv4"
                } else {
                    "IPv6"
                }
            }
            None => cluster,
        };
        families.push(first.to_owned());
    }
    if anything && families.len() == 1 && policy != "SingleStack" {
        let second = other(&families[0]);
        families.push(second.to_owned());
    }
}

/// A service that is replaced by one without addresses and ports keeps those it has.
pub fn patch_allocated(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else {
        return;
    };
    if needs_cluster_ip(new) && needs_cluster_ip(old) {
        if new.cluster_ip.is_none() {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        } else if new.cluster_ips == old.cluster_ips && new.cluster_ip != old.cluster_ip {
            // Only the older of the two fields was changed: the list follows.
            new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]);
        }
    }
    if needs_node_port(new) && needs_node_port(old) {
        let given: Vec<i32> = new.ports.iter().flatten().filter_map(|p| p.node_port).collect();
        for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.is_none()) {
            let same = old
                .ports
                .iter()
                .flatten()
                .find(|p| p.port == port.port && p.protocol == port.protocol);
            if let Some(node_port) = same.and_then(|p| p.node_port)
                && !given.contains(&node_port)
            {
                port.node_port = Some(node_port);
            }
        }
    }
    if needs_health_check(new) && needs_health_check(old) && new.health_check_node_port.is_none() {
        new.health_check_node_port = old.health_check_node_port;
    }
}

/// A change of type drops what the new type cannot have, where it was not changed by hand in the same step.
pub fn drop_for_type(new: &mut Service, old: &Service) {
    let (Some(new), Some(old)) = (&mut new.spec, &old.spec) else {
        return;
    };
    if needs_cluster_ip(old) && !needs_cluster_ip(new) {
        if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ip = None;
            new.cluster_ips = None;
        }
        if new.ip_families == old.ip_families {
            new.ip_families = None;
        }
        if new.ip_family_policy == old.ip_family_policy {
            new.ip_family_policy = None;
        }
        if new.internal_traffic_policy == old.internal_traffic_policy {
            new.internal_traffic_policy = None;
        }
    }
    let node_ports = |spec: &ServiceSpec| -> Vec<Option<i32>> {
        spec.ports.iter().flatten().map(|p| p.node_port).collect()
    };
    if needs_node_port(old) && !needs_node_port(new) && node_ports(new) == node_ports(old) {
        new.ports
            .iter_mut()
            .flatten()
            .for_each(|port| port.node_port = None);
    }
    if needs_health_check(old)
        && !needs_health_check(new)
        && new.health_check_node_port == old.health_check_node_port
    {
        new.health_check_node_port = None;
    }
    let balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
    if balanced(old) && !balanced(new) {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
    if externally_accessible(old)
        && !externally_accessible(new)
        && new.external_traffic_policy == old.external_traffic_policy
    {
        new.external_traffic_policy = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn completed(spec: Value) -> Value {
        let mut service: Service =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).expect("a service");
        super::service(&mut service);
        address_families(&mut service, None, "IPv4");
        serde_json::to_value(service.spec).expect("json")
    }

    #[test]
    fn services_are_completed() {
        assert_eq!(
            completed(json!({"ports": [{"port": 80}], "selector": {"run": "ngx"}})),
            json!({
                "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"run": "ngx"},
                "sessionAffinity": "None", "type": "ClusterIP"
            })
        );
        let node_port =
            completed(json!({"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}));
        assert_eq!(node_port["externalTrafficPolicy"], "Cluster");
        assert_eq!(
            node_port["sessionAffinityConfig"],
            json!({"clientIP": {"timeoutSeconds": 10800}})
        );
        let headless = completed(json!({"clusterIP": "None"}));
        assert_eq!(headless["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(headless["clusterIPs"], json!(["None"]));
        let external = completed(json!({"type": "ExternalName", "externalName": "example.com"}));
        assert_eq!(
            external,
            json!({"externalName": "example.com", "sessionAffinity": "None", "type": "ExternalName"})
        );
    }

    #[test]
    fn updates_keep_what_was_given_and_types_drop_it() {
        let make = |spec: Value| -> Service {
            let mut service =
                serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).expect("a service");
            super::service(&mut service);
            service
        };
        let old = make(
            json!({"type": "NodePort", "clusterIP": "10.96.0.9", "ports": [{"port": 80, "nodePort": 30001}]}),
        );
        let mut new = make(json!({"type": "NodePort", "ports": [{"port": 80}, {"port": 81, "name": "b"}]}));
        patch_allocated(&mut new, &old);
        let spec = new.spec.clone().expect("a spec");
        assert_eq!(spec.cluster_ips, Some(vec!["10.96.0.9".to_owned()]));
        assert_eq!(spec.ports.expect("ports")[0].node_port, Some(30001));
        let mut new = old.clone();
        new.spec.as_mut().expect("a spec").type_ = Some("ClusterIP".to_owned());
        drop_for_type(&mut new, &old);
        let spec = new.spec.expect("a spec");
        assert_eq!(
            (
                spec.ports.expect("ports")[0].node_port,
                spec.external_traffic_policy
            ),
            (None, None)
        );
        assert_eq!(spec.cluster_ip.as_deref(), Some("10.96.0.9"));
    }
}
