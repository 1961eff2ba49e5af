//! PodDisruptionBudgets.

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{cells, conditions, rules, selectors};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

/// The kind's strategy.
pub struct PodDisruptionBudgetKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    storage_prefix: "poddisruptionbudgets",
    subresources: &[SubresourceInfo::status("policy", "v1", "PodDisruptionBudget")],
    ..ResourceInfo::base()
};

impl Strategy for PodDisruptionBudgetKind {
    type Object = PodDisruptionBudget;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, budget: &mut PodDisruptionBudget) {
        meta::first_generation(&mut budget.metadata);
        budget.status = Some(empty_status());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, budget: &PodDisruptionBudget) -> Errors {
        validate(budget)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
    ) -> Errors {
        validate(new)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &PodDisruptionBudget,
        _old: &PodDisruptionBudget,
    ) -> Errors {
        let mut errors = Errors::new();
        let Some(status) = &new.status else { return errors };
        let at = Loc::new("status");
        conditions::validate(&mut errors, &at.child("conditions"), status.conditions.as_deref());
        for (field, value) in [
            ("disruptionsAllowed", status.disruptions_allowed),
            ("currentHealthy", status.current_healthy),
            ("desiredHealthy", status.desired_healthy),
            ("expectedPods", status.expected_pods),
        ] {
            rules::not_negative(&mut errors, &at.child(field), value);
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new(
                "Min Available",
                "The minimum number of pods that must be available.",
            ),
            Column::new(
                "Max Unavailable",
                "The maximum number of pods that may be unavailable.",
            ),
            Column::new(
                "Allowed Disruptions",
                "Calculated number of pods that may be disrupted at this time.",
            )
            .of("integer"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, budget: &PodDisruptionBudget, now: Timestamp) -> Vec<Value> {
        let spec = budget.spec.as_ref();
        let text = |value: Option<&IntOrString>| match value {
            None => "N/A".to_owned(),
            Some(IntOrString::Int(number)) => number.to_string(),
            Some(IntOrString::String(text)) => text.clone(),
        };
        vec![
            cells::name(&budget.metadata),
            text(spec.and_then(|s| s.min_available.as_ref())).into(),
            text(spec.and_then(|s| s.max_unavailable.as_ref())).into(),
            budget
                .status
                .as_ref()
                .and_then(|s| s.disruptions_allowed)
                .unwrap_or(0)
                .into(),
            cells::age(&budget.metadata, now),
        ]
    }
}

/// The figures of a budget nobody has looked at yet. They are not optional on the wire.
fn empty_status() -> PodDisruptionBudgetStatus {
    PodDisruptionBudgetStatus {
        current_healthy: Some(0),
        desired_healthy: Some(0),
        disruptions_allowed: Some(0),
        expected_pods: Some(0),
        ..PodDisruptionBudgetStatus::default()
    }
}

fn validate(budget: &PodDisruptionBudget) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &budget.spec else { return errors };
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        let detail = "minAvailable and maxUnavailable cannot be both set";
        errors.push(at.invalid(rules::shown(spec), detail));
    }
    for (field, value) in [
        ("minAvailable", &spec.min_available),
        ("maxUnavailable", &spec.max_unavailable),
    ] {
        if let Some(value) = value {
            rules::count_or_percent(&mut errors, &at.child(field), value);
            rules::at_most_hundred_percent(&mut errors, &at.child(field), value);
        }
    }
    if let Some(selector) = &spec.selector {
        selectors::label_selector(&mut errors, &at.child("selector"), selector);
    }
    rules::optional_one_of(
        &mut errors,
        &at.child("unhealthyPodEvictionPolicy"),
        spec.unhealthy_pod_eviction_policy.as_deref(),
        &["AlwaysAllow", "IfHealthyBudget"],
    );
    errors
}
