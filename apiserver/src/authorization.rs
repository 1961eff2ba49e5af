//! Who may do what: for now a fixed table for administrators and the components of the cluster.
//!
//! Everybody else is refused, in upstream's words.

use keelson_api::names::GroupResource;
use keelson_api::status::ApiError;

use crate::authentication::{MASTERS, User};

/// One thing somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// `get`, `list`, ..., or the lower-case HTTP method for paths.
    pub verb: &'a str,
    /// What it is done to.
    pub target: Target<'a>,
}

/// What something is done to.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// A resource.
    Resource {
        /// API group.
        group: &'a str,
        /// Plural.
        resource: &'a str,
        /// Empty for the resource itself.
        subresource: &'a str,
        /// Empty: cluster scope or all namespaces.
        namespace: &'a str,
        /// Empty for collections.
        name: &'a str,
    },
    /// A path outside of the resources.
    Path(&'a str),
}

/// Verbs that change nothing.
const READ: &[&str] = &["get", "list", "watch"];
/// Verbs that change objects.
const WRITE: &[&str] = &["create", "update", "patch", "delete", "deletecollection"];
/// Every verb.
const ALL: &[&str] = &["*"];
/// Any resource, any group.
const ANY: &str = "*";

/// One line of the table: verbs on resources (`group/resource[/subresource]`).
struct Rule {
    verbs: &'static [&'static str],
    resources: &'static [&'static str],
}

/// Somebody's lines.
struct Role {
    user: &'static str,
    rules: &'static [Rule],
}

const ROLES: &[Role] = &[
    Role {
        user: "system:kube-scheduler",
        rules: &[
            Rule {
                verbs: READ,
                resources: &[ANY],
            },
            Rule {
                verbs: &["create"],
                resources: &["/pods/binding", "/bindings", "/events", "events.k8s.io/events"],
            },
            Rule {
                verbs: &["patch", "update"],
                resources: &["/pods/status", "/events", "events.k8s.io/events"],
            },
            Rule {
                verbs: &["delete"],
                resources: &["/pods"],
            },
            Rule {
                verbs: ALL,
                resources: &["coordination.k8s.io/leases"],
            },
        ],
    },
    // Its controllers create, change and remove objects of every kind, garbage collection included.
    Role {
        user: "system:kube-controller-manager",
        rules: &[Rule {
            verbs: ALL,
            resources: &[ANY],
        }],
    },
    Role {
        user: "system:kube-proxy",
        rules: &[
            Rule {
                verbs: READ,
                resources: &[
                    "/nodes",
                    "/services",
                    "/endpoints",
                    "/pods",
                    "/namespaces",
                    "discovery.k8s.io/endpointslices",
                    "networking.k8s.io/networkpolicies",
                    "networking.k8s.io/servicecidrs",
                ],
            },
            Rule {
                verbs: &["create", "patch", "update"],
                resources: &["/events", "events.k8s.io/events"],
            },
            Rule {
                verbs: &["patch"],
                resources: &["/nodes", "/nodes/status"],
            },
        ],
    },
    Role {
        user: "system:apiserver",
        rules: &[Rule {
            verbs: ALL,
            resources: &[ANY],
        }],
    },
];

/// What every node may do. That a node touches only what is its own is the Node authorizer's business.
const NODE: &[Rule] = &[
    Rule {
        verbs: READ,
        resources: &[
            "/pods",
            "/nodes",
            "/services",
            "/endpoints",
            "/namespaces",
            "/configmaps",
            "/secrets",
            "/serviceaccounts",
            "/persistentvolumes",
            "/persistentvolumeclaims",
            "discovery.k8s.io/endpointslices",
            "networking.k8s.io/networkpolicies",
            "node.k8s.io/runtimeclasses",
            "storage.k8s.io/csidrivers",
            "storage.k8s.io/csinodes",
            "storage.k8s.io/volumeattachments",
        ],
    },
    Rule {
        verbs: &["create", "update", "patch", "delete"],
        resources: &["/nodes", "storage.k8s.io/csinodes"],
    },
    Rule {
        verbs: &["update", "patch"],
        resources: &["/nodes/status", "/pods/status"],
    },
    Rule {
        verbs: &["create", "delete"],
        resources: &["/pods"],
    },
    Rule {
        verbs: &["create"],
        resources: &["/pods/eviction", "/serviceaccounts/token"],
    },
    Rule {
        verbs: &["create", "patch", "update"],
        resources: &["/events", "events.k8s.io/events"],
    },
    Rule {
        verbs: &["get", "create", "update", "patch", "delete"],
        resources: &["coordination.k8s.io/leases"],
    },
    Rule {
        verbs: &["create"],
        resources: &[
            "authentication.k8s.io/tokenreviews",
            "authorization.k8s.io/subjectaccessreviews",
        ],
    },
    Rule {
        verbs: &["get", "list", "watch", "create"],
        resources: &["certificates.k8s.io/certificatesigningrequests"],
    },
];

