//! Whether an object has a reason to exist, and what follows if not.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, OwnerReference, Preconditions};
use keelson_api::deletion::{FOREGROUND_FINALIZER, ORPHAN_FINALIZER};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::status::ApiError;
use keelson_client::{DynamicClient, Patch, ReconcileError};
use serde_json::json;

use super::Collector;
use super::graph::{Node, Presence, Uid, Work};
use super::resources::Resource;
use crate::common::answers::unless_gone;
use crate::common::patches;

/// An owner of a kind the server does not know is asked for again after this long: its definition may come.
const UNKNOWN_KIND_RETRY: Duration = Duration::from_secs(60);

/// How an object is deleted that has lost its owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Background,
    Foreground,
    Orphan,
}

/// What becomes of an object, given its owners.
#[derive(Debug, PartialEq)]
enum Judgement {
    /// It stays as it is.
    Keep,
    /// It stays, without the references to owners that are gone.
    Drop(Vec<String>),
    /// It goes.
    Delete(Propagation),
    /// It goes, and it and its dependents would wait for each other: it stops holding its owners up first.
    Unblock,
}

/// Decides. `owners` are the object's owner references with what is known of each owner.
fn judgement(node: &Node, owners: &[(OwnerReference, Presence)], dependents_wait: bool) -> Judgement {
    let solid = owners.iter().any(|(_, presence)| *presence == Presence::Present);
    let waiting = owners.iter().any(|(_, presence)| *presence == Presence::Waiting);
    if owners.is_empty() {
        return Judgement::Keep;
    }
    if solid {
        let lost: Vec<String> = owners
            .iter()
            .filter(|(_, presence)| *presence != Presence::Present)
            .map(|(owner, _)| owner.uid.clone())
            .collect();
        return if lost.is_empty() {
            Judgement::Keep
        } else {
            Judgement::Drop(lost)
        };
    }
    if waiting && !node.dependents.is_empty() {
        return if dependents_wait {
            Judgement::Unblock
        } else {
            Judgement::Delete(Propagation::Foreground)
        };
    }
    Judgement::Delete(if node.orphan {
        Propagation::Orphan
    } else if node.foreground {
        Propagation::Foreground
    } else {
        Propagation::Background
    })
}

