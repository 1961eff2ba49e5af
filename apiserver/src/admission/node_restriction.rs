//! NodeRestriction: a kubelet changes its own node, its own pods and their tokens, and nothing else.
//!
//! The Node authorizer lets kubelets change nodes and pods; whose they are is seen only here, where the objects are.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::TokenRequestSpec;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::CSINode;
use keelson_api::object::Object as _;
use keelson_api::pods;
use keelson_api::status::ApiResult;
use keelson_api::text::quote;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::authorization::node::graph::{Thing, used};
use crate::registry::info::ResourceInfo;

const LEASES: &str = "kube-node-lease";
/// Labels of the namespaces of Kubernetes that kubelets may set on their own node.
const KUBELET_LABELS: &[&str] = &[
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
];
/// Whole namespaces of such labels.
const KUBELET_NAMESPACES: &[&str] = &["kubelet.kubernetes.io", "node.kubernetes.io"];
/// Labels that say what may run on a node: never the kubelet's to set.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// The plugin.
pub struct NodeRestriction;

#[async_trait]
impl Admission for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        operation != Operation::Connect
            && matches!(
                (info.group, info.plural),
                (
                    "",
                    "pods" | "nodes" | "persistentvolumeclaims" | "serviceaccounts"
                ) | ("coordination.k8s.io", "leases")
                    | ("storage.k8s.io", "csinodes")
                    | ("resource.k8s.io", "resourceslices")
            )
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        let Some(node) = ctx.user.node_name() else {
            return Ok(());
        };
        let judged = match (ctx.info.plural, ctx.subresource) {
            ("pods", "") => pod(attributes, node),
            ("pods", "status") => pod_status(attributes, node),
            ("pods", "eviction") => eviction(attributes, node).await?,
            ("pods", other) => Err(format!(
                "unexpected pod subresource {}, only 'status' and 'eviction' are allowed",
                quote(other)
            )),
            ("nodes", _) => own_node(attributes, node),
            ("persistentvolumeclaims", "status") => claim_status(attributes, node),
            ("persistentvolumeclaims", _) => Err("may only update PVC status".into()),
            ("serviceaccounts", "token") => token(attributes, node).await?,
            ("leases", _) => lease(attributes, node),
            ("csinodes", _) => csi_node(attributes, node),
            ("resourceslices", _) => resource_slice(attributes, node),
            _ => Ok(()),
        };
        judged.map_err(|why| forbidden(attributes, why))
    }
}

/// What speaks against it, if anything.
type Judged = Result<(), String>;

fn bound_to(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or("")
}

fn pod(attributes: &Attributes<'_>, node: &str) -> Judged {
    let quoted = quote(node);
    match attributes.operation {
        Operation::Create => attributes
            .object::<Pod>()
            .map_or(Ok(()), |pod| mirror(attributes, pod, node)),
        Operation::Delete => match attributes.old::<Pod>() {
            Some(pod) if bound_to(pod) != node => Err(format!(
                "node {quoted} can only delete pods with spec.nodeName set to itself"
            )),
            _ => Ok(()),
        },
        _ => Err(format!(
            "unexpected operation \"UPDATE\", node {quoted} can only create and delete mirror pods"
        )),
    }
}

fn mirror(attributes: &Attributes<'_>, pod: &Pod, node: &str) -> Judged {
    let quoted = quote(node);
    let can = |what: &str| Err(format!("node {quoted} can {what}"));
    if !pods::is_mirror(pod) {
        return Err(format!(
            "pod does not have \"kubernetes.io/config.mirror\" annotation, node {quoted} can only create mirror pods"
        ));
    }
    if bound_to(pod) != node {
        return can("only create pods with spec.nodeName set to itself");
    }
    let owner = match pod.metadata.owner_references.as_deref().unwrap_or(&[]) {
        [] => return can("only create pods with an owner reference set to itself"),
        [owner] => owner,
        _ => return can("only create pods with a single owner reference set to itself"),
    };
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return can("only create pods with an owner reference set to itself");
    }
    if owner.controller != Some(true) {
        return can("only create pods with a controller owner reference set to itself");
    }
    if owner.block_owner_deletion == Some(true) {
        return Err(format!(
            "node {quoted} must not set blockOwnerDeletion on an owner reference"
        ));
    }
    if let Some(known) = attributes.ctx.server.cached::<Node>("", node)
        && known.uid() != owner.uid
    {
        return Err(format!(
            "node {node} UID mismatch: expected {} got {}",
            owner.uid,
            known.uid()
        ));
    }
    let Some(spec) = &pod.spec else { return Ok(()) };
    for (thing, _) in used(pod, spec) {
        let what = match thing {
            Thing::Account => "a service account",
            Thing::Secret => "secrets",
            Thing::ConfigMap => "configmaps",
            Thing::Claim => "persistentvolumeclaims",
            Thing::ResourceClaim => "resourceclaims",
            Thing::Pod | Thing::Volume | Thing::Attachment | Thing::Slice => continue,
        };
        return can(&format!("not create pods that reference {what}"));
    }
    Ok(())
}

