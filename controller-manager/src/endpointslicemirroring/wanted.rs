//! The endpoints of slices, from the subsets of an Endpoints object.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};

use crate::common::services::Family;
use crate::endpointslice::desired::Ports;

/// What slices should hold.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Endpoints by family and by the ports they serve.
    pub groups: BTreeMap<(Family, Ports), Vec<Endpoint>>,
    /// Addresses that are none.
    invalid: usize,
    /// Addresses beyond what is mirrored.
    skipped: usize,
}

impl Wanted {
    /// What could not be mirrored, as reasons and messages of events.
    pub fn complaints(&self, capacity: usize) -> Vec<(&'static str, String)> {
        let mut complaints = Vec::new();
        if self.invalid > 0 {
            let count = self.invalid;
            complaints.push((
                "InvalidIPAddress",
                format!("Skipped {count} invalid IP addresses when mirroring to EndpointSlices"),
            ));
        }
        if self.skipped > 0 {
            let count = self.skipped;
            complaints.push((
                "TooManyAddressesToMirror",
                format!(
                    "A max of {capacity} addresses can be mirrored to EndpointSlices per Endpoints subset. \
                     {count} addresses were skipped"
                ),
            ));
        }
        complaints
    }
}

/// What there should be for one object, no more than `capacity` addresses of each subset.
#[must_use]
pub fn wanted(endpoints: &Endpoints, capacity: usize) -> Wanted {
    let mut wanted = Wanted::default();
    for subset in endpoints.subsets.as_deref().unwrap_or_default() {
        let ports = ports(subset);
        let ready = subset.addresses.as_deref().unwrap_or_default().iter();
        let waiting = subset.not_ready_addresses.as_deref().unwrap_or_default().iter();
        let all = ready
            .map(|address| (address, true))
            .chain(waiting.map(|address| (address, false)));
        let mut count = 0;
        for (address, ready) in all {
            if count >= capacity {
                wanted.skipped += 1;
                continue;
            }
            let Some(family) = family(&address.ip) else {
                wanted.invalid += 1;
                continue;
            };
            count += 1;
            let group = wanted.groups.entry((family, ports.clone())).or_default();
            group.push(endpoint(address, ready));
        }
    }
    for group in wanted.groups.values_mut() {
        group.sort_by(|a, b| a.addresses.cmp(&b.addresses));
    }
    wanted
}

fn family(address: &str) -> Option<Family> {
    Some(match address.parse().ok()? {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    })
}

fn ports(subset: &EndpointSubset) -> Ports {
    let ports = subset.ports.as_deref().unwrap_or_default().iter();
    let mut ports: Ports = ports
        .map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            let name = port.name.clone().unwrap_or_default();
            (name, protocol, Some(port.port), port.app_protocol.clone())
        })
        .collect();
    ports.sort();
    ports
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            ..EndpointConditions::default()
        }),
        hostname: address.hostname.clone().filter(|name| !name.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}
