//! CSINodes: the storage drivers of a node.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{CSINode, CSINodeDriver, CSINodeSpec};
use keelson_api::field::Errors;
use serde_json::Value;

use super::driver_name;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const NODE_ID_MAX: usize = 256;

/// The kind's strategy.
pub struct CsiNodeKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "CSINode",
    plural: "csinodes",
    singular: "csinode",
    scope: Scope::Cluster,
    storage_prefix: "csinodes",
    ..ResourceInfo::base()
};

impl Strategy for CsiNodeKind {
    type Object = CSINode;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, node: &CSINode) -> Errors {
        validate(&node.spec)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &CSINode, old: &CSINode) -> Errors {
        let mut errors = validate(&new.spec);
        // Drivers come and go, but one that stays stays as it is, save for how many volumes it can take.
        let fixed = |driver: &CSINodeDriver| CSINodeDriver {
            allocatable: None,
            ..driver.clone()
        };
        for driver in &new.spec.drivers {
            let before = old.spec.drivers.iter().find(|d| d.name == driver.name);
            if before.is_some_and(|before| fixed(before) != fixed(driver)) {
                errors.push(Loc::new("CSINodeDriver").invalid(rules::shown(driver), rules::IMMUTABLE));
            }
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Drivers", "How many drivers the node has.").of("integer"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, node: &CSINode, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&node.metadata),
            node.spec.drivers.len().into(),
            cells::age(&node.metadata, now),
        ]
    }
}

fn validate(spec: &CSINodeSpec) -> Errors {
    let mut errors = Errors::new();
    let at_drivers = Loc::new("spec.drivers");
    for (i, driver) in spec.drivers.iter().enumerate() {
        let at = at_drivers.index(i);
        driver_name(&mut errors, &at.child("name"), &driver.name);
        if spec.drivers[..i].iter().any(|other| other.name == driver.name) {
            errors.push(at.child("name").duplicate(driver.name.as_str()));
        }
        let at_id = at.child("nodeID");
        if driver.node_id.is_empty() {
            errors.push(at_id.required(""));
        } else if driver.node_id.len() > NODE_ID_MAX {
            let detail = format!("must be {NODE_ID_MAX} characters or less");
            errors.push(at_id.invalid(driver.node_id.as_str(), detail));
        }
        let count = driver.allocatable.as_ref().and_then(|a| a.count);
        rules::not_negative(&mut errors, &at.child("allocatable.count"), count);
        let at_keys = at.child("topologyKeys");
        let keys = driver.topology_keys.as_deref().unwrap_or(&[]);
        for (j, key) in keys.iter().enumerate() {
            if keys[..j].contains(key) {
                errors.push(at_keys.duplicate(key.as_str()));
            }
            rules::qualified_name(&mut errors, &at_keys, key);
        }
    }
    errors
}
