//! What replica sets and replication controllers have in common: the same table, the same status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::Errors;
use serde_json::Value;

use super::loc::Loc;
use super::{cells, rules};
use crate::registry::strategy::Column;

/// Columns of the table.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Desired", "The number of desired replicas.").of("integer"),
    Column::new("Current", "The most recently observed number of replicas.").of("integer"),
    Column::new("Ready", "The number of ready replicas.").of("integer"),
    Column::new("Age", "Time since the object was created."),
    Column::new("Containers", "Names of each container in the template.").wide(),
    Column::new("Images", "Images referenced by each container in the template.").wide(),
    Column::new("Selector", "The labels of the pods that are counted.").wide(),
];

/// What a status counts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Pods there are.
    pub replicas: i32,
    /// Pods with all labels of the template.
    pub fully_labeled: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have been ready for long enough.
    pub available: i32,
}

/// A row of the table.
pub fn row(
    metadata: &ObjectMeta,
    desired: Option<i32>,
    counts: Counts,
    template: Option<&PodTemplateSpec>,
    selector: String,
    now: Timestamp,
) -> Vec<Value> {
    let [names, images] = cells::containers(containers(template));
    vec![
        cells::name(metadata),
        desired.unwrap_or(0).into(),
        counts.replicas.into(),
        counts.ready.into(),
        cells::age(metadata, now),
        names,
        images,
        selector.into(),
    ]
}

fn containers(template: Option<&PodTemplateSpec>) -> &[Container] {
    let spec = template.and_then(|template| template.spec.as_ref());
    spec.map_or(&[], |spec| &spec.containers)
}

/// Numbers of a status that contradict each other.
pub fn validate_counts(counts: Counts) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("status");
    rules::not_negative(&mut errors, &at.child("replicas"), Some(counts.replicas));
    for (field, value) in [
        ("fullyLabeledReplicas", counts.fully_labeled),
        ("readyReplicas", counts.ready),
        ("availableReplicas", counts.available),
    ] {
        let at = at.child(field);
        rules::not_negative(&mut errors, &at, Some(value));
        if value > counts.replicas {
            errors.push(at.invalid(value, "cannot be greater than status.replicas"));
        }
    }
    if counts.available > counts.ready {
        let at = at.child("availableReplicas");
        errors.push(at.invalid(counts.available, "cannot be greater than readyReplicas"));
    }
    errors
}
