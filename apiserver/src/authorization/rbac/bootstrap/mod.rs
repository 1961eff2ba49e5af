//! The roles and bindings a cluster has from its first moment on, brought up to date at every start of a server.
//!
//! What is missing in a role or a binding is added; what somebody added stays. An object whose annotation
//! `rbac.authorization.kubernetes.io/autoupdate` is `false` is left alone.
//!
//! | module | what is in it |
//! | --- | --- |
//! | [`tables`] | how the tables are written |
//! | [`cluster_roles`] | roles of users, nodes and components |
//! | [`controller_roles`] | roles of controllers |
//! | [`namespace_roles`] | roles inside of the system's namespaces |

pub mod cluster_roles;
pub mod controller_roles;
pub mod namespace_roles;
pub mod tables;

#[cfg(test)]
mod facts;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role as NamespacedRole, RoleBinding,
    RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, LabelSelector, ObjectMeta};
use keelson_api::object::Kind;
use keelson_api::status::ApiResult;

use super::escalation::missing_rules;
use super::index::Index;
use super::rule::Rule;
use crate::authentication::User;
use crate::registry::rbac::GROUP;
use crate::state::Server;
use tables::{Bound, Line, Role, To};

const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// Writes under way at the same time: they share the store's syncs.
const AT_ONCE: usize = 32;

/// Brings everything up to date.
///
/// # Errors
/// With the first write that fails.
pub async fn reconcile(server: &Arc<Server>) -> ApiResult<()> {
    let mut work: Vec<BoxFuture<'_, ApiResult<()>>> = Vec::new();
    for role in cluster_roles::ROLES {
        work.push(Box::pin(ensure(server, cluster_role(role))));
    }
    for bound in cluster_roles::BINDINGS {
        work.push(Box::pin(ensure(
            server,
            cluster_binding(bound.name, bound.role, subjects(bound.to)),
        )));
    }
    for (controller, lines) in controller_roles::CONTROLLERS {
        let name = format!("{}{controller}", controller_roles::PREFIX);
        let role = ClusterRole {
            metadata: meta("", &name),
            rules: Some(policies(lines)),
            ..ClusterRole::default()
        };
        let subjects = vec![To::Account(controller).subject()];
        work.push(Box::pin(ensure(server, role)));
        work.push(Box::pin(ensure(server, cluster_binding(&name, &name, subjects))));
    }
    for (namespace, roles, bindings) in namespace_roles::NAMESPACES {
        for role in *roles {
            let role = NamespacedRole {
                metadata: meta(namespace, role.name),
                rules: Some(policies(role.lines)),
            };
            work.push(Box::pin(ensure(server, role)));
        }
        for bound in *bindings {
            work.push(Box::pin(ensure(server, binding(namespace, bound))));
        }
    }
    futures::stream::iter(work)
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await
}

/// The same roles and bindings as the authorizer keeps them: what a cluster allows that nobody has changed. Roles that
/// are made of their parts have the rules of these.
pub fn index() -> Index {
    let mut index = Index::default();
    for role in cluster_roles::ROLES {
        index.put_role("", role.name, &whole(role));
    }
    for bound in cluster_roles::BINDINGS {
        let role = reference("ClusterRole", bound.role);
        index.put_binding("", bound.name, &role, &subjects(bound.to));
    }
    for (controller, lines) in controller_roles::CONTROLLERS {
        let name = format!("{}{controller}", controller_roles::PREFIX);
        index.put_role("", &name, &policies(lines));
        let role = reference("ClusterRole", &name);
        index.put_binding("", &name, &role, &[To::Account(controller).subject()]);
    }
    for (namespace, roles, bindings) in namespace_roles::NAMESPACES {
        for role in *roles {
            index.put_role(namespace, role.name, &policies(role.lines));
        }
        for bound in *bindings {
            let role = reference("Role", bound.role);
            index.put_binding(namespace, bound.name, &role, &subjects(bound.to));
        }
    }
    index
}

