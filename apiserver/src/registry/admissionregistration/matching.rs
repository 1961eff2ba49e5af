//! What a webhook or policy is asked about: defaults and rules.

use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, RuleWithOperations, Variable,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use crate::admission::expressions::surroundings::{Surroundings, Wanted};
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::{rules, selectors};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const CONDITIONS_MAX: usize = 64;

/// One rule, whichever kind it is part of.
#[derive(Clone, Copy)]
pub struct Rule<'a> {
    /// `CREATE`, ...
    pub operations: &'a [String],
    /// Groups, or `*`.
    pub groups: &'a [String],
    /// Versions, or `*`.
    pub versions: &'a [String],
    /// `pods`, `pods/*`, `*/scale`, `*`, `*/*`.
    pub resources: &'a [String],
    /// Objects with these names only, unless empty.
    pub names: &'a [String],
    /// `*`, `Cluster` or `Namespaced`.
    pub scope: &'a str,
}

fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or(&[])
}

impl<'a> From<&'a RuleWithOperations> for Rule<'a> {
    fn from(rule: &'a RuleWithOperations) -> Self {
        Self {
            operations: list(&rule.operations),
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            names: &[],
            scope: rule.scope.as_deref().unwrap_or("*"),
        }
    }
}

impl<'a> From<&'a NamedRuleWithOperations> for Rule<'a> {
    fn from(rule: &'a NamedRuleWithOperations) -> Self {
        Self {
            operations: list(&rule.operations),
            groups: list(&rule.api_groups),
            versions: list(&rule.api_versions),
            resources: list(&rule.resources),
            names: list(&rule.resource_names),
            scope: rule.scope.as_deref().unwrap_or("*"),
        }
    }
}

/// Fills in what a policy's constraints leave out.
pub fn default_resources(resources: &mut MatchResources) {
    fill(&mut resources.match_policy, "Equivalent");
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    for rules in [
        &mut resources.resource_rules,
        &mut resources.exclude_resource_rules,
    ] {
        for rule in rules.iter_mut().flatten() {
            fill(&mut rule.scope, "*");
        }
    }
}

/// A policy's constraints.
pub fn validate_resources(errors: &mut Errors, at: &Loc<'_>, resources: &MatchResources) {
    rules::one_of(
        errors,
        &at.child("matchPolicy"),
        resources.match_policy.as_deref(),
        MATCH_POLICIES,
    );
    match &resources.namespace_selector {
        Some(selector) => selectors::label_selector(errors, &at.child("namespaceSelector"), selector),
        None => errors.push(at.child("namespaceSelector").required("")),
    }
    match &resources.object_selector {
        Some(selector) => selectors::label_selector(errors, &at.child("labelSelector"), selector),
        None => errors.push(at.child("objectSelector").required("")),
    }
    for (field, rules) in [
        ("resourceRules", &resources.resource_rules),
        ("excludeResourceRules", &resources.exclude_resource_rules),
    ] {
        let at = at.child(field);
        for (i, rule) in rules.iter().flatten().enumerate() {
            let at = at.index(i);
            let names = rule.resource_names.as_deref().unwrap_or(&[]);
            for (j, name) in names.iter().enumerate() {
                let at_names = at.child("resourceNames");
                if names[..j].contains(name) {
                    errors.push(at_names.index(j).duplicate(name.as_str()));
                }
                for complaint in validation::path_segment(name) {
                    errors.push(at_names.index(j).invalid(name.as_str(), complaint));
                }
            }
            validate_rule(errors, &at, rule.into());
        }
    }
}

/// One rule.
pub fn validate_rule(errors: &mut Errors, at: &Loc<'_>, rule: Rule<'_>) {
    let star = |values: &[String]| values.len() > 1 && values.iter().any(|v| v == "*");
    let at_operations = at.child("operations");
    if rule.operations.is_empty() {
        errors.push(at_operations.required(""));
    }
    if star(rule.operations) {
        let detail = "if '*' is present, must not specify other operations";
        errors.push(at_operations.invalid(rules::shown(&rule.operations), detail));
    }
    for (i, operation) in rule.operations.iter().enumerate() {
        if !OPERATIONS.contains(&operation.as_str()) {
            let at = at_operations.index(i);
            errors.push(at.not_supported(operation.as_str(), OPERATIONS));
        }
    }
    for (field, values, what) in [
        ("apiGroups", rule.groups, "API groups"),
        ("apiVersions", rule.versions, "API versions"),
    ] {
        let at = at.child(field);
        if values.is_empty() {
            errors.push(at.required(""));
        }
        if star(values) {
            let detail = format!("if '*' is present, must not specify other {what}");
            errors.push(at.invalid(rules::shown(&values), detail));
        }
    }
    let at_versions = at.child("apiVersions");
    for (i, _) in rule.versions.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        errors.push(at_versions.index(i).required(""));
    }
    validate_resource_names(errors, &at.child("resources"), rule.resources);
    if !SCOPES.contains(&rule.scope) {
        errors.push(at.child("scope").not_supported(rule.scope, SCOPES));
    }
}

