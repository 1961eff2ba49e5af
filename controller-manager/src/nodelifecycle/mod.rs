//! Nodes that fall silent or cannot run pods.
//!
//! ```text
//! silence.rs  conditions become unknown when the heartbeat stops
//! taints.rs   the taints that conditions call for
//! zones.rs    how fast nodes are given up
//! ```
//!
//! A node's heartbeat is its lease (or its status). There is one timer a node, set to the moment at which its silence
//! would have lasted too long. Time is counted from when the heartbeat arrived here: clocks need not agree.

mod silence;
pub mod taints;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};
use parking_lot::Mutex;
use serde_json::json;

use crate::common::answers::unless_gone;
use crate::common::{patches, pods};
use crate::context::{BY_NODE, Context};
use taints::{Eviction, Readiness, readiness};
use zones::{Limits, Permission, Zones};

/// A node that has just registered may take this long to say something.
const STARTUP_GRACE: Duration = Duration::from_secs(60);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let config = context.config();
    let controller = Arc::new(Controller {
        nodes: context.nodes(),
        pods: context.pods(),
        client: context.client().resource(),
        pod_client: context.client().resource(),
        queue: WorkQueue::new("nodelifecycle"),
        events: context.recorder("node-controller"),
        heard: Mutex::new(HashMap::new()),
        zones: Zones::new(Limits {
            rate: config.node_eviction_rate,
            secondary_rate: config.secondary_node_eviction_rate,
            threshold: config.unhealthy_zone_threshold,
            large: config.large_cluster_size_threshold,
        }),
        grace: config.node_monitor_grace_period,
    });
    let this = controller.clone();
    controller.nodes.subscribe(move |event| this.on_node(event));
    let this = controller.clone();
    let leases: Informer<Lease> = context.node_leases();
    leases.subscribe(move |event| this.on_lease(event));
    controller.nodes.synced().await;
    controller.pods.synced().await;
    leases.synced().await;
    run_workers(
        controller.queue.clone(),
        4,
        context.shutdown().clone(),
        move |name| {
            let controller = controller.clone();
            async move { controller.sync(&name).await }
        },
    )
    .await;
}

struct Controller {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    client: ResourceClient<Node>,
    pod_client: ResourceClient<Pod>,
    queue: WorkQueue<String>,
    events: EventRecorder,
    /// When each node was last heard of.
    heard: Mutex<HashMap<String, Instant>>,
    zones: Zones,
    grace: Duration,
}

impl Controller {
    fn on_node(&self, event: &Event<Node>) {
        let node = event.object();
        let name = node.name();
        match event {
            Event::Added(_) => {
                self.heard.lock().insert(name.to_owned(), Instant::now());
                let message = format!("Node {name} event: Registered Node {name} in Controller");
                self.events
                    .event(&**node, EventKind::Normal, "RegisteredNode", message);
            }
            Event::Updated { old, new } => {
                if silence::heartbeat(old) != silence::heartbeat(new) {
                    self.heard.lock().insert(name.to_owned(), Instant::now());
                }
                if readiness(old) != readiness(new) {
                    // One more or less changes what may be done to the others.
                    self.enqueue_lost();
                }
            }
            Event::Deleted(_) => {
                self.heard.lock().remove(name);
                let message = format!("Node {name} event: Removing Node {name} from Controller");
                self.events
                    .event(&**node, EventKind::Normal, "RemovingNode", message);
                self.enqueue_lost();
            }
        }
        self.queue.add(name.to_owned());
    }

    fn on_lease(&self, event: &Event<Lease>) {
        let (Event::Added(lease) | Event::Updated { new: lease, .. }) = event else {
            return;
        };
        if let Event::Updated { old, new } = event
            && renewed(old) == renewed(new)
        {
            return;
        }
        if let Some(heard) = self.heard.lock().get_mut(lease.name()) {
            *heard = Instant::now();
        }
    }

