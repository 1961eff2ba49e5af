//! What a validating policy says, held against the types of the objects it is about. What is found are warnings: the
//! policy is in force all the same.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    ExpressionWarning, NamedRuleWithOperations, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec,
};
use keelson_api::schema;

use super::params;
use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::cel::types::{self, Decl};
use crate::registry::catalog::Served;
use crate::state::Server;

/// More types than this are not looked at.
const TYPES_MAX: usize = 10;

/// The warnings for a policy.
pub fn warnings(server: &Server, policy: &ValidatingAdmissionPolicy) -> Vec<ExpressionWarning> {
    let Some(spec) = &policy.spec else {
        return Vec::new();
    };
    let types = types_of(server, spec);
    let params = spec.param_kind.as_ref().and_then(|kind| {
        let served = params::resource(server, kind).ok()?;
        decl(&served).map(Some)
    });
    let surroundings: Vec<(String, Surroundings)> = types
        .into_iter()
        .map(|(name, decl)| (name, surroundings(decl, params.clone(), spec)))
        .collect();
    let mut warnings = Vec::new();
    let mut look = |field: String, source: &str| {
        let found: Vec<String> = surroundings
            .iter()
            .filter_map(|(name, surroundings)| {
                let why = surroundings.compile(source, Wanted::Any).err()?;
                let issues = why.strip_prefix("compilation failed: ").unwrap_or(&why);
                Some(format!("{name}: {issues}\n"))
            })
            .collect();
        if !found.is_empty() {
            warnings.push(ExpressionWarning {
                field_ref: field,
                warning: found.join("\n"),
            });
        }
    };
    for (index, validation) in spec.validations.iter().flatten().enumerate() {
        look(
            format!("spec.validations[{index}].expression"),
            &validation.expression,
        );
        if let Some(source) = validation.message_expression.as_deref().filter(|s| !s.is_empty()) {
            look(format!("spec.validations[{index}].messageExpression"), source);
        }
    }
    warnings
}

fn surroundings(
    object: Arc<Decl>,
    params: Option<Option<Arc<Decl>>>,
    spec: &ValidatingAdmissionPolicySpec,
) -> Surroundings {
    let mut surroundings = Surroundings::new()
        .about(object)
        .with_params(params)
        .with_authorizer()
        .with_variables();
    for variable in spec.variables.iter().flatten() {
        // What is wrong with variables shows where they are used, if at all.
        let _ = surroundings.add_variable(&variable.name, &variable.expression);
    }
    surroundings
}

/// The types a policy names without wildcards, with what messages call them; in order.
fn types_of(server: &Server, spec: &ValidatingAdmissionPolicySpec) -> Vec<(String, Arc<Decl>)> {
    let constraints = spec.match_constraints.as_ref();
    let rules = constraints.and_then(|constraints| constraints.resource_rules.as_ref());
    let mut found = std::collections::BTreeMap::new();
    for rule in rules.into_iter().flatten() {
        for (group, version, resource) in named(rule) {
            if found.len() == TYPES_MAX {
                break;
            }
            if let Some(served) = server.catalog.find(group, version, resource) {
                let key = (served.group(), served.version(), served.info().kind);
                found.entry(key).or_insert_with(|| Served::clone(&served));
            }
        }
    }
    found
        .into_values()
        .filter_map(|served| {
            let name = format!("{}, Kind={}", served.api_version(), served.info().kind);
            Some((name, decl(&served)?))
        })
        .collect()
}

/// The resources a rule names; none if it has a wildcard for groups or versions.
fn named(rule: &NamedRuleWithOperations) -> Vec<(&str, &str, &str)> {
    let list = |list: &'_ Option<Vec<String>>| -> Vec<String> { list.clone().unwrap_or_default() };
    let wild = |names: &[String]| names.iter().any(|name| name.contains('*'));
    if wild(&list(&rule.api_groups)) || wild(&list(&rule.api_versions)) {
        return Vec::new();
    }
    let mut all = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for version in rule.api_versions.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                if !resource.contains(['*', '/']) {
                    all.push((group.as_str(), version.as_str(), resource.as_str()));
                }
            }
        }
    }
    all.sort_unstable();
    all
}

/// The type of a resource's objects.
fn decl(served: &Served) -> Option<Arc<Decl>> {
    let info = served.info();
    match served.custom_version() {
        Some(version) => types::of_custom(version.schema(), info.kind),
        None => schema::by_kind(served.group(), served.version(), info.kind).map(types::of_definition),
    }
}
