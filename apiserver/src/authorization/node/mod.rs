//! What kubelets may do: read what the pods bound to their node use, and look after their own node.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`graph`] | what belongs to which node |
//! | [`follow`] | keeps the graph as the watch cache is |
//!
//! Whether a kubelet writes only what it should is looked at by the admission plugin NodeRestriction, which sees objects.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/node/>

pub mod follow;
pub mod graph;

use std::sync::OnceLock;

use parking_lot::RwLock;

use super::rbac::Rbac;
use super::rbac::bootstrap::cluster_roles::NODE;
use super::rbac::rule::Rule;
use super::{Attributes, Target, Verdict};
use crate::authentication::User;
use graph::{Graph, Thing};

/// Where nodes renew their heartbeats.
const LEASES: &str = "kube-node-lease";

/// The authorizer.
#[derive(Default)]
pub struct NodeAuthorizer {
    graph: RwLock<Graph>,
    rules: OnceLock<Box<[Rule]>>,
    pods: follow::Progress,
}

/// A request to a resource, taken apart.
struct Asked<'a> {
    node: &'a str,
    verb: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
}

/// What is to be said of a request: it is allowed, or it is not and this is why.
type Answer = Result<(), String>;

impl NodeAuthorizer {
    /// What the authorizer thinks of a request. It has no opinion about anybody but nodes.
    pub async fn decide(&self, user: &User, attributes: &Attributes<'_>) -> Verdict {
        let Some(node) = user.node_name() else {
            return Verdict::no_opinion("");
        };
        if node.is_empty() {
            return Verdict::no_opinion(format!("unknown node for user {:?}", user.name));
        }
        match self.answer(node, attributes).await {
            Ok(()) => Verdict::allow(),
            Err(reason) => Verdict::no_opinion(reason),
        }
    }

    async fn answer(&self, node: &str, attributes: &Attributes<'_>) -> Answer {
        if let Target::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
            ..
        } = attributes.target
        {
            let asked = Asked {
                node,
                verb: attributes.verb,
                subresource,
                namespace,
                name,
            };
            match (group, resource) {
                ("", "secrets") => return self.read(&asked, Thing::Secret).await,
                ("", "configmaps") => return self.read(&asked, Thing::ConfigMap).await,
                ("", "persistentvolumeclaims") if subresource == "status" => {
                    return self.status(&asked, Thing::Claim).await;
                }
                ("", "persistentvolumeclaims") => return self.get(&asked, Thing::Claim).await,
                ("", "persistentvolumes") => return self.get(&asked, Thing::Volume).await,
                ("resource.k8s.io", "resourceclaims") => return self.get(&asked, Thing::ResourceClaim).await,
                ("resource.k8s.io", "resourceslices") => return self.slice(&asked, attributes).await,
                ("storage.k8s.io", "volumeattachments") => return self.get(&asked, Thing::Attachment).await,
                ("", "serviceaccounts") => return self.account(&asked).await,
                ("coordination.k8s.io", "leases") => return lease(&asked),
                ("storage.k8s.io", "csinodes") => return csi_node(&asked),
                ("", "nodes") => return own_node(&asked),
                ("", "pods") => return self.pod(&asked, attributes).await,
                _ => {}
            }
        }
        let rules = self
            .rules
            .get_or_init(|| NODE.iter().map(|line| Rule::new(&line.policy())).collect());
        if Rbac::rules_allow(rules, attributes) {
            Ok(())
        } else {
            Err(String::new())
        }
    }

    async fn read(&self, asked: &Asked<'_>, thing: Thing) -> Answer {
        if !matches!(asked.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".into());
        }
        if !asked.subresource.is_empty() {
            return Err("cannot read subresource".into());
        }
        if asked.namespace.is_empty() {
            return Err("can only read namespaced object of this type".into());
        }
        self.related(asked, thing).await
    }

    async fn get(&self, asked: &Asked<'_>, thing: Thing) -> Answer {
        if asked.verb != "get" {
            return Err("can only get individual resources of this type".into());
        }
        if !asked.subresource.is_empty() {
            return Err("cannot get subresource".into());
        }
        self.related(asked, thing).await
    }

    async fn status(&self, asked: &Asked<'_>, thing: Thing) -> Answer {
        if !matches!(asked.verb, "update" | "patch") {
            return Err("can only get/update/patch this type".into());
        }
        self.related(asked, thing).await
    }

    async fn account(&self, asked: &Asked<'_>) -> Answer {
        if asked.verb == "get" && asked.subresource.is_empty() {
            return self.related(asked, Thing::Account).await;
        }
        if asked.verb != "create" || asked.name.is_empty() {
            return Err("can only create tokens for individual service accounts".into());
        }
        if asked.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".into());
        }
        self.related(asked, Thing::Account).await
    }

    async fn pod(&self, asked: &Asked<'_>, attributes: &Attributes<'_>) -> Answer {
        match (asked.subresource, asked.verb) {
            ("", "get") => self.get(asked, Thing::Pod).await,
            ("", "list" | "watch") => {
                if attributes.selectors.exact_field("spec.nodeName") == Some(asked.node) {
                    Ok(())
                } else if asked.name.is_empty() {
                    Err("can only list/watch pods with spec.nodeName field selector".into())
                } else {
                    self.related(asked, Thing::Pod).await
                }
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }

    async fn slice(&self, asked: &Asked<'_>, attributes: &Attributes<'_>) -> Answer {
        if !asked.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".into());
        }
        match asked.verb {
            // Which node a new one is of is in the object: NodeRestriction looks at it.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(asked, Thing::Slice).await,
            "list" | "watch" | "deletecollection" => {
                if attributes.selectors.exact_field("spec.nodeName") == Some(asked.node) {
                    Ok(())
                } else {
                    Err("can only list/watch/deletecollection resourceslices with nodeName field selector".into())
                }
            }
            _ => Err("only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection".into()),
        }
    }

    async fn related(&self, asked: &Asked<'_>, thing: Thing) -> Answer {
        if asked.name.is_empty() {
            return Err("No Object name found".into());
        }
        let key = crate::state::cache_key(asked.namespace, asked.name);
        let known = || self.graph.read().related(asked.node, thing, &key);
        if known() {
            return Ok(());
        }
        // A kubelet may hear of a pod a moment earlier than the graph.
        if self.pods.catch_up().await && known() {
            return Ok(());
        }
        Err(format!(
            "no relationship found between node '{}' and this object",
            asked.node
        ))
    }
}

