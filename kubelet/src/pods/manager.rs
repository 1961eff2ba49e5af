//! All pods of the node: a worker for each, and what is left of pods that nobody wants any more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use keelson_client::{Event, Informer};
use keelson_proto::cri;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::cri::labels;
use crate::events::Level;
use crate::objects::PodExt;
use crate::pods::admission;
use crate::pods::kill;
use crate::pods::runtime::{self, Ended};
use crate::pods::static_pods::is_mirror;
use crate::pods::status::PodFailure;
use crate::pods::worker::{Desired, Mailbox, Worker};

struct Entry {
    mailbox: Arc<Mailbox>,
    admitted: bool,
}

/// The workers.
pub struct PodManager {
    context: Arc<Context>,
    entries: Mutex<HashMap<String, Entry>>,
    /// Pods that had a sandbox when the kubelet started: they were admitted by an earlier one.
    recovered: Mutex<HashSet<String>>,
    arrived: Notify,
    shutdown: CancellationToken,
}

impl PodManager {
    /// No pods yet. Workers end with `shutdown`, and leave their pods running.
    pub fn new(context: Arc<Context>, shutdown: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            context,
            entries: Mutex::default(),
            recovered: Mutex::default(),
            arrived: Notify::new(),
            shutdown,
        })
    }

    /// Waits until a pod arrives.
    pub async fn new_pod(&self) {
        self.arrived.notified().await;
    }

    /// Remembers which pods run already, so that none of them is refused now.
    pub fn recover(&self, sandboxes: &[cri::PodSandbox]) {
        let uids = sandboxes
            .iter()
            .filter_map(|sandbox| sandbox.labels.get(labels::POD_UID).cloned());
        self.recovered.lock().extend(uids);
    }

    /// Follows the node's pods.
    pub fn follow(self: &Arc<Self>, pods: &Informer<Pod>) {
        let manager = self.clone();
        pods.subscribe(move |event| match event {
            Event::Added(pod) => manager.update(pod),
            Event::Updated { old, new } => {
                // The same name with another UID is another pod.
                if old.uid() != new.uid() {
                    manager.remove(old);
                }
                manager.update(new);
            }
            Event::Deleted(pod) => manager.remove(pod),
        });
    }

    /// A pod is new, or has changed.
    pub fn update(self: &Arc<Self>, pod: &Arc<Pod>) {
        if is_mirror(pod) {
            return;
        }
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(pod.uid()) {
            let pod = pod.clone();
            entry.mailbox.send(|desired| desired.pod = pod);
            return;
        }
        let failed = self.refuse(pod, &entries);
        let admitted = failed.is_none() && !pod.is_over();
        let mailbox = Arc::new(Mailbox::new(Desired {
            pod: pod.clone(),
            removed: false,
            failed,
        }));
        entries.insert(
            pod.uid().to_owned(),
            Entry {
                mailbox: mailbox.clone(),
                admitted,
            },
        );
        if admitted {
            let all: Vec<Arc<Pod>> = active(&entries);
            if let Err(error) = self.context.cgroups.share_out(&all) {
                tracing::debug!(%error, "sharing out CPU");
            }
        }
        drop(entries);
        self.arrived.notify_one();
        tracing::info!(pod = pod.full_name(), admitted, "pod");
        let manager = self.clone();
        let (worker, uid) = (Worker::new(self.context.clone(), mailbox), pod.uid().to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = worker.run() => {}
                () = manager.shutdown.cancelled() => {}
            }
            manager.entries.lock().remove(&uid);
        });
    }

    fn refuse(&self, pod: &Pod, entries: &HashMap<String, Entry>) -> Option<PodFailure> {
        if pod.is_over() || pod.is_deleted() || self.recovered.lock().contains(pod.uid()) {
            return None;
        }
        let node = self.context.node.read().clone()?;
        let failure = admission::admit(pod, &active(entries), &node).err()?;
        self.context
            .events
            .pod(pod, Level::Warning, &failure.reason, &failure.message);
        Some(failure)
    }

    /// A pod is no longer wanted.
    pub fn remove(&self, pod: &Pod) {
        if let Some(entry) = self.entries.lock().get(pod.uid()) {
            let last = pod.clone();
            entry.mailbox.send(|desired| {
                desired.removed = true;
                desired.pod = Arc::new(last);
            });
        }
    }

    /// A pod is to fail.
    pub fn fail(&self, uid: &str, failure: PodFailure) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.mailbox.send(|desired| desired.failed = Some(failure));
        }
    }

    /// Something happened to a pod in the runtime.
    pub fn wake(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.mailbox.wake();
        }
    }

    /// What a pod's volumes are made of has changed.
    pub fn renew_volumes(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.mailbox.renew_volumes();
        }
    }

    /// Is there a worker for this pod?
    pub fn knows(&self, uid: &str) -> bool {
        self.entries.lock().contains_key(uid)
    }

    /// How many pods there are.
    pub fn count(&self) -> usize {
        self.entries.lock().len()
    }

    /// All pods with their statuses as last made.
    pub fn pods(&self) -> Vec<Pod> {
        self.entries
            .lock()
            .values()
            .map(|entry| entry.mailbox.current())
            .collect()
    }

    /// A pod by name, and its mailbox.
    pub fn find(&self, namespace: &str, name: &str, uid: Option<&str>) -> Option<Arc<Mailbox>> {
        let entries = self.entries.lock();
        let mut found: Vec<&Entry> = entries
            .values()
            .filter(|entry| {
                let pod = entry.mailbox.desired().pod;
                pod.namespace() == namespace && pod.name() == name && uid.is_none_or(|uid| pod.uid() == uid)
            })
            .collect();
        // A pod made anew under a name hides the one that is still ending.
        found.sort_by_key(|entry| entry.mailbox.desired().removed);
        found.first().map(|entry| entry.mailbox.clone())
    }

    /// Ends what runs for a pod that is in no list any more.
    pub async fn end_orphan(&self, uid: &str) {
        let runtime = self.context.runtime.as_ref();
        let Ok(view) = runtime::inspect(runtime, uid, &mut Ended::new()).await else {
            return;
        };
        if self.knows(uid) {
            return;
        }
        tracing::info!(uid, "ending a pod that nobody wants any more");
        let grace = self.orphan_grace(uid).await;
        for container in view.running() {
            let _ = runtime.stop_container(&container.id, grace).await;
        }
        if let Err(error) = kill::remove_remains(&self.context, &view).await {
            tracing::warn!(uid, %error, "removing what remains of a pod");
            return;
        }
        if let Err(error) = self.context.volumes.teardown(uid).await {
            tracing::warn!(uid, %error, "removing a pod's files");
        }
        self.context.cgroups.remove(uid);
    }

    async fn orphan_grace(&self, uid: &str) -> Duration {
        let containers = self
            .context
            .runtime
            .list_containers(Some(uid))
            .await
            .unwrap_or_default();
        containers
            .iter()
            .find_map(|container| labels::grace_period(&container.annotations))
            .unwrap_or(Duration::from_secs(30))
    }

    /// Folders and logs of pods that are neither in a list nor in the runtime.
    pub async fn sweep(&self, in_runtime: &HashSet<String>) {
        let kept = |uid: &str| self.knows(uid) || in_runtime.contains(uid);
        for name in names(&self.context.paths.pods()) {
            if !kept(&name)
                && let Err(error) = self.context.volumes.teardown(&name).await
            {
                tracing::warn!(uid = name, %error, "removing a pod's files");
            }
        }
        for name in names(self.context.paths.logs()) {
            // Only folders that a kubelet named: namespace_name_uid.
            let Some(uid) = name.rsplit('_').next().filter(|_| name.matches('_').count() >= 2) else {
                continue;
            };
            if !kept(uid) {
                let _ = tokio::fs::remove_dir_all(self.context.paths.logs().join(&name)).await;
            }
        }
    }
}

/// Pods that take room on the node.
fn active(entries: &HashMap<String, Entry>) -> Vec<Arc<Pod>> {
    entries
        .values()
        .filter(|entry| entry.admitted)
        .filter(|entry| {
            !matches!(
                entry.mailbox.current().status().phase.as_deref(),
                Some("Succeeded" | "Failed")
            )
        })
        .map(|entry| entry.mailbox.desired().pod)
        .collect()
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}
