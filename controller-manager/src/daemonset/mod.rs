//! Daemon sets: one pod on every node that fits.
//!
//! ```text
//! plan.rs       one step as data; the core
//! placement.rs  which nodes fit
//! patience.rs   how long pods that fail again and again are waited for
//! pods.rs       the pods
//! ```

mod patience;
mod placement;
mod plan;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_client::{
    Event, EventKind, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};
use serde_json::json;

use crate::common::answers::unless_gone;
use crate::common::owners::{self, Claim};
use crate::common::pod_control::PodControl;
use crate::common::revisions::{self, Historian, History, Kept, Subject};
use crate::context::{BY_CONTROLLER, Context, ORPHANS};
use patience::Patience;
use plan::Observed;

/// Pods that change within this time share one sync.
const PODS_WINDOW: Duration = Duration::from_millis(20);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        sets: context.daemon_sets(),
        pods: context.pods(),
        nodes: context.nodes(),
        client: context.client().resource(),
        historian: Historian {
            informer: context.controller_revisions(),
            client: context.client().resource(),
            hash_label: CONTROLLER_REVISION_HASH,
        },
        patience: Patience::default(),
        control: PodControl::new(context.client(), context.recorder("daemonset-controller")),
        queue: WorkQueue::new("daemonset"),
    });
    controller.clone().subscribe();
    controller.sets.synced().await;
    controller.pods.synced().await;
    controller.nodes.synced().await;
    controller.historian.informer.synced().await;
    let workers = context.config().concurrent_daemonset_syncs;
    run_workers(
        controller.queue.clone(),
        workers,
        context.shutdown().clone(),
        move |key| {
            let controller = controller.clone();
            async move { controller.sync(&key).await }
        },
    )
    .await;
}

struct Controller {
    sets: Informer<DaemonSet>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    client: ResourceClient<DaemonSet>,
    historian: Historian,
    patience: Patience,
    control: PodControl,
    queue: WorkQueue<ObjectKey>,
}

