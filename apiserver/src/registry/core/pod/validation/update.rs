//! What may change once a pod exists.

use k8s_openapi::api::core::v1::{
    Container, ContainerRestartRule, EphemeralContainer, NodeSelectorRequirement, NodeSelectorTerm, Pod,
    PodSpec, Toleration,
};
use keelson_api::field::Errors;
use keelson_api::pods;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),\
     `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// A change of the pod itself.
pub fn pod(new: &Pod, old: &Pod) -> Errors {
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return super::pod(new);
    };
    if new_spec == old_spec {
        // Whatever was right at creation stays right: an old pod is not held to rules younger than itself.
        return Errors::new();
    }
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    super::pod_spec(&mut errors, &at, new_spec);

    let mut same_containers = same_count(
        &mut errors,
        &at.child("containers"),
        &new_spec.containers,
        &old_spec.containers,
        "pod updates may not add or remove containers",
    );
    same_containers &= same_count(
        &mut errors,
        &at.child("initContainers"),
        new_spec.init_containers.as_deref().unwrap_or(&[]),
        old_spec.init_containers.as_deref().unwrap_or(&[]),
        "pod updates may not add or remove containers",
    );
    if !same_containers {
        return errors;
    }
    deadline(
        &mut errors,
        &at.child("activeDeadlineSeconds"),
        new_spec,
        old_spec,
    );
    only_added_tolerations(&mut errors, &at.child("tolerations"), new_spec, old_spec);
    only_removed_gates(&mut errors, &at.child("schedulingGates"), new_spec, old_spec);
    if !errors.is_empty() {
        return errors;
    }

    let mut munged = new_spec.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut munged.containers, &old_spec.containers);
    images(
        munged.init_containers.as_deref_mut().unwrap_or(&mut []),
        old_spec.init_containers.as_deref().unwrap_or(&[]),
    );
    munged.active_deadline_seconds = old_spec.active_deadline_seconds;
    munged.tolerations.clone_from(&old_spec.tolerations);
    munged.scheduling_gates.clone_from(&old_spec.scheduling_gates);
    if old_spec.termination_grace_period_seconds.is_some_and(|s| s < 0)
        && munged.termination_grace_period_seconds == Some(1)
    {
        munged.termination_grace_period_seconds = old_spec.termination_grace_period_seconds;
    }
    if old_spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty())
    {
        gated(&mut errors, &at, new_spec, old_spec, &mut munged);
    }
    if munged != *old_spec {
        let diff = differences(old_spec, &munged);
        errors.push(at.forbidden(format!(
            "pod updates may not change fields other than {UPDATABLE}\n{diff}"
        )));
    }
    errors
}

fn same_count<T>(errors: &mut Errors, at: &Loc<'_>, new: &[T], old: &[T], detail: &'static str) -> bool {
    if new.len() != old.len() {
        errors.push(at.forbidden(detail));
    }
    new.len() == old.len()
}

fn deadline(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec) {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            errors.push(at.invalid(new, "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            let none = serde_json::Value::Null;
            errors.push(at.invalid(none, "must not update from a positive integer to nil value"));
        }
        _ => {}
    }
}

fn only_added_tolerations(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec) {
    let new = new.tolerations.as_deref().unwrap_or(&[]);
    let same = |a: &Toleration, b: &Toleration| {
        a.key == b.key && a.operator == b.operator && a.value == b.value && a.effect == b.effect
    };
    for old in old.tolerations.iter().flatten() {
        if !new.iter().any(|n| same(n, old)) {
            let detail = "existing toleration can not be modified except its tolerationSeconds";
            errors.push(at.forbidden(detail));
            return;
        }
    }
}

fn only_removed_gates(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec) {
    let old = old.scheduling_gates.as_deref().unwrap_or(&[]);
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !old.contains(gate) {
            let detail = format!(
                "only deletion is allowed, but found new scheduling gate '{}'",
                gate.name
            );
            errors.push(at.index(i).child("name").forbidden(detail));
        }
    }
}

/// A pod that still waits for its gates may be sent elsewhere, but only to fewer nodes than before.
fn gated(errors: &mut Errors, at: &Loc<'_>, new: &PodSpec, old: &PodSpec, munged: &mut PodSpec) {
    let kept = old.node_selector.iter().flatten().all(|(key, value)| {
        new.node_selector
            .as_ref()
            .and_then(|s| s.get(key))
            .is_some_and(|v| v == value)
    });
    if kept {
        munged.node_selector.clone_from(&old.node_selector);
    } else {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(
            at.child("nodeSelector")
                .invalid(rules::shown(&new.node_selector), detail),
        );
        munged.node_selector.clone_from(&old.node_selector);
    }
    // Only node affinity may change; the other sorts must be as they were.
    let pods = |spec: &PodSpec| {
        let affinity = spec.affinity.as_ref();
        affinity.map(|a| (a.pod_affinity.clone(), a.pod_anti_affinity.clone()))
    };
    if pods(new).unwrap_or_default() == pods(old).unwrap_or_default() {
        munged.affinity.clone_from(&old.affinity);
    }
    let at = at.child("affinity");
    let at = at.child("nodeAffinity");
    let at = at.child("requiredDuringSchedulingIgnoredDuringExecution");
    only_more_terms(
        errors,
        &at.child("nodeSelectorTerms"),
        required(new),
        required(old),
    );
}

/// The terms of which a node has to fulfil one; empty if any node will do.
fn required(spec: &PodSpec) -> &[NodeSelectorTerm] {
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |required| &required.node_selector_terms)
}

/// Terms stay as many as they are, once there are any, and each asks for no less than before.
fn only_more_terms(errors: &mut Errors, at: &Loc<'_>, new: &[NodeSelectorTerm], old: &[NodeSelectorTerm]) {
    if old.is_empty() {
        return;
    }
    if new.len() != old.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(at.invalid(rules::shown(&new), detail));
        return;
    }
    let begins = |new: &Option<Vec<_>>, old: &Option<Vec<_>>| {
        let new: &[NodeSelectorRequirement] = new.as_deref().unwrap_or_default();
        new.starts_with(old.as_deref().unwrap_or_default())
    };
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let nothing = |term: &NodeSelectorTerm| {
            let of = |list: &Option<Vec<_>>| list.as_ref().map_or(0, Vec::<NodeSelectorRequirement>::len);
            of(&term.match_expressions) + of(&term.match_fields) == 0
        };
        // A term that nothing fulfils stays one.
        let grows = begins(&new.match_expressions, &old.match_expressions)
            && begins(&new.match_fields, &old.match_fields)
            && (!nothing(old) || nothing(new));
        if !grows {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(at.index(i).invalid(rules::shown(new), detail));
        }
    }
}

/// A pod's status.
pub fn status(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    let (Some(new_status), Some(old_status)) = (&new.status, &old.status) else {
        return errors;
    };
    let at = Loc::new("status");
    if let Some(node) = &new_status.nominated_node_name
        && !node.is_empty()
    {
        rules::subdomain(&mut errors, &at.child("nominatedNodeName"), node);
    }
    let restart = new
        .spec
        .as_ref()
        .and_then(|s| s.restart_policy.as_deref())
        .unwrap_or("Always");
    if restart != "OnFailure" && restart != "Always" {
        // A container that has ended for good cannot come back to life.
        let at = at.child("containerStatuses");
        for (i, old) in old_status.container_statuses.iter().flatten().enumerate() {
            let end = old.state.as_ref().and_then(|state| state.terminated.as_ref());
            let ended = end.is_some_and(|end| !comes_back(new, &old.name, end.exit_code));
            let statuses = new_status.container_statuses.iter().flatten();
            let now = statuses
                .into_iter()
                .find(|n| n.name == old.name)
                .and_then(|n| n.state.as_ref());
            if ended && now.is_some_and(|s| s.terminated.is_none()) {
                let detail = "may not be transitioned to non-terminated state";
                errors.push(at.index(i).child("state").forbidden(detail));
            }
        }
    }
    for (i, address) in new_status.pod_ips.iter().flatten().enumerate() {
        let at = at.child("podIPs");
        rules::ip(&mut errors, &at.index(i), &address.ip);
    }
    if old_status.qos_class.is_some() && new_status.qos_class != old_status.qos_class {
        let shown = new_status.qos_class.as_deref().unwrap_or("");
        errors.push(at.child("qosClass").invalid(shown, rules::IMMUTABLE));
    }
    errors
}

/// Whether a container of that name says by itself that it is started again after this exit code (KEP-5307).
fn comes_back(pod: &Pod, name: &str, exit_code: i32) -> bool {
    let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let Some(container) = containers.find(|container| container.name == name) else {
        return false;
    };
    let fits = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            listed == (codes.operator == "In")
        })
    };
    if container
        .restart_policy_rules
        .iter()
        .flatten()
        .any(|rule| fits(&rule))
    {
        return true;
    }
    match container.restart_policy.as_deref() {
        Some("Always") => true,
        Some("OnFailure") => exit_code != 0,
        _ => false,
    }
}

/// Containers added to a running pod: those that are there stay as they are.
pub fn ephemeral_containers(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::new();
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return errors;
    };
    if pods::is_mirror(new) {
        errors.push(Loc::new("").forbidden("static pods do not support ephemeral containers"));
    }
    let at = Loc::new("spec");
    super::pod_spec(&mut errors, &at, new_spec);
    let at = at.child("ephemeralContainers");
    let now: &[EphemeralContainer] = new_spec.ephemeral_containers.as_deref().unwrap_or(&[]);
    for old in old_spec.ephemeral_containers.iter().flatten() {
        match now.iter().find(|c| c.name == old.name) {
            None => {
                let detail = format!(
                    "existing ephemeral containers {:?} may not be removed\n",
                    old.name
                );
                errors.push(at.forbidden(detail));
            }
            Some(new) if new != old => {
                let diff = differences(old, new);
                let detail = format!(
                    "existing ephemeral containers {:?} may not be changed\n{diff}",
                    old.name
                );
                errors.push(at.forbidden(detail));
            }
            Some(_) => {}
        }
    }
    errors
}

/// What two values differ in, field by field: `-` before, `+` after.
fn differences(old: &impl serde::Serialize, new: &impl serde::Serialize) -> String {
    use serde_json::Value;
    fn walk(out: &mut String, path: &str, old: &Value, new: &Value) {
        if old == new {
            return;
        }
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
                for key in keys {
                    let (old, new) = (
                        old.get(key).unwrap_or(&Value::Null),
                        new.get(key).unwrap_or(&Value::Null),
                    );
                    let path = if path.is_empty() {
                        key.clone()
                    } else {
                        format!("{path}.{key}")
                    };
                    walk(out, &path, old, new);
                }
            }
            (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
                for (i, (old, new)) in old.iter().zip(new).enumerate() {
                    walk(out, &format!("{path}[{i}]"), old, new);
                }
            }
            _ => {
                out.push_str(&format!("- \t{path}: {old}\n+ \t{path}: {new}\n"));
            }
        }
    }
    let mut out = String::new();
    walk(&mut out, "", &rules::shown(old), &rules::shown(new));
    out
}
