//! Deployments.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::Errors;
use serde_json::Value;

use super::{containers, selector, status, template};
use crate::registry::common::defaults::{drop_false, drop_zero, fill};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::scale::{self, Scalable, ScaleSubresource};
use crate::registry::common::{cells, rules};
use crate::registry::core::pod::{defaults, spec_warnings};
use crate::registry::extensions;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, Subresource};

/// A quarter of the pods may be missing, and a quarter more may exist, while a new version replaces an old one.
const QUARTER: &str = "25%";
const HISTORY_LIMIT: i32 = 10;
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// The kind's strategy.
pub struct DeploymentKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apps",
    kind: "Deployment",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    storage_prefix: "deployments",
    subresources: &[scale::INFO, status("Deployment")],
    aliases: &[extensions::DEPLOYMENT],
    ..ResourceInfo::base()
};

impl Strategy for DeploymentKind {
    type Object = Deployment;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, deployment: &mut Deployment) {
        default(deployment);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, deployment: &mut Deployment) {
        meta::first_generation(&mut deployment.metadata);
        deployment.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Deployment, old: &Deployment) {
        new.status.clone_from(&old.status);
        // Annotations count too: the controller copies them to the replica sets.
        let same = new.spec == old.spec && new.metadata.annotations == old.metadata.annotations;
        let spec = if same { Spec::Same } else { Spec::Changed };
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut Deployment, old: &Deployment) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, deployment: &Deployment) -> Errors {
        validate(deployment)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Deployment, old: &Deployment) -> Errors {
        update(new, old)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &Deployment,
        old: &Deployment,
    ) -> Errors {
        validate_status(new, old)
    }

    fn warnings(&self, deployment: &Deployment, old: Option<&Deployment>) -> Vec<String> {
        let template = |d: &Deployment| d.spec.as_ref().map(|s| s.template.clone());
        if old.is_some_and(|old| template(old) == template(deployment)) {
            return Vec::new();
        }
        let spec = deployment.spec.as_ref().and_then(|s| s.template.spec.as_ref());
        spec.map(|spec| spec_warnings("spec.template.spec", spec))
            .unwrap_or_default()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Ready", "Number of the pod with ready state"),
            Column::new("Up-to-date", "The number of pods made from the present template."),
            Column::new(
                "Available",
                "The number of pods that have been ready for long enough.",
            ),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
            Column::new("Selector", "The labels of the pods that are counted.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, deployment: &Deployment, now: Timestamp) -> Vec<Value> {
        let spec = deployment.spec.as_ref();
        let status = deployment.status.as_ref();
        let count = |of: fn(&DeploymentStatus) -> Option<i32>| status.and_then(of).unwrap_or(0);
        let desired = spec.and_then(|s| s.replicas).unwrap_or(0);
        let [names, images] = cells::containers(spec.map(|s| containers(&s.template)).unwrap_or(&[]));
        vec![
            cells::name(&deployment.metadata),
            format!("{}/{desired}", count(|s| s.ready_replicas)).into(),
            count(|s| s.updated_replicas).into(),
            count(|s| s.available_replicas).into(),
            cells::age(&deployment.metadata, now),
            names,
            images,
            cells::selector(spec.map(|s| &s.selector)).into(),
        ]
    }

    fn reset_fields(&self, subresource: &str) -> &'static [&'static [&'static str]] {
        match subresource {
            "status" => &[&["spec"], &["metadata", "labels"]],
            _ => &[&["status"]],
        }
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        (subresource == "scale").then(|| Arc::new(ScaleSubresource::<Deployment>::default()) as _)
    }
}

impl Scalable for Deployment {
    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)
    }

    fn set_replicas(&mut self, replicas: i32) {
        self.spec.get_or_insert_default().replicas = Some(replicas);
    }

    fn current_replicas(&self) -> i32 {
        self.status.as_ref().and_then(|s| s.replicas).unwrap_or(0)
    }

    fn selector(&self) -> String {
        self.spec
            .as_ref()
            .map(|s| cells::selector(Some(&s.selector)))
            .unwrap_or_default()
    }
}

