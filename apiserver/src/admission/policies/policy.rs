//! One policy and one binding, read.

use k8s_openapi::api::admissionregistration::v1::{
    MatchResources, NamedRuleWithOperations, ParamKind, ParamRef,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::object::Kind;

use crate::admission::expressions::FailurePolicy;
use crate::admission::expressions::conditions::Conditions;
use crate::admission::expressions::surroundings::Surroundings;
use crate::admission::matching::Criteria;
use crate::cel::eval::Variable;
use crate::registry::admissionregistration::policies::AdmissionPolicy;

/// A kind of policies.
pub trait PolicyKind: AdmissionPolicy {
    /// What such a policy does.
    type Does: Send + Sync + 'static;
    /// What puts it into force.
    type Binding: BindingKind;

    /// Reads a policy; `None` if it says nothing.
    fn read(&self) -> Option<Policy<Self::Does>>;
}

/// A kind of bindings.
pub trait BindingKind: Kind {
    /// Reads a binding; `None` if it says nothing.
    fn read(&self) -> Option<Binding>;
}

/// A policy, ready to be run.
#[derive(Debug)]
pub struct Policy<D> {
    /// Its name.
    pub name: String,
    /// What happens when it cannot be run.
    pub failure_policy: FailurePolicy,
    /// What it is asked about.
    pub constraints: Constraints,
    /// Requests for which all of these hold.
    pub conditions: Conditions,
    /// Computed when they are asked for.
    pub variables: Vec<Variable>,
    /// The kind of its parameters.
    pub params: Option<ParamKind>,
    /// What it does.
    pub does: D,
}

/// The names that the expressions of a policy know, before its variables.
pub fn surroundings(params: Option<&ParamKind>) -> Surroundings {
    Surroundings::new()
        .with_params(params.map(|_| None))
        .with_authorizer()
}

/// Reads a policy; `does` is read where the variables are known. `None` without a spec.
pub fn read<K: AdmissionPolicy, D>(policy: &K, does: impl FnOnce(&Surroundings) -> D) -> Option<Policy<D>> {
    let parts = policy.parts()?;
    let plain = surroundings(parts.params);
    let mut full = plain.clone().with_variables();
    let variables = parts.variables.into_iter().flatten().filter_map(|variable| {
        // Those that make no sense are refused when a policy is written.
        let program = full.add_variable(&variable.name, &variable.expression).ok()?;
        Some(Variable {
            name: variable.name.as_str().into(),
            program,
        })
    });
    let variables: Vec<Variable> = variables.collect();
    Some(Policy {
        name: policy.name().to_owned(),
        failure_policy: FailurePolicy::parse(parts.failure_policy),
        constraints: parts.constraints.map(Constraints::new).unwrap_or_default(),
        // Conditions are for those who do not get as far as the variables.
        conditions: Conditions::read(parts.conditions.map_or(&[], Vec::as_slice), &plain),
        variables,
        params: parts.params.cloned(),
        does: does(&full),
    })
}

/// What somebody is asked about.
#[derive(Debug, Default)]
pub struct Constraints {
    rules: Vec<NamedRuleWithOperations>,
    excluded: Vec<NamedRuleWithOperations>,
    namespaces: LabelSelector,
    objects: LabelSelector,
    exact: bool,
}

impl Constraints {
    fn new(resources: &MatchResources) -> Self {
        let list = |list: &Option<Vec<NamedRuleWithOperations>>| list.clone().unwrap_or_default();
        Self {
            rules: list(&resources.resource_rules),
            excluded: list(&resources.exclude_resource_rules),
            namespaces: resources.namespace_selector.clone().unwrap_or_default(),
            objects: resources.object_selector.clone().unwrap_or_default(),
            exact: resources.match_policy.as_deref() == Some("Exact"),
        }
    }

    /// As requests are held against it.
    pub fn criteria(&self) -> Criteria<'_, NamedRuleWithOperations> {
        Criteria {
            rules: &self.rules,
            excluded: &self.excluded,
            namespaces: &self.namespaces,
            objects: &self.objects,
            equivalent: !self.exact,
        }
    }
}

/// A binding: where a policy is in force, with which parameters, and what a violation leads to.
#[derive(Debug)]
pub struct Binding {
    /// Its name.
    pub name: String,
    /// The policy's.
    pub policy: String,
    /// What it is about, besides what the policy itself says.
    pub constraints: Constraints,
    /// The parameters.
    pub params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`.
    pub actions: Vec<String>,
}

impl Binding {
    /// Reads a binding.
    pub fn new(
        name: Option<&String>,
        policy: &str,
        resources: Option<&MatchResources>,
        params: Option<&ParamRef>,
        actions: &[String],
    ) -> Self {
        Self {
            name: name.cloned().unwrap_or_default(),
            policy: policy.to_owned(),
            constraints: resources.map(Constraints::new).unwrap_or_default(),
            params: params.cloned(),
            actions: actions.to_vec(),
        }
    }

    /// Whether a violation leads to that.
    pub fn has_action(&self, name: &str) -> bool {
        self.actions.iter().any(|action| action == name)
    }
}
