//! Roles and bindings by subject: what a decision has to look at, and nothing else.
//!
//! Objects come in one by one as they change. A binding is filed under each of its subjects, service accounts under
//! the name of their user; a role is looked up by name when a decision meets a binding to it, so that neither knows
//! the other's history. Subjects with many rules get a [`Table`] of them once they have asked a few times.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::rule::Rule;
use super::table::Table;
use crate::authentication::User;
use crate::authorization::Attributes;

/// Decisions about a subject before its rules are put in order: what changes at every moment is not worth it.
pub(super) const OFTEN: u32 = 16;

/// Which kind of role a binding gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleKind {
    /// A role of the binding's own namespace.
    Role,
    /// A role of the cluster.
    ClusterRole,
}

impl RoleKind {
    /// The kind's name.
    pub fn as_str(self) -> &'static str {
        match self {
            RoleKind::Role => "Role",
            RoleKind::ClusterRole => "ClusterRole",
        }
    }
}

/// A binding.
#[derive(Debug)]
pub struct Binding {
    namespace: Box<str>,
    name: Box<str>,
    role_kind: RoleKind,
    role: Box<str>,
    subjects: Box<[Whom]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Whom {
    User(Box<str>),
    Group(Box<str>),
    /// Namespace and name, and the name of the account's user.
    Account(Box<str>, Box<str>, Box<str>),
}

impl Whom {
    fn of(subject: &Subject) -> Option<Self> {
        let name: Box<str> = subject.name.as_str().into();
        match subject.kind.as_str() {
            "User" => Some(Whom::User(name)),
            "Group" => Some(Whom::Group(name)),
            "ServiceAccount" => {
                let namespace = subject.namespace.as_deref().filter(|n| !n.is_empty())?;
                let user = format!("system:serviceaccount:{namespace}:{name}");
                Some(Whom::Account(namespace.into(), name, user.into()))
            }
            _ => None,
        }
    }
}

/// One subject of one binding.
#[derive(Debug, Clone)]
pub struct Grant {
    binding: Arc<Binding>,
    subject: usize,
}

impl fmt::Display for Grant {
    /// `ClusterRoleBinding "b" of ClusterRole "r" to Group "g"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binding = &self.binding;
        match &*binding.namespace {
            "" => write!(f, "ClusterRoleBinding \"{}\"", binding.name)?,
            namespace => write!(f, "RoleBinding \"{}/{namespace}\"", binding.name)?,
        }
        write!(f, " of {} \"{}\" to ", binding.role_kind.as_str(), binding.role)?;
        match binding.subjects.get(self.subject) {
            Some(Whom::User(name)) => write!(f, "User \"{name}\""),
            Some(Whom::Group(name)) => write!(f, "Group \"{name}\""),
            Some(Whom::Account(namespace, name, _)) => write!(f, "ServiceAccount \"{name}/{namespace}\""),
            None => Ok(()),
        }
    }
}

/// Everything one subject has been given in one scope.
#[derive(Default)]
struct Holder {
    /// In the order they came.
    grants: Vec<Grant>,
    /// Decisions since the last change.
    asked: AtomicU32,
    /// Nothing inside: there are few rules.
    table: OnceLock<Option<Box<Table>>>,
}

impl Holder {
    /// Something that decisions depend on has changed.
    fn forget(&mut self) {
        self.table.take();
        *self.asked.get_mut() = 0;
    }

    fn has(&self, kind: RoleKind, role: &str) -> bool {
        self.grants
            .iter()
            .map(|grant| &grant.binding)
            .any(|binding| binding.role_kind == kind && &*binding.role == role)
    }

    /// The table, if it is time for one and it pays.
    fn table<'i>(&'i self, index: &'i Index) -> Option<&'i Table> {
        if self.table.get().is_none() && self.asked.fetch_add(1, Ordering::Relaxed) < OFTEN {
            return None;
        }
        let table = self.table.get_or_init(|| {
            let roles = self.grants.iter().map(|grant| index.rules_behind(grant));
            Table::new(roles).map(Box::new)
        });
        table.as_deref()
    }
}

type ByName<T> = HashMap<Box<str>, T>;