/// Paths everybody may read, known or not.
const PUBLIC_PATHS: &[&str] = &["/healthz", "/livez", "/readyz", "/version"];
/// Paths everybody who proved to be somebody may read: discovery and the API's documents.
const AUTHENTICATED_PATHS: &[&str] = &["/api", "/apis", "/openapi", "/.well-known", "/openid"];
/// Paths the components may read.
const COMPONENT_PATHS: &[&str] = &["/metrics"];

/// Whether the user may do it.
pub fn allowed(user: &User, attributes: &Attributes<'_>) -> bool {
    if user.in_group(MASTERS) {
        return true;
    }
    let rules = rules(user);
    match attributes.target {
        Target::Path(path) => {
            let below = |roots: &[&str]| {
                roots.iter().any(|root| {
                    path.strip_prefix(root)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                })
            };
            attributes.verb == "get"
                && (below(PUBLIC_PATHS)
                    || (user.in_group(crate::authentication::AUTHENTICATED) && below(AUTHENTICATED_PATHS))
                    || (rules.is_some() && below(COMPONENT_PATHS)))
        }
        Target::Resource {
            group,
            resource,
            subresource,
            ..
        } => rules
            .unwrap_or_default()
            .iter()
            .any(|rule| rule.covers(attributes.verb, group, resource, subresource)),
    }
}

fn rules(user: &User) -> Option<&'static [Rule]> {
    if user.node_name().is_some() {
        return Some(NODE);
    }
    ROLES
        .iter()
        .find(|role| role.user == user.name)
        .map(|role| role.rules)
}

impl Rule {
    fn covers(&self, verb: &str, group: &str, resource: &str, subresource: &str) -> bool {
        debug_assert!(self.verbs == ALL || self.verbs.iter().all(|v| READ.contains(v) || WRITE.contains(v)));
        let verb_fits = self.verbs == ALL || self.verbs.contains(&verb);
        verb_fits
            && self.resources.iter().any(|pattern| {
                if *pattern == ANY {
                    return true;
                }
                let mut parts = pattern.split('/');
                parts.next() == Some(group)
                    && parts.next() == Some(resource)
                    && parts.next().unwrap_or_default() == subresource
            })
    }
}

/// The refusal, in upstream's words.
pub fn forbidden(user: &User, attributes: &Attributes<'_>) -> ApiError {
    let who = &user.name;
    let verb = attributes.verb;
    match attributes.target {
        Target::Path(path) => ApiError::forbidden(
            &GroupResource::default(),
            "",
            format_args!("User \"{who}\" cannot {verb} path \"{path}\""),
        ),
        Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        } => {
            let what = if subresource.is_empty() {
                resource.to_owned()
            } else {
                format!("{resource}/{subresource}")
            };
            let place = match namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace \"{namespace}\""),
            };
            ApiError::forbidden(
                &GroupResource::new(group.to_owned(), resource.to_owned()),
                name,
                format_args!(
                    "User \"{who}\" cannot {verb} resource \"{what}\" in API group \"{group}\" {place}"
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods<'a>(verb: &'a str, subresource: &'a str) -> Attributes<'a> {
        let target = Target::Resource {
            group: "",
            resource: "pods",
            subresource,
            namespace: "default",
            name: "",
        };
        Attributes { verb, target }
    }

    #[test]
    fn components_get_what_they_need_and_others_nothing() {
        let scheduler = User::named("system:kube-scheduler", []);
        assert!(allowed(&scheduler, &pods("create", "binding")) && !allowed(&scheduler, &pods("create", "")));
        let node = User::named("system:node:n1", ["system:nodes".to_owned()]);
        assert!(allowed(&node, &pods("patch", "status")) && !allowed(&node, &pods("patch", "")));
        // The name alone does not make a node.
        assert!(!allowed(&User::named("system:node:n1", []), &pods("list", "")));
        let admin = User::named("x", [MASTERS.to_owned()]);
        assert!(allowed(&admin, &pods("deletecollection", "")));
        assert!(!allowed(&User::anonymous(), &pods("list", "")));
        assert!(allowed(
            &User::anonymous(),
            &Attributes {
                verb: "get",
                target: Target::Path("/readyz/etcd")
            }
        ));
        assert!(!allowed(
            &User::anonymous(),
            &Attributes {
                verb: "get",
                target: Target::Path("/")
            }
        ));
    }

    #[test]
    fn refusals_read_like_upstream() {
        let error = forbidden(&User::named("x", []), &pods("list", ""));
        assert_eq!(
            error.message(),
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let error = forbidden(
            &User::anonymous(),
            &Attributes {
                verb: "get",
                target: Target::Path("/"),
            },
        );
        assert_eq!(
            error.message(),
            "forbidden: User \"system:anonymous\" cannot get path \"/\""
        );
    }
}
