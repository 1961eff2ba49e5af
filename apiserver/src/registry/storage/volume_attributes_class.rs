//! VolumeAttributesClasses: properties of volumes that may change while they are used.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use super::storage_class;
use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const DEFAULT_ANNOTATION: &str = "volumeattributesclass.alpha.kubernetes.io/is-default-class";

/// The kind's strategy.
pub struct VolumeAttributesClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "VolumeAttributesClass",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    short_names: &["vac"],
    scope: Scope::Cluster,
    storage_prefix: "volumeattributesclasses",
    ..ResourceInfo::base()
};

impl Strategy for VolumeAttributesClassKind {
    type Object = VolumeAttributesClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &VolumeAttributesClass) -> Errors {
        let mut errors = Errors::new();
        let at = Loc::new("driverName");
        if class.driver_name.is_empty() {
            errors.push(at.required(""));
        } else {
            let lower = class.driver_name.to_lowercase();
            rules::complain(
                &mut errors,
                &at,
                &class.driver_name,
                validation::qualified_name(&lower),
            );
        }
        let parameters = class.parameters.as_ref().unwrap_or(&NONE);
        let at = Loc::new("parameters");
        if parameters.is_empty() {
            errors.push(at.required("must contain at least one key/value pair"));
        }
        storage_class::parameters(&mut errors, &at, parameters);
        errors
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &VolumeAttributesClass,
        old: &VolumeAttributesClass,
    ) -> Errors {
        let mut errors = Errors::new();
        if new.driver_name != old.driver_name {
            errors.push(Loc::new("driverName").forbidden("updates to driverName are forbidden."));
        }
        if new.parameters != old.parameters {
            errors.push(Loc::new("parameters").forbidden("updates to parameters are forbidden."));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("DriverName", "The driver the class is for."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &VolumeAttributesClass, now: Timestamp) -> Vec<Value> {
        let mut name = class.metadata.name.clone().unwrap_or_default();
        let annotations = class.metadata.annotations.as_ref();
        if annotations
            .and_then(|all| all.get(DEFAULT_ANNOTATION))
            .is_some_and(|v| v == "true")
        {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            class.driver_name.as_str().into(),
            cells::age(&class.metadata, now),
        ]
    }
}
