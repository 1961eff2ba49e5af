//! IPAddresses: which object an address belongs to.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{IPAddress, ParentReference};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, NameRule, RequestContext, ResourceInfo, Scope, Strategy};

/// The kind's strategy.
pub struct IpAddressKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "networking.k8s.io",
    kind: "IPAddress",
    plural: "ipaddresses",
    singular: "ipaddress",
    short_names: &["ip"],
    scope: Scope::Cluster,
    storage_prefix: "ipaddresses",
    // An IPv6 address has colons.
    name_rule: NameRule::PathSegment,
    ..ResourceInfo::base()
};

impl Strategy for IpAddressKind {
    type Object = IPAddress;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, address: &IPAddress) -> Errors {
        let mut errors = Errors::new();
        let at = Loc::new("metadata.name");
        let name = address.name();
        match validation::parse_ip(name) {
            None => errors.push(at.invalid(
                name,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            )),
            Some(ip) if ip.to_string() != name => {
                let detail = format!("must be in canonical form (\"{ip}\")");
                errors.push(at.invalid(name, detail));
            }
            Some(_) => {}
        }
        parent(&mut errors, &Loc::new("spec.parentRef"), &address.spec.parent_ref);
        errors
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &IPAddress, old: &IPAddress) -> Errors {
        let mut errors = Errors::new();
        let at = Loc::new("spec.parentRef");
        rules::immutable(&mut errors, &at, &new.spec.parent_ref, &old.spec.parent_ref);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("ParentRef", "The object the address belongs to."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, address: &IPAddress, now: Timestamp) -> Vec<Value> {
        let parent = &address.spec.parent_ref;
        let mut text = parent.resource.to_lowercase();
        for (separator, part) in [('.', &parent.group), ('/', &parent.namespace)] {
            if let Some(part) = part.as_deref().filter(|part| !part.is_empty()) {
                text.push(separator);
                text.push_str(part);
            }
        }
        vec![
            cells::name(&address.metadata),
            format!("{text}/{}", parent.name).into(),
            cells::age(&address.metadata, now),
        ]
    }
}

fn parent(errors: &mut Errors, at: &Loc<'_>, parent: &ParentReference) {
    let segment = |errors: &mut Errors, field: &'static str, value: &str| {
        rules::complain(errors, &at.child(field), value, validation::path_segment(value));
    };
    if let Some(group) = parent.group.as_deref().filter(|group| !group.is_empty()) {
        rules::subdomain(errors, &at.child("group"), group);
    }
    for (field, value) in [("resource", &parent.resource), ("name", &parent.name)] {
        rules::not_empty(errors, &at.child(field), Some(value));
        segment(errors, field, value);
    }
    if let Some(namespace) = parent
        .namespace
        .as_deref()
        .filter(|namespace| !namespace.is_empty())
    {
        segment(errors, "namespace", namespace);
    }
}