impl Controller {
    fn subscribe(self: Arc<Self>) {
        let this = self.clone();
        self.sets.subscribe(move |event| {
            if let Event::Deleted(set) = event {
                this.control.expectations().forget(&set.key());
                this.patience.forget(set.uid());
            }
            this.queue.add(event.object().key());
        });
        let this = self.clone();
        self.pods.subscribe(move |event| this.on_pod(event));
        let this = self.clone();
        self.nodes.subscribe(move |event| {
            if let Event::Updated { old, new } = event
                && old.metadata.labels == new.metadata.labels
                && old.spec == new.spec
            {
                return;
            }
            for set in this.sets.store().list() {
                this.queue.add(set.key());
            }
        });
    }

    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        let Some(owner) = controller_ref(&pod.metadata) else {
            // One that is nobody's may be adopted.
            for set in self.sets.store().namespace(pod.namespace()) {
                if selector(&set).matches(pod.labels()) {
                    self.queue.add(set.key());
                }
            }
            return;
        };
        if !refers_to(owner, "apps", "DaemonSet") {
            return;
        }
        let key = ObjectKey::new(pod.namespace(), owner.name.as_str());
        let expectations = self.control.expectations();
        match event {
            Event::Added(_) => expectations.created(&key, 1),
            Event::Updated { .. } if pod.metadata.deletion_timestamp.is_some() => {
                expectations.deleted(&key, pod.uid())
            }
            Event::Updated { .. } => {}
            Event::Deleted(_) => expectations.deleted(&key, pod.uid()),
        }
        if expectations.satisfied(&key) {
            self.queue.add_after(key, PODS_WINDOW);
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(set) = self.sets.store().get(key) else {
            return Ok(());
        };
        let Some(spec) = &set.spec else { return Ok(()) };
        let selector = selector(&set);
        if selector.is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control
                .events()
                .event(&*set, EventKind::Warning, "SelectingAll", message);
            return Ok(());
        }
        // Whether its history is still its own, or orphaned, or gone, nobody can tell any more.
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let may_write = self.control.expectations().satisfied(key);
        let pods = self.claim(&set, &selector).await?;
        let subject = Subject {
            object: &*set,
            selector: &selector,
            template: &spec.template,
            collisions: set.status.as_ref().and_then(|status| status.collision_count),
            client: &self.client,
        };
        let history = match self.historian.keep(&subject).await? {
            Kept::History(history) => history,
            Kept::Collision => {
                let mut changed = (*set).clone();
                let status = changed.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                self.client.update_status(&changed).await?;
                return Ok(());
            }
        };
        self.merge_duplicates(&history, &pods).await?;
        let hash = revisions::hash_of(&history.update).to_owned();
        let older = history
            .older()
            .map(|one| revisions::hash_of(one).to_owned())
            .collect();
        let nodes = self.nodes.store().list();
        let now = keelson_api::time::now();
        let plan = plan::plan(&Observed {
            set: &set,
            pods: &pods,
            nodes: &nodes,
            hash: &hash,
            older: &older,
            may_write,
            held: &self.patience.held(set.uid(), now.0),
            now: now.clone(),
        });
        for node in &plan.failed_on {
            self.patience.failed(set.uid(), node, now.0);
        }
        for (reason, message) in plan.ended {
            let kind = if reason == "FailedDaemonPod" {
                EventKind::Warning
            } else {
                EventKind::Normal
            };
            self.control.events().event(&*set, kind, reason, message);
        }
        let deleted = self.control.delete(&*set, &plan.delete).await;
        let new: Vec<Pod> = plan
            .create
            .iter()
            .filter_map(|node| pods::new(&set, node, &hash))
            .collect();
        let created = self.control.create(&*set, new).await;
        if set.status.as_ref() != Some(&plan.status) {
            let changed = DaemonSet {
                status: Some(plan.status),
                ..(*set).clone()
            };
            unless_gone(self.client.update_status(&changed).await)?;
        }
        deleted.and(created)?;
        // Revisions that pods are of count, too, but stay.
        let in_use = plan::hashes_in_use(&pods);
        let is_live = |one: &ControllerRevision| in_use.contains(revisions::hash_of(one));
        let live = history.older().filter(|one| is_live(one)).count();
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        self.historian
            .forget(&history, limit.saturating_sub(live), is_live)
            .await?;
        let available =
            crate::replicaset::next_available(&pods, spec.min_ready_seconds.unwrap_or_default(), now.0);
        match available.into_iter().chain(plan.look_again).min() {
            Some(delay) => Err(ReconcileError::RequeueAfter(delay + Duration::from_millis(10))),
            None => Ok(()),
        }
    }

    /// Leaves one revision of the template: pods of another become pods of this one, as they are the same.
    async fn merge_duplicates(&self, history: &History, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        let kept = revisions::hash_of(&history.update);
        for duplicate in history.duplicates() {
            let hash = revisions::hash_of(duplicate);
            let of_it = |pod: &&Arc<Pod>| {
                pod.labels().get(CONTROLLER_REVISION_HASH).map(String::as_str) == Some(hash)
            };
            for pod in pods.iter().filter(of_it) {
                let patch =
                    json!({"metadata": {"uid": pod.uid(), "labels": {CONTROLLER_REVISION_HASH: kept}}});
                unless_gone(self.control.client().patch(&pod.key(), Patch::Merge(patch)).await)?;
            }
            self.historian.delete(duplicate).await?;
        }
        Ok(())
    }

    /// The set's pods, after adopting fitting ones that nobody controls and releasing others.
    async fn claim(
        &self,
        set: &DaemonSet,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let store = self.pods.store();
        let mut candidates = store.by_index(BY_CONTROLLER, set.uid());
        candidates.extend(store.by_index(ORPHANS, set.namespace()));
        let mut own = Vec::new();
        for pod in candidates {
            match owners::claim(&set.metadata, &pod.metadata, selector.matches(pod.labels())) {
                Claim::Own => own.push(pod),
                Claim::Ignore => {}
                Claim::Adopt => {
                    let fresh = self.client.get(set.namespace(), set.name()).await?;
                    if fresh.uid() != set.uid() || fresh.metadata.deletion_timestamp.is_some() {
                        return Err(ReconcileError::other(format!(
                            "DaemonSet {} has been deleted",
                            set.key()
                        )));
                    }
                    let patch = owners::adoption(&pod.metadata, new_controller_ref(set));
                    let adopted = self.control.client().patch(&pod.key(), Patch::Merge(patch)).await;
                    own.extend(unless_gone(adopted)?.map(Arc::new));
                }
                Claim::Release => {
                    let patch = owners::release(&pod.metadata, &[set.uid()]);
                    unless_gone(self.control.client().patch(&pod.key(), Patch::Merge(patch)).await)?;
                }
            }
        }
        Ok(own)
    }
}

fn selector(set: &DaemonSet) -> LabelSelector {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_meta(selector).unwrap_or_else(|_| LabelSelector::nothing())
}
