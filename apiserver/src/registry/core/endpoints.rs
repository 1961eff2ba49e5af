//! Endpoints: the older list of what is behind a service.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::defaults::{drop_empty, fill};
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// How many addresses a table shows before it says how many more there are.
pub const SHOWN_MAX: usize = 3;

/// The kind's strategy.
pub struct EndpointsStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Endpoints",
    plural: "endpoints",
    singular: "endpoints",
    short_names: &["ep"],
    storage_prefix: "services/endpoints",
    ..ResourceInfo::base()
};

impl Strategy for EndpointsStrategy {
    type Object = Endpoints;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, endpoints: &mut Endpoints) {
        for subset in endpoints.subsets.iter_mut().flatten() {
            for port in subset.ports.iter_mut().flatten() {
                fill(&mut port.protocol, "TCP");
                drop_empty(&mut port.name);
            }
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, endpoints: &Endpoints) -> Errors {
        validate(endpoints)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Endpoints, _old: &Endpoints) -> Errors {
        validate(new)
    }

    fn deprecation(&self) -> Option<&'static str> {
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Endpoints", "The addresses and ports behind the service."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, endpoints: &Endpoints, now: Timestamp) -> Vec<Value> {
        let list = format_subsets(endpoints.subsets.as_deref().unwrap_or(&[]));
        vec![
            cells::name(&endpoints.metadata),
            list.into(),
            cells::age(&endpoints.metadata, now),
        ]
    }
}

fn format_subsets(subsets: &[EndpointSubset]) -> String {
    if subsets.is_empty() {
        return cells::NONE.to_owned();
    }
    let mut shown: Vec<String> = Vec::new();
    let mut count = 0;
    let mut add = |text: &dyn Fn() -> String| {
        count += 1;
        if shown.len() < SHOWN_MAX {
            shown.push(text());
        }
    };
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or(&[]);
        let ports = subset.ports.as_deref().unwrap_or(&[]);
        if ports.is_empty() {
            addresses.iter().for_each(|address| add(&|| address.ip.clone()));
        }
        for port in ports {
            for address in addresses {
                add(&|| join_host_port(&address.ip, port.port));
            }
        }
    }
    let list = shown.join(",");
    if count > SHOWN_MAX {
        format!("{list} + {} more...", count - SHOWN_MAX)
    } else {
        list
    }
}

/// `1.2.3.4:80`, `[::1]:80`.
pub fn join_host_port(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn validate(endpoints: &Endpoints) -> Errors {
    let mut errors = Errors::new();
    let all = Loc::new("subsets");
    for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let at = all.index(i);
        let ready = subset.addresses.as_deref().unwrap_or(&[]);
        let not_ready = subset.not_ready_addresses.as_deref().unwrap_or(&[]);
        if ready.is_empty() && not_ready.is_empty() {
            errors.push(at.required("must specify `addresses` or `notReadyAddresses`"));
        }
        for (field, list) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            let at = at.child(field);
            for (j, address) in list.iter().enumerate() {
                self::address(&mut errors, &at.index(j), address);
            }
        }
        let ports = subset.ports.as_deref().unwrap_or(&[]);
        let at_ports = at.child("ports");
        for (j, port) in ports.iter().enumerate() {
            let at = at_ports.index(j);
            let name = port.name.as_deref().unwrap_or("");
            if name.is_empty() {
                if ports.len() > 1 {
                    errors.push(at.child("name").required(""));
                }
            } else {
                rules::label(&mut errors, &at.child("name"), name);
            }
            rules::port(&mut errors, &at.child("port"), port.port);
            rules::one_of(
                &mut errors,
                &at.child("protocol"),
                port.protocol.as_deref(),
                &["SCTP", "TCP", "UDP"],
            );
            if let Some(protocol) = &port.app_protocol {
                rules::qualified_name(&mut errors, &at.child("appProtocol"), protocol);
            }
        }
    }
    errors
}

fn address(errors: &mut Errors, at: &Loc<'_>, address: &EndpointAddress) {
    if validation::parse_ip(&address.ip).is_none() {
        rules::ip(errors, &at.child("ip"), &address.ip);
    } else {
        rules::not_special_ip(errors, &at.child("ip"), &address.ip);
    }
    if let Some(name) = address.hostname.as_deref()
        && !name.is_empty()
    {
        rules::label(errors, &at.child("hostname"), name);
    }
    if let Some(node) = &address.node_name {
        rules::subdomain(errors, &at.child("nodeName"), node);
    }
}