fn pod_status(attributes: &Attributes<'_>, node: &str) -> Judged {
    let (Some(old), Some(new)) = (attributes.old::<Pod>(), attributes.object::<Pod>()) else {
        return Ok(());
    };
    let quoted = quote(node);
    if bound_to(old) != node {
        return Err(format!(
            "node {quoted} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    if old.labels() != new.labels() {
        return Err(format!("node {quoted} cannot update labels through pod status"));
    }
    let claims = |pod: &Pod| {
        pod.status
            .as_ref()
            .and_then(|s| s.resource_claim_statuses.clone())
            .unwrap_or_default()
    };
    if claims(old) != claims(new) {
        return Err(format!("node {quoted} cannot update resource claim statues"));
    }
    Ok(())
}

async fn eviction(attributes: &Attributes<'_>, node: &str) -> ApiResult<Judged> {
    let ctx = attributes.ctx;
    let pod: Pod = ctx.server.fresh(ctx.namespace, ctx.name).await?;
    Ok(if bound_to(&pod) == node {
        Ok(())
    } else {
        Err(format!(
            "node {node} can only evict pods with spec.nodeName set to itself"
        ))
    })
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Judged {
    let quoted = quote(node);
    let named = match attributes.ctx.name {
        "" => attributes.object::<Node>().map_or("", |node| node.name()),
        name => name,
    };
    if named != node {
        return Err(format!(
            "node {quoted} is not allowed to modify node {}",
            quote(named)
        ));
    }
    let Some(new) = attributes.object::<Node>() else {
        return Ok(());
    };
    let Some(old) = attributes.old::<Node>() else {
        let none = BTreeMap::new();
        let forbidden = forbidden_labels(new.labels(), &none);
        return if forbidden.is_empty() {
            Ok(())
        } else {
            Err(format!(
                "node {quoted} is not allowed to set the following labels: {}",
                forbidden.join(", ")
            ))
        };
    };
    let taints = |node: &Node| {
        node.spec
            .as_ref()
            .and_then(|spec| spec.taints.clone())
            .unwrap_or_default()
    };
    if taints(old) != taints(new) {
        return Err(format!("node {quoted} is not allowed to modify taints"));
    }
    let forbidden = forbidden_labels(new.labels(), old.labels());
    if forbidden.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "is not allowed to modify labels: {}",
            forbidden.join(", ")
        ))
    }
}

/// Changes are the Node authorizer's business; what is new, or one of many to delete, it does not see.
fn resource_slice(attributes: &Attributes<'_>, node: &str) -> Judged {
    let (slice, what) = match attributes.operation {
        Operation::Create => (attributes.object::<ResourceSlice>(), "create"),
        Operation::Delete => (attributes.old::<ResourceSlice>(), "delete"),
        _ => return Ok(()),
    };
    match slice {
        Some(slice) if slice.spec.node_name.as_deref() != Some(node) => Err(format!(
            "can only {what} ResourceSlice with the same NodeName as the requesting node"
        )),
        _ => Ok(()),
    }
}

/// The labels that have changed and are not a kubelet's to change.
fn forbidden_labels<'a>(
    new: &'a BTreeMap<String, String>,
    old: &'a BTreeMap<String, String>,
) -> Vec<&'a str> {
    let changed: BTreeSet<&str> = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(value))
        .chain(old.iter().filter(|(key, value)| new.get(*key) != Some(value)))
        .map(|(key, _)| key.as_str())
        .collect();
    changed.into_iter().filter(|label| is_forbidden(label)).collect()
}

