//! EndpointSlices: a part of what is behind a service.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::core::endpoints::SHOWN_MAX;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const HINTS_MAX: usize = 8;

/// The kind's strategy.
pub struct EndpointSliceKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    storage_prefix: "endpointslices",
    ..ResourceInfo::base()
};

impl Strategy for EndpointSliceKind {
    type Object = EndpointSlice;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, slice: &mut EndpointSlice) {
        for port in slice.ports.iter_mut().flatten() {
            port.name.get_or_insert_with(String::new);
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, slice: &mut EndpointSlice) {
        meta::first_generation(&mut slice.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut EndpointSlice, old: &EndpointSlice) {
        let same = new.endpoints == old.endpoints
            && new.ports == old.ports
            && new.address_type == old.address_type
            && new.metadata.labels == old.metadata.labels;
        let spec = if same { Spec::Same } else { Spec::Changed };
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, slice: &EndpointSlice) -> Errors {
        validate(slice)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &EndpointSlice, old: &EndpointSlice) -> Errors {
        let mut errors = validate(new);
        rules::immutable(
            &mut errors,
            &Loc::new("addressType"),
            &new.address_type,
            &old.address_type,
        );
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("AddressType", "What sort of addresses the slice holds."),
            Column::new("Ports", "The ports of every endpoint."),
            Column::new("Endpoints", "The addresses of the endpoints."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, slice: &EndpointSlice, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&slice.metadata),
            slice.address_type.as_str().into(),
            format_ports(slice.ports.as_deref().unwrap_or(&[])).into(),
            format_endpoints(slice.endpoints.as_deref().unwrap_or(&[])).into(),
            cells::age(&slice.metadata, now),
        ]
    }
}

const UNSET: &str = "<unset>";

