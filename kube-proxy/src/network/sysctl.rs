//! Kernel settings without which pods and services have no network.

use ipnet::IpNet;

/// Each setting, and why.
const IPV4: [(&str, &str); 2] = [
    // Pods' traffic is routed through the node.
    ("net/ipv4/ip_forward", "1"),
    // Node ports answer on 127.0.0.1; rules drop what comes to it from outside.
    ("net/ipv4/conf/all/route_localnet", "1"),
];
const IPV6: [(&str, &str); 1] = [("net/ipv6/conf/all/forwarding", "1")];

/// Sets what is not set. A setting that cannot be made is reported: what depends on it will not work.
pub fn apply(cluster_cidrs: &[IpNet]) {
    let v6 = cluster_cidrs.iter().any(|range| range.addr().is_ipv6());
    for (name, value) in IPV4.iter().chain(IPV6.iter().filter(|_| v6)) {
        let path = format!("/proc/sys/{name}");
        if std::fs::read_to_string(&path).is_ok_and(|present| present.trim() == *value) {
            continue;
        }
        match std::fs::write(&path, value) {
            Ok(()) => tracing::info!(setting = name, value, "kernel setting changed"),
            Err(error) => tracing::error!(setting = name, value, %error, "kernel setting cannot be changed"),
        }
    }
}