/// The bindings of one namespace, or of the cluster.
#[derive(Default)]
struct Scope {
    bindings: ByName<Arc<Binding>>,
    users: ByName<Holder>,
    groups: ByName<Holder>,
    roles: ByName<Arc<[Rule]>>,
}

impl Scope {
    fn bind(&mut self, binding: Binding) {
        self.unbind(&binding.name.clone());
        let binding = Arc::new(binding);
        for (subject, whom) in binding.subjects.iter().enumerate() {
            let (file, name) = match whom {
                Whom::Group(name) => (&mut self.groups, name),
                Whom::User(name) | Whom::Account(_, _, name) => (&mut self.users, name),
            };
            let holder = file.entry(name.clone()).or_default();
            holder.forget();
            holder.grants.push(Grant {
                binding: binding.clone(),
                subject,
            });
        }
        self.bindings.insert(binding.name.clone(), binding);
    }

    fn unbind(&mut self, name: &str) {
        let Some(binding) = self.bindings.remove(name) else {
            return;
        };
        for whom in &binding.subjects {
            let (file, name) = match whom {
                Whom::Group(name) => (&mut self.groups, name),
                Whom::User(name) | Whom::Account(_, _, name) => (&mut self.users, name),
            };
            if let Some(holder) = file.get_mut(name) {
                holder.forget();
                holder
                    .grants
                    .retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
                if holder.grants.is_empty() {
                    file.remove(name);
                }
            }
        }
    }

    /// A role has changed: who has it is asked anew.
    fn forget(&mut self, kind: RoleKind, role: &str) {
        for holder in self.users.values_mut().chain(self.groups.values_mut()) {
            if holder.table.get().is_some() && holder.has(kind, role) {
                holder.forget();
            }
        }
    }

    fn forget_all(&mut self) {
        let holders = self.users.values_mut().chain(self.groups.values_mut());
        holders.for_each(Holder::forget);
    }

    fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.roles.is_empty()
    }
}

/// Everything RBAC knows.
#[derive(Default)]
pub struct Index {
    cluster: Scope,
    namespaces: ByName<Scope>,
}

impl Index {
    fn scope(&self, namespace: &str) -> Option<&Scope> {
        match namespace {
            "" => Some(&self.cluster),
            namespace => self.namespaces.get(namespace),
        }
    }

