//! How the tables of this folder are written: lists of words separated by spaces, `core` for the core group.

use k8s_openapi::api::rbac::v1::{PolicyRule, Subject};

/// Verbs that change nothing.
pub const READ: &str = "get list watch";
/// Verbs that change objects.
pub const WRITE: &str = "create update patch delete deletecollection";
/// Both.
pub const READ_WRITE: &str = "get list watch create update patch delete deletecollection";
/// Reading, and changing what is there.
pub const READ_UPDATE: &str = "get list watch update patch";
/// The core group.
pub const CORE: &str = "core";

/// The groups events are in.
pub const EVENTS_GROUPS: &str = "core events.k8s.io";

/// One line of a role.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    verbs: &'static str,
    groups: &'static str,
    resources: &'static str,
    names: &'static str,
    urls: &'static str,
}

/// Verbs on resources of API groups.
pub const fn rule(verbs: &'static str, groups: &'static str, resources: &'static str) -> Line {
    Line {
        verbs,
        groups,
        resources,
        names: "",
        urls: "",
    }
}

/// Verbs on URLs.
pub const fn urls(verbs: &'static str, urls: &'static str) -> Line {
    Line {
        verbs,
        groups: "",
        resources: "",
        names: "",
        urls,
    }
}

/// Telling what happens.
pub const EVENTS: Line = rule("create update patch", EVENTS_GROUPS, "events");

impl Line {
    /// The same for objects of these names only.
    pub const fn named(self, names: &'static str) -> Line {
        Line { names, ..self }
    }

    /// The rule, its lists sorted as upstream's are.
    pub fn policy(&self) -> PolicyRule {
        let list = |words: &str| {
            let mut list: Vec<String> = words
                .split(' ')
                .filter(|word| !word.is_empty())
                .map(|word| if word == CORE { "" } else { word }.to_owned())
                .collect();
            list.sort();
            list
        };
        let some = |words: &str| Some(list(words)).filter(|list| !list.is_empty());
        PolicyRule {
            verbs: list(self.verbs),
            api_groups: some(self.groups),
            resources: some(self.resources),
            resource_names: some(self.names),
            non_resource_urls: some(self.urls),
        }
    }
}

/// A role.
#[derive(Debug, Clone, Copy)]
pub struct Role {
    /// Its name.
    pub name: &'static str,
    /// What it allows.
    pub lines: &'static [Line],
    /// The role it is part of, through a label: `admin`, `edit`, `view`.
    pub part_of: &'static str,
    /// Whether it is made of the roles that are part of it.
    pub aggregates: bool,
}

/// A role with these lines.
pub const fn role(name: &'static str, lines: &'static [Line]) -> Role {
    Role {
        name,
        lines,
        part_of: "",
        aggregates: false,
    }
}

impl Role {
    /// The same as a part of another role.
    pub const fn part_of(self, whole: &'static str) -> Role {
        Role {
            part_of: whole,
            ..self
        }
    }

    /// The same, made of its parts.
    pub const fn of_parts(self) -> Role {
        Role {
            aggregates: true,
            ..self
        }
    }
}

/// Who is given a role.
#[derive(Debug, Clone, Copy)]
pub enum To {
    /// A user.
    User(&'static str),
    /// A group.
    Group(&'static str),
    /// A service account of kube-system.
    Account(&'static str),
}

impl To {
    /// The subject of a binding.
    pub fn subject(&self) -> Subject {
        let group = Some(crate::registry::rbac::GROUP.to_owned());
        let (kind, name, api_group, namespace) = match self {
            To::User(name) => ("User", *name, group, None),
            To::Group(name) => ("Group", *name, group, None),
            To::Account(name) => ("ServiceAccount", *name, None, Some("kube-system".to_owned())),
        };
        Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
            api_group,
            namespace,
        }
    }
}

/// A binding.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Its name.
    pub name: &'static str,
    /// The role's name.
    pub role: &'static str,
    /// Who gets it.
    pub to: &'static [To],
}

/// A binding of the same name as its role.
pub const fn bound(role: &'static str, to: &'static [To]) -> Bound {
    Bound { name: role, role, to }
}
