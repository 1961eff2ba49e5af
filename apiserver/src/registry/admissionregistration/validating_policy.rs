//! ValidatingAdmissionPolicies: rules in CEL that objects have to satisfy.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, ValidatingAdmissionPolicyStatus, Validation,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use super::matching;
use super::policies::{AdmissionPolicy, Defaults, Parts, parts_of_spec};
use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::Spec;
use crate::registry::common::{conditions, rules};
use crate::registry::strategy::{Column, ResourceInfo, Scope, SubresourceInfo};

/// Reasons a violation may be answered with.
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const MESSAGE_MAX: usize = 5 << 10;
const AUDIT_ANNOTATIONS_MAX: usize = 20;

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

impl AdmissionPolicy for ValidatingAdmissionPolicy {
    const INFO: &'static ResourceInfo = &INFO;
    const COLUMNS: &'static [Column] = &[
        Column::name(),
        Column::new("Validations", "How many rules there are.").of("integer"),
        Column::new("ParamKind", "The kind of the policy's parameters."),
        Column::new("Age", "Time since the object was created."),
    ];

    parts_of_spec!();

    fn count(&self) -> usize {
        let spec = self.spec.as_ref();
        spec.and_then(|s| s.validations.as_ref()).map_or(0, Vec::len)
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.spec, &old.spec)
    }

    fn clear_status(&mut self) {
        self.status = Some(ValidatingAdmissionPolicyStatus::default());
    }

    fn keep_status(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn keep_spec(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate_status(&self, errors: &mut Errors) {
        let conditions = self
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_deref());
        conditions::validate(errors, &Loc::new("status.conditions"), conditions);
    }

    fn validate_own(&self, errors: &mut Errors, at: &Loc<'_>, surroundings: &Surroundings) {
        let Some(spec) = &self.spec else { return };
        let validations = spec.validations.as_deref().unwrap_or(&[]);
        let annotations = spec.audit_annotations.as_deref().unwrap_or(&[]);
        if validations.is_empty() && annotations.is_empty() {
            let detail = "validations or auditAnnotations must contain at least one item";
            errors.push(at.child("validations").required(detail));
            errors.push(at.child("auditAnnotations").required(detail));
        }
        let at_validations = at.child("validations");
        for (i, validation) in validations.iter().enumerate() {
            validate_one(errors, &at_validations.index(i), validation, surroundings);
        }
        validate_annotations(errors, &at.child("auditAnnotations"), spec, surroundings);
    }
}

fn validate_one(errors: &mut Errors, at: &Loc<'_>, validation: &Validation, surroundings: &Surroundings) {
    let (at_message, at_expression) = (at.child("message"), at.child("expression"));
    if validation.expression.trim().is_empty() {
        errors.push(at_expression.required("expression is not specified"));
    } else {
        matching::compile(
            errors,
            &at_expression,
            &validation.expression,
            surroundings,
            Wanted::Bool,
        );
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
    let at_computed = at.child("messageExpression");
    match validation.message_expression.as_deref() {
        // An empty one is none.
        None | Some("") => {}
        Some(expression) if expression.trim().is_empty() => {
            errors.push(at_computed.invalid("", "must be non-empty if specified"));
        }
        Some(expression) => {
            let without = surroundings.clone().without_authorizer();
            matching::compile(errors, &at_computed, expression, &without, Wanted::Text);
        }
    }
    rules::optional_one_of(errors, &at.child("reason"), validation.reason.as_deref(), REASONS);
}

fn validate_annotations(
    errors: &mut Errors,
    at: &Loc<'_>,
    spec: &ValidatingAdmissionPolicySpec,
    surroundings: &Surroundings,
) {
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
        let at_value = at.child("valueExpression");
        if annotation.value_expression.trim().is_empty() {
            errors.push(at_value.required("valueExpression is not specified"));
        } else {
            let value = &annotation.value_expression;
            matching::compile(errors, &at_value, value, surroundings, Wanted::TextOrNull);
        }
    }
}