    fn change(&mut self, namespace: &str, change: impl FnOnce(&mut Scope)) {
        if namespace.is_empty() {
            return change(&mut self.cluster);
        }
        let scope = self.namespaces.entry(namespace.into()).or_default();
        change(scope);
        if scope.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// A role is there, or has changed. An empty namespace means a role of the cluster.
    pub fn put_role(&mut self, namespace: &str, name: &str, rules: &[PolicyRule]) {
        let rules: Arc<[Rule]> = rules.iter().map(Rule::new).collect();
        let known = self.scope(namespace).and_then(|scope| scope.roles.get(name));
        if known == Some(&rules) {
            return;
        }
        self.change(namespace, |scope| {
            scope.roles.insert(name.into(), rules);
        });
        self.role_changed(namespace, name);
    }

    /// A role is gone.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.change(namespace, |scope| {
            scope.roles.remove(name);
        });
        self.role_changed(namespace, name);
    }

    /// What was put in order about those who have the role is of no use any more.
    fn role_changed(&mut self, namespace: &str, name: &str) {
        if namespace.is_empty() {
            let scopes = std::iter::once(&mut self.cluster).chain(self.namespaces.values_mut());
            scopes.for_each(|scope| scope.forget(RoleKind::ClusterRole, name));
        } else if let Some(scope) = self.namespaces.get_mut(namespace) {
            scope.forget(RoleKind::Role, name);
        }
    }

    /// A binding is there, or has changed. An empty namespace means a binding of the cluster.
    pub fn put_binding(&mut self, namespace: &str, name: &str, role: &RoleRef, subjects: &[Subject]) {
        let binding = Binding {
            namespace: namespace.into(),
            name: name.into(),
            role_kind: match role.kind.as_str() {
                "Role" => RoleKind::Role,
                _ => RoleKind::ClusterRole,
            },
            role: role.name.as_str().into(),
            subjects: subjects.iter().filter_map(Whom::of).collect(),
        };
        self.change(namespace, |scope| scope.bind(binding));
    }

    /// A binding is gone.
    pub fn remove_binding(&mut self, namespace: &str, name: &str) {
        self.change(namespace, |scope| scope.unbind(name));
    }

    /// Forgets all roles (or all bindings) of the cluster (or of all namespaces).
    pub fn clear(&mut self, kind: super::follow::Followed) {
        use super::follow::Followed;
        let scopes = std::iter::once(&mut self.cluster).chain(self.namespaces.values_mut());
        scopes.for_each(Scope::forget_all);
        match kind {
            Followed::ClusterRoles => self.cluster.roles.clear(),
            Followed::Roles => self.namespaces.values_mut().for_each(|scope| scope.roles.clear()),
            Followed::ClusterRoleBindings => {
                self.cluster.bindings.clear();
                self.cluster.users.clear();
                self.cluster.groups.clear();
            }
            Followed::RoleBindings => self.namespaces.values_mut().for_each(|scope| {
                scope.bindings.clear();
                scope.users.clear();
                scope.groups.clear();
            }),
        }
    }

    /// The rules of a role, if there is such a role.
    pub fn role(&self, kind: RoleKind, namespace: &str, name: &str) -> Option<&Arc<[Rule]>> {
        match kind {
            RoleKind::ClusterRole => self.cluster.roles.get(name),
            RoleKind::Role => self.namespaces.get(namespace)?.roles.get(name),
        }
    }

    fn rules_behind(&self, grant: &Grant) -> Option<&[Rule]> {
        let binding = &grant.binding;
        self.role(binding.role_kind, &binding.namespace, &binding.role)
            .map(AsRef::as_ref)
    }

    /// What concerns a user in a namespace: the user's own and that of each group, in the cluster first.
    fn holders<'i, 'u>(
        &'i self,
        user: &'u User,
        namespace: &str,
    ) -> impl Iterator<Item = &'i Holder> + use<'i, 'u> {
        let scopes = [
            Some(&self.cluster),
            self.scope(namespace).filter(|_| !namespace.is_empty()),
        ];
        scopes.into_iter().flatten().flat_map(move |scope| {
            let by_name = scope.users.get(user.name.as_str());
            let by_group = user
                .groups
                .iter()
                .filter_map(move |group| scope.groups.get(group.as_str()));
            by_name.into_iter().chain(by_group)
        })
    }

    /// Shows every grant that concerns a user in a namespace, those of the cluster first, with the rules behind it;
    /// `None` where the role does not exist.
    pub fn visit<B>(
        &self,
        user: &User,
        namespace: &str,
        mut see: impl FnMut(&Grant, Option<&[Rule]>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for grant in self.holders(user, namespace).flat_map(|holder| &holder.grants) {
            see(grant, self.rules_behind(grant))?;
        }
        ControlFlow::Continue(())
    }

    /// The first grant that allows a request, or what is to be said of roles on the way that do not exist.
    ///
    /// # Errors
    /// When there is no such grant.
    pub fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Result<&Grant, Vec<String>> {
        let mut missing = Vec::new();
        for holder in self.holders(user, attributes.namespace()) {
            let Some(table) = holder.table(self) else {
                for grant in &holder.grants {
                    match self.rules_behind(grant) {
                        Some(rules) if rules.iter().any(|rule| rule.allows(attributes)) => return Ok(grant),
                        Some(_) => {}
                        None => missing.push(grant.missing_role()),
                    }
                }
                continue;
            };
            let grants = &holder.grants;
            let grant = move |place: usize| grants.get(place);
            let allows = |place: usize, rule: usize| {
                let rules = grant(place).and_then(|grant| self.rules_behind(grant));
                rules
                    .and_then(|rules| rules.get(rule))
                    .is_some_and(|rule| rule.allows(attributes))
            };
            if let Some(grant) = table.find(attributes, allows).and_then(grant) {
                return Ok(grant);
            }
            missing.extend(table.missing().filter_map(grant).map(Grant::missing_role));
        }
        Err(missing)
    }
}

impl Grant {
    /// What is to be said when the role of the grant does not exist.
    pub fn missing_role(&self) -> String {
        let binding = &self.binding;
        let kind = binding.role_kind.as_str().to_ascii_lowercase();
        format!("{kind}.rbac.authorization.k8s.io \"{}\" not found", binding.role)
    }
}
