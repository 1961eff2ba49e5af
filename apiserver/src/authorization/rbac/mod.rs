//! Role-based access control: who has been given which roles, and what they allow.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`rule`] | one rule of a role |
//! | [`index`] | roles and bindings by subject |
//! | [`follow`] | keeps the index as the watch cache is |
//! | [`escalation`] | nobody gives away what they do not have |
//! | [`bootstrap`] | the roles a cluster has from its first moment on |
//!
//! A decision decodes nothing: it looks up the caller's name and groups and holds the rules found against the request.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>

pub mod bootstrap;
pub mod escalation;
pub mod follow;
pub mod index;
pub mod rule;

use std::ops::ControlFlow;
use std::sync::Arc;

use parking_lot::RwLock;

use super::{Attributes, Opinion, Reason, Verdict};
use crate::authentication::User;
use follow::Progress;
use index::{Index, RoleKind};
use rule::Rule;

/// The authorizer.
#[derive(Default)]
pub struct Rbac {
    index: RwLock<Index>,
    progress: Progress,
}

/// Roles and bindings that are known from elsewhere than the cluster.
impl From<Index> for Rbac {
    fn from(index: Index) -> Self {
        Self {
            index: RwLock::new(index),
            progress: Progress::default(),
        }
    }
}

impl Rbac {
    /// Whether some rule of some role of the caller allows it.
    pub fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        let index = self.index.read();
        let mut missing = Vec::new();
        let found = index.visit(user, attributes.namespace(), |grant, rules| {
            match rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => {
                    return ControlFlow::Break(grant.clone());
                }
                Some(_) => {}
                None => missing.push(grant.missing_role()),
            }
            ControlFlow::Continue(())
        });
        match found {
            ControlFlow::Break(grant) => Verdict {
                opinion: Opinion::Allow,
                reason: Reason::Grant(grant),
            },
            ControlFlow::Continue(()) => Verdict::no_opinion(not_found(missing)),
        }
    }

    /// Every rule the caller has in a namespace (empty: only in the cluster as a whole), and what was wrong with
    /// bindings on the way.
    pub fn rules_of(&self, user: &User, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut all, mut missing) = (Vec::new(), Vec::new());
        let seen: ControlFlow<()> = self.index.read().visit(user, namespace, |grant, rules| {
            match rules {
                Some(rules) => all.extend_from_slice(rules),
                None => missing.push(grant.missing_role()),
            }
            ControlFlow::Continue(())
        });
        debug_assert!(seen.is_continue());
        missing.dedup();
        (all, missing)
    }

    /// The rules of a role, if there is such a role.
    pub fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<Arc<[Rule]>> {
        self.index.read().role(kind, namespace, name).cloned()
    }

    /// Whether some of these rules allow a request, whoever has them.
    pub fn rules_allow(rules: &[Rule], attributes: &Attributes<'_>) -> bool {
        rules.iter().any(|rule| rule.allows(attributes))
    }
}

/// Missing roles as upstream lists errors: one as it is, many in brackets.
fn not_found(mut missing: Vec<String>) -> String {
    missing.dedup();
    match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::attributes::Resource;
    use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};
    use serde_json::json;

    fn rbac() -> Rbac {
        let rbac = Rbac::default();
        let rules: Vec<PolicyRule> = serde_json::from_value(json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}
        ]))
        .expect("rules");
        let reference = |kind: &str, name: &str| -> RoleRef {
            serde_json::from_value(json!({"kind": kind, "name": name})).expect("a reference")
        };
        let subjects =
            |json: serde_json::Value| -> Vec<Subject> { serde_json::from_value(json).expect("subjects") };
        let mut index = rbac.index.write();
        index.put_role("a", "reader", &rules);
        index.put_role("", "viewer", &rules);
        index.put_binding(
            "a",
            "b",
            &reference("Role", "reader"),
            &subjects(json!([
                {"kind": "ServiceAccount", "name": "s", "namespace": "a"}, {"kind": "User", "name": "jane"}
            ])),
        );
        index.put_binding(
            "",
            "v",
            &reference("ClusterRole", "viewer"),
            &subjects(json!([{"kind": "Group", "name": "watchers"}])),
        );
        drop(index);
        rbac
    }

    fn list(namespace: &'static str) -> Attributes<'static> {
        Attributes::resource(
            "list",
            Resource {
                resource: "pods",
                namespace,
                ..Resource::default()
            },
        )
    }

    #[test]
    fn roles_reach_as_far_as_their_bindings() {
        let rbac = rbac();
        let account = User::named("system:serviceaccount:a:s", []);
        let verdict = rbac.decide(&account, &list("a"));
        assert!(verdict.allowed());
        assert_eq!(
            verdict.reason.to_string(),
            "RBAC: allowed by RoleBinding \"b/a\" of Role \"reader\" to ServiceAccount \"s/a\""
        );
        assert!(!rbac.decide(&account, &list("b")).allowed());
        assert!(!rbac.decide(&account, &list("")).allowed());
        let watcher = User::named("x", ["watchers".to_owned()]);
        let verdict = rbac.decide(&watcher, &list(""));
        assert_eq!(
            verdict.reason.to_string(),
            "RBAC: allowed by ClusterRoleBinding \"v\" of ClusterRole \"viewer\" to Group \"watchers\""
        );
    }

    #[test]
    fn what_is_removed_counts_no_more_and_missing_roles_are_named() {
        let rbac = rbac();
        let jane = User::named("jane", []);
        rbac.index.write().remove_role("a", "reader");
        let verdict = rbac.decide(&jane, &list("a"));
        assert_eq!(
            verdict.reason.to_string(),
            "RBAC: role.rbac.authorization.k8s.io \"reader\" not found"
        );
        rbac.index.write().remove_binding("a", "b");
        let verdict = rbac.decide(&jane, &list("a"));
        assert!(!verdict.allowed() && verdict.reason.to_string().is_empty());
    }
}