fn format_ports(ports: &[EndpointPort]) -> String {
    let shown: Vec<String> = ports
        .iter()
        .take(SHOWN_MAX)
        .map(|port| match (port.port, port.name.as_deref()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    shorten(shown, ports.len())
}

fn format_endpoints(endpoints: &[Endpoint]) -> String {
    let addresses = || endpoints.iter().flat_map(|e| e.addresses.iter());
    let shown: Vec<String> = addresses().take(SHOWN_MAX).cloned().collect();
    shorten(shown, addresses().count())
}

fn shorten(shown: Vec<String>, count: usize) -> String {
    let list = shown.join(",");
    match count - shown.len() {
        0 if list.is_empty() => UNSET.to_owned(),
        0 => list,
        more => format!("{list} + {more} more..."),
    }
}

fn validate(slice: &EndpointSlice) -> Errors {
    let mut errors = Errors::new();
    rules::one_of(
        &mut errors,
        &Loc::new("addressType"),
        Some(&slice.address_type),
        &["FQDN", "IPv4", "IPv6"],
    );
    endpoints(&mut errors, slice);
    ports(&mut errors, slice.ports.as_deref().unwrap_or(&[]));
    errors
}

fn endpoints(errors: &mut Errors, slice: &EndpointSlice) {
    let endpoints = slice.endpoints.as_deref().unwrap_or(&[]);
    let all = Loc::new("endpoints");
    if endpoints.len() > ENDPOINTS_MAX {
        errors.push(all.too_many(endpoints.len(), ENDPOINTS_MAX));
        return;
    }
    for (i, endpoint) in endpoints.iter().enumerate() {
        let at = all.index(i);
        let at_addresses = at.child("addresses");
        if endpoint.addresses.is_empty() {
            errors.push(at_addresses.required("must contain at least 1 address"));
        } else if endpoint.addresses.len() > ADDRESSES_MAX {
            errors.push(at_addresses.too_many(endpoint.addresses.len(), ADDRESSES_MAX));
        }
        for (j, address) in endpoint.addresses.iter().enumerate() {
            self::address(errors, &at_addresses.index(j), &slice.address_type, address);
        }
        if let Some(node) = &endpoint.node_name {
            rules::subdomain(errors, &at.child("nodeName"), node);
        }
        if let Some(name) = &endpoint.hostname {
            rules::label(errors, &at.child("hostname"), name);
        }
        if let Some(topology) = &endpoint.deprecated_topology {
            rules::labels(errors, &at.child("deprecatedTopology"), topology);
        }
        let zones = endpoint.hints.iter().flat_map(|h| h.for_zones.iter().flatten());
        let zones: Vec<_> = zones.collect();
        let at_zones = at.child("hints.forZones");
        if zones.len() > HINTS_MAX {
            errors.push(at_zones.too_many(zones.len(), HINTS_MAX));
        }
        for (j, zone) in zones.iter().enumerate() {
            if zone.name.is_empty() {
                errors.push(at_zones.index(j).child("name").required(""));
            } else if zones[..j].iter().any(|z| z.name == zone.name) {
                errors.push(at_zones.index(j).child("name").duplicate(zone.name.as_str()));
            } else {
                let complaints = validation::label_value(&zone.name);
                rules::complain(errors, &at_zones.index(j).child("name"), &zone.name, complaints);
            }
        }
    }
}

fn address(errors: &mut Errors, at: &Loc<'_>, kind: &str, address: &str) {
    match kind {
        "IPv4" | "IPv6" => match validation::parse_ip(address) {
            Some(ip) if ip.to_canonical().is_ipv4() == (kind == "IPv4") => {
                rules::not_special_ip(errors, at, address)
            }
            Some(_) => errors.push(at.invalid(address, format!("must be a valid {kind} address"))),
            None => rules::ip(errors, at, address),
        },
        "FQDN" => rules::complain(errors, at, address, validation::dns1123_subdomain(address)),
        _ => {}
    }
}

fn ports(errors: &mut Errors, ports: &[EndpointPort]) {
    let all = Loc::new("ports");
    if ports.len() > PORTS_MAX {
        errors.push(all.too_many(ports.len(), PORTS_MAX));
        return;
    }
    for (i, port) in ports.iter().enumerate() {
        let at = all.index(i);
        let name = port.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            rules::label(errors, &at.child("name"), name);
        }
        if ports[..i].iter().any(|p| p.name.as_deref().unwrap_or("") == name) {
            errors.push(at.child("name").duplicate(name));
        }
        if let Some(number) = port.port
            && number != 0
        {
            rules::port(errors, &at.child("port"), number);
        }
        rules::one_of(
            errors,
            &at.child("protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
        if let Some(protocol) = &port.app_protocol {
            rules::qualified_name(errors, &at.child("appProtocol"), protocol);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_endpoints_are_summed_up() {
        let endpoint = |n: u8| Endpoint {
            addresses: vec![format!("10.0.0.{n}")],
            ..Endpoint::default()
        };
        assert_eq!(format_endpoints(&[]), "<unset>");
        assert_eq!(format_endpoints(&[endpoint(1), endpoint(2)]), "10.0.0.1,10.0.0.2");
        let five: Vec<Endpoint> = (1..=5).map(endpoint).collect();
        assert_eq!(format_endpoints(&five), "10.0.0.1,10.0.0.2,10.0.0.3 + 2 more...");
        assert_eq!(
            format_ports(&[
                EndpointPort {
                    port: Some(80),
                    ..Default::default()
                },
                EndpointPort::default()
            ]),
            "80,*"
        );
    }

    #[test]
    fn addresses_fit_their_type() {
        let slice = |kind: &str, address: &str| EndpointSlice {
            address_type: kind.to_owned(),
            endpoints: Some(vec![Endpoint {
                addresses: vec![address.to_owned()],
                ..Endpoint::default()
            }]),
            ..EndpointSlice::default()
        };
        let texts =
            |s: EndpointSlice| -> Vec<String> { validate(&s).iter().map(ToString::to_string).collect() };
        assert!(texts(slice("IPv4", "10.0.0.1")).is_empty());
        assert_eq!(
            texts(slice("IPv4", "127.0.0.1")),
            [
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ]
        );
        assert_eq!(
            texts(slice("IPv4", "::ffff:127.0.0.1")),
            [
                "endpoints[0].addresses[0]: Invalid value: \"::ffff:127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
            ]
        );
        for address in ["10.0.0.1", "::ffff:10.0.0.1"] {
            assert_eq!(texts(slice("IPv6", address)).len(), 1);
        }
        assert_eq!(texts(slice("", "x")), ["addressType: Required value"]);
    }
}