fn default(deployment: &mut Deployment) {
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    drop_zero(&mut spec.min_ready_seconds);
    drop_false(&mut spec.paused);
    let strategy = spec.strategy.get_or_insert_default();
    fill(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_default();
        for field in [&mut rolling.max_unavailable, &mut rolling.max_surge] {
            field.get_or_insert_with(|| IntOrString::String(QUARTER.to_owned()));
        }
    }
    spec.revision_history_limit.get_or_insert(HISTORY_LIMIT);
    spec.progress_deadline_seconds
        .get_or_insert(PROGRESS_DEADLINE_SECONDS);
    defaults::pod_template(&mut spec.template);
}

fn validate(deployment: &Deployment) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &deployment.spec else {
        return vec![at.required("")];
    };
    rules::not_negative(&mut errors, &at.child("replicas"), spec.replicas);
    selector(&mut errors, &at.child("selector"), &spec.selector, "deployment");
    template(
        &mut errors,
        &at.child("template"),
        &spec.template,
        &spec.selector,
        "ReplicaSet",
    );
    if let Some(strategy) = &spec.strategy {
        self::strategy(&mut errors, &at.child("strategy"), strategy);
    }
    rules::not_negative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
    rules::not_negative(
        &mut errors,
        &at.child("revisionHistoryLimit"),
        spec.revision_history_limit,
    );
    deadline(&mut errors, &at, spec);
    errors
}

fn deadline(errors: &mut Errors, at: &Loc<'_>, spec: &DeploymentSpec) {
    let Some(seconds) = spec.progress_deadline_seconds else {
        return;
    };
    let at = at.child("progressDeadlineSeconds");
    rules::not_negative(errors, &at, Some(seconds));
    if seconds <= spec.min_ready_seconds.unwrap_or(0) {
        errors.push(at.invalid(seconds, "must be greater than minReadySeconds"));
    }
}

fn strategy(errors: &mut Errors, at: &Loc<'_>, strategy: &DeploymentStrategy) {
    let at_rolling = at.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or(""), &strategy.rolling_update) {
        ("Recreate", Some(_)) => {
            errors.push(at_rolling.forbidden("may not be specified when strategy `type` is 'Recreate'"));
        }
        ("Recreate", None) => {}
        ("RollingUpdate", None) => {
            errors.push(at_rolling.required("this should be defaulted and never be nil"));
        }
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let at_unavailable = at_rolling.child("maxUnavailable");
            rules::count_or_percent(errors, &at_unavailable, unavailable);
            rules::count_or_percent(errors, &at_rolling.child("maxSurge"), surge);
            if rules::count_of(unavailable) == 0 && rules::count_of(surge) == 0 {
                let detail = "may not be 0 when `maxSurge` is 0";
                errors.push(at_unavailable.invalid(rules::shown(unavailable), detail));
            }
            rules::at_most_hundred_percent(errors, &at_unavailable, unavailable);
        }
        _ => errors.push(at.not_supported(rules::shown(strategy), &["Recreate", "RollingUpdate"])),
    }
}

