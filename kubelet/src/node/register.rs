//! The node in the apiserver: registered once, its status kept current, its lease renewed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keelson_api::{ApiError, ObjectKey, time};
use keelson_client::{Event, Informer, InformerOptions, Patch};
use keelson_daemon::backoff::Backoff;
use keelson_proto::cri;
use serde_json::{Map, Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{facts, status};
use crate::context::Context;
use crate::events::Level;
use crate::pods::pleg::Pulse;

/// Where nodes' leases are.
const LEASES: &str = "kube-node-lease";
/// The lease is renewed this many times while it holds.
const RENEWALS: u32 = 4;
/// How often the runtime is asked how it is; a node that is not ready should say so soon.
const QUICK_LOOK: Duration = Duration::from_secs(2);
/// The same while something is missing: a node that is being started is to be ready the moment it can be.
const TROUBLED_LOOK: Duration = Duration::from_millis(200);

/// Keeps the node current until `shutdown`.
pub async fn run(context: Arc<Context>, pulse: Pulse, shutdown: CancellationToken) {
    if !context.config.register_node {
        return;
    }
    let changed = Arc::new(Notify::new());
    let node = watch(&context, changed.clone(), &shutdown);
    let mut keeper = Keeper {
        context: context.clone(),
        pulse,
        version: cri::VersionResponse::default(),
        sent: None,
        pressures: status::Pressures::default(),
        ready: None,
    };
    tokio::join!(
        keeper.run(changed, shutdown.clone()),
        renew(context, shutdown.clone())
    );
    drop(node);
}

fn watch(context: &Arc<Context>, changed: Arc<Notify>, shutdown: &CancellationToken) -> Informer<Node> {
    let options = InformerOptions {
        field_selector: format!("metadata.name={}", context.node_name),
        ..Default::default()
    };
    let informer: Informer<Node> = Informer::start(&context.api.client, options, Vec::new(), shutdown);
    let context = context.clone();
    informer.subscribe(move |event| {
        let gone = matches!(event, Event::Deleted(_));
        *context.node.write() = (!gone).then(|| event.object().clone());
        if gone {
            changed.notify_one();
        }
    });
    informer
}

struct Keeper {
    context: Arc<Context>,
    pulse: Pulse,
    version: cri::VersionResponse,
    /// The status as last sent, and when.
    sent: Option<(Map<String, Value>, Instant)>,
    pressures: status::Pressures,
    ready: Option<bool>,
}

impl Keeper {
    async fn run(&mut self, changed: Arc<Notify>, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
        let mut looked: Option<(Instant, Vec<String>)> = None;
        loop {
            let (readings, runtime) = status::read(&self.context, &self.pulse).await;
            // Trouble that comes or goes is told at once, everything else at its pace.
            let due = looked.as_ref().is_none_or(|(at, trouble)| {
                at.elapsed() >= self.context.config.node_status_update_frequency
                    || trouble.is_empty() != readings.trouble.is_empty()
            });
            let mut pause = if readings.trouble.is_empty() {
                QUICK_LOOK
            } else {
                TROUBLED_LOOK
            };
            if due || self.sent.is_none() {
                looked = Some((Instant::now(), readings.trouble.clone()));
                match self.update(&readings, runtime.as_ref()).await {
                    Ok(()) => backoff.reset(),
                    Err(error) => {
                        tracing::warn!(
                            node = self.context.node_name,
                            error = error.message(),
                            "updating the node"
                        );
                        self.sent = None;
                        pause = backoff.next_wait();
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = changed.notified() => self.sent = None,
            }
        }
    }

    async fn update(
        &mut self,
        readings: &status::Readings,
        runtime: Option<&cri::StatusResponse>,
    ) -> Result<(), ApiError> {
        if self.version.runtime_name.is_empty()
            && let Ok(version) = self.context.runtime.version().await
        {
            let _ = self.context.runtime_name.set(version.runtime_name.clone());
            self.version = version;
        }
        let known = self.context.node.read().clone();
        let node = match known {
            Some(node) => node,
            None => Arc::new(self.register().await?),
        };
        let mut status = status::status(&self.context, &self.version, runtime).await;
        let old = node
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone())
            .unwrap_or_default();
        let conditions = status::merge(
            &old,
            self.pressures.settle(
                status::conditions(&self.context.config, readings),
                self.context.config.eviction_pressure_transition_period,
            ),
            Timestamp::now(),
        );
        self.tell(&conditions);
        status.conditions = Some(conditions);
        let new = without_heartbeats(&status);
        let fresh = self.sent.as_ref().is_some_and(|(sent, at)| {
            *sent == new && at.elapsed() < self.context.config.node_status_report_frequency
        });
        if fresh {
            return Ok(());
        }
        let key = ObjectKey::cluster(&self.context.node_name);
        let mut patch = as_map(&status);
        if self.sent.is_none() {
            // Fields of an earlier life of the node that no longer hold.
            patch.entry("phase").or_insert(Value::Null);
        }
        match self
            .context
            .api
            .nodes
            .patch_status(&key, Patch::Merge(json!({"status": patch})))
            .await
        {
            Ok(node) => {
                *self.context.node.write() = Some(Arc::new(node));
                self.sent = Some((new, Instant::now()));
                Ok(())
            }
            Err(error) => {
                if error.is_not_found() {
                    *self.context.node.write() = None;
                }
                Err(error)
            }
        }
    }

    /// Makes the Node object, or brings an existing one's labels up to date.
    async fn register(&self) -> Result<Node, ApiError> {
        let name = &self.context.node_name;
        let labels = labels(&self.context);
        let annotations = BTreeMap::from([(
            "volumes.kubernetes.io/controller-managed-attach-detach".to_owned(),
            "true".to_owned(),
        )]);
        let taints = &self.context.config.register_with_taints;
        let node = Node {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels.clone()),
                annotations: Some(annotations.clone()),
                ..Default::default()
            },
            spec: Some(NodeSpec {
                taints: (!taints.is_empty()).then(|| taints.clone()),
                ..Default::default()
            }),
            ..Default::default()
        };
        match self.context.api.nodes.create(&node).await {
            Ok(node) => {
                tracing::info!(node = name, "registered");
                Ok(node)
            }
            Err(error) if error.is_already_exists() => {
                let patch = Patch::Merge(json!({"metadata": {"labels": labels, "annotations": annotations}}));
                self.context
                    .api
                    .nodes
                    .patch(&ObjectKey::cluster(name), patch)
                    .await
            }
            Err(error) => Err(error),
        }
    }

    /// Events about what changed.
    fn tell(&mut self, conditions: &[k8s_openapi::api::core::v1::NodeCondition]) {
        let ready = conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if self.ready == Some(ready) {
            return;
        }
        let name = &self.context.node_name;
        let reason = if ready { "NodeReady" } else { "NodeNotReady" };
        if self.ready.is_some() || ready {
            self.context.events.node(
                name,
                Level::Normal,
                reason,
                &format!("Node {name} status is now: {reason}"),
            );
        }
        if self.ready.is_none() {
            for condition in conditions.iter().filter(|condition| condition.type_ != "Ready") {
                let reason = condition.reason.clone().unwrap_or_default();
                self.context.events.node(
                    name,
                    Level::Normal,
                    &reason,
                    &format!("Node {name} status is now: {reason}"),
                );
            }
        }
        let message = conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .and_then(|condition| condition.message.clone());
        tracing::info!(node = name, ready, message = message.unwrap_or_default(), "node");
        self.ready = Some(ready);
    }
}

