//! Bindings of admission policies: where a policy holds, with which parameters, and what a violation leads to.

use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, MutatingAdmissionPolicyBinding, ParamRef, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use keelson_api::field::Errors;
use keelson_api::object::Kind;
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

/// A kind of bindings.
pub trait PolicyBinding: Kind {
    /// Names and scope.
    const INFO: &'static ResourceInfo;

    /// The parts that both kinds have.
    fn parts(&self) -> Parts<'_>;

    /// What the binding is about.
    fn resources(&mut self) -> Option<&mut MatchResources>;

    /// Whether it says something else than `old`.
    fn compare(&self, old: &Self) -> Spec;

    /// Rules of this kind alone.
    fn validate_own(&self, _errors: &mut Errors) {}
}

/// What bindings of either kind say.
pub struct Parts<'a> {
    /// The policy.
    policy: &'a str,
    /// The parameters.
    params: Option<&'a ParamRef>,
    /// What the binding is about.
    resources: Option<&'a MatchResources>,
}

/// The strategy of a kind of bindings.
pub struct BindingKind<K>(PhantomData<fn() -> K>);

impl<K> BindingKind<K> {
    /// The strategy.
    pub const fn strategy() -> Self {
        Self(PhantomData)
    }
}

impl<K: PolicyBinding> Strategy for BindingKind<K> {
    type Object = K;

    fn info(&self) -> &'static ResourceInfo {
        K::INFO
    }

    fn default(&self, binding: &mut K) {
        if let Some(resources) = binding.resources() {
            matching::default_resources(resources);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, binding: &mut K) {
        meta::first_generation(binding.meta_mut());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut K, old: &K) {
        let spec = new.compare(old);
        meta::next_generation(new.meta_mut(), old.meta(), spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, binding: &K) -> Errors {
        let mut errors = validate(&binding.parts());
        binding.validate_own(&mut errors);
        errors
    }

    fn validate_update(&self, ctx: &RequestContext<'_>, new: &K, _old: &K) -> Errors {
        self.validate_create(ctx, new)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, binding: &K, now: Timestamp) -> Vec<Value> {
        let parts = binding.parts();
        row(binding.meta(), parts.policy, parts.params, now)
    }
}

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

impl PolicyBinding for ValidatingAdmissionPolicyBinding {
    const INFO: &'static ResourceInfo = &VALIDATING;

    fn parts(&self) -> Parts<'_> {
        Parts {
            policy: &self.spec.policy_name,
            params: self.spec.param_ref.as_ref(),
            resources: self.spec.match_resources.as_ref(),
        }
    }

    fn resources(&mut self) -> Option<&mut MatchResources> {
        self.spec.match_resources.as_mut()
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.spec, &old.spec)
    }

    fn validate_own(&self, errors: &mut Errors) {
        let actions = &self.spec.validation_actions;
        let at = Loc::new("spec.validationActions");
        if actions.is_empty() {
            errors.push(at.required(""));
        }
        for (i, action) in actions.iter().enumerate() {
            if !ACTIONS.contains(&action.as_str()) {
                errors.push(at.index(i).not_supported(action.as_str(), ACTIONS));
            }
            if actions[..i].contains(action) {
                errors.push(at.index(i).duplicate(action.as_str()));
            }
        }
        let has = |name: &str| actions.iter().any(|a| a == name);
        if has("Deny") && has("Warn") {
            let detail = "must not contain both Deny and Warn (repeating the same validation failure information in \
                          the API response and headers serves no purpose)";
            errors.push(at.invalid(rules::shown(actions), detail));
        }
    }
}

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

impl PolicyBinding for MutatingAdmissionPolicyBinding {
    const INFO: &'static ResourceInfo = &MUTATING;

    fn parts(&self) -> Parts<'_> {
        let spec = self.spec.as_ref();
        Parts {
            policy: spec.and_then(|s| s.policy_name.as_deref()).unwrap_or(""),
            params: spec.and_then(|s| s.param_ref.as_ref()),
            resources: spec.and_then(|s| s.match_resources.as_ref()),
        }
    }

    fn resources(&mut self) -> Option<&mut MatchResources> {
        self.spec.as_mut().and_then(|s| s.match_resources.as_mut())
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.spec, &old.spec)
    }
}

fn row(metadata: &ObjectMeta, policy: &str, params: Option<&ParamRef>, now: Timestamp) -> Vec<Value> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let params = match params {
        Some(params) => match (given(&params.name), &params.selector) {
            (Some(name), _) => {
                let namespace = given(&params.namespace).unwrap_or_else(|| "*".to_owned());
                format!("{namespace}/{name}")
            }
            (None, Some(selector)) => selector_in_go(selector),
            (None, None) => "<unset>".to_owned(),
        },
        None => "<unset>".to_owned(),
    };
    vec![
        cells::name(metadata),
        policy.into(),
        params.into(),
        cells::age(metadata, now),
    ]
}

/// A selector as Go prints its protobuf message.
fn selector_in_go(selector: &LabelSelector) -> String {
    let labels = selector.match_labels.iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}: {value},")).collect();
    let requirements = selector.match_expressions.iter().flatten();
    let requirements: String = requirements
        .map(|r| {
            let values = r.values.as_deref().unwrap_or_default().join(" ");
            format!(
                "LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},",
                r.key, r.operator
            )
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{requirements}}},}}"
    )
}

fn validate(parts: &Parts<'_>) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let at_policy = at.child("policyName");
    if parts.policy.is_empty() {
        errors.push(at_policy.required(""));
    } else {
        rules::subdomain(&mut errors, &at_policy, parts.policy);
    }
    if let Some(params) = parts.params {
        validate_params(&mut errors, &at.child("paramRef"), params);
    }
    if let Some(resources) = parts.resources {
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
