//! Pods nobody else takes away: ended ones beyond a number, and those whose node is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::labels::TAINT_OUT_OF_SERVICE;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, Write, run_workers};

use crate::common::answers::{only, unless_gone};
use crate::common::pods;
use crate::context::{BY_NODE, Context};
use crate::nodelifecycle::taints::{Readiness, readiness};

/// A node that is gone may come back within this time: a kubelet registering again.
const QUARANTINE: Duration = Duration::from_secs(40);
/// Ended pods are counted again at most this often.
const SWEEP_WINDOW: Duration = Duration::from_secs(1);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        nodes: context.nodes(),
        pods: context.pods(),
        client: context.client().resource(),
        node_client: context.client().resource(),
        queue: WorkQueue::new("podgc"),
        threshold: context.config().terminated_pod_gc_threshold,
        ended: AtomicI64::new(0),
    });
    // Nodes first: without them every pod would look orphaned.
    controller.nodes.synced().await;
    let this = controller.clone();
    controller.pods.subscribe(move |event| this.on_pod(event));
    let this = controller.clone();
    controller.nodes.subscribe(move |event| this.on_node(event));
    controller.pods.synced().await;
    run_workers(
        controller.queue.clone(),
        4,
        context.shutdown().clone(),
        move |work| {
            let controller = controller.clone();
            async move { controller.sync(&work).await }
        },
    )
    .await;
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Work {
    /// Look at one pod.
    Pod(ObjectKey),
    /// Look for ended pods beyond the number.
    Ended,
}

struct Controller {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    client: ResourceClient<Pod>,
    node_client: ResourceClient<Node>,
    queue: WorkQueue<Work>,
    threshold: usize,
    /// How many pods have ended.
    ended: AtomicI64,
}

impl Controller {
    fn on_pod(&self, event: &Event<Pod>) {
        let (before, after) = match event {
            Event::Added(pod) => (None, Some(pod)),
            Event::Updated { old, new } => (Some(old), Some(new)),
            Event::Deleted(pod) => (Some(pod), None),
        };
        let ended = |pod: Option<&Arc<Pod>>| i64::from(pod.is_some_and(|pod| pods::is_terminal(pod)));
        let change = ended(after) - ended(before);
        if change != 0 {
            let count = self.ended.fetch_add(change, Ordering::Relaxed) + change;
            if change > 0
                && self.threshold > 0
                && usize::try_from(count).is_ok_and(|count| count > self.threshold)
            {
                self.queue.add_after(Work::Ended, SWEEP_WINDOW);
            }
        }
        let Some(pod) = after else { return };
        let node = pods::node_name(pod);
        if node.is_empty() {
            if pod.metadata.deletion_timestamp.is_some() {
                self.queue.add(Work::Pod(pod.key()));
            }
        } else if before.is_none_or(|before| pods::node_name(before).is_empty()) && self.node(node).is_none()
        {
            self.queue.add_after(Work::Pod(pod.key()), QUARANTINE);
        } else if pod.metadata.deletion_timestamp.is_some()
            && before.is_none_or(|before| before.metadata.deletion_timestamp.is_none())
            && self.node(node).is_some_and(|node| is_out_of_service(&node))
        {
            self.queue.add(Work::Pod(pod.key()));
        }
    }

    fn on_node(&self, event: &Event<Node>) {
        let (node, delay) = match event {
            Event::Deleted(node) => (node, QUARANTINE),
            Event::Added(node) | Event::Updated { new: node, .. } if is_out_of_service(node) => {
                (node, Duration::ZERO)
            }
            _ => return,
        };
        for pod in self.pods.store().by_index(BY_NODE, node.name()) {
            self.queue.add_after(Work::Pod(pod.key()), delay);
        }
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.store().get(&ObjectKey::cluster(name))
    }

    async fn sync(&self, work: &Work) -> Result<(), ReconcileError> {
        match work {
            Work::Pod(key) => self.sync_pod(key).await,
            Work::Ended => self.sweep().await,
        }
    }

    async fn sync_pod(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(pod) = self.pods.store().get(key) else {
            return Ok(());
        };
        let node = pods::node_name(&pod);
        let going = pod.metadata.deletion_timestamp.is_some();
        if node.is_empty() {
            // No kubelet will ever say that it has stopped.
            return if going {
                self.remove(&pod, None).await
            } else {
                Ok(())
            };
        }
        match self.node(node) {
            Some(node) if going && is_out_of_service(&node) => self.remove(&pod, None).await,
            Some(_) => Ok(()),
            // The cache may be behind: what follows cannot be undone.
            None => match self.node_client.get("", node).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_not_found() => {
                    self.remove(&pod, Some("PodGC: node no longer exists")).await
                }
                Err(error) => Err(error.into()),
            },
        }
    }

    /// Deletes a pod at once. With a reason, the pod's controller is told that the pod is not to blame.
    async fn remove(&self, pod: &Pod, disruption: Option<&str>) -> Result<(), ReconcileError> {
        let mut conditions = pods::conditions(pod);
        let marked = disruption.is_some_and(|message| {
            let condition = PodCondition {
                type_: "DisruptionTarget".into(),
                status: "True".into(),
                reason: Some("DeletionByPodGC".into()),
                message: Some(message.into()),
                last_transition_time: Some(keelson_api::time::now()),
                ..PodCondition::default()
            };
            pods::set_condition(&mut conditions, condition)
        });
        let phase = (!pods::is_terminal(pod)).then_some(pods::FAILED);
        if marked || phase.is_some() {
            let patch = Patch::Merge(pods::status_patch(pod, phase, &conditions));
            if unless_gone(self.client.patch_status(&pod.key(), patch).await)?.is_none() {
                return Ok(());
            }
        }
        tracing::info!(pod = %pod.key(), node = pods::node_name(pod), "removed");
        unless_gone(self.client.delete(&pod.key(), &at_once(pod)).await)?;
        Ok(())
    }

    /// Deletes ended pods beyond the number, evicted ones and then the oldest first.
    async fn sweep(&self) -> Result<(), ReconcileError> {
        let mut ended = self.pods.store().list();
        ended.retain(|pod| pods::is_terminal(pod) && pod.metadata.deletion_timestamp.is_none());
        let Some(excess) = ended
            .len()
            .checked_sub(self.threshold)
            .filter(|excess| *excess > 0)
        else {
            return Ok(());
        };
        let evicted =
            |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
        ended.sort_by(|a, b| {
            let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            evicted(b)
                .cmp(&evicted(a))
                .then(created(a).cmp(&created(b)))
                .then_with(|| a.name().cmp(b.name()))
        });
        let writes = ended.iter().take(excess).map(|pod| Write::Delete {
            key: pod.key(),
            options: at_once(pod),
        });
        for result in self.client.batch_discard(writes.collect()).await? {
            unless_gone(result)?;
        }
        tracing::info!(count = excess, "ended pods deleted");
        Ok(())
    }
}

fn at_once(pod: &Pod) -> DeleteOptions {
    DeleteOptions {
        grace_period_seconds: Some(0),
        ..only(pod.uid())
    }
}

/// Whether an administrator has said that the node is off for good.
fn is_out_of_service(node: &Node) -> bool {
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    readiness(node) != Some(Readiness::Ready) && taints.iter().any(|taint| taint.key == TAINT_OUT_OF_SERVICE)
}
