//! Pods that do not tolerate the taints of their node have to go.

mod first_seen;
mod tolerations;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, Taint};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::{only, unless_gone};
use crate::common::pods;
use crate::context::{BY_NODE, Context};
use crate::nodelifecycle::taints::NO_EXECUTE;
use first_seen::FirstSeen;
use tolerations::{Verdict, verdict};

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        nodes: context.nodes(),
        pods: context.pods(),
        client: context.client().resource(),
        first_seen: FirstSeen::default(),
        queue: WorkQueue::new("tainteviction"),
        events: context.recorder("taint-eviction-controller"),
    });
    let this = controller.clone();
    controller.nodes.subscribe(move |event| {
        let (Event::Added(node) | Event::Updated { new: node, .. }) = event else {
            this.first_seen.forget(event.object().name());
            return;
        };
        let before = match event {
            Event::Updated { old, .. } => evicting(old),
            _ => Vec::new(),
        };
        if before != evicting(node) {
            for pod in this.pods.store().by_index(BY_NODE, node.name()) {
                this.queue.add(pod.key());
            }
        }
    });
    let this = controller.clone();
    controller.pods.subscribe(move |event| {
        let (Event::Added(pod) | Event::Updated { new: pod, .. }) = event else {
            return;
        };
        if let Event::Updated { old, new } = event
            && pods::node_name(old) == pods::node_name(new)
            && old.spec.as_ref().map(|spec| &spec.tolerations)
                == new.spec.as_ref().map(|spec| &spec.tolerations)
        {
            return;
        }
        if this.node_of(pod).is_some_and(|node| !evicting(&node).is_empty()) {
            this.queue.add(pod.key());
        }
    });
    controller.nodes.synced().await;
    controller.pods.synced().await;
    // Pods that came before their node did have been passed over.
    for node in controller.nodes.store().list() {
        if !evicting(&node).is_empty() {
            for pod in controller.pods.store().by_index(BY_NODE, node.name()) {
                controller.queue.add(pod.key());
            }
        }
    }
    run_workers(
        controller.queue.clone(),
        8,
        context.shutdown().clone(),
        move |key| {
            let controller = controller.clone();
            async move { controller.sync(&key).await }
        },
    )
    .await;
}

struct Controller {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    client: ResourceClient<Pod>,
    first_seen: FirstSeen,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

fn evicting(node: &Node) -> Vec<&Taint> {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == NO_EXECUTE).collect()
}

impl Controller {
    fn node_of(&self, pod: &Pod) -> Option<Arc<Node>> {
        let name = pods::node_name(pod);
        if name.is_empty() {
            None
        } else {
            self.nodes.store().get(&ObjectKey::cluster(name))
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(pod) = self.pods.store().get(key) else {
            return Ok(());
        };
        if pod.metadata.deletion_timestamp.is_some() || pods::is_terminal(&pod) {
            return Ok(());
        }
        let Some(node) = self.node_of(&pod) else {
            return Ok(());
        };
        let now = keelson_api::time::now().0;
        let taints = self.first_seen.dated(node.name(), &evicting(&node), now);
        match verdict(&pod, &taints, now) {
            Verdict::Stays => Ok(()),
            Verdict::Goes(at) if at > now => {
                // Should the taint go before that, the pod is found to stay then.
                Err(ReconcileError::RequeueAfter(
                    keelson_api::time::until(at) + Duration::from_millis(1),
                ))
            }
            Verdict::Goes(_) => self.evict(&pod).await,
        }
    }

    async fn evict(&self, pod: &Pod) -> Result<(), ReconcileError> {
        let message = format!("Marking for deletion Pod {}", pod.key());
        self.events
            .event(pod, EventKind::Normal, "TaintManagerEviction", message);
        let mut conditions = pods::conditions(pod);
        let condition = PodCondition {
            type_: "DisruptionTarget".into(),
            status: "True".into(),
            reason: Some("DeletionByTaintManager".into()),
            message: Some("Taint manager: deleting due to NoExecute taint".into()),
            last_transition_time: Some(keelson_api::time::now()),
            ..PodCondition::default()
        };
        if pods::set_condition(&mut conditions, condition) {
            let patch = Patch::Merge(pods::status_patch(pod, None, &conditions));
            unless_gone(self.client.patch_status(&pod.key(), patch).await)?;
        }
        unless_gone(self.client.delete(&pod.key(), &only(pod.uid())).await)?;
        Ok(())
    }
}
