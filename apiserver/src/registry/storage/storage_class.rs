//! StorageClasses.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::StorageClass;
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

/// Marks the class that claims without one get.
pub const DEFAULT_ANNOTATION: &str = "storageclass.kubernetes.io/is-default-class";
const OLD_DEFAULT_ANNOTATION: &str = "storageclass.beta.kubernetes.io/is-default-class";
const PARAMETERS_MAX: usize = 512;
const PARAMETERS_SIZE_MAX: usize = 256 * 1024;

/// The kind's strategy.
pub struct StorageClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    short_names: &["sc"],
    scope: Scope::Cluster,
    storage_prefix: "storageclasses",
    ..ResourceInfo::base()
};

impl Strategy for StorageClassKind {
    type Object = StorageClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, class: &mut StorageClass) {
        class.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
        class
            .volume_binding_mode
            .get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &StorageClass) -> Errors {
        validate(class)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &StorageClass, old: &StorageClass) -> Errors {
        let mut errors = Errors::new();
        if new.parameters != old.parameters {
            errors.push(Loc::new("parameters").forbidden("updates to parameters are forbidden."));
        }
        if new.provisioner != old.provisioner {
            errors.push(Loc::new("provisioner").forbidden("updates to provisioner are forbidden."));
        }
        if new.reclaim_policy != old.reclaim_policy {
            errors.push(Loc::new("reclaimPolicy").forbidden("updates to reclaimPolicy are forbidden."));
        }
        rules::immutable(
            &mut errors,
            &Loc::new("volumeBindingMode"),
            &new.volume_binding_mode,
            &old.volume_binding_mode,
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Provisioner", "Who makes volumes of the class."),
            Column::new("ReclaimPolicy", "What becomes of a volume when its claim goes."),
            Column::new("VolumeBindingMode", "When volumes are made and bound."),
            Column::new("AllowVolumeExpansion", "Whether volumes of the class can grow."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &StorageClass, now: Timestamp) -> Vec<Value> {
        let mut name = class.metadata.name.clone().unwrap_or_default();
        if is_default(class) {
            name.push_str(" (default)");
        }
        vec![
            name.into(),
            class.provisioner.as_str().into(),
            class.reclaim_policy.as_deref().unwrap_or("Delete").into(),
            class.volume_binding_mode.as_deref().unwrap_or("Immediate").into(),
            class.allow_volume_expansion.unwrap_or(false).into(),
            cells::age(&class.metadata, now),
        ]
    }
}

/// Whether claims without a class get this one.
pub fn is_default(class: &StorageClass) -> bool {
    let annotations = class.metadata.annotations.as_ref().unwrap_or(&NONE);
    [DEFAULT_ANNOTATION, OLD_DEFAULT_ANNOTATION]
        .iter()
        .any(|key| annotations.get(*key).is_some_and(|v| v == "true"))
}

fn validate(class: &StorageClass) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("provisioner");
    if class.provisioner.is_empty() {
        errors.push(at.required(""));
    } else {
        let lower = class.provisioner.to_lowercase();
        rules::complain(
            &mut errors,
            &at,
            &class.provisioner,
            validation::qualified_name(&lower),
        );
    }
    let given = class.parameters.as_ref().unwrap_or(&NONE);
    parameters(&mut errors, &Loc::new("parameters"), given);
    rules::optional_one_of(
        &mut errors,
        &Loc::new("reclaimPolicy"),
        class.reclaim_policy.as_deref(),
        &["Delete", "Retain"],
    );
    rules::one_of(
        &mut errors,
        &Loc::new("volumeBindingMode"),
        class.volume_binding_mode.as_deref(),
        &["Immediate", "WaitForFirstConsumer"],
    );
    errors
}

/// What a driver is told: not too much of it, and everything by name.
pub fn parameters(errors: &mut Errors, at: &Loc<'_>, parameters: &BTreeMap<String, String>) {
    if parameters.len() > PARAMETERS_MAX {
        errors.push(at.too_long(PARAMETERS_MAX));
    }
    let mut size = 0;
    for (key, value) in parameters {
        if key.is_empty() {
            errors.push(at.invalid("", "field can not be empty."));
        }
        size += key.len() + value.len();
    }
    if size > PARAMETERS_SIZE_MAX {
        errors.push(at.too_long(PARAMETERS_SIZE_MAX));
    }
}
