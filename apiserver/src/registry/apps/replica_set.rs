//! ReplicaSets.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use super::{containers, selector, status, template};
use crate::registry::common::defaults::drop_zero;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::scale::{self, Scalable, ScaleSubresource};
use crate::registry::common::{cells, rules};
use crate::registry::core::pod::defaults;
use crate::registry::extensions;
use crate::registry::strategy::{Column, Fields, RequestContext, ResourceInfo, Strategy, Subresource};

/// The kind's strategy.
pub struct ReplicaSetKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apps",
    kind: "ReplicaSet",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    storage_prefix: "replicasets",
    selectable_fields: &["status.replicas"],
    subresources: &[scale::INFO, status("ReplicaSet")],
    aliases: &[extensions::REPLICA_SET],
    ..ResourceInfo::base()
};

impl Strategy for ReplicaSetKind {
    type Object = ReplicaSet;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, set: &mut ReplicaSet) {
        let spec = set.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        drop_zero(&mut spec.min_ready_seconds);
        if let Some(template) = &mut spec.template {
            defaults::pod_template(template);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, set: &mut ReplicaSet) {
        meta::first_generation(&mut set.metadata);
        set.status = Some(ReplicaSetStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.status.clone_from(&old.status);
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut ReplicaSet, old: &ReplicaSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, set: &ReplicaSet) -> Errors {
        validate(set)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ReplicaSet, old: &ReplicaSet) -> Errors {
        let mut errors = validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            rules::immutable(
                &mut errors,
                &Loc::new("spec.selector"),
                &new.selector,
                &old.selector,
            );
        }
        errors
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ReplicaSet,
        _old: &ReplicaSet,
    ) -> Errors {
        validate_status(new)
    }

    fn selectable_fields(&self, set: &ReplicaSet) -> Fields {
        vec![(
            "status.replicas",
            set.status.as_ref().map_or(0, |s| s.replicas).to_string(),
        )]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Desired", "The number of desired replicas.").of("integer"),
            Column::new("Current", "The most recently observed number of replicas.").of("integer"),
            Column::new("Ready", "The number of ready replicas.").of("integer"),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
            Column::new("Selector", "The labels of the pods that are counted.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let status = set.status.as_ref();
        let template = spec.and_then(|s| s.template.as_ref());
        let [names, images] = cells::containers(template.map(containers).unwrap_or(&[]));
        vec![
            cells::name(&set.metadata),
            spec.and_then(|s| s.replicas).unwrap_or(0).into(),
            status.map_or(0, |s| s.replicas).into(),
            status.and_then(|s| s.ready_replicas).unwrap_or(0).into(),
            cells::age(&set.metadata, now),
            names,
            images,
            cells::selector(spec.map(|s| &s.selector)).into(),
        ]
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        (subresource == "scale").then(|| Arc::new(ScaleSubresource::<ReplicaSet>::default()) as _)
    }
}

impl Scalable for ReplicaSet {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
    }

    fn set_replicas(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn current_replicas(&self) -> i32 {
        self.status.as_ref().map_or(0, |s| s.replicas)
    }

    fn selector(&self) -> String {
        self.spec
            .as_ref()
            .map(|s| cells::selector(Some(&s.selector)))
            .unwrap_or_default()
    }
}

fn validate(set: &ReplicaSet) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &set.spec else {
        return vec![at.required("")];
    };
    rules::not_negative(&mut errors, &at.child("replicas"), spec.replicas);
    rules::not_negative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
    selector(&mut errors, &at.child("selector"), &spec.selector, "replicaset");
    match &spec.template {
        Some(inner) => template(
            &mut errors,
            &at.child("template"),
            inner,
            &spec.selector,
            "ReplicaSet",
        ),
        None => errors.push(at.child("template").required("")),
    }
    errors
}

fn validate_status(set: &ReplicaSet) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = &set.status else { return errors };
    let at = Loc::new("status");
    let fields = [
        ("fullyLabeledReplicas", status.fully_labeled_replicas.unwrap_or(0)),
        ("readyReplicas", status.ready_replicas.unwrap_or(0)),
        ("availableReplicas", status.available_replicas.unwrap_or(0)),
    ];
    rules::not_negative(&mut errors, &at.child("replicas"), Some(status.replicas));
    for (field, value) in fields {
        rules::not_negative(&mut errors, &at.child(field), Some(value));
        if value > status.replicas {
            errors.push(
                at.child(field)
                    .invalid(value, "cannot be greater than status.replicas"),
            );
        }
    }
    let (ready, available) = (fields[1].1, fields[2].1);
    if available > ready {
        errors.push(
            at.child("availableReplicas")
                .invalid(available, "cannot be greater than readyReplicas"),
        );
    }
    errors
}
