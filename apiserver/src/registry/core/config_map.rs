//! ConfigMaps.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The most that the values of a ConfigMap or Secret may weigh together, in bytes.
pub const SIZE_MAX: usize = 1024 * 1024;
/// Upstream's text for a change of what was made immutable.
pub const IMMUTABLE: &str = "field is immutable when `immutable` is set";

/// The kind's strategy.
pub struct ConfigMapStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "ConfigMap",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    storage_prefix: "configmaps",
    ..ResourceInfo::base()
};

impl Strategy for ConfigMapStrategy {
    type Object = ConfigMap;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, map: &mut ConfigMap) {
        if map.data.as_ref().is_some_and(|d| d.is_empty()) {
            map.data = None;
        }
        if map.binary_data.as_ref().is_some_and(|d| d.is_empty()) {
            map.binary_data = None;
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, map: &ConfigMap) -> Errors {
        validate(map)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ConfigMap, old: &ConfigMap) -> Errors {
        let mut errors = Errors::new();
        if old.immutable == Some(true) {
            for (field, changed) in [
                ("immutable", new.immutable != Some(true)),
                ("data", new.data != old.data),
                ("binaryData", new.binary_data != old.binary_data),
            ] {
                if changed {
                    errors.push(Loc::new(field).forbidden(IMMUTABLE));
                }
            }
        }
        errors.extend(validate(new));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Data", "The number of keys in data and binaryData."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, map: &ConfigMap, now: Timestamp) -> Vec<Value> {
        let count =
            map.data.as_ref().map_or(0, |d| d.len()) + map.binary_data.as_ref().map_or(0, |d| d.len());
        vec![
            cells::name(&map.metadata),
            count.into(),
            cells::age(&map.metadata, now),
        ]
    }
}

fn validate(map: &ConfigMap) -> Errors {
    let mut errors = Errors::new();
    let mut size = 0;
    let at = Loc::new("data");
    for (key, value) in map.data.iter().flatten() {
        rules::complain(&mut errors, &at.key(key), key, validation::config_map_key(key));
        if map
            .binary_data
            .as_ref()
            .is_some_and(|binary| binary.contains_key(key))
        {
            errors.push(
                at.key(key)
                    .invalid(key.as_str(), "duplicate of key present in binaryData"),
            );
        }
        size += value.len();
    }
    let at = Loc::new("binaryData");
    for (key, value) in map.binary_data.iter().flatten() {
        rules::complain(&mut errors, &at.key(key), key, validation::config_map_key(key));
        size += value.0.len();
    }
    if size > SIZE_MAX {
        errors.push(Loc::new("").too_long(SIZE_MAX));
    }
    errors
}
