//! The node's pod network: what the container runtime does for each pod, the ways to other nodes' pods, and the
//! kernel settings that both need.
//!
//! Every pod hangs on the node by a wire of its own (the `ptp` plugin): all its traffic is routed, none is bridged.
//! So service rules and policies see traffic between two pods of one node as well, without the kernel's bridge
//! netfilter, and nothing on the wire floods to other pods.

pub mod cni;
pub mod routes;
mod sysctl;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use keelson_api::object::Object;

pub use sysctl::apply as apply_kernel_settings;

/// What the pod network needs to know of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Nodes {
    /// This node's pod ranges.
    pub own_ranges: Vec<IpNet>,
    /// This node's addresses.
    pub own_addresses: Vec<IpAddr>,
    /// Other nodes' pod ranges, each with the way to it.
    pub others: Vec<(IpNet, IpAddr)>,
}

impl Nodes {
    /// Reads it from the nodes' objects.
    #[must_use]
    pub fn collect(nodes: &[Arc<Node>], own_name: &str) -> Self {
        let mut found = Self::default();
        for node in nodes {
            let (ranges, addresses) = (pod_ranges(node), internal_addresses(node));
            if node.name() == own_name {
                found.own_ranges = ranges;
                found.own_addresses = addresses;
                continue;
            }
            found.others.extend(ranges.into_iter().filter_map(|range| {
                let same_family = |address: &&IpAddr| address.is_ipv6() == range.addr().is_ipv6();
                Some((range, *addresses.iter().find(same_family)?))
            }));
        }
        found.others.sort();
        found
    }
}

/// Whether a change of a node matters here; its heartbeats do not.
#[must_use]
pub fn differ(old: &Node, new: &Node) -> bool {
    pod_ranges(old) != pod_ranges(new) || internal_addresses(old) != internal_addresses(new)
}

fn pod_ranges(node: &Node) -> Vec<IpNet> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let texts: Vec<&String> = match &spec.pod_cidrs {
        Some(ranges) if !ranges.is_empty() => ranges.iter().collect(),
        _ => spec.pod_cidr.iter().collect(),
    };
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

fn internal_addresses(node: &Node) -> Vec<IpAddr> {
    let addresses = node
        .status
        .as_ref()
        .and_then(|status| status.addresses.as_deref())
        .unwrap_or_default();
    addresses
        .iter()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}
