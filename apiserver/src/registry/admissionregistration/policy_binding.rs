//! Bindings of admission policies: where a policy holds, with which parameters, and what a violation leads to.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicyBinding, ParamRef, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::Errors;
use serde_json::Value;

use super::matching;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("PolicyName", "The policy."),
    Column::new("ParamRef", "The parameters."),
    Column::new("Age", "Time since the object was created."),
];

/// The strategy of bindings of validating policies.
pub struct ValidatingAdmissionPolicyBindingKind;

static VALIDATING: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingAdmissionPolicyBinding",
    plural: "validatingadmissionpolicybindings",
    singular: "validatingadmissionpolicybinding",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "validatingadmissionpolicybindings",
    ..ResourceInfo::base()
};

impl Strategy for ValidatingAdmissionPolicyBindingKind {
    type Object = ValidatingAdmissionPolicyBinding;

    fn info(&self) -> &'static ResourceInfo {
        &VALIDATING
    }

    fn default(&self, binding: &mut ValidatingAdmissionPolicyBinding) {
        if let Some(resources) = &mut binding.spec.match_resources {
            matching::default_resources(resources);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, binding: &mut ValidatingAdmissionPolicyBinding) {
        meta::first_generation(&mut binding.metadata);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut ValidatingAdmissionPolicyBinding,
        old: &ValidatingAdmissionPolicyBinding,
    ) {
        let spec = Spec::compare(&new.spec, &old.spec);
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(
        &self,
        _ctx: &RequestContext<'_>,
        binding: &ValidatingAdmissionPolicyBinding,
    ) -> Errors {
        let spec = &binding.spec;
        let mut errors = validate(
            &spec.policy_name,
            spec.param_ref.as_ref(),
            spec.match_resources.as_ref(),
        );
        let at = Loc::new("spec.validationActions");
        if spec.validation_actions.is_empty() {
            errors.push(at.required(""));
        }
        for (i, action) in spec.validation_actions.iter().enumerate() {
            if !ACTIONS.contains(&action.as_str()) {
                errors.push(at.index(i).not_supported(action.as_str(), ACTIONS));
            }
            if spec.validation_actions[..i].contains(action) {
                errors.push(at.index(i).duplicate(action.as_str()));
            }
        }
        let has = |name: &str| spec.validation_actions.iter().any(|a| a == name);
        if has("Deny") && has("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in \
                          the API response and headers serves no purpose)";
            errors.push(at.invalid(rules::shown(&spec.validation_actions), detail));
        }
        errors
    }

    fn validate_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &ValidatingAdmissionPolicyBinding,
        _old: &ValidatingAdmissionPolicyBinding,
    ) -> Errors {
        self.validate_create(ctx, new)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &ValidatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        row(
            &binding.metadata,
            &binding.spec.policy_name,
            binding.spec.param_ref.as_ref(),
            now,
        )
    }
}

/// The strategy of bindings of mutating policies.
pub struct MutatingAdmissionPolicyBindingKind;

static MUTATING: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "MutatingAdmissionPolicyBinding",
    plural: "mutatingadmissionpolicybindings",
    singular: "mutatingadmissionpolicybinding",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "mutatingadmissionpolicybindings",
    ..ResourceInfo::base()
};

impl Strategy for MutatingAdmissionPolicyBindingKind {
    type Object = MutatingAdmissionPolicyBinding;

    fn info(&self) -> &'static ResourceInfo {
        &MUTATING
    }

    fn default(&self, binding: &mut MutatingAdmissionPolicyBinding) {
        if let Some(resources) = binding.spec.as_mut().and_then(|s| s.match_resources.as_mut()) {
            matching::default_resources(resources);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, binding: &mut MutatingAdmissionPolicyBinding) {
        meta::first_generation(&mut binding.metadata);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut MutatingAdmissionPolicyBinding,
        old: &MutatingAdmissionPolicyBinding,
    ) {
        let spec = Spec::compare(&new.spec, &old.spec);
        meta::next_generation(&mut new.metadata, &old.metadata, spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, binding: &MutatingAdmissionPolicyBinding) -> Errors {
        let Some(spec) = &binding.spec else {
            return vec![Loc::new("spec.policyName").required("")];
        };
        let policy = spec.policy_name.as_deref().unwrap_or("");
        validate(policy, spec.param_ref.as_ref(), spec.match_resources.as_ref())
    }

    fn validate_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &MutatingAdmissionPolicyBinding,
        _old: &MutatingAdmissionPolicyBinding,
    ) -> Errors {
        self.validate_create(ctx, new)
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &MutatingAdmissionPolicyBinding, now: Timestamp) -> Vec<Value> {
        let spec = binding.spec.as_ref();
        let policy = spec.and_then(|s| s.policy_name.as_deref()).unwrap_or("");
        row(
            &binding.metadata,
            policy,
            spec.and_then(|s| s.param_ref.as_ref()),
            now,
        )
    }
}

fn row(metadata: &ObjectMeta, policy: &str, params: Option<&ParamRef>, now: Timestamp) -> Vec<Value> {
    let params = params.map_or_else(
        || "<unset>".to_owned(),
        |params| {
            let name = params
                .name
                .as_deref()
                .filter(|name| !name.is_empty())
                .unwrap_or("*");
            match params.namespace.as_deref() {
                Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
                _ => name.to_owned(),
            }
        },
    );
    vec![
        cells::name(metadata),
        policy.into(),
        params.into(),
        cells::age(metadata, now),
    ]
}

fn validate(policy: &str, params: Option<&ParamRef>, resources: Option<&MatchResources>) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let at_policy = at.child("policyName");
    if policy.is_empty() {
        errors.push(at_policy.required(""));
    } else {
        rules::subdomain(&mut errors, &at_policy, policy);
    }
    if let Some(params) = params {
        validate_params(&mut errors, &at.child("paramRef"), params);
    }
    if let Some(resources) = resources {
        matching::validate_resources(&mut errors, &at.child("matchResources"), resources);
    }
    errors
}

fn validate_params(errors: &mut Errors, at: &Loc<'_>, params: &ParamRef) {
    let name = params.name.as_deref().filter(|name| !name.is_empty());
    match (name, &params.selector) {
        (Some(_), Some(_)) => {
            errors.push(
                at.child("name")
                    .forbidden("name and selector are mutually exclusive"),
            );
        }
        (None, None) => errors.push(at.required("one of name or selector must be specified")),
        (Some(name), None) => rules::subdomain(errors, &at.child("name"), name),
        (None, Some(_)) => {}
    }
    rules::one_of(
        errors,
        &at.child("parameterNotFoundAction"),
        params.parameter_not_found_action.as_deref(),
        &["Allow", "Deny"],
    );
}
