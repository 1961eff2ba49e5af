//! The `rbac.authorization.k8s.io` group.

pub mod cluster_role;
pub mod cluster_role_binding;
pub mod role;
pub mod role_binding;

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::Errors;
use keelson_api::object::Kind;
use keelson_api::validation;
use serde_json::Value;

use super::common::loc::Loc;
use super::common::{cells, rules};
use super::strategy::Column;

/// The group's name, which references to roles carry.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// Whether the rules of a role can speak of URLs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Only of what lives in one namespace.
    Namespace,
    /// Of everything.
    Cluster,
}

fn policy_rules(errors: &mut Errors, policies: &[PolicyRule], reach: Reach) {
    let all = Loc::new("rules");
    for (i, rule) in policies.iter().enumerate() {
        let at = all.index(i);
        let empty = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.push(
                at.child("verbs")
                    .required("verbs must contain at least one value"),
            );
        }
        if !empty(&rule.non_resource_urls) {
            let at = at.child("nonResourceURLs");
            let shown = || rules::shown(&rule.non_resource_urls);
            if reach == Reach::Namespace {
                errors.push(at.invalid(shown(), "namespaced rules cannot apply to non-resource URLs"));
            }
            if !empty(&rule.api_groups) || !empty(&rule.resources) || !empty(&rule.resource_names) {
                errors.push(at.invalid(
                    shown(),
                    "rules cannot apply to both regular resources and non-resource URLs",
                ));
            }
            continue;
        }
        if empty(&rule.api_groups) {
            errors.push(
                at.child("apiGroups")
                    .required("resource rules must supply at least one api group"),
            );
        }
        if empty(&rule.resources) {
            errors.push(
                at.child("resources")
                    .required("resource rules must supply at least one resource"),
            );
        }
    }
}

/// Whether nothing has changed but who owns the object and what keeps it from being removed: the garbage collector's
/// business, which gives nobody anything.
fn only_ownership<K: Kind + Clone + PartialEq>(new: &K, old: &K) -> bool {
    let (new_meta, old_meta) = (new.meta(), old.meta());
    if new_meta.owner_references == old_meta.owner_references && new_meta.finalizers == old_meta.finalizers {
        return false;
    }
    let mut same = new.clone();
    let meta = same.meta_mut();
    meta.owner_references.clone_from(&old_meta.owner_references);
    meta.finalizers.clone_from(&old_meta.finalizers);
    meta.managed_fields.clone_from(&old_meta.managed_fields);
    same == *old
}

fn default_binding(reference: &mut RoleRef, subjects: &mut Option<Vec<Subject>>) {
    if reference.api_group.as_deref().unwrap_or("").is_empty() {
        reference.api_group = Some(GROUP.to_owned());
    }
    for subject in subjects.iter_mut().flatten() {
        if matches!(subject.kind.as_str(), "User" | "Group")
            && subject.api_group.as_deref().unwrap_or("").is_empty()
        {
            subject.api_group = Some(GROUP.to_owned());
        }
    }
}

fn binding(errors: &mut Errors, reference: &RoleRef, subjects: &[Subject], kinds: &[&str]) {
    let at = Loc::new("roleRef");
    let group = reference.api_group.as_deref().unwrap_or("");
    if group != GROUP {
        errors.push(at.child("apiGroup").not_supported(group, &[GROUP]));
    }
    if !kinds.contains(&reference.kind.as_str()) {
        errors.push(at.child("kind").not_supported(reference.kind.as_str(), kinds));
    }
    if reference.name.is_empty() {
        errors.push(at.child("name").required(""));
    } else {
        let complaints = validation::path_segment(&reference.name);
        rules::complain(errors, &at.child("name"), &reference.name, complaints);
    }
    let all = Loc::new("subjects");
    for (i, one) in subjects.iter().enumerate() {
        subject(errors, &all.index(i), one);
    }
}

fn subject(errors: &mut Errors, at: &Loc<'_>, subject: &Subject) {
    let group = subject.api_group.as_deref().unwrap_or("");
    if subject.name.is_empty() {
        errors.push(at.child("name").required(""));
    }
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                rules::subdomain(errors, &at.child("name"), &subject.name);
            }
            if !group.is_empty() {
                errors.push(at.child("apiGroup").not_supported(group, &[""]));
            }
            if subject.namespace.as_deref().unwrap_or("").is_empty() {
                errors.push(at.child("namespace").required(""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(at.child("apiGroup").not_supported(group, &[GROUP]));
            }
        }
        other => errors.push(
            at.child("kind")
                .not_supported(other, &["Group", "ServiceAccount", "User"]),
        ),
    }
}

fn same_role(errors: &mut Errors, new: &RoleRef, old: &RoleRef) {
    if new != old {
        errors.push(Loc::new("roleRef").invalid(rules::shown(new), "cannot change roleRef"));
    }
}

/// The table of both kinds of bindings.
const BINDING_COLUMNS: &[Column] = &[
    Column::name(),
    Column::new("Role", "The role that is given."),
    Column::new("Age", "Time since the object was created."),
    Column::new("Users", "Users the role is given to.").wide(),
    Column::new("Groups", "Groups the role is given to.").wide(),
    Column::new("ServiceAccounts", "Service accounts the role is given to.").wide(),
];

fn binding_cells(meta: &ObjectMeta, role: &RoleRef, subjects: &[Subject], now: Timestamp) -> Vec<Value> {
    let [users, groups, accounts] = subject_texts(subjects);
    vec![
        cells::name(meta),
        format!("{}/{}", role.kind, role.name).into(),
        cells::age(meta, now),
        users.into(),
        groups.into(),
        accounts.into(),
    ]
}

/// Users, groups and service accounts of a binding, each as one text.
fn subject_texts(subjects: &[Subject]) -> [String; 3] {
    let of = |kind: &str| {
        let texts = subjects.iter().filter(|s| s.kind == kind).map(|s| match kind {
            "ServiceAccount" => format!("{}/{}", s.namespace.as_deref().unwrap_or(""), s.name),
            _ => s.name.clone(),
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    [of("User"), of("Group"), of("ServiceAccount")]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_and_bindings_are_checked() {
        let policies: Vec<PolicyRule> = serde_json::from_value(json!([
            {"verbs": []},
            {"verbs": ["get"], "nonResourceURLs": ["/healthz"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}
        ]))
        .expect("rules");
        let mut errors = Errors::new();
        policy_rules(&mut errors, &policies, Reach::Namespace);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
                "rules[1].nonResourceURLs: Invalid value: [\"/healthz\"]: namespaced rules cannot apply to non-resource URLs",
            ]
        );
        let mut reference: RoleRef =
            serde_json::from_value(json!({"kind": "Thing", "name": "r"})).expect("a reference");
        let mut subjects: Option<Vec<Subject>> = serde_json::from_value(
            json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]),
        )
        .expect("subjects");
        default_binding(&mut reference, &mut subjects);
        let mut errors = Errors::new();
        binding(
            &mut errors,
            &reference,
            subjects.as_deref().unwrap_or(&[]),
            &["ClusterRole", "Role"],
        );
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "roleRef.kind: Unsupported value: \"Thing\": supported values: \"ClusterRole\", \"Role\"",
                "subjects[1].namespace: Required value",
            ]
        );
    }
}
