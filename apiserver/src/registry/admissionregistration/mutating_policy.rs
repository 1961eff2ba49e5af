//! MutatingAdmissionPolicies: changes in CEL that are made to objects.

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, Mutation};
use keelson_api::field::Errors;

use super::matching;
use super::policies::{AdmissionPolicy, Defaults, Parts, parts_of_spec};
use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::Spec;
use crate::registry::common::rules;
use crate::registry::strategy::{Column, ResourceInfo, Scope};

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

impl AdmissionPolicy for MutatingAdmissionPolicy {
    const INFO: &'static ResourceInfo = &INFO;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Mutations", "How many changes there are.").of("integer"),
        Column::new("ParamKind", "The kind of the policy's parameters."),
        Column::new("Age", "Time since the object was created."),
    ];

    parts_of_spec!();

    fn count(&self) -> usize {
        let spec = self.spec.as_ref();
        spec.and_then(|s| s.mutations.as_ref()).map_or(0, Vec::len)
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.spec, &old.spec)
    }

    fn validate_own(&self, errors: &mut Errors, at: &Loc<'_>, surroundings: &Surroundings) {
        let Some(spec) = &self.spec else { return };
        let surroundings = surroundings.clone().with_patches();
        let reinvocation = spec.reinvocation_policy.as_deref();
        let allowed = &["IfNeeded", "Never"];
        rules::one_of(errors, &at.child("reinvocationPolicy"), reinvocation, allowed);
        let at_mutations = at.child("mutations");
        let mutations = spec.mutations.as_deref().unwrap_or(&[]);
        if mutations.is_empty() {
            errors.push(at_mutations.required("mutations must contain at least one item"));
        }
        for (i, mutation) in mutations.iter().enumerate() {
            validate_one(errors, &at_mutations.index(i), mutation, &surroundings);
        }
    }
}

fn validate_one(errors: &mut Errors, at: &Loc<'_>, mutation: &Mutation, surroundings: &Surroundings) {
    let apply = mutation.apply_configuration.as_ref();
    let patch = mutation.json_patch.as_ref();
    let (at_apply, at_patch) = (at.child("applyConfiguration"), at.child("jsonPatch"));
    match mutation.patch_type.as_str() {
        "ApplyConfiguration" => {
            if patch.is_some() {
                errors.push(at_patch.forbidden("must not be specified when patchType is ApplyConfiguration"));
            }
            let expression = apply.and_then(|a| a.expression.as_deref());
            validate_change(errors, &at_apply, expression, surroundings, Wanted::Object);
        }
        "JSONPatch" => {
            if apply.is_some() {
                errors.push(at_apply.forbidden("must not be specified when patchType is JSONPatch"));
            }
            let expression = patch.and_then(|p| p.expression.as_deref());
            validate_change(errors, &at_patch, expression, surroundings, Wanted::Patches);
        }
        "" => errors.push(at.child("patchType").required("")),
        other => errors.push(
            at.child("patchType")
                .not_supported(other, &["ApplyConfiguration", "JSONPatch"]),
        ),
    }
}

fn validate_change(
    errors: &mut Errors,
    at: &Loc<'_>,
    expression: Option<&str>,
    surroundings: &Surroundings,
    wanted: Wanted,
) {
    let at = at.child("expression");
    match expression.filter(|expression| !expression.trim().is_empty()) {
        Some(expression) => matching::compile(errors, &at, expression, surroundings, wanted),
        None => errors.push(at.required("")),
    }
}
