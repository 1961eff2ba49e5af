//! ValidatingAdmissionPolicies: rules in CEL that objects have to satisfy.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus, Validation,
};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use super::matching;
use crate::registry::common::cells;
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::rules;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

/// Reasons a violation may be answered with.
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const MESSAGE_MAX: usize = 5 << 10;
const AUDIT_ANNOTATIONS_MAX: usize = 20;

/// The kind's strategy.
pub struct ValidatingAdmissionPolicyKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicy",
    plural: "validatingadmissionpolicies",
    singular: "validatingadmissionpolicy",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "validatingadmissionpolicies",
    subresources: &[SubresourceInfo::status(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingAdmissionPolicy",
    )],
    ..ResourceInfo::base()
};

impl Strategy for ValidatingAdmissionPolicyKind {
    type Object = ValidatingAdmissionPolicy;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, policy: &mut ValidatingAdmissionPolicy) {
        let Some(spec) = &mut policy.spec else { return };
        fill(&mut spec.failure_policy, "Fail");
        if let Some(constraints) = &mut spec.match_constraints {
            matching::default_resources(constraints);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, policy: &mut ValidatingAdmissionPolicy) {
        meta::first_generation(&mut policy.metadata);
        policy.status = Some(ValidatingAdmissionPolicyStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, policy: &ValidatingAdmissionPolicy) -> Errors {
        validate(policy)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ValidatingAdmissionPolicy,
        _old: &ValidatingAdmissionPolicy,
    ) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Validations", "How many rules there are.").of("integer"),
            Column::new("ParamKind", "The kind of the policy's parameters."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, policy: &ValidatingAdmissionPolicy, now: Timestamp) -> Vec<Value> {
        let spec = policy.spec.as_ref();
        vec![
            cells::name(&policy.metadata),
            spec.and_then(|s| s.validations.as_ref())
                .map_or(0, Vec::len)
                .into(),
            matching::shown_param_kind(spec.and_then(|s| s.param_kind.as_ref())).into(),
            cells::age(&policy.metadata, now),
        ]
    }
}

fn validate(policy: &ValidatingAdmissionPolicy) -> Errors {
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
    let validations = spec.validations.as_deref().unwrap_or(&[]);
    let annotations = spec.audit_annotations.as_deref().unwrap_or(&[]);
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errors.push(at.child("validations").required(detail));
        errors.push(at.child("auditAnnotations").required(detail));
    }
    let at_validations = at.child("validations");
    for (i, validation) in validations.iter().enumerate() {
        validate_one(&mut errors, &at_validations.index(i), validation);
    }
    validate_annotations(&mut errors, &at.child("auditAnnotations"), spec);
    errors
}

fn validate_one(errors: &mut Errors, at: &Loc<'_>, validation: &Validation) {
    let at_message = at.child("message");
    if validation.expression.trim().is_empty() {
        errors.push(at.child("expression").required("expression is not specified"));
    }
    let message = validation.message.as_deref().unwrap_or("");
    if validation.message.is_some() && message.trim().is_empty() {
        errors.push(at_message.invalid(message, "message must be non-empty if specified"));
    } else if message.contains(['\n', '\r']) {
        errors.push(at_message.invalid(message, "message must not contain line breaks"));
    } else if message.is_empty() && validation.expression.contains('\n') {
        let detail = "message must be specified if expression contains line breaks";
        errors.push(at_message.required(detail));
    }
    if message.len() > MESSAGE_MAX {
        errors.push(at_message.too_long(MESSAGE_MAX));
    }
    if validation
        .message_expression
        .as_deref()
        .is_some_and(|expression| expression.trim().is_empty())
    {
        let detail = "must be non-empty if specified";
        errors.push(at.child("messageExpression").invalid("", detail));
    }
    rules::optional_one_of(errors, &at.child("reason"), validation.reason.as_deref(), REASONS);
}

fn validate_annotations(errors: &mut Errors, at: &Loc<'_>, spec: &ValidatingAdmissionPolicySpec) {
    let annotations = spec.audit_annotations.as_deref().unwrap_or(&[]);
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let detail = format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations");
        errors.push(at.invalid(rules::shown(&annotations), detail));
    }
    for (i, annotation) in annotations.iter().enumerate() {
        let at = at.index(i);
        let at_key = at.child("key");
        if annotation.key.is_empty() {
            errors.push(at_key.required(""));
        } else {
            rules::complain(
                errors,
                &at_key,
                &annotation.key,
                validation::qualified_name(&annotation.key),
            );
        }
        if annotations[..i].iter().any(|other| other.key == annotation.key) {
            errors.push(at_key.duplicate(annotation.key.as_str()));
        }
        if annotation.value_expression.trim().is_empty() {
            let detail = "valueExpression is not specified";
            errors.push(at.child("valueExpression").required(detail));
        }
    }
}