/// Labels every node has, and those it was given.
fn labels(context: &Context) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), context.node_name.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), facts::architecture().to_owned()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        (
            "beta.kubernetes.io/arch".to_owned(),
            facts::architecture().to_owned(),
        ),
    ]);
    labels.extend(context.config.labels());
    labels
}

fn as_map(status: &NodeStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

fn without_heartbeats(status: &NodeStatus) -> Map<String, Value> {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    as_map(&status)
}

/// Renews the node's lease. It tells that the kubelet lives, and costs less than a status.
async fn renew(context: Arc<Context>, shutdown: CancellationToken) {
    let leases = context.api.client.resource::<Lease>();
    let duration = context.config.node_lease_duration;
    let key = ObjectKey::new(LEASES, &context.node_name);
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(7));
    loop {
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(40);
        let spec = LeaseSpec {
            holder_identity: Some(context.node_name.clone()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(time::now_micro()),
            ..Default::default()
        };
        let node = context.node.read().clone();
        let owners = node.and_then(|node| {
            Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: context.node_name.clone(),
                uid: node.metadata.uid.clone()?,
                ..Default::default()
            }])
        });
        let result = match leases
            .patch(
                &key,
                Patch::Merge(json!({"metadata": {"ownerReferences": owners}, "spec": spec})),
            )
            .await
        {
            Err(error) if error.is_not_found() => {
                let metadata = ObjectMeta {
                    name: Some(key.name.clone()),
                    namespace: Some(LEASES.into()),
                    owner_references: owners.clone(),
                    ..Default::default()
                };
                leases
                    .create(&Lease {
                        metadata,
                        spec: Some(spec),
                    })
                    .await
            }
            other => other,
        };
        let pause = match result {
            Ok(_) => {
                backoff.reset();
                // Without the node's UID the lease has no owner yet; it gets one soon.
                if owners.is_some() {
                    duration / RENEWALS
                } else {
                    Duration::from_secs(1)
                }
            }
            Err(error) => {
                tracing::debug!(error = error.message(), "renewing the node's lease");
                backoff.next_wait()
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