fn is_forbidden(label: &str) -> bool {
    let below = |namespace: &str, root: &str| {
        namespace
            .strip_suffix(root)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let Some((namespace, _)) = label.split_once('/') else {
        return false;
    };
    if below(namespace, RESTRICTED) {
        return true;
    }
    if !below(namespace, "kubernetes.io") && !below(namespace, "k8s.io") {
        return false;
    }
    !KUBELET_LABELS.contains(&label) && !KUBELET_NAMESPACES.iter().any(|root| below(namespace, root))
}

fn claim_status(attributes: &Attributes<'_>, node: &str) -> Judged {
    type Claim = PersistentVolumeClaim;
    let (Some(old), Some(new)) = (attributes.old::<Claim>(), attributes.object::<Claim>()) else {
        return Ok(());
    };
    let fixed = |claim: &Claim| {
        let mut claim = claim.clone();
        claim.metadata.resource_version = None;
        claim.metadata.managed_fields = None;
        if let Some(status) = &mut claim.status {
            status.capacity = None;
            status.conditions = None;
            status.allocated_resource_statuses = None;
            status.allocated_resources = None;
        }
        claim
    };
    if fixed(old) == fixed(new) {
        return Ok(());
    }
    Err(format!(
        "node {} is not allowed to update fields other than status.capacity and status.conditions",
        quote(node)
    ))
}

async fn token(attributes: &Attributes<'_>, node: &str) -> ApiResult<Judged> {
    let ctx = attributes.ctx;
    let request: Option<TokenRequestSpec> = attributes
        .body
        .and_then(|body| serde_json::from_value(body.get("spec")?.clone()).ok());
    let Some(bound) = request
        .and_then(|request| request.bound_object_ref)
        .filter(|bound| {
            bound.api_version.as_deref() == Some("v1")
                && bound.kind.as_deref() == Some("Pod")
                && bound.name.as_deref().is_some_and(|name| !name.is_empty())
        })
    else {
        return Ok(Err("node requested token not bound to a pod".into()));
    };
    let Some(uid) = bound.uid.filter(|uid| !uid.is_empty()) else {
        return Ok(Err("node requested token with a pod binding without a uid".into()));
    };
    let name = bound.name.unwrap_or_default();
    let pod = match ctx.server.cached::<Pod>(ctx.namespace, &name) {
        Some(pod) if pod.uid() == uid => pod,
        _ => Arc::new(ctx.server.fresh::<Pod>(ctx.namespace, &name).await?),
    };
    if pod.uid() != uid {
        return Ok(Err(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        )));
    }
    if bound_to(&pod) != node {
        return Ok(Err(
            "node requested token bound to a pod scheduled on a different node".into(),
        ));
    }
    Ok(Ok(()))
}

fn lease(attributes: &Attributes<'_>, node: &str) -> Judged {
    if attributes.ctx.namespace != LEASES {
        return Err(format!(
            "can only access leases in the {} system namespace",
            quote(LEASES)
        ));
    }
    let named = match attributes.operation {
        Operation::Create => attributes.object::<Lease>().map_or("", |lease| lease.name()),
        _ => attributes.ctx.name,
    };
    if named == node {
        Ok(())
    } else {
        Err("can only access node lease with the same name as the requesting node".into())
    }
}

fn csi_node(attributes: &Attributes<'_>, node: &str) -> Judged {
    let named = match attributes.operation {
        Operation::Create => attributes
            .object::<CSINode>()
            .map_or("", |csi_node| csi_node.name()),
        _ => attributes.ctx.name,
    };
    if named == node {
        Ok(())
    } else {
        Err("can only access CSINode with the same name as the requesting node".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_set_labels_of_their_own_only() {
        let labels = |keys: &[&str]| {
            keys.iter()
                .map(|key| ((*key).to_owned(), "x".to_owned()))
                .collect()
        };
        let new: BTreeMap<String, String> = labels(&[
            "kubernetes.io/hostname",
            "team",
            "example.com/role",
            "node.kubernetes.io/anything",
            "node-role.kubernetes.io/control-plane",
            "zone.node-restriction.kubernetes.io/a",
            "x.k8s.io/b",
        ]);
        assert_eq!(
            forbidden_labels(&new, &BTreeMap::new()),
            [
                "node-role.kubernetes.io/control-plane",
                "x.k8s.io/b",
                "zone.node-restriction.kubernetes.io/a"
            ]
        );
        assert!(forbidden_labels(&new, &new).is_empty());
        assert_eq!(
            forbidden_labels(&BTreeMap::new(), &labels(&["node-role.kubernetes.io/w"])),
            ["node-role.kubernetes.io/w"]
        );
    }
}
