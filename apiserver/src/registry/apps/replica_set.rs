//! ReplicaSets.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use super::{selector, status, template};
use crate::registry::common::defaults::drop_zero;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::replicas::{self, Counts};
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

    spec_and_status!();

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
        replicas::validate_counts(counts(new))
    }

    fn selectable_fields(&self, set: &ReplicaSet) -> Fields {
        vec![(
            "status.replicas",
            set.status.as_ref().map_or(0, |s| s.replicas).to_string(),
        )]
    }

    fn columns(&self) -> &'static [Column] {
        replicas::COLUMNS
    }

    fn cells(&self, set: &ReplicaSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        replicas::row(
            &set.metadata,
            spec.and_then(|s| s.replicas),
            counts(set),
            spec.and_then(|s| s.template.as_ref()),
            cells::selector(spec.map(|s| &s.selector)),
            now,
        )
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

fn counts(set: &ReplicaSet) -> Counts {
    set.status.as_ref().map_or(Counts::default(), |status| Counts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    })
}
