//! Nodes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use keelson_api::field::Errors;
use keelson_api::{conditions, validation};
use serde_json::Value;

use super::pod::PROXY;
use super::pod::validation::{resources, scheduling};
use crate::registry::common::defaults::{drop_empty, drop_false, quantities};
use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{
    Column, Fields, OtherFields, RequestContext, ResourceInfo, Scope, Strategy, SubresourceForm,
    SubresourceInfo,
};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// The kind's strategy.
pub struct NodeStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Node",
    plural: "nodes",
    singular: "node",
    short_names: &["no"],
    scope: Scope::Cluster,
    storage_prefix: "minions",
    selectable_fields: &["spec.unschedulable"],
    other_fields: OtherFields::NotSupported,
    subresources: &[
        SubresourceInfo {
            name: "proxy",
            kind: "NodeProxyOptions",
            group: "",
            version: "v1",
            verbs: PROXY,
            form: SubresourceForm::Connect,
        },
        SubresourceInfo::status("", "v1", "Node"),
    ],
    ..ResourceInfo::base()
};

impl Strategy for NodeStrategy {
    type Object = Node;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, node: &mut Node) {
        let spec = node.spec.get_or_insert_default();
        drop_empty(&mut spec.pod_cidr);
        drop_empty(&mut spec.provider_id);
        drop_false(&mut spec.unschedulable);
        // The one range and the first of the list are the same thing; the list decides when both are given.
        match (&spec.pod_cidr, spec.pod_cidrs.as_ref().and_then(|c| c.first())) {
            (_, Some(first)) => spec.pod_cidr = Some(first.clone()),
            (Some(one), None) => spec.pod_cidrs = Some(vec![one.clone()]),
            (None, None) => {}
        }
        if let Some(status) = &mut node.status {
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
            for list in [&mut status.capacity, &mut status.allocatable]
                .into_iter()
                .flatten()
            {
                quantities(list);
            }
        }
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Node, old: &Node) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut Node, old: &Node) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, node: &Node) -> Errors {
        validate(node)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Node, old: &Node) -> Errors {
        let mut errors = validate(new);
        immutables(&mut errors, new, old);
        errors
    }

    fn validate_subresource_update(&self, _ctx: &RequestContext<'_>, new: &Node, _old: &Node) -> Errors {
        validate(new)
    }

    fn selectable_fields(&self, node: &Node) -> Fields {
        let unschedulable = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        vec![("spec.unschedulable", unschedulable.to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Status", "The status of the node"),
            Column::new("Roles", "The roles of the node"),
            Column::new("Age", "Time since the object was created."),
            Column::new("Version", "The version of the node's kubelet"),
            Column::new("Internal-IP", "The node's address inside the cluster").wide(),
            Column::new("External-IP", "The node's address outside of the cluster").wide(),
            Column::new("OS-Image", "The node's operating system").wide(),
            Column::new("Kernel-Version", "The node's kernel").wide(),
            Column::new(
                "Container-Runtime",
                "The node's container runtime and its version",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn cells(&self, node: &Node, now: Timestamp) -> Vec<Value> {
        let status = node.status.as_ref();
        let conditions = status.and_then(|s| s.conditions.as_ref());
        let mut words = match conditions::find(conditions, "Ready") {
            Some(ready) if ready.status == "True" => "Ready".to_owned(),
            Some(_) => "NotReady".to_owned(),
            None => "Unknown".to_owned(),
        };
        if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
            words.push_str(",SchedulingDisabled");
        }
        let address = |kind: &str| {
            let addresses = status.and_then(|s| s.addresses.as_deref()).unwrap_or(&[]);
            cells::or_none(
                addresses
                    .iter()
                    .find(|a| a.type_ == kind)
                    .map(|a| a.address.as_str()),
            )
        };
        let info = status.and_then(|s| s.node_info.as_ref());
        let known = |text: Option<&String>| match text {
            Some(text) if !text.is_empty() => Value::from(text.as_str()),
            _ => cells::UNKNOWN.into(),
        };
        vec![
            cells::name(&node.metadata),
            words.into(),
            roles(node).into(),
            cells::age(&node.metadata, now),
            info.map(|i| i.kubelet_version.as_str()).unwrap_or("").into(),
            address("InternalIP"),
            address("ExternalIP"),
            known(info.map(|i| &i.os_image)),
            known(info.map(|i| &i.kernel_version)),
            known(info.map(|i| &i.container_runtime_version)),
        ]
    }
}

fn roles(node: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.metadata.labels.as_ref().unwrap_or(&NONE) {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() {
        cells::NONE.to_owned()
    } else {
        roles.join(",")
    }
}

fn validate(node: &Node) -> Errors {
    let mut errors = Errors::new();
    if let Some(spec) = &node.spec {
        let at = Loc::new("spec");
        taints(
            &mut errors,
            &at.child("taints"),
            spec.taints.as_deref().unwrap_or(&[]),
        );
        let ranges = spec.pod_cidrs.as_deref().unwrap_or(&[]);
        let at_ranges = at.child("podCIDRs");
        for (i, range) in ranges.iter().enumerate() {
            if validation::parse_cidr(range).is_none() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(at_ranges.index(i).invalid(range.as_str(), detail));
            }
        }
        let v4 = ranges.iter().filter(|r| !r.contains(':')).count();
        if ranges.len() > 2 || (ranges.len() == 2 && v4 != 1) {
            let detail = "may specify no more than one CIDR for each IP family";
            errors.push(at_ranges.invalid(rules::shown(&ranges), detail));
        }
    }
    if let Some(status) = &node.status {
        let at = Loc::new("status");
        for (field, list) in [
            ("capacity", &status.capacity),
            ("allocatable", &status.allocatable),
        ] {
            let at = at.child(field);
            for (name, quantity) in list.iter().flatten() {
                resources::amount(&mut errors, &at.key(name), name, quantity);
            }
        }
        let addresses = status.addresses.as_deref().unwrap_or(&[]);
        for (i, address) in addresses.iter().enumerate() {
            if addresses[..i].contains(address) {
                let at = at.child("addresses");
                errors.push(at.index(i).duplicate(rules::shown(address)));
            }
        }
    }
    errors
}

fn taints(errors: &mut Errors, at: &Loc<'_>, taints: &[Taint]) {
    for (i, taint) in taints.iter().enumerate() {
        let at = at.index(i);
        rules::qualified_name(errors, &at.child("key"), &taint.key);
        let value = taint.value.as_deref().unwrap_or("");
        let complaints = validation::label_value(value);
        if !complaints.is_empty() {
            errors.push(at.child("value").invalid(value, complaints.join(";")));
        }
        if taint.effect.is_empty() {
            errors.push(at.child("effect").required(""));
        } else {
            scheduling::taint_effect(errors, &at.child("effect"), &taint.effect);
        }
        if taints[..i]
            .iter()
            .any(|t| t.key == taint.key && t.effect == taint.effect)
        {
            let mut error = at.duplicate(rules::shown(taint));
            error.detail = "taints must be unique by key and effect pair".into();
            errors.push(error);
        }
    }
}

fn immutables(errors: &mut Errors, new: &Node, old: &Node) {
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let at = Loc::new("spec");
    if old.pod_cidrs.as_ref().is_some_and(|c| !c.is_empty()) && new.pod_cidrs != old.pod_cidrs {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.push(at.child("podCIDRs").forbidden(detail));
    }
    if old.provider_id.as_ref().is_some_and(|id| !id.is_empty()) && new.provider_id != old.provider_id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.push(at.child("providerID").forbidden(detail));
    }
}