    fn enqueue_lost(&self) {
        for node in self.nodes.store().list() {
            if readiness(&node) != Some(Readiness::Ready) {
                self.queue.add(node.name().to_owned());
            }
        }
    }

    async fn sync(&self, name: &str) -> Result<(), ReconcileError> {
        let Some(node) = self.nodes.store().get(&ObjectKey::cluster(name)) else {
            return Ok(());
        };
        let heard = *self
            .heard
            .lock()
            .entry(name.to_owned())
            .or_insert_with(Instant::now);
        let grace = if readiness(&node).is_some() {
            self.grace
        } else {
            STARTUP_GRACE
        };
        let left = grace.saturating_sub(heard.elapsed());
        if left.is_zero()
            && let Some(silent) = silence::silenced(&node, &keelson_api::time::now())
        {
            self.declare_silent(&node, &silent).await?;
            // The rest follows when the cache shows it.
            return Ok(());
        }
        let again = self.taint(&node).await?;
        if readiness(&node) == Some(Readiness::Unknown) {
            self.mark_pods_not_ready(&node).await?;
        }
        let left = (!left.is_zero()).then_some(left);
        match [left, again].into_iter().flatten().min() {
            Some(delay) => Err(ReconcileError::RequeueAfter(delay + Duration::from_millis(1))),
            None => Ok(()),
        }
    }

    async fn declare_silent(&self, node: &Node, silent: &Node) -> Result<(), ReconcileError> {
        tracing::warn!(node = node.name(), "no heartbeat");
        if unless_gone(self.client.update_status(silent).await)?.is_some()
            && readiness(node) == Some(Readiness::Ready)
        {
            let message = format!("Node {} status is now: NodeNotReady", node.name());
            self.events
                .event(node, EventKind::Normal, "NodeNotReady", message);
        }
        Ok(())
    }

    /// Writes the node's taints. Returns when to ask again whether it may be given up.
    async fn taint(&self, node: &Node) -> Result<Option<Duration>, ReconcileError> {
        let mut again = None;
        let eviction = match readiness(node) {
            Some(Readiness::Ready) | None => Eviction::Now,
            Some(Readiness::NotReady | Readiness::Unknown) => {
                let nodes = self.nodes.store().list();
                if zones::all_lost(&nodes) {
                    Eviction::Never
                } else if !taints::is_newly_lost(node) {
                    Eviction::Later
                } else {
                    match self.zones.ask(node, &nodes, Instant::now()) {
                        Permission::Granted => Eviction::Now,
                        Permission::Suspended => Eviction::Later,
                        Permission::Wait(wait) => {
                            again = Some(wait);
                            Eviction::Later
                        }
                    }
                }
            }
        };
        if let Some(taints) = taints::wanted(node, eviction, &keelson_api::time::now()) {
            let patch = json!({
                "metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"taints": patches::list(&taints)},
            });
            unless_gone(self.client.patch(&node.key(), Patch::Merge(patch)).await)?;
        }
        Ok(again)
    }

    /// Services must not send traffic to a node that may be dead.
    async fn mark_pods_not_ready(&self, node: &Node) -> Result<(), ReconcileError> {
        for pod in self.pods.store().by_index(BY_NODE, node.name()) {
            if !pods::is_ready(&pod) {
                continue;
            }
            let mut conditions = pods::conditions(&pod);
            for condition in conditions
                .iter_mut()
                .filter(|condition| condition.type_ == "Ready")
            {
                condition.status = "False".into();
                condition.last_transition_time = Some(keelson_api::time::now());
            }
            let patch = Patch::Merge(pods::status_patch(&pod, None, &conditions));
            if unless_gone(self.pod_client.patch_status(&pod.key(), patch).await)?.is_some() {
                self.events
                    .event(&*pod, EventKind::Warning, "NodeNotReady", "Node is not ready");
            }
        }
        Ok(())
    }
}

fn renewed(lease: &Lease) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime> {
    lease.spec.as_ref()?.renew_time.as_ref()
}
