//! The rules for services.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use keelson_api::field::Errors;
use keelson_api::validation::{self, dns1123_subdomain};

use super::defaults::{externally_accessible, is_headless, needs_cluster_ip, needs_health_check};
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

const AFFINITY_SECONDS_MAX: i32 = 86400;
const ONLY_BALANCED: &str = "may only be used when `type` is 'LoadBalancer'";
const SET_ONCE: &str = "may not change once set";

/// A service that is to be written.
pub fn service(service: &Service) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &service.spec else {
        return vec![at.required("")];
    };
    let kind = spec.type_.as_deref().unwrap_or("");
    let ports = spec.ports.as_deref().unwrap_or(&[]);
    let headless = is_headless(spec);
    if ports.is_empty() && !headless && kind != "ExternalName" {
        errors.push(at.child("ports").required(""));
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.push(at.child("clusterIPs").index(0).invalid("None", detail));
        }
        "ExternalName" => external_name(&mut errors, &at, spec),
        _ => {}
    }
    for (i, port) in ports.iter().enumerate() {
        let all = at.child("ports");
        service_port(&mut errors, &all.index(i), port, &ports[..i], ports.len() > 1);
    }
    if let Some(selector) = &spec.selector {
        rules::labels(&mut errors, &at.child("selector"), selector);
    }
    affinity(&mut errors, &at, spec);
    cluster_addresses(&mut errors, &at, spec);
    for (i, ip) in spec.external_ips.iter().flatten().enumerate() {
        let all = at.child("externalIPs");
        rules::not_special_ip(&mut errors, &all.index(i), ip);
    }
    rules::one_of(
        &mut errors,
        &at.child("type"),
        spec.type_.as_deref(),
        &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
    );
    port_conflicts(&mut errors, &at.child("ports"), kind, ports);
    balancer(&mut errors, &at, spec, kind);
    traffic(&mut errors, &at, spec);
    errors
}

fn external_name(errors: &mut Errors, at: &Loc<'_>, spec: &ServiceSpec) {
    const DETAIL: &str = "may not be set for ExternalName services";
    for (field, set) in [
        (
            "clusterIPs",
            spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
        ),
        (
            "ipFamilies",
            spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()),
        ),
        ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
    ] {
        if set {
            errors.push(at.child(field).forbidden(DETAIL));
        }
    }
    let name = spec.external_name.as_deref().unwrap_or("");
    let name = name.strip_suffix('.').unwrap_or(name);
    let at = at.child("externalName");
    if name.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::complain(errors, &at, name, dns1123_subdomain(name));
    }
}

fn service_port(errors: &mut Errors, at: &Loc<'_>, port: &ServicePort, before: &[ServicePort], named: bool) {
    let name = port.name.as_deref().unwrap_or("");
    if name.is_empty() {
        if named {
            errors.push(at.child("name").required(""));
        }
    } else {
        rules::label(errors, &at.child("name"), name);
        if before.iter().any(|p| p.name.as_deref() == Some(name)) {
            errors.push(at.child("name").duplicate(name));
        }
    }
    rules::port(errors, &at.child("port"), port.port);
    rules::one_of(
        errors,
        &at.child("protocol"),
        port.protocol.as_deref(),
        &["SCTP", "TCP", "UDP"],
    );
    if let Some(target) = &port.target_port {
        rules::port_or_name(errors, &at.child("targetPort"), target);
    }
    if let Some(protocol) = &port.app_protocol {
        rules::qualified_name(errors, &at.child("appProtocol"), protocol);
    }
}

fn port_conflicts(errors: &mut Errors, at: &Loc<'_>, kind: &str, ports: &[ServicePort]) {
    for (i, port) in ports.iter().enumerate() {
        let at = at.index(i);
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 {
            if matches!(kind, "ClusterIP" | "ExternalName") {
                let detail = format!("may not be used when `type` is '{kind}'");
                errors.push(at.child("nodePort").forbidden(detail));
            }
            if ports[..i]
                .iter()
                .any(|p| p.protocol == port.protocol && p.node_port == port.node_port)
            {
                errors.push(at.child("nodePort").duplicate(node_port));
            }
        }
        if ports[..i]
            .iter()
            .any(|p| p.protocol == port.protocol && p.port == port.port)
        {
            let shown = serde_json::json!({"protocol": port.protocol, "port": port.port});
            errors.push(at.duplicate(shown));
        }
    }
}

