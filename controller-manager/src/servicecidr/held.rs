//! Whether addresses would be without a range if one of them went.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use keelson_api::deletion::is_deleting;
use keelson_api::labels;
use keelson_api::object::Object as _;

/// Whether the range is the only one for an address that a service has.
#[must_use]
pub fn is_needed(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> bool {
    let mine = networks(range);
    let others: Vec<IpNet> = ranges
        .iter()
        .filter(|other| other.uid() != range.uid() && !is_deleting(&other.metadata))
        .flat_map(|other| networks(other))
        .collect();
    let within = |networks: &[IpNet], ip: &IpAddr| networks.iter().any(|network| network.contains(ip));
    addresses
        .iter()
        .filter(|address| is_service_s(address))
        .filter_map(|address| address.name().parse::<IpAddr>().ok())
        .any(|ip| within(&mine, &ip) && !within(&others, &ip))
}

fn is_service_s(address: &IPAddress) -> bool {
    let labels = address.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(labels::IP_ADDRESS_MANAGED_BY));
    manager.is_some_and(|manager| manager == labels::IP_ALLOCATOR)
}

fn networks(range: &ServiceCIDR) -> Vec<IpNet> {
    let cidrs = range.spec.as_ref().and_then(|spec| spec.cidrs.as_deref());
    cidrs
        .unwrap_or_default()
        .iter()
        .filter_map(|cidr| cidr.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn range(uid: &str, cidr: &str, metadata: &Value) -> Arc<ServiceCIDR> {
        let mut object = json!({"metadata": {"name": uid, "uid": uid}, "spec": {"cidrs": [cidr]}});
        if !metadata.is_null() {
            object["metadata"]["deletionTimestamp"] = metadata.clone();
        }
        Arc::new(serde_json::from_value(object).expect("a range"))
    }

    fn address(name: &str, manager: &str) -> Arc<IPAddress> {
        let object = json!({"metadata": {"name": name, "labels": {"ipaddress.kubernetes.io/managed-by": manager}},
            "spec": {"parentRef": {"resource": "services", "name": "s"}}});
        Arc::new(serde_json::from_value(object).expect("an address"))
    }

    #[test]
    fn a_range_is_needed_while_nobody_else_has_its_addresses() {
        let none = Value::Null;
        let small = range("small", "10.1.0.0/24", &none);
        let large = range("large", "10.1.0.0/16", &none);
        let going = range("large", "10.1.0.0/16", &json!("2026-01-01T00:00:00Z"));
        let taken = [address("10.1.0.9", "ipallocator.k8s.io")];
        let foreign = [
            address("10.1.0.9", "somebody"),
            address("10.2.0.9", "ipallocator.k8s.io"),
        ];
        assert!(is_needed(&small, std::slice::from_ref(&small), &taken));
        assert!(!is_needed(&small, std::slice::from_ref(&small), &foreign));
        assert!(!is_needed(&small, &[small.clone(), large], &taken));
        assert!(is_needed(&small, &[small.clone(), going], &taken));
    }
}