/// `*/*` says everything, `*` every resource, `x/*` every subresource of x, `*/y` the subresource y of every resource.
fn validate_resource_names(errors: &mut Errors, at: &Loc<'_>, resources: &[String]) {
    if resources.is_empty() {
        errors.push(at.required(""));
    }
    let has = |name: &str| resources.iter().any(|r| r == name);
    for (i, name) in resources.iter().enumerate() {
        let at = at.index(i);
        if name.is_empty() {
            errors.push(at.required(""));
            continue;
        }
        let (resource, subresource) = name
            .split_once('/')
            .map_or((name.as_str(), None), |(r, s)| (r, Some(s)));
        let detail = match subresource {
            Some(subresource) if name != "*/*" && subresource != "*" && has(&format!("{resource}/*")) => {
                format!("if '{resource}/*' is present, must not specify {name}")
            }
            Some(subresource) if resource != "*" && has(&format!("*/{subresource}")) => {
                format!("if '*/{subresource}' is present, must not specify {name}")
            }
            _ => continue,
        };
        errors.push(at.invalid(name.as_str(), detail));
    }
    if resources.len() > 1 && has("*/*") {
        let detail = "if '*/*' is present, must not specify other resources";
        errors.push(at.invalid(rules::shown(&resources), detail));
    }
    if has("*") && resources.iter().any(|name| !name.contains('/') && name != "*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errors.push(at.invalid(rules::shown(&resources), detail));
    }
}

/// Conditions: named, not too many, each an expression about what surrounds it.
pub fn validate_conditions(
    errors: &mut Errors,
    at: &Loc<'_>,
    conditions: &[MatchCondition],
    surroundings: &Surroundings,
) {
    if conditions.len() > CONDITIONS_MAX {
        errors.push(at.too_many(conditions.len(), CONDITIONS_MAX));
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        let at_expression = at.child("expression");
        if condition.expression.trim().is_empty() {
            errors.push(at_expression.required(""));
        } else {
            compile(
                errors,
                &at_expression,
                &condition.expression,
                surroundings,
                Wanted::Bool,
            );
        }
        let at_name = at.child("name");
        if condition.name.is_empty() {
            errors.push(at_name.required(""));
        } else {
            rules::qualified_name(errors, &at_name, &condition.name);
        }
        if conditions[..i].iter().any(|other| other.name == condition.name) {
            errors.push(at_name.duplicate(condition.name.as_str()));
        }
    }
}

/// An expression that can be read and comes to what is wanted.
pub fn compile(
    errors: &mut Errors,
    at: &Loc<'_>,
    expression: &str,
    surroundings: &Surroundings,
    wanted: Wanted,
) {
    let expression = expression.trim();
    if let Err(why) = surroundings.compile(expression, wanted) {
        errors.push(at.invalid(expression, why));
    }
}

/// The kind of a policy's parameters.
pub fn validate_param_kind(errors: &mut Errors, at: &Loc<'_>, kind: Option<&ParamKind>) {
    let Some(kind) = kind else { return };
    let at_version = at.child("apiVersion");
    match kind.api_version.as_deref().unwrap_or("") {
        "" => errors.push(at_version.required("")),
        version => {
            let (group, short) = version.split_once('/').unwrap_or(("", version));
            if short.contains('/') {
                let detail = format!("unexpected GroupVersion string: {version}");
                errors.push(at_version.invalid(version, detail));
            }
            if version.contains('/') {
                rules::complain(errors, &at_version, group, validation::dns1123_subdomain(group));
            }
            rules::complain(errors, &at_version, short, validation::dns1035_label(short));
        }
    }
    let at_kind = at.child("kind");
    match kind.kind.as_deref().unwrap_or("") {
        "" => errors.push(at_kind.required("")),
        name => {
            let lower = name.to_lowercase();
            if !validation::dns1035_label(&lower).is_empty() {
                let complaint = validation::dns1035_label(&lower).join(",");
                let detail = format!("may have mixed case, but should otherwise match: {complaint}");
                errors.push(at_kind.invalid(name, detail));
            }
        }
    }
}

/// Variables: identifiers, each an expression. What surrounds the expressions after them knows them, too.
pub fn validate_variables(
    errors: &mut Errors,
    at: &Loc<'_>,
    variables: &[Variable],
    surroundings: &mut Surroundings,
) {
    for (i, variable) in variables.iter().enumerate() {
        let at = at.index(i);
        let at_name = at.child("name");
        if variable.name.is_empty() {
            errors.push(at_name.required("name is required"));
        } else if !validation::c_identifier(&variable.name).is_empty() {
            errors.push(at_name.invalid(variable.name.as_str(), "name is not a valid CEL identifier"));
        }
        if variables[..i].iter().any(|other| other.name == variable.name) {
            errors.push(at_name.duplicate(variable.name.as_str()));
        }
        if variable.expression.trim().is_empty() {
            errors.push(at.child("expression").required("expression is required"));
        } else if let Err(why) = surroundings.add_variable(&variable.name, &variable.expression) {
            errors.push(at.child("expression").invalid(variable.expression.as_str(), why));
        }
    }
}

/// The kind of parameters as tables show it.
pub fn shown_param_kind(kind: Option<&ParamKind>) -> String {
    match kind {
        Some(kind) => format!(
            "{}/{}",
            kind.api_version.as_deref().unwrap_or(""),
            kind.kind.as_deref().unwrap_or("")
        ),
        None => "<unset>".to_owned(),
    }
}