fn affinity(errors: &mut Errors, at: &Loc<'_>, spec: &ServiceSpec) {
    let affinity = spec.session_affinity.as_deref();
    rules::one_of(
        errors,
        &at.child("sessionAffinity"),
        affinity,
        &["ClientIP", "None"],
    );
    let at = at.child("sessionAffinityConfig");
    match (affinity, &spec.session_affinity_config) {
        (Some("ClientIP"), config) => {
            let seconds = config
                .as_ref()
                .and_then(|c| c.client_ip.as_ref())
                .and_then(|c| c.timeout_seconds);
            match seconds {
                None => {
                    errors.push(at.required("when session affinity type is ClientIP"));
                }
                Some(seconds) if seconds <= 0 || seconds > AFFINITY_SECONDS_MAX => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                    errors.push(at.child("clientIP.timeoutSeconds").invalid(seconds, detail));
                }
                Some(_) => {}
            }
        }
        (Some("None"), Some(_)) => {
            errors.push(at.forbidden("must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn cluster_addresses(errors: &mut Errors, at: &Loc<'_>, spec: &ServiceSpec) {
    if !needs_cluster_ip(spec) {
        return;
    }
    let addresses = spec.cluster_ips.as_deref().unwrap_or(&[]);
    let all = at.child("clusterIPs");
    if let Some(one) = spec.cluster_ip.as_deref()
        && addresses.first().is_some_and(|first| first != one)
    {
        errors.push(all.invalid(rules::shown(&addresses), "first value must match `clusterIP`"));
    }
    if addresses.len() > 2 {
        errors.push(all.invalid(rules::shown(&addresses), "may only hold up to 2 values"));
    }
    for (i, address) in addresses.iter().enumerate() {
        if address == "None" {
            if addresses.len() > 1 {
                let detail = "'None' must be the first and only value";
                errors.push(all.invalid(rules::shown(&addresses), detail));
            }
        } else {
            rules::ip(errors, &all.index(i), address);
        }
    }
    let families = spec.ip_families.as_deref().unwrap_or(&[]);
    let at_families = at.child("ipFamilies");
    if families.len() > 2 {
        errors.push(at_families.invalid(rules::shown(&families), "may only hold up to 2 values"));
    }
    for (i, family) in families.iter().enumerate() {
        rules::optional_one_of(errors, &at_families.index(i), Some(family), &["IPv4", "IPv6"]);
        if families[..i].contains(family) {
            errors.push(at_families.index(i).duplicate(family.as_str()));
        }
        if let Some(address) = addresses.get(i).and_then(|a| validation::parse_ip(a)) {
            let fits = address.is_ipv4() == (family == "IPv4");
            if !fits {
                let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
                errors.push(all.index(i).invalid(addresses[i].as_str(), detail));
            }
        }
    }
    rules::optional_one_of(
        errors,
        &at.child("ipFamilyPolicy"),
        spec.ip_family_policy.as_deref(),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    if spec.ip_family_policy.as_deref() == Some("SingleStack") && addresses.len() > 1 {
        let detail = "must be RequireDualStack or PreferDualStack when multiple 'clusterIPs' are specified";
        errors.push(at.child("ipFamilyPolicy").invalid("SingleStack", detail));
    }
}

fn balancer(errors: &mut Errors, at: &Loc<'_>, spec: &ServiceSpec, kind: &str) {
    let balanced = kind == "LoadBalancer";
    let ranges = spec.load_balancer_source_ranges.as_deref().unwrap_or(&[]);
    if !ranges.is_empty() {
        let at = at.child("loadBalancerSourceRanges");
        if !balanced {
            errors.push(at.forbidden(ONLY_BALANCED));
        }
        for (i, range) in ranges.iter().enumerate() {
            if validation::parse_cidr(range.trim()).is_none() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(at.index(i).invalid(range.as_str(), detail));
            }
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && !balanced {
        errors.push(at.child("allocateLoadBalancerNodePorts").forbidden(ONLY_BALANCED));
    }
    if balanced && spec.allocate_load_balancer_node_ports.is_none() {
        errors.push(at.child("allocateLoadBalancerNodePorts").required(""));
    }
    if let Some(class) = &spec.load_balancer_class {
        let at = at.child("loadBalancerClass");
        if balanced {
            rules::qualified_name(errors, &at, class);
        } else {
            errors.push(at.forbidden(ONLY_BALANCED));
        }
    }
}

fn traffic(errors: &mut Errors, at: &Loc<'_>, spec: &ServiceSpec) {
    let policy = spec.external_traffic_policy.as_deref();
    let at_policy = at.child("externalTrafficPolicy");
    if externally_accessible(spec) {
        rules::one_of(errors, &at_policy, policy, &["Cluster", "Local"]);
    } else if let Some(policy) = policy {
        errors.push(at_policy.invalid(policy, "may only be set for externally-accessible services"));
    }
    let port = spec.health_check_node_port.unwrap_or(0);
    let at_port = at.child("healthCheckNodePort");
    if port != 0 && !needs_health_check(spec) {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(at_port.invalid(port, detail));
    } else if port != 0 {
        rules::port(errors, &at_port, port);
    }
    if needs_cluster_ip(spec) {
        rules::one_of(
            errors,
            &at.child("internalTrafficPolicy"),
            spec.internal_traffic_policy.as_deref(),
            &["Cluster", "Local"],
        );
    }
    rules::optional_one_of(
        errors,
        &at.child("trafficDistribution"),
        spec.traffic_distribution.as_deref(),
        &["PreferClose", "PreferSameNode", "PreferSameZone"],
    );
}

/// A change of a service.
pub fn update(new: &Service, old: &Service) -> Errors {
    let mut errors = Errors::new();
    if let (Some(new), Some(old)) = (&new.spec, &old.spec)
        && needs_cluster_ip(new)
        && needs_cluster_ip(old)
    {
        addresses_kept(&mut errors, new, old);
    }
    errors.extend(service(new));
    errors
}

fn addresses_kept(errors: &mut Errors, new: &ServiceSpec, old: &ServiceSpec) {
    let all = Loc::new("spec.clusterIPs");
    let now = new.cluster_ips.as_deref().unwrap_or(&[]);
    let before = old.cluster_ips.as_deref().unwrap_or(&[]);
    if now.is_empty() && !before.is_empty() {
        errors.push(
            all.index(0)
                .invalid(rules::shown(&now), "primary clusterIP can not be unset"),
        );
        return;
    }
    for (i, (now_one, before_one)) in now.iter().zip(before).enumerate() {
        if now_one != before_one {
            errors.push(all.index(i).invalid(rules::shown(&now), SET_ONCE));
        }
    }
    if before.len() > now.len() && new.ip_family_policy.as_deref() != Some("SingleStack") {
        let detail = "`ipFamilyPolicy` must be set to 'SingleStack' when releasing the secondary clusterIP";
        errors.push(Loc::new("spec.ipFamilyPolicy").invalid(rules::shown(&new.ip_family_policy), detail));
    }
    let families = |spec: &ServiceSpec| spec.ip_families.as_ref().and_then(|f| f.first().cloned());
    if let (Some(now), Some(before)) = (families(new), families(old))
        && now != before
        && !is_headless(new)
    {
        errors.push(
            Loc::new("spec.ipFamilies")
                .index(0)
                .invalid(rules::shown(&new.ip_families), SET_ONCE),
        );
    }
    if old.load_balancer_class.is_some()
        && new.type_ == old.type_
        && new.load_balancer_class != old.load_balancer_class
    {
        let at = Loc::new("spec.loadBalancerClass");
        errors.push(at.invalid(rules::shown(&new.load_balancer_class), SET_ONCE));
    }
}

/// A service's status.
pub fn status(service: &Service) -> Errors {
    let mut errors = Errors::new();
    let balancer = service.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let ingress = balancer.and_then(|b| b.ingress.as_deref()).unwrap_or(&[]);
    let all = Loc::new("status.loadBalancer.ingress");
    let balanced = service.spec.as_ref().and_then(|s| s.type_.as_deref()) == Some("LoadBalancer");
    if !balanced && !ingress.is_empty() {
        let detail = "may only be used when `spec.type` is LoadBalancer";
        errors.push(all.forbidden(detail));
    }
    for (i, ingress) in ingress.iter().enumerate() {
        let at = all.index(i);
        if let Some(ip) = ingress.ip.as_deref()
            && !ip.is_empty()
        {
            rules::ip(&mut errors, &at.child("ip"), ip);
        }
        if let Some(name) = ingress.hostname.as_deref()
            && !name.is_empty()
        {
            rules::subdomain(&mut errors, &at.child("hostname"), name);
        }
    }
    errors
}
