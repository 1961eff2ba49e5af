//! ReplicationControllers.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use super::pod::{self, validation};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::replicas::{self, Counts};
use crate::registry::common::scale::{self, Scalable, ScaleSubresource};
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{
    Column, Fields, OtherFields, RequestContext, ResourceInfo, Strategy, Subresource, SubresourceInfo,
};

/// The kind's strategy.
pub struct ReplicationControllerStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "ReplicationController",
    plural: "replicationcontrollers",
    singular: "replicationcontroller",
    short_names: &["rc"],
    categories: &["all"],
    storage_prefix: "controllers",
    selectable_fields: &["status.replicas"],
    other_fields: OtherFields::NotSupported,
    subresources: &[
        scale::INFO,
        SubresourceInfo::status("", "v1", "ReplicationController"),
    ],
    ..ResourceInfo::base()
};

impl Strategy for ReplicationControllerStrategy {
    type Object = ReplicationController;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, rc: &mut ReplicationController) {
        let spec = rc.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.min_ready_seconds = spec.min_ready_seconds.filter(|s| *s != 0);
        if let Some(template) = &mut spec.template {
            pod::defaults::pod_template(template);
            let labels = template
                .metadata
                .as_ref()
                .and_then(|m| m.labels.as_ref())
                .filter(|l| !l.is_empty());
            if let Some(labels) = labels {
                if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                    spec.selector = Some(labels.clone());
                }
                if rc.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                    rc.metadata.labels = Some(labels.clone());
                }
            }
        }
    }

    fn metadata_has_defaults(&self) -> bool {
        true
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, rc: &mut ReplicationController) {
        meta::first_generation(&mut rc.metadata);
        rc.status = Some(ReplicationControllerStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, rc: &ReplicationController) -> Errors {
        validate(rc)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ReplicationController,
        _old: &ReplicationController,
    ) -> Errors {
        validate(new)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ReplicationController,
        _old: &ReplicationController,
    ) -> Errors {
        replicas::validate_counts(counts(new))
    }

    fn selectable_fields(&self, rc: &ReplicationController) -> Fields {
        vec![(
            "status.replicas",
            rc.status.as_ref().map_or(0, |s| s.replicas).to_string(),
        )]
    }

    fn columns(&self) -> &'static [Column] {
        replicas::COLUMNS
    }

    fn cells(&self, rc: &ReplicationController, now: Timestamp) -> Vec<Value> {
        let spec = rc.spec.as_ref();
        replicas::row(
            &rc.metadata,
            spec.and_then(|s| s.replicas),
            counts(rc),
            spec.and_then(|s| s.template.as_ref()),
            cells::labels(spec.and_then(|s| s.selector.as_ref())),
            now,
        )
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        (subresource == "scale").then(|| Arc::new(ScaleSubresource::<ReplicationController>::default()) as _)
    }
}

impl Scalable for ReplicationController {
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
        match self.spec.as_ref().and_then(|s| s.selector.as_ref()) {
            Some(selector) if !selector.is_empty() => cells::labels(Some(selector)),
            _ => String::new(),
        }
    }
}

fn validate(rc: &ReplicationController) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &rc.spec else {
        return vec![at.required("")];
    };
    rules::not_negative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
    let selector = spec.selector.as_ref().unwrap_or(&NONE);
    if selector.is_empty() {
        errors.push(at.child("selector").required(""));
    }
    rules::not_negative(&mut errors, &at.child("replicas"), spec.replicas);
    let at = at.child("template");
    let Some(template) = &spec.template else {
        errors.push(at.required(""));
        return errors;
    };
    let labels = template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.as_ref())
        .unwrap_or(&NONE);
    if !selector.iter().all(|(key, value)| labels.get(key) == Some(value)) {
        let detail = "`selector` does not match template `labels`";
        errors.push(at.child("metadata.labels").invalid(rules::shown(labels), detail));
    }
    validation::pod_template(&mut errors, &at, template);
    long_running(&mut errors, &at, template, "ReplicationController");
    errors
}

/// What a template of pods that shall run forever may not say.
pub fn long_running(
    errors: &mut Errors,
    at: &Loc<'_>,
    template: &k8s_openapi::api::core::v1::PodTemplateSpec,
    kind: &str,
) {
    let Some(spec) = &template.spec else { return };
    let at = at.child("spec");
    if let Some(policy) = spec.restart_policy.as_deref()
        && policy != "Always"
        && !policy.is_empty()
    {
        errors.push(at.child("restartPolicy").not_supported(policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(at.child("activeDeadlineSeconds").forbidden(detail));
    }
}

fn counts(rc: &ReplicationController) -> Counts {
    rc.status.as_ref().map_or(Counts::default(), |status| Counts {
        replicas: status.replicas,
        fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
    })
}
