//! ResourceSlices: devices a driver offers, on a node or beyond.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute, ResourceSlice, ResourceSliceSpec};
use keelson_api::field::Errors;
use serde_json::Value;

use super::claim;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, Fields, OtherFields, RequestContext, ResourceInfo, Scope, Strategy};

const DEVICES_MAX: usize = 128;
const ATTRIBUTES_MAX: usize = 32;
const POOL_NAME_MAX: usize = 253;
const VALUE_MAX: usize = 64;

/// The kind's strategy.
pub struct ResourceSliceKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "resource.k8s.io",
    kind: "ResourceSlice",
    plural: "resourceslices",
    singular: "resourceslice",
    scope: Scope::Cluster,
    storage_prefix: "resourceslices",
    selectable_fields: &["spec.nodeName", "spec.driver"],
    other_fields: OtherFields::NotSupportedForVersion,
    ..ResourceInfo::base()
};

impl Strategy for ResourceSliceKind {
    type Object = ResourceSlice;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, slice: &mut ResourceSlice) {
        meta::first_generation(&mut slice.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut ResourceSlice, old: &ResourceSlice) {
        let spec = Spec::compare(&new.spec, &old.spec);
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, slice: &ResourceSlice) -> Errors {
        validate(&slice.spec)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ResourceSlice, old: &ResourceSlice) -> Errors {
        let mut errors = validate(&new.spec);
        let at = Loc::new("spec");
        let (new, old) = (&new.spec, &old.spec);
        rules::immutable(&mut errors, &at.child("nodeName"), &new.node_name, &old.node_name);
        rules::immutable(&mut errors, &at.child("driver"), &new.driver, &old.driver);
        rules::immutable(
            &mut errors,
            &at.child("pool.name"),
            &new.pool.name,
            &old.pool.name,
        );
        errors
    }

    fn selectable_fields(&self, slice: &ResourceSlice) -> Fields {
        vec![
            ("spec.nodeName", slice.spec.node_name.clone().unwrap_or_default()),
            ("spec.driver", slice.spec.driver.clone()),
        ]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Node", "The node the devices are on."),
            Column::new("Driver", "The driver that offers them."),
            Column::new("Pool", "The pool they belong to."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, slice: &ResourceSlice, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&slice.metadata),
            slice.spec.node_name.as_deref().unwrap_or("").into(),
            slice.spec.driver.as_str().into(),
            slice.spec.pool.name.as_str().into(),
            cells::age(&slice.metadata, now),
        ]
    }
}

fn validate(spec: &ResourceSliceSpec) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    claim::driver(&mut errors, &at.child("driver"), &spec.driver);
    let at_pool = at.child("pool");
    let pool = &spec.pool;
    let at_name = at_pool.child("name");
    if pool.name.is_empty() {
        errors.push(at_name.required(""));
    } else if pool.name.len() > POOL_NAME_MAX {
        errors.push(at_name.too_long(POOL_NAME_MAX));
    } else {
        for part in pool.name.split('/') {
            rules::subdomain(&mut errors, &at_name, part);
        }
    }
    if pool.resource_slice_count <= 0 {
        let detail = "must be greater than zero";
        errors.push(
            at_pool
                .child("resourceSliceCount")
                .invalid(pool.resource_slice_count, detail),
        );
    }
    rules::not_negative(&mut errors, &at_pool.child("generation"), Some(pool.generation));
    let choices = [
        spec.node_name.as_ref().is_some_and(|name| !name.is_empty()),
        spec.node_selector.is_some(),
        spec.all_nodes == Some(true),
        spec.per_device_node_selection == Some(true),
    ];
    match choices.iter().filter(|chosen| **chosen).count() {
        1 => {}
        0 => {
            let detail =
                "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
            errors.push(at.required(detail));
        }
        _ => {
            let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is \
                          required, but multiple fields are set";
            errors.push(at.invalid("", detail));
        }
    }
    let devices = spec.devices.as_deref().unwrap_or(&[]);
    let at_devices = at.child("devices");
    if devices.len() > DEVICES_MAX {
        errors.push(at_devices.too_many(devices.len(), DEVICES_MAX));
    }
    for (i, device) in devices.iter().enumerate() {
        let at = at_devices.index(i);
        if device.name.is_empty() {
            errors.push(at.child("name").required(""));
        } else {
            rules::label(&mut errors, &at.child("name"), &device.name);
        }
        if devices[..i].iter().any(|other| other.name == device.name) {
            errors.push(at.child("name").duplicate(device.name.as_str()));
        }
        validate_device(&mut errors, &at, device);
    }
    errors
}

fn validate_device(errors: &mut Errors, at: &Loc<'_>, device: &Device) {
    let attributes = device.attributes.iter().flatten();
    let capacity = device.capacity.iter().flatten();
    let count =
        device.attributes.as_ref().map_or(0, |a| a.len()) + device.capacity.as_ref().map_or(0, |c| c.len());
    if count > ATTRIBUTES_MAX {
        let detail =
            format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errors.push(at.invalid(i64::try_from(count).unwrap_or(i64::MAX), detail));
    }
    let at_attributes = at.child("attributes");
    for (name, attribute) in attributes {
        validate_attribute(errors, &at_attributes.key(name), attribute);
    }
    let at_capacity = at.child("capacity");
    for (name, capacity) in capacity {
        rules::quantity(errors, &at_capacity.key(name).child("value"), &capacity.value);
    }
    let at_taints = at.child("taints");
    for (i, taint) in device.taints.iter().flatten().enumerate() {
        let at = at_taints.index(i);
        rules::qualified_name(errors, &at.child("key"), &taint.key);
        rules::one_of(
            errors,
            &at.child("effect"),
            Some(&taint.effect),
            &["NoExecute", "NoSchedule", "None"],
        );
    }
}

fn validate_attribute(errors: &mut Errors, at: &Loc<'_>, attribute: &DeviceAttribute) {
    let given = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        1 => {}
        0 => errors.push(at.required("exactly one value must be specified")),
        _ => errors.push(at.invalid(rules::shown(attribute), "exactly one value must be specified")),
    }
    for (field, value) in [("string", &attribute.string), ("version", &attribute.version)] {
        if value.as_ref().is_some_and(|value| value.len() > VALUE_MAX) {
            errors.push(at.child(field).too_long(VALUE_MAX));
        }
    }
}
