//! Pods that were said to go and did not: after a while the condition that says so is taken back.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use keelson_api::conditions;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::pods::is_terminal;
use keelson_api::time;
use keelson_client::{Event, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers};
use serde_json::json;

use super::figures::DELETION_TIMEOUT;
use crate::common::answers::unless_gone;
use crate::context::Context;

/// The condition of pods that are to go because of something other than themselves.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Runs until shutdown.
pub async fn run(context: &Context) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("stale_disruption");
    let pods = context.pods();
    let to = queue.clone();
    pods.subscribe(move |event| {
        if let Event::Added(pod) | Event::Updated { new: pod, .. } = event
            && let Some(since) = target_since(pod)
        {
            to.add_after(pod.key(), time::until(time::after(since, DELETION_TIMEOUT)));
        }
    });
    let client: Arc<ResourceClient<Pod>> = Arc::new(context.client().resource());
    run_workers(queue, 1, context.shutdown().clone(), move |key| {
        let (pods, client) = (pods.clone(), client.clone());
        async move { sync(&key, &pods, &client).await }
    })
    .await;
}

/// Since when the pod is said to go, if it is and does not.
fn target_since(pod: &Pod) -> Option<jiff::Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() || is_terminal(pod) {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref();
    let condition = conditions::find(conditions, DISRUPTION_TARGET)?;
    let since = condition.last_transition_time.as_ref()?.0;
    (condition.status == conditions::TRUE).then_some(since)
}

async fn sync(
    key: &ObjectKey,
    pods: &Informer<Pod>,
    client: &ResourceClient<Pod>,
) -> Result<(), ReconcileError> {
    let Some(pod) = pods.store().get(key) else {
        return Ok(());
    };
    let Some(since) = target_since(&pod) else {
        return Ok(());
    };
    let due = time::after(since, DELETION_TIMEOUT);
    if due > time::now().0 {
        return Err(ReconcileError::RequeueAfter(time::until(due)));
    }
    let patch = json!({
        "metadata": {"uid": pod.uid(), "resourceVersion": pod.resource_version()},
        "status": {"conditions": [{
            "type": DISRUPTION_TARGET,
            "status": conditions::FALSE,
            "reason": null,
            "message": null,
            "lastTransitionTime": time::now(),
        }]},
    });
    unless_gone(client.patch_status(key, Patch::Strategic(patch)).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pods_that_are_to_go_and_stay_are_looked_at() {
        let pod = |metadata: serde_json::Value, phase: &str, status: &str| -> Pod {
            serde_json::from_value(json!({"metadata": metadata, "status": {"phase": phase, "conditions": [
                {"type": "DisruptionTarget", "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .expect("a pod")
        };
        let going = json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let staying = json!({"name": "p"});
        assert!(target_since(&pod(staying.clone(), "Running", "True")).is_some());
        assert!(target_since(&pod(staying.clone(), "Running", "False")).is_none());
        assert!(target_since(&pod(staying, "Failed", "True")).is_none());
        assert!(target_since(&pod(going, "Running", "True")).is_none());
    }
}
