//! StatefulSets.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::Errors;
use serde_json::Value;

use super::{containers, selector, status, template};
use crate::registry::common::defaults::{drop_empty, drop_zero, fill};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::scale::{self, Scalable, ScaleSubresource};
use crate::registry::common::{cells, rules};
use crate::registry::core::persistent_volume_claim;
use crate::registry::core::pod::defaults;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, Subresource};

const HISTORY_LIMIT: i32 = 10;

/// The kind's strategy.
pub struct StatefulSetKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apps",
    kind: "StatefulSet",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    storage_prefix: "statefulsets",
    subresources: &[scale::INFO, status("StatefulSet")],
    ..ResourceInfo::base()
};

impl Strategy for StatefulSetKind {
    type Object = StatefulSet;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, set: &mut StatefulSet) {
        default(set);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, set: &mut StatefulSet) {
        meta::first_generation(&mut set.metadata);
        set.status = Some(StatefulSetStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, set: &StatefulSet) -> Errors {
        validate(set)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &StatefulSet, old: &StatefulSet) -> Errors {
        let mut errors = validate(new);
        unchanged(&mut errors, new, old);
        errors
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &StatefulSet,
        _old: &StatefulSet,
    ) -> Errors {
        validate_status(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Ready", "Number of the pod with ready state"),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, set: &StatefulSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let ready = set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
        let [names, images] = cells::containers(spec.map(|s| containers(&s.template)).unwrap_or(&[]));
        vec![
            cells::name(&set.metadata),
            format!("{ready}/{}", spec.and_then(|s| s.replicas).unwrap_or(0)).into(),
            cells::age(&set.metadata, now),
            names,
            images,
        ]
    }

    fn handler(&self, subresource: &str) -> Option<Arc<dyn Subresource>> {
        (subresource == "scale").then(|| Arc::new(ScaleSubresource::<StatefulSet>::default()) as _)
    }
}

impl Scalable for StatefulSet {
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

fn default(set: &mut StatefulSet) {
    let spec = set.spec.get_or_insert_default();
    fill(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    fill(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        strategy
            .rolling_update
            .get_or_insert_default()
            .partition
            .get_or_insert(0);
    }
    let retention = spec
        .persistent_volume_claim_retention_policy
        .get_or_insert_default();
    fill(&mut retention.when_deleted, "Retain");
    fill(&mut retention.when_scaled, "Retain");
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(HISTORY_LIMIT);
    drop_zero(&mut spec.min_ready_seconds);
    drop_empty(&mut spec.service_name);
    defaults::pod_template(&mut spec.template);
    for claim in spec.volume_claim_templates.iter_mut().flatten() {
        persistent_volume_claim::default_claim(claim);
        fill(&mut claim.status.get_or_insert_default().phase, "Pending");
    }
}

fn validate(set: &StatefulSet) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &set.spec else {
        return vec![at.required("")];
    };
    let policy = spec.pod_management_policy.as_deref().unwrap_or("");
    let at_policy = at.child("podManagementPolicy");
    match policy {
        "" => errors.push(at_policy.required("")),
        "OrderedReady" | "Parallel" => {}
        other => errors.push(at_policy.invalid(other, "must be 'OrderedReady' or 'Parallel'")),
    }
    update_strategy(&mut errors, &at.child("updateStrategy"), spec);
    if let Some(retention) = &spec.persistent_volume_claim_retention_policy {
        let at = at.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [
            ("whenDeleted", &retention.when_deleted),
            ("whenScaled", &retention.when_scaled),
        ] {
            rules::one_of(
                &mut errors,
                &at.child(field),
                value.as_deref(),
                &["Retain", "Delete"],
            );
        }
    }
    rules::not_negative(&mut errors, &at.child("replicas"), spec.replicas);
    rules::not_negative(&mut errors, &at.child("minReadySeconds"), spec.min_ready_seconds);
    rules::not_negative(
        &mut errors,
        &at.child("revisionHistoryLimit"),
        spec.revision_history_limit,
    );
    if let Some(ordinals) = &spec.ordinals {
        rules::not_negative(&mut errors, &at.child("ordinals.start"), ordinals.start);
    }
    if let Some(name) = &spec.service_name {
        rules::subdomain(&mut errors, &at.child("serviceName"), name);
    }
    selector(&mut errors, &at.child("selector"), &spec.selector, "statefulset");
    // Mounts may name volumes that only exist once a pod gets its claims: those are checked as if they were there.
    let mut with_claims = spec.template.clone();
    if let (Some(pod), Some(claims)) = (&mut with_claims.spec, &spec.volume_claim_templates) {
        let volumes = pod.volumes.get_or_insert_default();
        for claim in claims {
            let name = claim.metadata.name.clone().unwrap_or_default();
            if !volumes.iter().any(|v| v.name == name) {
                volumes.push(k8s_openapi::api::core::v1::Volume {
                    name,
                    persistent_volume_claim: Some(
                        k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource {
                            claim_name: "claim".to_owned(),
                            read_only: None,
                        },
                    ),
                    ..Default::default()
                });
            }
        }
    }
    template(
        &mut errors,
        &at.child("template"),
        &with_claims,
        &spec.selector,
        "StatefulSet",
    );
    errors
}

fn update_strategy(errors: &mut Errors, at: &Loc<'_>, spec: &StatefulSetSpec) {
    let Some(strategy) = &spec.update_strategy else {
        return;
    };
    let at_rolling = at.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or(""), &strategy.rolling_update) {
        ("", _) => errors.push(at.required("")),
        ("OnDelete", Some(_)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.push(at_rolling.invalid(rules::shown(&strategy.rolling_update), detail));
        }
        ("OnDelete", None) | ("RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            rules::not_negative(errors, &at_rolling.child("partition"), rolling.partition);
            if let Some(unavailable) = &rolling.max_unavailable {
                let at = at_rolling.child("maxUnavailable");
                rules::count_or_percent(errors, &at, unavailable);
                if matches!(unavailable, IntOrString::Int(0)) {
                    errors.push(at.invalid(0, "cannot be 0"));
                }
                rules::at_most_hundred_percent(errors, &at, unavailable);
            }
        }
        _ => errors.push(at.invalid(rules::shown(strategy), "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn unchanged(errors: &mut Errors, new: &StatefulSet, old: &StatefulSet) {
    const DETAIL: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
         'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
    let (Some(new), Some(old)) = (&new.spec, &old.spec) else {
        return;
    };
    let mut munged = new.clone();
    munged.replicas = old.replicas;
    munged.ordinals.clone_from(&old.ordinals);
    munged.template.clone_from(&old.template);
    munged.update_strategy.clone_from(&old.update_strategy);
    munged.revision_history_limit = old.revision_history_limit;
    munged.min_ready_seconds = old.min_ready_seconds;
    munged
        .persistent_volume_claim_retention_policy
        .clone_from(&old.persistent_volume_claim_retention_policy);
    if munged != *old {
        errors.push(Loc::new("spec").forbidden(DETAIL));
    }
}

fn validate_status(set: &StatefulSet) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = &set.status else { return errors };
    let at = Loc::new("status");
    rules::not_negative(&mut errors, &at.child("replicas"), Some(status.replicas));
    for (field, value) in [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ] {
        let value = value.unwrap_or(0);
        rules::not_negative(&mut errors, &at.child(field), Some(value));
        if value > status.replicas {
            errors.push(
                at.child(field)
                    .invalid(value, "cannot be greater than status.replicas"),
            );
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(change: fn(&mut Value)) -> StatefulSet {
        let mut value = json!({"metadata": {"name": "s"}, "spec": {
            "serviceName": "s", "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                {"name": "c", "image": "i", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
        change(&mut value);
        let mut set = serde_json::from_value(value).expect("a stateful set");
        default(&mut set);
        set
    }

    #[test]
    fn claims_are_volumes_and_most_fields_stay() {
        let old = set(|_| {});
        assert_eq!(validate(&old), []);
        let spec = serde_json::to_value(&old.spec).expect("json");
        assert_eq!(
            spec["persistentVolumeClaimRetentionPolicy"],
            json!({"whenDeleted": "Retain", "whenScaled": "Retain"})
        );
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
        );
        assert_eq!(
            spec["volumeClaimTemplates"][0]["spec"]["volumeMode"],
            "Filesystem"
        );
        let mut errors = Errors::new();
        unchanged(&mut errors, &set(|s| s["spec"]["replicas"] = json!(3)), &old);
        assert_eq!(errors, []);
        unchanged(&mut errors, &set(|s| s["spec"]["serviceName"] = json!("t")), &old);
        assert_eq!(errors.len(), 1);
    }
}
