//! Where a pod may run: affinity, tolerations, topology spread, scheduling gates.

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorTerm, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use crate::registry::common::loc::Loc;
use crate::registry::common::{rules, selectors};

const WEIGHT: &str = "must be in the range 1-100";
const NO_TOPOLOGY: &str = "can not be empty";
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";

/// All sorts of affinity.
pub fn affinity(errors: &mut Errors, at: &Loc<'_>, affinity: &Affinity) {
    if let Some(node) = &affinity.node_affinity {
        let at = at.child("nodeAffinity");
        if let Some(selector) = &node.required_during_scheduling_ignored_during_execution {
            node_selector(
                errors,
                &at.child("requiredDuringSchedulingIgnoredDuringExecution"),
                selector,
            );
        }
        let at = at.child("preferredDuringSchedulingIgnoredDuringExecution");
        let preferred = node
            .preferred_during_scheduling_ignored_during_execution
            .as_deref()
            .unwrap_or(&[]);
        for (i, term) in preferred.iter().enumerate() {
            let at = at.index(i);
            if !(1..=100).contains(&term.weight) {
                errors.push(at.child("weight").invalid(term.weight, WEIGHT));
            }
            node_selector_term(errors, &at.child("preference"), &term.preference, Labels::Any);
        }
    }
    if let Some(pods) = &affinity.pod_affinity {
        pod_terms(
            errors,
            &at.child("podAffinity"),
            pods.required_during_scheduling_ignored_during_execution
                .as_deref()
                .unwrap_or(&[]),
            pods.preferred_during_scheduling_ignored_during_execution
                .as_deref()
                .unwrap_or(&[]),
        );
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        pod_terms(
            errors,
            &at.child("podAntiAffinity"),
            pods.required_during_scheduling_ignored_during_execution
                .as_deref()
                .unwrap_or(&[]),
            pods.preferred_during_scheduling_ignored_during_execution
                .as_deref()
                .unwrap_or(&[]),
        );
    }
}

/// A choice of nodes: at least one term.
pub fn node_selector(errors: &mut Errors, at: &Loc<'_>, selector: &NodeSelector) {
    let at = at.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.push(at.required("must have at least one node selector term"));
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(errors, &at.index(i), term, Labels::Possible);
    }
}

/// Which values labels may be compared with.
#[derive(Clone, Copy, PartialEq)]
enum Labels {
    /// Those that a label can have.
    Possible,
    /// Others too: a preference that nothing meets does no harm.
    Any,
}

fn node_selector_term(errors: &mut Errors, at: &Loc<'_>, term: &NodeSelectorTerm, labels: Labels) {
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        let at = at.child("matchExpressions");
        let at = at.index(i);
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(at.child("values").required(detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(at.child("values").forbidden(detail));
            }
            "Gt" | "Lt" if values.len() != 1 => {
                let detail = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                errors.push(at.child("values").required(detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.push(
                at.child("operator")
                    .invalid(other, "not a valid selector operator"),
            ),
        }
        rules::qualified_name(errors, &at.child("key"), &requirement.key);
        if labels == Labels::Possible {
            let all = at.child("values");
            for (j, value) in values.iter().enumerate() {
                rules::complain(errors, &all.index(j), value, validation::label_value(value));
            }
        }
    }
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        let at = at.child("matchFields");
        let at = at.index(i);
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.len() != 1 => {
                let detail =
                    "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.push(at.child("values").required(detail));
            }
            "In" | "NotIn" => {}
            other => errors.push(
                at.child("operator")
                    .invalid(other, "not a valid selector operator"),
            ),
        }
        if requirement.key == "metadata.name" {
            let all = at.child("values");
            for (j, value) in values.iter().enumerate() {
                rules::subdomain(errors, &all.index(j), value);
            }
        } else {
            let key = requirement.key.as_str();
            errors.push(at.child("key").invalid(key, "not a valid field selector key"));
        }
    }
}

fn pod_terms(
    errors: &mut Errors,
    at: &Loc<'_>,
    required: &[PodAffinityTerm],
    preferred: &[WeightedPodAffinityTerm],
) {
    let at_required = at.child("requiredDuringSchedulingIgnoredDuringExecution");
    for (i, term) in required.iter().enumerate() {
        pod_term(errors, &at_required.index(i), term);
    }
    let at_preferred = at.child("preferredDuringSchedulingIgnoredDuringExecution");
    for (i, weighted) in preferred.iter().enumerate() {
        let at = at_preferred.index(i);
        if !(1..=100).contains(&weighted.weight) {
            errors.push(at.child("weight").invalid(weighted.weight, WEIGHT));
        }
        pod_term(errors, &at.child("podAffinityTerm"), &weighted.pod_affinity_term);
    }
}

