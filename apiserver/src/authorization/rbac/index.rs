//! Roles and bindings by subject: what a decision has to look at, and nothing else.
//!
//! Objects come in one by one as they change. A binding is filed under each of its subjects, service accounts under
//! the name of their user; a role is looked up by name when a decision meets a binding to it, so that neither knows
//! the other's history.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use k8s_openapi::api::rbac::v1::{PolicyRule, RoleRef, Subject};

use super::rule::Rule;
use crate::authentication::User;

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

type ByName<T> = HashMap<Box<str>, T>;

/// The bindings of one namespace, or of the cluster.
#[derive(Default)]
struct Scope {
    bindings: ByName<Arc<Binding>>,
    users: ByName<Vec<Grant>>,
    groups: ByName<Vec<Grant>>,
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
            file.entry(name.clone()).or_default().push(Grant {
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
            if let Some(grants) = file.get_mut(name) {
                grants.retain(|grant| !Arc::ptr_eq(&grant.binding, &binding));
                if grants.is_empty() {
                    file.remove(name);
                }
            }
        }
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
        self.change(namespace, |scope| {
            scope.roles.insert(name.into(), rules);
        });
    }

    /// A role is gone.
    pub fn remove_role(&mut self, namespace: &str, name: &str) {
        self.change(namespace, |scope| {
            scope.roles.remove(name);
        });
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

    /// Shows every grant that concerns a user in a namespace, those of the cluster first, with the rules behind it;
    /// `None` where the role does not exist.
    pub fn visit<B>(
        &self,
        user: &User,
        namespace: &str,
        mut see: impl FnMut(&Grant, Option<&[Rule]>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let scopes = [
            Some(&self.cluster),
            self.scope(namespace).filter(|_| !namespace.is_empty()),
        ];
        for scope in scopes.into_iter().flatten() {
            let by_name = scope.users.get(user.name.as_str());
            let by_group = user
                .groups
                .iter()
                .filter_map(|group| scope.groups.get(group.as_str()));
            for grant in by_name.into_iter().chain(by_group).flatten() {
                let binding = &grant.binding;
                let rules = self.role(binding.role_kind, &binding.namespace, &binding.role);
                see(grant, rules.map(AsRef::as_ref))?;
            }
        }
        ControlFlow::Continue(())
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
