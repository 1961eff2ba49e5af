//! ResourceQuotas.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use super::pod::validation::resources;
use crate::registry::common::defaults::quantities;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

const SCOPES: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Scopes that a thing has or has not: there is nothing to compare.
const ONLY_EXISTS: &[&str] = &[
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "Terminating",
];
const UNFIT: &str = "unsupported scope applied to resource";
/// What pods ask for.
const COMPUTE: &[&str] = &[
    "cpu",
    "limits.cpu",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.memory",
];
const CLAIMS: &[&str] = &["persistentvolumeclaims", "requests.storage"];
/// What else quotas know by name; whatever is not in these lists may have any scope.
const OTHERS: &[&str] = &[
    "configmaps",
    "ephemeral-storage",
    "limits.ephemeral-storage",
    "replicationcontrollers",
    "requests.ephemeral-storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// The kind's strategy.
pub struct ResourceQuotaStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "ResourceQuota",
    plural: "resourcequotas",
    singular: "resourcequota",
    short_names: &["quota"],
    storage_prefix: "resourcequotas",
    subresources: &[SubresourceInfo::status("", "v1", "ResourceQuota")],
    ..ResourceInfo::base()
};

impl Strategy for ResourceQuotaStrategy {
    type Object = ResourceQuota;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, quota: &mut ResourceQuota) {
        if let Some(hard) = quota.spec.as_mut().and_then(|s| s.hard.as_mut()) {
            quantities(hard);
        }
        if let Some(status) = &mut quota.status {
            for list in [&mut status.hard, &mut status.used].into_iter().flatten() {
                quantities(list);
            }
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, quota: &mut ResourceQuota) {
        quota.status = Some(ResourceQuotaStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut ResourceQuota, old: &ResourceQuota) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut ResourceQuota,
        old: &ResourceQuota,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, quota: &ResourceQuota) -> Errors {
        validate(quota)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ResourceQuota, old: &ResourceQuota) -> Errors {
        let mut errors = validate(new);
        let scopes = |quota: &ResourceQuota| {
            let mut scopes = quota
                .spec
                .as_ref()
                .and_then(|s| s.scopes.clone())
                .unwrap_or_default();
            scopes.sort();
            scopes
        };
        if scopes(new) != scopes(old) {
            errors.push(Loc::new("spec.scopes").invalid(rules::shown(&scopes(new)), rules::IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Request", "Requests used, and allowed."),
            Column::new("Limit", "Limits used, and allowed."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, quota: &ResourceQuota, now: Timestamp) -> Vec<Value> {
        let status = quota.status.as_ref();
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in status.iter().flat_map(|s| s.hard.iter().flatten()) {
            let used = status
                .and_then(|s| s.used.as_ref())
                .and_then(|u| u.get(name))
                .map_or("0", |q| q.0.as_str());
            let text = format!("{name}: {used}/{}", hard.0);
            if name.starts_with("limits") {
                limits.push(text)
            } else {
                requests.push(text)
            }
        }
        vec![
            cells::name(&quota.metadata),
            requests.join(", ").into(),
            limits.join(", ").into(),
            cells::age(&quota.metadata, now),
        ]
    }
}

/// Whether things of this scope are among what the resource counts.
fn fits(scope: &str, resource: &str) -> bool {
    let pods = resource == "pods";
    let compute = COMPUTE.contains(&resource);
    let claims = CLAIMS.contains(&resource);
    if !pods && !compute && !claims && !OTHERS.contains(&resource) {
        return true;
    }
    match scope {
        "BestEffort" => pods,
        "VolumeAttributesClass" => claims,
        _ if SCOPES.contains(&scope) => pods || compute,
        _ => true,
    }
}

fn validate(quota: &ResourceQuota) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &quota.spec else { return errors };
    let at_hard = at.child("hard");
    for (name, quantity) in spec.hard.iter().flatten() {
        let at = at_hard.key(name);
        // Counts of any resource are quotas too: `count/deployments.apps`.
        if !name.starts_with("count/") {
            resources::resource_name(&mut errors, &at, name);
        }
        resources::amount(&mut errors, &at, name, quantity);
    }
    let at_scopes = at.child("scopes");
    for scope in spec.scopes.iter().flatten() {
        if !SCOPES.contains(&scope.as_str()) {
            errors.push(at_scopes.invalid(rules::shown(&spec.scopes), "unsupported scope"));
        }
        for _ in spec.hard.iter().flatten().filter(|(name, _)| !fits(scope, name)) {
            errors.push(at_scopes.invalid(rules::shown(&spec.scopes), UNFIT));
        }
    }
    let has = |scope: &str| spec.scopes.iter().flatten().any(|s| s == scope);
    for (one, other) in [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")] {
        if has(one) && has(other) {
            errors.push(at_scopes.invalid(rules::shown(&spec.scopes), "conflicting scopes"));
        }
    }
    let at_selector = at.child("scopeSelector.matchExpressions");
    let expressions = spec
        .scope_selector
        .iter()
        .flat_map(|s| s.match_expressions.iter().flatten());
    for (i, requirement) in expressions.enumerate() {
        let at = at_selector.index(i);
        rules::one_of(
            &mut errors,
            &at.child("scopeName"),
            Some(&requirement.scope_name),
            SCOPES,
        );
        for _ in spec
            .hard
            .iter()
            .flatten()
            .filter(|(name, _)| !fits(&requirement.scope_name, name))
        {
            errors.push(at.invalid(rules::shown(&spec.scope_selector), UNFIT));
        }
        if requirement.operator != "Exists" && ONLY_EXISTS.contains(&requirement.scope_name.as_str()) {
            let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
                          ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, \
                          ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.push(
                at.child("operator")
                    .invalid(requirement.operator.as_str(), detail),
            );
        }
        let values = requirement.values.as_deref().unwrap_or(&[]);
        match requirement.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                let detail =
                    "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.push(at.child("values").required(detail));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let detail =
                    "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector";
                errors.push(at.child("values").invalid(rules::shown(&values), detail));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.push(
                at.child("operator")
                    .invalid(other, "not a valid selector operator"),
            ),
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(spec: &Value) -> Vec<String> {
        let quota =
            serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).expect("a quota");
        validate(&quota).iter().map(|error| error.field.clone()).collect()
    }

    #[test]
    fn a_scope_goes_with_what_it_is_about() {
        let scoped =
            |scope: &str, resource: &str| fields(&json!({"scopes": [scope], "hard": {resource: "1"}}));
        for (scope, resource) in [
            ("BestEffort", "pods"),
            ("NotBestEffort", "limits.memory"),
            ("Terminating", "requests.cpu"),
            ("Terminating", "requests.example.com/dongle"),
            ("Terminating", "count/jobs.batch"),
            ("VolumeAttributesClass", "requests.storage"),
        ] {
            assert!(scoped(scope, resource).is_empty(), "{scope} {resource}");
        }
        for (scope, resource) in [
            ("BestEffort", "cpu"),
            ("Terminating", "services"),
            ("PriorityClass", "ephemeral-storage"),
            ("VolumeAttributesClass", "pods"),
        ] {
            assert_eq!(scoped(scope, resource), ["spec.scopes"], "{scope} {resource}");
        }
        let selected = json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [
            {"scopeName": "Terminating", "operator": "In", "values": ["x"]}]}});
        assert_eq!(
            fields(&selected),
            ["spec.scopeSelector.matchExpressions[0].operator"]
        );
    }
}