fn pod_term(errors: &mut Errors, at: &Loc<'_>, term: &PodAffinityTerm) {
    if let Some(selector) = &term.label_selector {
        selectors::label_selector(errors, &at.child("labelSelector"), selector);
    }
    if let Some(selector) = &term.namespace_selector {
        selectors::label_selector(errors, &at.child("namespaceSelector"), selector);
    }
    for namespace in term.namespaces.iter().flatten() {
        rules::label(errors, &at.child("namespace"), namespace);
    }
    for (field, keys) in [
        ("matchLabelKeys", &term.match_label_keys),
        ("mismatchLabelKeys", &term.mismatch_label_keys),
    ] {
        let all = at.child(field);
        let keys = keys.as_deref().unwrap_or(&[]);
        if !keys.is_empty() && term.label_selector.is_none() {
            errors.push(all.forbidden(NO_SELECTOR));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            rules::qualified_name(errors, &all.index(i), key);
        }
    }
    let at = at.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(at.required(NO_TOPOLOGY));
    }
    rules::qualified_name(errors, &at, &term.topology_key);
}

/// What a pod puts up with.
pub fn tolerations(errors: &mut Errors, at: &Loc<'_>, tolerations: &[Toleration]) {
    for (i, toleration) in tolerations.iter().enumerate() {
        let at = at.index(i);
        let key = toleration.key.as_deref().unwrap_or("");
        let operator = toleration.operator.as_deref().unwrap_or("");
        let effect = toleration.effect.as_deref().unwrap_or("");
        let value = toleration.value.as_deref().unwrap_or("");
        if !key.is_empty() {
            rules::qualified_name(errors, &at.child("key"), key);
        }
        if key.is_empty() && operator != "Exists" {
            let detail =
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.push(at.child("operator").invalid(operator, detail));
        }
        if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
            let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.push(at.child("effect").invalid(effect, detail));
        }
        match operator {
            "" | "Equal" => {
                let complaints = validation::label_value(value);
                if !complaints.is_empty() {
                    errors.push(at.child("operator").invalid(value, complaints.join(";")));
                }
            }
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(at.child("operator").invalid(value, detail));
            }
            "Exists" => {}
            other => errors.push(at.child("operator").not_supported(other, &["Equal", "Exists"])),
        }
        if !effect.is_empty() {
            taint_effect(errors, &at.child("effect"), effect);
        }
    }
}

/// What a taint does to those who do not tolerate it.
pub fn taint_effect(errors: &mut Errors, at: &Loc<'_>, effect: &str) {
    rules::optional_one_of(
        errors,
        at,
        Some(effect),
        &["NoSchedule", "PreferNoSchedule", "NoExecute"],
    );
}

/// What a pod waits for before it is scheduled.
pub fn gates(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    let gates = spec.scheduling_gates.as_deref().unwrap_or(&[]);
    for (i, gate) in gates.iter().enumerate() {
        rules::qualified_name(errors, &at.index(i), &gate.name);
        if gates[..i].iter().any(|g| g.name == gate.name) {
            errors.push(at.index(i).duplicate(gate.name.as_str()));
        }
    }
}

/// A pod that waits for something has no node yet.
pub fn gated_on_create(errors: &mut Errors, spec: &PodSpec) {
    let gated = spec
        .scheduling_gates
        .as_ref()
        .is_some_and(|gates| !gates.is_empty());
    if gated && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(Loc::new("spec.nodeName").forbidden(detail));
    }
}

/// How pods spread over zones, nodes and so on.
pub fn spread(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or(&[]);
    for (i, constraint) in constraints.iter().enumerate() {
        let one = at.index(i);
        if constraint.max_skew <= 0 {
            errors.push(
                one.child("maxSkew")
                    .invalid(constraint.max_skew, "must be greater than zero"),
            );
        }
        if constraint.topology_key.is_empty() {
            errors.push(one.child("topologyKey").required(NO_TOPOLOGY));
        }
        let when = constraint.when_unsatisfiable.as_str();
        if !matches!(when, "DoNotSchedule" | "ScheduleAnyway") {
            errors.push(
                one.child("whenUnsatisfiable")
                    .not_supported(when, &["DoNotSchedule", "ScheduleAnyway"]),
            );
        }
        let same = |other: &&k8s_openapi::api::core::v1::TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == when
        };
        if constraints[i + 1..].iter().find(same).is_some() {
            let shown = format!("{{{}, {when}}}", constraint.topology_key);
            errors.push(one.child("{topologyKey, whenUnsatisfiable}").duplicate(shown));
        }
        if let Some(domains) = constraint.min_domains {
            if domains <= 0 {
                errors.push(
                    one.child("minDomains")
                        .invalid(domains, "must be greater than zero"),
                );
            }
            if when != "DoNotSchedule" {
                let detail =
                    format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                errors.push(one.child("minDomains").invalid(domains, detail));
            }
        }
        for (field, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            rules::optional_one_of(errors, &one.child(field), policy.as_deref(), &["Honor", "Ignore"]);
        }
        let at_keys = one.child("matchLabelKeys");
        let keys = constraint.match_label_keys.as_deref().unwrap_or(&[]);
        if !keys.is_empty() && constraint.label_selector.is_none() {
            errors.push(at_keys.forbidden(NO_SELECTOR));
        }
        for (j, key) in keys.iter().enumerate() {
            rules::qualified_name(errors, &at_keys.index(j), key);
        }
        if let Some(selector) = &constraint.label_selector {
            selectors::label_selector(errors, &one.child("labelSelector"), selector);
        }
    }
}