fn lease(asked: &Asked<'_>) -> Answer {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".into());
    }
    if asked.namespace != LEASES {
        return Err(format!(
            "can only access leases in the {LEASES:?} system namespace"
        ));
    }
    // The name of a new one is in the object: NodeRestriction looks at it.
    if asked.verb != "create" && asked.name != asked.node {
        return Err("can only access node lease with the same name as the requesting node".into());
    }
    Ok(())
}

fn csi_node(asked: &Asked<'_>) -> Answer {
    if !matches!(asked.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a CSINode".into());
    }
    if !asked.subresource.is_empty() {
        return Err("cannot authorize CSINode subresources".into());
    }
    if asked.verb != "create" && asked.name != asked.node {
        return Err("can only access CSINode with the same name as the requesting node".into());
    }
    Ok(())
}

fn own_node(asked: &Asked<'_>) -> Answer {
    let node = asked.node;
    match (asked.subresource, asked.verb) {
        // That it is its own is looked at by NodeRestriction.
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => Ok(()),
        ("", "get" | "list" | "watch") => match asked.name {
            name if name == node => Ok(()),
            "" => Err(format!(
                "node '{node}' cannot read all nodes, only its own Node object"
            )),
            name => Err(format!(
                "node '{node}' cannot read '{name}', only its own Node object"
            )),
        },
        _ => Err(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Selectors;
    use crate::authorization::attributes::Resource;

    async fn answer(verb: &str, target: Resource<'_>, field: &str) -> Answer {
        let authorizer = NodeAuthorizer::default();
        let attributes = Attributes::resource(verb, target).selecting(Selectors { label: "", field });
        authorizer.answer("n1", &attributes).await
    }

    #[tokio::test]
    async fn nodes_see_their_own() {
        let nodes = Resource {
            resource: "nodes",
            ..Resource::default()
        };
        assert_eq!(answer("watch", nodes, "metadata.name=n1").await, Ok(()));
        assert_eq!(
            answer("list", nodes, "").await,
            Err("node 'n1' cannot read all nodes, only its own Node object".into())
        );
        assert!(answer("get", Resource { name: "n2", ..nodes }, "").await.is_err());
        assert!(
            answer("delete", Resource { name: "n1", ..nodes }, "")
                .await
                .is_err()
        );
        let pods = Resource {
            resource: "pods",
            ..Resource::default()
        };
        assert_eq!(answer("list", pods, "spec.nodeName=n1").await, Ok(()));
        assert!(answer("list", pods, "spec.nodeName=n2").await.is_err());
        let secret = Resource {
            resource: "secrets",
            namespace: "a",
            name: "s",
            ..Resource::default()
        };
        assert_eq!(
            answer("get", secret, "").await,
            Err("no relationship found between node 'n1' and this object".into())
        );
        let services = Resource {
            resource: "services",
            ..Resource::default()
        };
        assert_eq!(answer("watch", services, "").await, Ok(()));
        assert!(answer("create", services, "").await.is_err());
    }

    #[tokio::test]
    async fn nodes_look_after_their_own_devices() {
        let slices = Resource {
            group: "resource.k8s.io",
            resource: "resourceslices",
            ..Resource::default()
        };
        let one = Resource { name: "s", ..slices };
        assert_eq!(answer("create", slices, "").await, Ok(()));
        for verb in ["list", "watch", "deletecollection"] {
            assert_eq!(answer(verb, slices, "spec.nodeName=n1").await, Ok(()));
            assert!(answer(verb, slices, "spec.nodeName=n2").await.is_err());
            assert!(answer(verb, slices, "").await.is_err());
        }
        assert!(answer("delete", one, "").await.is_err());
        let authorizer = NodeAuthorizer::default();
        authorizer.graph.write().put_slice("s", Some("n1"));
        authorizer.graph.write().put_slice("everywhere", None);
        let delete = |name| Attributes::resource("delete", Resource { name, ..slices });
        assert_eq!(authorizer.answer("n1", &delete("s")).await, Ok(()));
        assert!(authorizer.answer("n2", &delete("s")).await.is_err());
        assert!(authorizer.answer("n1", &delete("everywhere")).await.is_err());
    }

    #[tokio::test]
    async fn others_get_no_opinion() {
        let authorizer = NodeAuthorizer::default();
        let services = Resource {
            resource: "services",
            ..Resource::default()
        };
        let attributes = Attributes::resource("watch", services);
        let named_like_a_node = User::named("system:node:n1", []);
        assert!(!authorizer.decide(&named_like_a_node, &attributes).await.allowed());
        let node = User::named("system:node:n1", ["system:nodes".to_owned()]);
        assert!(authorizer.decide(&node, &attributes).await.allowed());
    }
}
