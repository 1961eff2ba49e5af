//! Role-based access control: who has been given which roles, and what they allow.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`rule`] | one rule of a role |
//! | [`index`] | roles and bindings by subject |
//! | `table` | the rules of a subject with many, by what they are about |
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
mod table;

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
        match self.index.read().decide(user, attributes) {
            Ok(grant) => Verdict {
                opinion: Opinion::Allow,
                reason: Reason::Grant(grant.clone()),
            },
            Err(missing) => Verdict::no_opinion(not_found(missing)),
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
mod tests;
