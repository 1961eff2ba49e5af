//! Which flow a request belongs to: FlowSchemas, compiled.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1::{
    FlowSchema, NonResourcePolicyRule, PolicyRulesWithSubjects, ResourcePolicyRule, Subject,
};

use super::level::Level;
use crate::authentication::User;
use crate::authorization::attributes::{Attributes, Target};
use crate::metrics::flows::FlowFigures;

/// Precedence of a schema that names none.
const PRECEDENCE: i32 = 1000;
const EVERY: &str = "*";

/// What a schema tells flows of one level apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Distinguisher {
    /// All its requests are one flow.
    None,
    User,
    Namespace,
}

/// A level as schemas see it.
#[derive(Clone)]
pub struct LevelOf {
    /// The level.
    pub level: Arc<Level>,
    /// Its uid; nothing while it is not stored.
    pub uid: Option<HeaderValue>,
    /// Seats one request takes at most.
    pub most_seats: u32,
}

/// A FlowSchema and the level its requests are of.
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its uid; nothing while it is not stored.
    pub uid: Option<HeaderValue>,
    /// Its level.
    pub level: LevelOf,
    /// What is counted about it.
    pub figures: FlowFigures,
    precedence: i32,
    distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

struct Rule {
    subjects: Vec<Who>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Who {
    Anybody,
    User(String),
    Group(String),
    /// All accounts of a namespace, by how their names begin.
    Accounts(String),
}

struct Words {
    every: bool,
    words: Vec<String>,
}

struct ResourceRule {
    verbs: Words,
    groups: Words,
    resources: Words,
    namespaces: Words,
    cluster_scope: bool,
}

struct PathRule {
    verbs: Words,
    paths: Vec<String>,
}

impl Schema {
    /// The schema as the server acts upon it.
    pub fn new(schema: &FlowSchema, level: LevelOf, figures: FlowFigures) -> Self {
        let spec = schema.spec.clone().unwrap_or_default();
        let method = spec.distinguisher_method.map(|method| method.type_);
        Self {
            name: schema.metadata.name.clone().unwrap_or_default(),
            uid: super::uid(&schema.metadata),
            level,
            figures,
            precedence: spec.matching_precedence.unwrap_or(PRECEDENCE),
            distinguisher: match method.as_deref() {
                Some("ByUser") => Distinguisher::User,
                Some("ByNamespace") => Distinguisher::Namespace,
                _ => Distinguisher::None,
            },
            rules: spec
                .rules
                .unwrap_or_default()
                .into_iter()
                .map(Rule::new)
                .collect(),
        }
    }

    /// Lower ones are asked first; of equals the one whose name comes first.
    pub fn rank(&self) -> (i32, &str) {
        (self.precedence, &self.name)
    }

    /// Whether a request is one of the schema's.
    pub fn covers(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| {
            rule.subjects.iter().any(|subject| subject.is(user))
                && match attributes.target {
                    Target::Resource { .. } => rule.resources.iter().any(|rule| rule.covers(attributes)),
                    Target::Path(path) => {
                        let mut rules = rule.paths.iter();
                        rules.any(|rule| rule.covers(attributes.verb, path))
                    }
                }
        })
    }

    /// The flow of a request among those of the level.
    pub fn flow(&self, user: &User, attributes: &Attributes<'_>) -> u64 {
        let by = match self.distinguisher {
            Distinguisher::None => "",
            Distinguisher::User => &user.name,
            Distinguisher::Namespace => attributes.namespace(),
        };
        let mut hasher = DefaultHasher::new();
        (&self.name, by).hash(&mut hasher);
        hasher.finish()
    }
}

impl Rule {
    fn new(rule: PolicyRulesWithSubjects) -> Self {
        let resources = rule.resource_rules.unwrap_or_default();
        let paths = rule.non_resource_rules.unwrap_or_default();
        Self {
            subjects: rule.subjects.into_iter().filter_map(Who::new).collect(),
            resources: resources.into_iter().map(ResourceRule::new).collect(),
            paths: paths.into_iter().map(PathRule::new).collect(),
        }
    }
}

impl Who {
    fn new(subject: Subject) -> Option<Self> {
        match subject.kind.as_str() {
            "User" => subject.user.map(|user| match user.name {
                name if name == EVERY => Who::Anybody,
                name => Who::User(name),
            }),
            "Group" => subject.group.map(|group| match group.name {
                name if name == EVERY => Who::Anybody,
                name => Who::Group(name),
            }),
            "ServiceAccount" => subject.service_account.map(|account| {
                let (namespace, name) = (account.namespace, account.name);
                match name == EVERY {
                    true => Who::Accounts(format!("system:serviceaccount:{namespace}:")),
                    false => Who::User(format!("system:serviceaccount:{namespace}:{name}")),
                }
            }),
            _ => None,
        }
    }