/// A role's own rules and those of its parts.
fn whole(role: &Role) -> Vec<PolicyRule> {
    let mut rules = policies(role.lines);
    if role.aggregates {
        let parts = cluster_roles::ROLES
            .iter()
            .filter(|part| part.part_of == role.name);
        rules.extend(parts.flat_map(whole));
    }
    rules
}

fn meta(namespace: &str, name: &str) -> ObjectMeta {
    let pair = |(key, value): (&str, &str)| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        labels: Some(pair(BOOTSTRAPPING)),
        annotations: Some(pair((AUTOUPDATE, "true"))),
        ..ObjectMeta::default()
    }
}

fn policies(lines: &[Line]) -> Vec<PolicyRule> {
    lines.iter().map(Line::policy).collect()
}

fn subjects(to: &[To]) -> Vec<Subject> {
    to.iter().map(To::subject).collect()
}

fn part_of(whole: &str) -> (String, String) {
    (
        format!("rbac.authorization.k8s.io/aggregate-to-{whole}"),
        "true".to_owned(),
    )
}

fn cluster_role(role: &Role) -> ClusterRole {
    let mut metadata = meta("", role.name);
    if !role.part_of.is_empty() {
        metadata
            .labels
            .get_or_insert_default()
            .extend([part_of(role.part_of)]);
    }
    let selector = || LabelSelector {
        match_labels: Some(BTreeMap::from([part_of(role.name)])),
        match_expressions: None,
    };
    ClusterRole {
        metadata,
        rules: Some(policies(role.lines)).filter(|rules| !rules.is_empty()),
        aggregation_rule: role.aggregates.then(|| AggregationRule {
            cluster_role_selectors: Some(vec![selector()]),
        }),
    }
}

fn reference(kind: &str, name: &str) -> RoleRef {
    RoleRef {
        api_group: Some(GROUP.to_owned()),
        kind: kind.to_owned(),
        name: name.to_owned(),
    }
}

fn cluster_binding(name: &str, role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta("", name),
        role_ref: reference("ClusterRole", role),
        subjects: Some(subjects).filter(|subjects| !subjects.is_empty()),
    }
}

fn binding(namespace: &str, bound: &Bound) -> RoleBinding {
    RoleBinding {
        metadata: meta(namespace, bound.name),
        role_ref: reference("Role", bound.role),
        subjects: Some(subjects(bound.to)),
    }
}

/// A kind whose objects are looked after here.
trait Kept: Kind + PartialEq + Clone {
    /// Adds what `wanted` has and this has not.
    fn complete(&mut self, wanted: &Self);

    /// Whether this can become `wanted` only by being made anew.
    fn beyond_repair(&self, _wanted: &Self) -> bool {
        false
    }
}

fn complete_rules(rules: &mut Option<Vec<PolicyRule>>, wanted: Option<&Vec<PolicyRule>>) {
    let compiled =
        |list: Option<&Vec<PolicyRule>>| list.into_iter().flatten().map(Rule::new).collect::<Vec<_>>();
    let missing = missing_rules(&compiled(rules.as_ref()), &compiled(wanted));
    if !missing.is_empty() {
        rules
            .get_or_insert_default()
            .extend(missing.iter().map(Rule::policy));
    }
}

fn complete_subjects(subjects: &mut Option<Vec<Subject>>, wanted: Option<&Vec<Subject>>) {
    for subject in wanted.into_iter().flatten() {
        if !subjects.iter().flatten().any(|known| known == subject) {
            subjects.get_or_insert_default().push(subject.clone());
        }
    }
}

impl Kept for ClusterRole {
    fn complete(&mut self, wanted: &Self) {
        complete_rules(&mut self.rules, wanted.rules.as_ref());
        let Some(rule) = &wanted.aggregation_rule else {
            return;
        };
        let known = self.aggregation_rule.get_or_insert_default();
        let known = known.cluster_role_selectors.get_or_insert_default();
        for selector in rule.cluster_role_selectors.iter().flatten() {
            if !known.contains(selector) {
                known.push(selector.clone());
            }
        }
    }
}

impl Kept for NamespacedRole {
    fn complete(&mut self, wanted: &Self) {
        complete_rules(&mut self.rules, wanted.rules.as_ref());
    }
}

