//! Scopes: a quota may hold for some objects only.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement,
};

use super::Counted;
use crate::pods::{QosClass, qos_class};

pub(super) fn hold(quota: &ResourceQuota, object: Counted<'_>) -> bool {
    let Some(spec) = &quota.spec else { return true };
    let whole = spec.scopes.iter().flatten();
    let whole = whole.map(|scope| ScopedResourceSelectorRequirement {
        scope_name: scope.clone(),
        operator: "Exists".to_owned(),
        values: None,
    });
    let chosen = spec
        .scope_selector
        .iter()
        .flat_map(|selector| selector.match_expressions.iter().flatten().cloned());
    whole.chain(chosen).all(|requirement| match object {
        Counted::Pod(pod) => holds_pod(&requirement, pod),
        Counted::Claim(claim) => holds_claim(&requirement, claim),
        _ => false,
    })
}

fn holds_pod(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let terminating = || {
        spec.and_then(|s| s.active_deadline_seconds)
            .is_some_and(|seconds| seconds >= 0)
    };
    match requirement.scope_name.as_str() {
        "Terminating" => terminating(),
        "NotTerminating" => !terminating(),
        "BestEffort" => qos_class(pod) == QosClass::BestEffort,
        "NotBestEffort" => qos_class(pod) != QosClass::BestEffort,
        "PriorityClass" => selects(requirement, spec.and_then(|s| s.priority_class_name.as_deref())),
        "CrossNamespacePodAffinity" => reaches_out(pod),
        _ => false,
    }
}

fn holds_claim(requirement: &ScopedResourceSelectorRequirement, claim: &PersistentVolumeClaim) -> bool {
    if requirement.scope_name != "VolumeAttributesClass" {
        return false;
    }
    let status = claim.status.as_ref();
    let wanted = claim
        .spec
        .as_ref()
        .and_then(|s| s.volume_attributes_class_name.as_deref());
    let current = status.and_then(|s| s.current_volume_attributes_class_name.as_deref());
    let target = status
        .and_then(|s| s.modify_volume_status.as_ref())
        .and_then(|m| m.target_volume_attributes_class_name.as_deref());
    let classes: Vec<&str> = [wanted, current, target]
        .into_iter()
        .flatten()
        .filter(|c| !c.is_empty())
        .collect();
    if classes.is_empty() {
        return selects(requirement, None);
    }
    classes.into_iter().any(|class| selects(requirement, Some(class)))
}

/// Whether the value of what a scope is about is one of those chosen.
fn selects(requirement: &ScopedResourceSelectorRequirement, value: Option<&str>) -> bool {
    let value = value.filter(|value| !value.is_empty());
    let listed = |value: &str| requirement.values.iter().flatten().any(|one| one == value);
    match requirement.operator.as_str() {
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        _ => false,
    }
}

/// Whether the pod's affinity looks at pods of other namespaces.
fn reaches_out(pod: &Pod) -> bool {
    let out = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|n| !n.is_empty()) || term.namespace_selector.is_some()
    };
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else {
        return false;
    };
    let near = affinity.pod_affinity.as_ref();
    let far = affinity.pod_anti_affinity.as_ref();
    let required = near
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()))
        .flatten();
    let preferred = near
        .and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref())
        .into_iter()
        .chain(far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()))
        .flatten();
    required.into_iter().any(out)
        || preferred
            .into_iter()
            .any(|weighted| out(&weighted.pod_affinity_term))
}
