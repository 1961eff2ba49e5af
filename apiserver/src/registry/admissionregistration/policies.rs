//! The strategy of both kinds of policies.

use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MatchCondition, MatchResources, ParamKind, Variable};
use keelson_api::field::Errors;
use keelson_api::object::Kind;
use serde_json::Value;

use super::matching;
use crate::admission::expressions::surroundings::Surroundings;
use crate::admission::policies::policy::surroundings;
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// A kind of policies.
pub trait AdmissionPolicy: Kind {
    /// Names, scope and subresources.
    const INFO: &'static ResourceInfo;
    /// The table.
    const COLUMNS: &'static [Column];

    /// The parts that both kinds have; `None` without a spec.
    fn parts(&self) -> Option<Parts<'_>>;

    /// What either kind leaves out; `None` without a spec.
    fn defaults(&mut self) -> Option<Defaults<'_>>;

    /// How many rules or changes there are.
    fn count(&self) -> usize;

    /// Whether it says something else than `old`.
    fn compare(&self, old: &Self) -> Spec;

    /// Nobody has looked at the policy yet.
    fn clear_status(&mut self) {}

    /// The status is not what an update of the policy writes.
    fn keep_status(&mut self, _old: &Self) {}

    /// The spec is not what an update of the status writes.
    fn keep_spec(&mut self, _old: &Self) {}

    /// Rules for the status.
    fn validate_status(&self, _errors: &mut Errors) {}

    /// Rules of this kind alone, for what is surrounded by that.
    fn validate_own(&self, errors: &mut Errors, at: &Loc<'_>, surroundings: &Surroundings);
}

/// The parts that both kinds have.
pub struct Parts<'a> {
    /// `Fail` or `Ignore`.
    pub failure_policy: Option<&'a str>,
    /// The kind of the parameters.
    pub params: Option<&'a ParamKind>,
    /// What the policy is about.
    pub constraints: Option<&'a MatchResources>,
    /// Requests for which all of these hold.
    pub conditions: Option<&'a Vec<MatchCondition>>,
    /// Named expressions.
    pub variables: Option<&'a Vec<Variable>>,
}

/// See [`Parts`].
pub struct Defaults<'a> {
    /// See [`Parts`].
    pub failure_policy: &'a mut Option<String>,
    /// See [`Parts`].
    pub constraints: Option<&'a mut MatchResources>,
}

/// [`AdmissionPolicy::parts`] and [`AdmissionPolicy::defaults`]: fields that have the same names in both kinds' specs.
macro_rules! parts_of_spec {
    () => {
        fn parts(&self) -> Option<Parts<'_>> {
            let spec = self.spec.as_ref()?;
            Some(Parts {
                failure_policy: spec.failure_policy.as_deref(),
                params: spec.param_kind.as_ref(),
                constraints: spec.match_constraints.as_ref(),
                conditions: spec.match_conditions.as_ref(),
                variables: spec.variables.as_ref(),
            })
        }

        fn defaults(&mut self) -> Option<Defaults<'_>> {
            let spec = self.spec.as_mut()?;
            Some(Defaults {
                failure_policy: &mut spec.failure_policy,
                constraints: spec.match_constraints.as_mut(),
            })
        }
    };
}
pub(super) use parts_of_spec;

/// The strategy of a kind of policies.
pub struct PolicyKind<K>(PhantomData<fn() -> K>);

impl<K> PolicyKind<K> {
    /// The strategy.
    pub const fn strategy() -> Self {
        Self(PhantomData)
    }
}

impl<K: AdmissionPolicy> Strategy for PolicyKind<K> {
    type Object = K;

    fn info(&self) -> &'static ResourceInfo {
        K::INFO
    }

    fn default(&self, policy: &mut K) {
        let Some(given) = policy.defaults() else { return };
        fill(given.failure_policy, "Fail");
        if let Some(constraints) = given.constraints {
            matching::default_resources(constraints);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, policy: &mut K) {
        meta::first_generation(policy.meta_mut());
        policy.clear_status();
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut K, old: &K) {
        new.keep_status(old);
        let spec = new.compare(old);
        meta::next_generation(new.meta_mut(), old.meta(), spec);
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut K, old: &K) {
        new.keep_spec(old);
        new.meta_mut().generation = old.meta().generation;
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, policy: &K) -> Errors {
        let at = Loc::new("spec");
        let Some(parts) = policy.parts() else {
            return vec![at.required("")];
        };
        let mut errors = Errors::new();
        let surroundings = validate(&mut errors, &at, &parts);
        policy.validate_own(&mut errors, &at, &surroundings);
        errors
    }

    fn validate_update(&self, ctx: &RequestContext<'_>, new: &K, _old: &K) -> Errors {
        self.validate_create(ctx, new)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate_subresource_update(&self, _ctx: &RequestContext<'_>, new: &K, _old: &K) -> Errors {
        let mut errors = Errors::new();
        new.validate_status(&mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        K::COLUMNS
    }

    fn cells(&self, policy: &K, now: Timestamp) -> Vec<Value> {
        let params = policy.parts().and_then(|parts| parts.params);
        vec![
            cells::name(policy.meta()),
            policy.count().into(),
            matching::shown_param_kind(params).into(),
            cells::age(policy.meta(), now),
        ]
    }
}

/// Rules for these parts. What surrounds the expressions of the rest is the answer.
fn validate(errors: &mut Errors, at: &Loc<'_>, parts: &Parts<'_>) -> Surroundings {
    rules::one_of(
        errors,
        &at.child("failurePolicy"),
        parts.failure_policy,
        &["Fail", "Ignore"],
    );
    matching::validate_param_kind(errors, &at.child("paramKind"), parts.params);
    let at_constraints = at.child("matchConstraints");
    match parts.constraints {
        Some(constraints) => {
            matching::validate_resources(errors, &at_constraints, constraints);
            if constraints.resource_rules.as_ref().is_none_or(Vec::is_empty) {
                errors.push(at_constraints.child("resourceRules").required(""));
            }
        }
        None => errors.push(at_constraints.required("")),
    }
    let plain = surroundings(parts.params);
    let conditions = parts.conditions.map_or(&[][..], Vec::as_slice);
    matching::validate_conditions(errors, &at.child("matchConditions"), conditions, &plain);
    let mut full = plain.with_variables();
    let variables = parts.variables.map_or(&[][..], Vec::as_slice);
    matching::validate_variables(errors, &at.child("variables"), variables, &mut full);
    full
}