impl Kept for ClusterRoleBinding {
    fn complete(&mut self, wanted: &Self) {
        complete_subjects(&mut self.subjects, wanted.subjects.as_ref());
    }

    fn beyond_repair(&self, wanted: &Self) -> bool {
        self.role_ref != wanted.role_ref
    }
}

impl Kept for RoleBinding {
    fn complete(&mut self, wanted: &Self) {
        complete_subjects(&mut self.subjects, wanted.subjects.as_ref());
    }

    fn beyond_repair(&self, wanted: &Self) -> bool {
        self.role_ref != wanted.role_ref
    }
}

fn completed<K: Kept>(found: &K, wanted: &K) -> K {
    let mut new = found.clone();
    new.complete(wanted);
    let (meta, wanted) = (new.meta_mut(), wanted.meta());
    for (known, wanted) in [
        (&mut meta.labels, &wanted.labels),
        (&mut meta.annotations, &wanted.annotations),
    ] {
        for (key, value) in wanted.iter().flatten() {
            known
                .get_or_insert_default()
                .entry(key.clone())
                .or_insert_with(|| value.clone());
        }
    }
    new
}

async fn ensure<K: Kept>(server: &Arc<Server>, wanted: K) -> ApiResult<()> {
    let (namespace, name) = (wanted.namespace().to_owned(), wanted.name().to_owned());
    let create = async || match server.create(&wanted).await {
        // Another server was faster, with the same.
        Err(error) if error.is_already_exists() => Ok(()),
        other => other.map(drop),
    };
    let Some(found) = server.cached::<K>(&namespace, &name) else {
        return create().await;
    };
    let annotations = found.meta().annotations.as_ref();
    if annotations
        .and_then(|all| all.get(AUTOUPDATE))
        .is_some_and(|value| value == "false")
    {
        return Ok(());
    }
    let user = User::loopback();
    if found.beyond_repair(&wanted) {
        tracing::info!(
            kind = K::KIND,
            namespace,
            name,
            "made anew: it pointed at another role"
        );
        server
            .delete::<K>(&user, &namespace, &name, DeleteOptions::default())
            .await?;
        return create().await;
    }
    if completed(found.as_ref(), &wanted) == *found {
        return Ok(());
    }
    tracing::info!(kind = K::KIND, namespace, name, "completed");
    let change = |object: &mut K| {
        *object = completed(object, &wanted);
        Ok(())
    };
    server
        .update(&user, (&namespace, &name, ""), change)
        .await
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_become_roles_and_additions_stay() {
        let wanted = cluster_role(&cluster_roles::ROLES[0]);
        let policies = wanted.rules.as_ref().expect("rules");
        assert_eq!(policies[0].resources.as_deref(), Some(&["*".to_owned()][..]));
        let basic = cluster_roles::ROLES
            .iter()
            .find(|role| role.name == "system:kube-scheduler")
            .expect("a role");
        let wanted = cluster_role(basic);
        let mut found = wanted.clone();
        let removed = found.rules.as_mut().expect("rules").remove(4);
        assert_eq!(removed.api_groups.as_deref(), Some(&[String::new()][..]));
        found.metadata.labels = None;
        let again = completed(&found, &wanted);
        assert_eq!(
            again.rules.as_ref().map(Vec::len),
            wanted.rules.as_ref().map(Vec::len)
        );
        assert_eq!(again.metadata.labels, wanted.metadata.labels);
        assert_eq!(completed(&again, &wanted), again);
    }

    #[test]
    fn parts_and_wholes_find_each_other() {
        let view = cluster_roles::ROLES
            .iter()
            .find(|role| role.name == "view")
            .expect("view");
        let part = cluster_roles::ROLES
            .iter()
            .find(|role| role.name == "system:aggregate-to-view")
            .expect("its part");
        let selectors = cluster_role(view)
            .aggregation_rule
            .and_then(|rule| rule.cluster_role_selectors);
        let wanted = selectors
            .and_then(|mut all| all.remove(0).match_labels)
            .expect("labels");
        let labels = cluster_role(part).metadata.labels.expect("labels");
        assert!(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    }
}
