//! MutatingAdmissionPolicies: changes in CEL that are made to objects.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, Mutation};
use keelson_api::field::Errors;
use serde_json::Value;

use super::matching;
use crate::registry::common::cells;
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::rules;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

/// The kind's strategy.
pub struct MutatingAdmissionPolicyKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicy",
    plural: "mutatingadmissionpolicies",
    singular: "mutatingadmissionpolicy",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "mutatingadmissionpolicies",
    ..ResourceInfo::base()
};

impl Strategy for MutatingAdmissionPolicyKind {
    type Object = MutatingAdmissionPolicy;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, policy: &mut MutatingAdmissionPolicy) {
        let Some(spec) = &mut policy.spec else { return };
        fill(&mut spec.failure_policy, "Fail");
        if let Some(constraints) = &mut spec.match_constraints {
            matching::default_resources(constraints);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, policy: &mut MutatingAdmissionPolicy) {
        meta::first_generation(&mut policy.metadata);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut MutatingAdmissionPolicy,
        old: &MutatingAdmissionPolicy,
    ) {
        let spec = Spec::compare(&new.spec, &old.spec);
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, policy: &MutatingAdmissionPolicy) -> Errors {
        validate(policy)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &MutatingAdmissionPolicy,
        _old: &MutatingAdmissionPolicy,
    ) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Mutations", "How many changes there are.").of("integer"),
            Column::new("ParamKind", "The kind of the policy's parameters."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, policy: &MutatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        vec![
            cells::name(&policy.metadata),
            spec.and_then(|s| s.mutations.as_ref()).map_or(0, Vec::len).into(),
            matching::shown_param_kind(spec.and_then(|s| s.param_kind.as_ref())).into(),
            cells::age(&policy.metadata, now),
        ]
    }
}

fn validate(policy: &MutatingAdmissionPolicy) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &policy.spec else {
        return vec![at.required("")];
    };
    let policies = &["Fail", "Ignore"];
    rules::one_of(
        &mut errors,
        &at.child("failurePolicy"),
        spec.failure_policy.as_deref(),
        policies,
    );
    let reinvocation = spec.reinvocation_policy.as_deref();
    let policies = &["IfNeeded", "Never"];
    rules::one_of(
        &mut errors,
        &at.child("reinvocationPolicy"),
        reinvocation,
        policies,
    );
    matching::validate_param_kind(&mut errors, &at.child("paramKind"), spec.param_kind.as_ref());
    let at_constraints = at.child("matchConstraints");
    match &spec.match_constraints {
        Some(constraints) => {
            matching::validate_resources(&mut errors, &at_constraints, constraints);
            if constraints.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                errors.push(at_constraints.child("resourceRules").required(""));
            }
        }
        None => errors.push(at_constraints.required("")),
    }
    let conditions = spec.match_conditions.as_deref().unwrap_or(&[]);
    matching::validate_conditions(&mut errors, &at.child("matchConditions"), conditions);
    let variables = spec.variables.as_deref().unwrap_or(&[]);
    matching::validate_variables(&mut errors, &at.child("variables"), variables);
    let at_mutations = at.child("mutations");
    let mutations = spec.mutations.as_deref().unwrap_or(&[]);
    if mutations.is_empty() {
        errors.push(at_mutations.required("mutations must contain at least one item"));
    }
    for (i, mutation) in mutations.iter().enumerate() {
        validate_one(&mut errors, &at_mutations.index(i), mutation);
    }
    errors
}

fn validate_one(errors: &mut Errors, at: &Loc<'_>, mutation: &Mutation) {
    let apply = mutation.apply_configuration.as_ref();
    let patch = mutation.json_patch.as_ref();
    let (at_apply, at_patch) = (at.child("applyConfiguration"), at.child("jsonPatch"));
    match mutation.patch_type.as_str() {
        "ApplyConfiguration" => {
            if patch.is_some() {
                errors.push(at_patch.forbidden("must not be specified when patchType is ApplyConfiguration"));
            }
            let expression = apply.and_then(|a| a.expression.as_deref());
            rules::not_empty(errors, &at_apply.child("expression"), expression);
        }
        "JSONPatch" => {
            if apply.is_some() {
                errors.push(at_apply.forbidden("must not be specified when patchType is JSONPatch"));
            }
            let expression = patch.and_then(|p| p.expression.as_deref());
            rules::not_empty(errors, &at_patch.child("expression"), expression);
        }
        "" => errors.push(at.child("patchType").required("")),
        other => errors.push(
            at.child("patchType")
                .not_supported(other, &["ApplyConfiguration", "JSONPatch"]),
        ),
    }
}
