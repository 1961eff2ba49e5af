//! Daemon sets: one pod on every node that fits.
//!
//! ```text
//! plan.rs       one step as data; the core
//! placement.rs  which nodes fit
//! pods.rs       the pods
//! ```

mod placement;
mod plan;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_client::{
    Event, EventKind, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::unless_gone;
use crate::common::owners::{self, Claim};
use crate::common::pod_control::PodControl;
use crate::common::revisions::{self, Historian, Kept};
use crate::context::{BY_CONTROLLER, Context, ORPHANS};
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
        },
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
    control: PodControl,
    queue: WorkQueue<ObjectKey>,
}

impl Controller {
    fn subscribe(self: Arc<Self>) {
        let this = self.clone();
        self.sets.subscribe(move |event| {
            if let Event::Deleted(set) = event {
                this.control.expectations().forget(&set.key());
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
        let Some(owner) = controller_ref(&pod.metadata).filter(|owner| refers_to(owner, "apps", "DaemonSet"))
        else {
            return;
        };
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
        let selector =
            LabelSelector::from_meta(Some(&spec.selector)).unwrap_or_else(|_| LabelSelector::nothing());
        if selector.is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.control
                .events()
                .event(&*set, EventKind::Warning, "SelectingAll", message);
            return Ok(());
        }
        let may_write = self.control.expectations().satisfied(key);
        let pods = self.claim(&set, &selector).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let history = match self.historian.keep(&*set, &spec.template, collisions).await? {
            Kept::History(history) => history,
            Kept::Collision => {
                let mut changed = (*set).clone();
                let status = changed.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                self.client.update_status(&changed).await?;
                return Ok(());
            }
        };
        let hash = revisions::hash_of(&history.update).to_owned();
        let nodes = self.nodes.store().list();
        let now = keelson_api::time::now();
        let plan = plan::plan(&Observed {
            set: &set,
            pods: &pods,
            nodes: &nodes,
            hash: &hash,
            may_write,
            now: now.clone(),
        });
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
        let in_use = plan::hashes_in_use(&pods);
        let limit = spec.revision_history_limit.unwrap_or(10);
        self.historian
            .forget(&history, limit, |one| in_use.contains(revisions::hash_of(one)))
            .await?;
        match crate::replicaset::next_available(&pods, spec.min_ready_seconds.unwrap_or_default(), now.0) {
            Some(delay) => Err(ReconcileError::RequeueAfter(delay + Duration::from_millis(10))),
            None => Ok(()),
        }
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