impl Collector {
    pub(super) async fn judge(&self, uid: &Uid) -> Result<(), ReconcileError> {
        let (node, dependents_wait) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid) else { return Ok(()) };
            let wait = node
                .dependents
                .iter()
                .any(|dependent| graph.presence(dependent) == Presence::Waiting);
            (node.clone(), wait)
        };
        if node.ghost {
            return self.look_up(uid, &node).await;
        }
        let Some(resource) = node.resource.clone() else {
            return Ok(());
        };
        if node.foreground {
            return self.wait_for_dependents(uid, &node, &resource).await;
        }
        if node.deleting {
            return Ok(());
        }
        let mut owners = Vec::new();
        for owner in &node.owners {
            owners.push((owner.clone(), self.presence(owner, &node.key.namespace).await?));
        }
        let client = self.client.dynamic(&resource.gvr);
        match judgement(&node, &owners, dependents_wait) {
            Judgement::Keep => Ok(()),
            Judgement::Drop(lost) => {
                let mut kept = node.owners.clone();
                kept.retain(|owner| !lost.contains(&owner.uid));
                self.set_owners(&client, uid, &node, kept).await
            }
            Judgement::Unblock => {
                let mut owners = node.owners.clone();
                for owner in &mut owners {
                    owner.block_owner_deletion = Some(false);
                }
                self.set_owners(&client, uid, &node, owners).await?;
                self.delete(&client, uid, &node, Propagation::Foreground, None)
                    .await
            }
            Judgement::Delete(propagation) => {
                // Only as it was judged: if somebody has adopted it meanwhile, it is judged again.
                let version = Some(node.resource_version.clone());
                self.delete(&client, uid, &node, propagation, version).await
            }
        }
    }

    /// Finds out whether an owner exists that no informer has shown.
    async fn look_up(&self, uid: &Uid, node: &Node) -> Result<(), ReconcileError> {
        let Some(resource) = &node.resource else {
            // Perhaps it has become known since.
            self.rediscover.add(());
            return Err(ReconcileError::RequeueAfter(UNKNOWN_KIND_RETRY));
        };
        if self.exists(resource, &node.key, uid).await? {
            // The informer will show it.
            return Ok(());
        }
        let work = {
            let mut graph = self.graph.lock();
            graph.note_absent(uid.clone());
            graph.remove(uid)
        };
        self.enqueue(work);
        Ok(())
    }

    async fn exists(&self, resource: &Resource, key: &ObjectKey, uid: &str) -> Result<bool, ApiError> {
        let found = unless_gone(
            self.client
                .dynamic(&resource.gvr)
                .get(&key.namespace, &key.name)
                .await,
        )?;
        Ok(found.is_some_and(|object| object.uid() == uid))
    }

    async fn presence(&self, owner: &OwnerReference, namespace: &str) -> Result<Presence, ReconcileError> {
        let known = self.graph.lock().presence(&owner.uid);
        if known != Presence::Unknown {
            return Ok(known);
        }
        let Some(resource) = self.resources.load().of_owner(owner) else {
            return Err(ReconcileError::RequeueAfter(UNKNOWN_KIND_RETRY));
        };
        let namespace = if resource.namespaced { namespace } else { "" };
        let key = ObjectKey::new(namespace, owner.name.as_str());
        if self.exists(&resource, &key, &owner.uid).await? {
            return Ok(Presence::Present);
        }
        self.graph.lock().note_absent(owner.uid.as_str().into());
        Ok(Presence::Absent)
    }

    /// An object in foreground deletion goes when nothing blocks it any more.
    async fn wait_for_dependents(
        &self,
        uid: &Uid,
        node: &Node,
        resource: &Resource,
    ) -> Result<(), ReconcileError> {
        let blocking: Vec<Uid> = self.graph.lock().blocking_dependents(uid);
        if blocking.is_empty() {
            return self
                .remove_finalizer(resource, uid, node, FOREGROUND_FINALIZER)
                .await;
        }
        let graph = self.graph.lock();
        for dependent in blocking {
            if graph.presence(&dependent) != Presence::Waiting {
                self.queue.add(Work::Judge(dependent));
            }
        }
        Ok(())
    }

    pub(super) async fn orphan(&self, uid: &Uid) -> Result<(), ReconcileError> {
        let (node, dependents) = {
            let graph = self.graph.lock();
            let Some(node) = graph.get(uid).cloned() else {
                return Ok(());
            };
            let dependents: Vec<(Uid, Node)> = node
                .dependents
                .iter()
                .filter_map(|dependent| Some((dependent.clone(), graph.get(dependent)?.clone())))
                .collect();
            (node, dependents)
        };
        for (dependent_uid, dependent) in dependents {
            let Some(resource) = &dependent.resource else {
                continue;
            };
            let client = self.client.dynamic(&resource.gvr);
            let mut kept = dependent.owners.clone();
            kept.retain(|owner| owner.uid != **uid);
            self.set_owners(&client, &dependent_uid, &dependent, kept).await?;
        }
        match &node.resource {
            Some(resource) => {
                self.remove_finalizer(resource, uid, &node, ORPHAN_FINALIZER)
                    .await
            }
            None => Ok(()),
        }
    }

    async fn set_owners(
        &self,
        client: &DynamicClient,
        uid: &Uid,
        node: &Node,
        owners: Vec<OwnerReference>,
    ) -> Result<(), ReconcileError> {
        let patch = json!({"metadata": {
            "uid": &**uid,
            "resourceVersion": node.resource_version,
            "ownerReferences": patches::list(&owners),
        }});
        unless_gone(client.patch(&node.key, Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn remove_finalizer(
        &self,
        resource: &Resource,
        uid: &Uid,
        node: &Node,
        finalizer: &str,
    ) -> Result<(), ReconcileError> {
        let client = self.client.dynamic(&resource.gvr);
        let Some(object) = unless_gone(client.get(&node.key.namespace, &node.key.name).await)? else {
            return Ok(());
        };
        if object.uid() != &**uid {
            return Ok(());
        }
        let mut finalizers = object.meta().finalizers.clone().unwrap_or_default();
        finalizers.retain(|own| own != finalizer);
        let patch = json!({"metadata": {
            "uid": &**uid,
            "resourceVersion": object.resource_version(),
            "finalizers": patches::list(&finalizers),
        }});
        unless_gone(client.patch(&node.key, Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn delete(
        &self,
        client: &DynamicClient,
        uid: &Uid,
        node: &Node,
        propagation: Propagation,
        resource_version: Option<String>,
    ) -> Result<(), ReconcileError> {
        let policy = match propagation {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        };
        let options = DeleteOptions {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_string()),
                resource_version,
            }),
            propagation_policy: Some(policy.into()),
            ..DeleteOptions::default()
        };
        tracing::debug!(resource = %client.gvr(), object = %node.key, policy, "deleting");
        unless_gone(client.delete(&node.key, &options).await)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn node(dependents: &[&str]) -> Node {
        Node {
            resource: None,
            key: ObjectKey::new("n", "x"),
            resource_version: "1".into(),
            owners: Vec::new(),
            dependents: dependents
                .iter()
                .map(|uid| Uid::from(*uid))
                .collect::<HashSet<_>>(),
            deleting: false,
            foreground: false,
            orphan: false,
            ghost: false,
        }
    }

    fn owners(presences: &[Presence]) -> Vec<(OwnerReference, Presence)> {
        let owner = |index: usize| OwnerReference {
            uid: format!("o{index}"),
            ..OwnerReference::default()
        };
        presences
            .iter()
            .enumerate()
            .map(|(index, presence)| (owner(index), *presence))
            .collect()
    }

    #[test]
    fn one_owner_is_enough() {
        let both = owners(&[Presence::Present, Presence::Absent]);
        assert_eq!(
            judgement(&node(&[]), &both, false),
            Judgement::Drop(vec!["o1".into()])
        );
        assert_eq!(
            judgement(&node(&[]), &owners(&[Presence::Present]), false),
            Judgement::Keep
        );
        assert_eq!(judgement(&node(&[]), &[], false), Judgement::Keep);
    }

    #[test]
    fn without_owners_it_goes() {
        let lost = owners(&[Presence::Absent]);
        assert_eq!(
            judgement(&node(&["child"]), &lost, false),
            Judgement::Delete(Propagation::Background)
        );
    }

    #[test]
    fn a_foreground_deletion_goes_on_below() {
        let waiting = owners(&[Presence::Waiting]);
        assert_eq!(
            judgement(&node(&["child"]), &waiting, false),
            Judgement::Delete(Propagation::Foreground)
        );
        assert_eq!(
            judgement(&node(&[]), &waiting, false),
            Judgement::Delete(Propagation::Background)
        );
        assert_eq!(judgement(&node(&["child"]), &waiting, true), Judgement::Unblock);
    }
}