    fn is(&self, user: &User) -> bool {
        match self {
            Who::Anybody => true,
            Who::User(name) => *name == user.name,
            Who::Group(name) => user.in_group(name),
            Who::Accounts(prefix) => user.name.starts_with(prefix),
        }
    }
}

impl Words {
    fn new(words: Vec<String>) -> Self {
        Self {
            every: words.iter().any(|word| word == EVERY),
            words,
        }
    }

    fn has(&self, wanted: &str) -> bool {
        self.every || self.words.iter().any(|word| word == wanted)
    }
}

impl ResourceRule {
    fn new(rule: ResourcePolicyRule) -> Self {
        Self {
            verbs: Words::new(rule.verbs),
            groups: Words::new(rule.api_groups),
            resources: Words::new(rule.resources),
            namespaces: Words::new(rule.namespaces.unwrap_or_default()),
            cluster_scope: rule.cluster_scope.unwrap_or_default(),
        }
    }

    fn covers(&self, attributes: &Attributes<'_>) -> bool {
        let Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            ..
        } = attributes.target
        else {
            return false;
        };
        let named = |pattern: &String| match pattern.split_once('/') {
            None => subresource.is_empty() && pattern == resource,
            Some((parent, sub)) => parent == resource && sub == subresource,
        };
        let scope = match namespace.is_empty() {
            true => self.cluster_scope,
            false => self.namespaces.has(namespace),
        };
        scope
            && self.verbs.has(attributes.verb)
            && self.groups.has(group)
            && (self.resources.every || self.resources.words.iter().any(named))
    }
}

impl PathRule {
    fn new(rule: NonResourcePolicyRule) -> Self {
        Self {
            verbs: Words::new(rule.verbs),
            paths: rule.non_resource_urls,
        }
    }

    fn covers(&self, verb: &str, path: &str) -> bool {
        let matches = |pattern: &String| match pattern.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => pattern == path,
        };
        self.verbs.has(verb) && self.paths.iter().any(matches)
    }
}

#[cfg(test)]
mod tests {
    use super::super::configuration::Configuration;
    use super::*;
    use crate::authorization::attributes::Resource;

    fn of<'c>(
        configuration: &'c Configuration,
        user: &str,
        groups: &[&str],
        attributes: &Attributes<'_>,
    ) -> &'c str {
        let user = User::named(user, groups.iter().map(|group| (*group).to_owned()));
        &configuration.of(&user, attributes).expect("a schema").name
    }

    fn resource<'a>(verb: &'a str, group: &'a str, resource: &'a str, namespace: &'a str) -> Attributes<'a> {
        Attributes::resource(
            verb,
            Resource {
                group,
                version: "v1",
                resource,
                namespace,
                ..Resource::default()
            },
        )
    }

    #[test]
    fn the_first_schema_that_covers_a_request_has_it() {
        let configuration = Configuration::suggested(600);
        let pods = resource("list", "", "pods", "default");
        assert_eq!(of(&configuration, "jane", &[], &pods), "global-default");
        assert_eq!(of(&configuration, "admin", &["system:masters"], &pods), "exempt");
        let account = ["system:serviceaccounts"];
        let web = "system:serviceaccount:default:web";
        assert_eq!(of(&configuration, web, &account, &pods), "service-accounts");
        let controller = "system:serviceaccount:kube-system:replicaset-controller";
        assert_eq!(
            of(&configuration, controller, &account, &pods),
            "kube-system-service-accounts"
        );
        let scheduler = "system:kube-scheduler";
        assert_eq!(of(&configuration, scheduler, &[], &pods), "kube-scheduler");
        let lease = resource("update", "coordination.k8s.io", "leases", "kube-system");
        assert_eq!(
            of(&configuration, scheduler, &[], &lease),
            "system-leader-election"
        );
        let nodes = ["system:nodes"];
        let lease = resource("update", "coordination.k8s.io", "leases", "kube-node-lease");
        assert_eq!(
            of(&configuration, "system:node:a", &nodes, &lease),
            "system-node-high"
        );
        assert_eq!(of(&configuration, "system:node:a", &nodes, &pods), "system-nodes");
        let health = Attributes::path("get", "/healthz");
        assert_eq!(of(&configuration, "jane", &[], &health), "probes");
        let nobody = User::anonymous();
        let schema = configuration.of(&nobody, &Attributes::path("get", "/version"));
        assert_eq!(schema.expect("a schema").name, "global-default");
    }

    #[test]
    fn flows_are_told_apart_as_the_schema_says() {
        let configuration = Configuration::suggested(600);
        let (jane, joe) = (User::named("jane", []), User::named("joe", []));
        let pods = resource("list", "", "pods", "default");
        let schema = configuration.of(&jane, &pods).expect("a schema");
        assert_ne!(schema.flow(&jane, &pods), schema.flow(&joe, &pods));
        let other = resource("list", "", "pods", "other");
        assert_eq!(schema.flow(&jane, &pods), schema.flow(&jane, &other));
    }
}
