//! DeviceClasses: what kinds of devices there are to ask for.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::DeviceClass;
use keelson_api::field::Errors;
use serde_json::Value;

use super::claim;
use crate::registry::common::cells;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::core::pod::validation::resources;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const CONFIGS_MAX: usize = 32;

/// The kind's strategy.
pub struct DeviceClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "resource.k8s.io",
    kind: "DeviceClass",
    plural: "deviceclasses",
    singular: "deviceclass",
    scope: Scope::Cluster,
    storage_prefix: "deviceclasses",
    ..ResourceInfo::base()
};

impl Strategy for DeviceClassKind {
    type Object = DeviceClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, class: &mut DeviceClass) {
        meta::first_generation(&mut class.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut DeviceClass, old: &DeviceClass) {
        let spec = Spec::compare(&new.spec, &old.spec);
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &DeviceClass) -> Errors {
        validate(class)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &DeviceClass, _old: &DeviceClass) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &DeviceClass, now: Timestamp) -> Vec<Value> {
        vec![cells::name(&class.metadata), cells::age(&class.metadata, now)]
    }
}

fn validate(class: &DeviceClass) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let selectors = class.spec.selectors.as_deref().unwrap_or(&[]);
    claim::selectors(&mut errors, &at.child("selectors"), selectors);
    let configs = class.spec.config.as_deref().unwrap_or(&[]);
    let at_config = at.child("config");
    if configs.len() > CONFIGS_MAX {
        errors.push(at_config.too_many(configs.len(), CONFIGS_MAX));
    }
    for (i, config) in configs.iter().enumerate() {
        claim::configuration(&mut errors, &at_config.index(i), config.opaque.as_ref());
    }
    if let Some(name) = class.spec.extended_resource_name.as_deref() {
        resources::resource_name(&mut errors, &at.child("extendedResourceName"), name);
    }
    errors
}
