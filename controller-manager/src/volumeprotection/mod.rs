//! Volumes and claims that are in use stay, even when they have been deleted: a finalizer holds them until nothing
//! uses them any more.
//!
//! The apiserver puts the finalizer on what is created; this controller puts it on what is older and takes it away.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::deletion::{PV_PROTECTION_FINALIZER, PVC_PROTECTION_FINALIZER, has_finalizer, is_deleting};
use keelson_api::object::{Kind, Object as _, ObjectKey};
use keelson_api::pods::{is_terminal, node_name};
use keelson_api::status::ApiError;
use keelson_client::{
    Client, Event, Informer, ListParams, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};
use serde_json::json;

use crate::common::answers::unless_gone;
use crate::common::patches;
use crate::context::Context;

/// Runs the controller of claims until shutdown.
pub async fn run_claims(context: Context) {
    let claims = context.persistent_volume_claims();
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("pvcprotection");
    let to = queue.clone();
    claims.subscribe(move |event| {
        if let Event::Added(claim) | Event::Updated { new: claim, .. } = event
            && wants_work(&claim.metadata, PVC_PROTECTION_FINALIZER)
        {
            to.add(claim.key());
        }
    });
    claims.synced().await;
    let (to, of) = (queue.clone(), claims.clone());
    context.pods().subscribe(move |event| {
        let gone = match event {
            Event::Deleted(pod) => pod,
            Event::Updated { old, new } if is_terminal(new) && !is_terminal(old) => new,
            _ => return,
        };
        for claim in of.store().namespace(gone.namespace()) {
            if claim.metadata.deletion_timestamp.is_some() {
                to.add(claim.key());
            }
        }
    });
    let client = context.client().clone();
    let resource = Arc::new(client.resource::<PersistentVolumeClaim>());
    run_workers(queue, 2, context.shutdown().clone(), move |key| {
        let (claims, client, resource) = (claims.clone(), client.clone(), resource.clone());
        async move {
            let in_use =
                |claim: Arc<PersistentVolumeClaim>| async move { used_by_pods(&client, &claim).await };
            sync(&key, &claims, &resource, PVC_PROTECTION_FINALIZER, in_use).await
        }
    })
    .await;
}

/// Runs the controller of volumes until shutdown.
pub async fn run_volumes(context: Context) {
    let volumes = context.persistent_volumes();
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("pvprotection");
    let to = queue.clone();
    volumes.subscribe(move |event| {
        if let Event::Added(volume) | Event::Updated { new: volume, .. } = event
            && wants_work(&volume.metadata, PV_PROTECTION_FINALIZER)
        {
            to.add(volume.key());
        }
    });
    volumes.synced().await;
    let resource = Arc::new(context.client().resource::<PersistentVolume>());
    run_workers(queue, 2, context.shutdown().clone(), move |key| {
        let (volumes, resource) = (volumes.clone(), resource.clone());
        async move {
            let in_use = |volume: Arc<PersistentVolume>| async move {
                Ok(volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"))
            };
            sync(&key, &volumes, &resource, PV_PROTECTION_FINALIZER, in_use).await
        }
    })
    .await;
}

/// Whether the finalizer is missing, or stands in the way of a deletion.
fn wants_work(metadata: &ObjectMeta, finalizer: &str) -> bool {
    has_finalizer(metadata, finalizer) == is_deleting(metadata)
}

async fn sync<K, F>(
    key: &ObjectKey,
    informer: &Informer<K>,
    client: &ResourceClient<K>,
    finalizer: &str,
    in_use: impl FnOnce(Arc<K>) -> F,
) -> Result<(), ReconcileError>
where
    K: Kind,
    F: Future<Output = Result<bool, ApiError>>,
{
    let Some(object) = informer.store().get(key) else {
        return Ok(());
    };
    let metadata = object.meta();
    if !wants_work(metadata, finalizer) {
        return Ok(());
    }
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    if metadata.deletion_timestamp.is_some() {
        if in_use(object.clone()).await? {
            return Ok(());
        }
        finalizers.retain(|name| name != finalizer);
    } else {
        finalizers.push(finalizer.to_owned());
    }
    // The version keeps somebody else's finalizer from being lost.
    let patch = json!({"metadata": {
        "finalizers": patches::list(&finalizers),
        "resourceVersion": object.resource_version(),
        "uid": object.uid(),
    }});
    unless_gone(client.patch(key, Patch::Merge(patch)).await)?;
    Ok(())
}

/// Whether a pod that has a node uses the claim. Pods without one will not start with a claim that is being deleted.
async fn used_by_pods(client: &Client, claim: &PersistentVolumeClaim) -> Result<bool, ApiError> {
    let pods = client
        .resource::<Pod>()
        .list(claim.namespace(), &ListParams::default())
        .await?;
    Ok(pods.items.iter().any(|pod| uses(pod, claim)))
}

fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    if node_name(pod).is_none() {
        return false;
    }
    let names = |volume: &Volume| {
        let named = volume
            .persistent_volume_claim
            .as_ref()
            .is_some_and(|source| source.claim_name == claim.name());
        let own = volume.ephemeral.is_some()
            && !is_terminal(pod)
            && format!("{}-{}", pod.name(), volume.name) == claim.name()
            && claim
                .meta()
                .owner_references
                .iter()
                .flatten()
                .any(|owner| owner.uid == pod.uid());
        named || own
    };
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.into_iter().any(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn only_pods_with_a_node_use_claims() {
        let claim: PersistentVolumeClaim = read(json!({"metadata": {"name": "data", "namespace": "n"}}));
        let pod = |node: &str| -> Pod {
            read(
                json!({"metadata": {"name": "p"}, "spec": {"nodeName": node, "containers": [],
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}),
            )
        };
        assert!(uses(&pod("n1"), &claim) && !uses(&pod(""), &claim));
    }

    #[test]
    fn finalizers_are_put_on_and_taken_off() {
        let metadata = |value| read::<ObjectMeta>(value);
        let with = metadata(json!({"finalizers": [PVC_PROTECTION_FINALIZER]}));
        let going = metadata(
            json!({"finalizers": [PVC_PROTECTION_FINALIZER], "deletionTimestamp": "2026-01-01T00:00:00Z"}),
        );
        let wants = |metadata: &ObjectMeta| wants_work(metadata, PVC_PROTECTION_FINALIZER);
        assert!(!wants(&with) && wants(&going) && wants(&metadata(json!({}))));
    }
}