fn update(new: &Deployment, old: &Deployment) -> Errors {
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

fn validate_status(new: &Deployment, old: &Deployment) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = &new.status else { return errors };
    let at = Loc::new("status");
    let replicas = status.replicas.unwrap_or(0);
    for (field, value) in [
        ("observedGeneration", status.observed_generation.unwrap_or(0)),
        ("replicas", replicas.into()),
        ("updatedReplicas", status.updated_replicas.unwrap_or(0).into()),
        ("readyReplicas", status.ready_replicas.unwrap_or(0).into()),
        ("availableReplicas", status.available_replicas.unwrap_or(0).into()),
        (
            "unavailableReplicas",
            status.unavailable_replicas.unwrap_or(0).into(),
        ),
    ] {
        rules::not_negative(&mut errors, &at.child(field), Some(value));
    }
    const TOO_MANY: &str = "cannot be greater than status.replicas";
    for (field, value) in [
        ("updatedReplicas", status.updated_replicas.unwrap_or(0)),
        ("readyReplicas", status.ready_replicas.unwrap_or(0)),
        ("availableReplicas", status.available_replicas.unwrap_or(0)),
    ] {
        if value > replicas {
            errors.push(at.child(field).invalid(value, TOO_MANY));
        }
    }
    let (ready, available) = (
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
    );
    if available > ready {
        errors.push(
            at.child("availableReplicas")
                .invalid(available, "cannot be greater than readyReplicas"),
        );
    }
    let collisions = |d: &Deployment| d.status.as_ref().and_then(|s| s.collision_count);
    match (collisions(new), collisions(old)) {
        (now, Some(before)) if now.unwrap_or(0) < before => {
            let detail = "cannot be decremented";
            errors.push(at.child("collisionCount").invalid(now.unwrap_or(0), detail));
        }
        _ => {}
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(spec: Value) -> Deployment {
        let mut deployment =
            serde_json::from_value(json!({"metadata": {"name": "d"}, "spec": spec})).expect("a deployment");
        default(&mut deployment);
        deployment
    }

    fn good() -> Value {
        json!({
            "selector": {"matchLabels": {"run": "ngx"}},
            "template": {"metadata": {"labels": {"run": "ngx"}}, "spec": {"containers": [{"name": "ngx", "image": "nginx"}]}}
        })
    }

    #[test]
    fn deployments_are_completed() {
        let deployment = deployment(good());
        assert_eq!(validate(&deployment), []);
        let spec = serde_json::to_value(&deployment.spec).expect("json");
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            (
                &spec["replicas"],
                &spec["revisionHistoryLimit"],
                &spec["progressDeadlineSeconds"]
            ),
            (&json!(1), &json!(10), &json!(600))
        );
        assert_eq!(
            spec["template"]["spec"]["containers"][0]["imagePullPolicy"],
            "Always"
        );
        assert!(spec["template"]["spec"].get("enableServiceLinks").is_none());
    }

    #[test]
    fn mistakes_are_named() {
        type Change = fn(&mut Value);
        let cases: [(Change, &[&str]); 9] = [
            (
                |s| s["replicas"] = json!(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (|s| s["selector"] = json!({}), &["spec.selector: Required value"]),
            (
                |s| s["template"]["metadata"]["labels"] = json!({"run": "other"}),
                &[
                    "spec.template.metadata.labels: Invalid value: {\"run\":\"other\"}: `selector` does not match template `labels`",
                ],
            ),
            (
                |s| s["template"]["spec"]["restartPolicy"] = json!("Never"),
                &[
                    "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                ],
            ),
            (
                |s| s["strategy"] = json!({"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}),
                &[
                    "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
                ],
            ),
            (
                |s| s["strategy"] = json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
                ],
            ),
            (
                |s| s["strategy"] = json!({"rollingUpdate": {"maxUnavailable": "101%"}}),
                &[
                    "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                ],
            ),
            (
                |s| s["strategy"] = json!({"rollingUpdate": {"maxSurge": "many"}}),
                &[
                    "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"many\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
                ],
            ),
            (
                |s| {
                    s["progressDeadlineSeconds"] = json!(5);
                    s["minReadySeconds"] = json!(5);
                },
                &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
            ),
        ];
        for (change, texts) in cases {
            let mut spec = good();
            change(&mut spec);
            let found: Vec<String> = validate(&deployment(spec))
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(found, texts);
        }
    }

    #[test]
    fn the_selector_stays() {
        let old = deployment(good());
        let mut spec = good();
        spec["selector"]["matchLabels"]["more"] = json!("x");
        spec["template"]["metadata"]["labels"]["more"] = json!("x");
        let found: Vec<String> = update(&deployment(spec), &old)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            found,
            [
                "spec.selector: Invalid value: {\"matchLabels\":{\"more\":\"x\",\"run\":\"ngx\"}}: field is immutable"
            ]
        );
    }
}
