//! Stateful sets: pods with names, an order, and storage of their own.
//!
//! ```text
//! plan.rs      one step as data; the core
//! identity.rs  names, ordinals and claims
//! claims.rs    the claims are there before the pod, and go when they should
//! ```

mod claims;
mod identity;
mod plan;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use keelson_api::labels::{CONTROLLER_REVISION_HASH, STATEFUL_SET_HASH};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only, unless_gone};
use crate::common::owners::{self, Claim};
use crate::common::reasons;
use crate::common::revisions::{self, Historian, History, Kept, Subject};
use crate::context::{BY_CONTROLLER, Context, ORPHANS};
use plan::{Creation, Observed};

/// Pods that change within this time share one sync.
const PODS_WINDOW: Duration = Duration::from_millis(10);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        sets: context.stateful_sets(),
        pods: context.pods(),
        client: context.client().resource(),
        pod_client: context.client().resource(),
        claim_client: context.client().resource(),
        historian: Historian {
            informer: context.controller_revisions(),
            client: context.client().resource(),
            hash_label: STATEFUL_SET_HASH,
        },
        events: context.recorder("statefulset-controller"),
        queue: WorkQueue::new("statefulset"),
    });
    let queue = controller.queue.clone();
    controller
        .sets
        .subscribe(move |event| queue.add(event.object().key()));
    let this = controller.clone();
    controller.pods.subscribe(move |event| this.on_pod(event));
    controller.sets.synced().await;
    controller.pods.synced().await;
    controller.historian.informer.synced().await;
    let workers = context.config().concurrent_statefulset_syncs;
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
    sets: Informer<StatefulSet>,
    pods: Informer<Pod>,
    client: ResourceClient<StatefulSet>,
    pod_client: ResourceClient<Pod>,
    claim_client: ResourceClient<PersistentVolumeClaim>,
    historian: Historian,
    events: EventRecorder,
    queue: WorkQueue<ObjectKey>,
}

impl Controller {
    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        match controller_ref(&pod.metadata) {
            Some(owner) if refers_to(owner, "apps", "StatefulSet") => {
                self.queue
                    .add_after(ObjectKey::new(pod.namespace(), owner.name.as_str()), PODS_WINDOW);
            }
            Some(_) => {}
            None => {
                for set in self.sets.store().namespace(pod.namespace()) {
                    if identity::ordinal(&set, pod).is_some() && selector(&set).matches(pod.labels()) {
                        self.queue.add(set.key());
                    }
                }
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(set) = self.sets.store().get(key) else {
            return Ok(());
        };
        let Some(spec) = &set.spec else { return Ok(()) };
        let pods = self.claim(&set).await?;
        let collisions = set
            .status
            .as_ref()
            .and_then(|status| status.collision_count)
            .filter(|count| *count > 0);
        let subject = Subject {
            object: &*set,
            selector: &selector(&set),
            template: &spec.template,
            collisions,
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
        let current = current(&set, &history);
        let now = keelson_api::time::now();
        let plan = plan::plan(&Observed {
            set: &set,
            pods: &pods,
            current: current.name(),
            update: history.update.name(),
            now,
        });
        for pod in &plan.delete {
            self.delete(&set, pod).await?;
        }
        for creation in &plan.create {
            self.create(&set, creation, &current, &history).await?;
        }
        self.keep_claims(&set, &pods).await?;
        if set.status.as_ref() != Some(&plan.status) {
            let changed = StatefulSet {
                status: Some(plan.status),
                ..(*set).clone()
            };
            unless_gone(self.client.update_status(&changed).await)?;
        }
        let limit = usize::try_from(spec.revision_history_limit.unwrap_or(10)).unwrap_or_default();
        let in_use = |one: &ControllerRevision| {
            one.name() == current.name()
                || pods.iter().any(|pod| {
                    pod.labels()
                        .get(CONTROLLER_REVISION_HASH)
                        .is_some_and(|name| name == one.name())
                })
        };
        self.historian.forget(&history, limit, in_use).await?;
        match plan.look_again {
            Some(delay) => Err(ReconcileError::RequeueAfter(delay + Duration::from_millis(10))),
            None => Ok(()),
        }
    }

    async fn create(
        &self,
        set: &StatefulSet,
        creation: &Creation,
        current: &ControllerRevision,
        history: &History,
    ) -> Result<(), ReconcileError> {
        let revision = if creation.updated {
            &history.update
        } else {
            current
        };
        let Some(template) = revisions::template_of(revision) else {
            return Err(ReconcileError::other(format!(
                "revision {} has no template",
                revision.key()
            )));
        };
        let pod = identity::new_pod(set, &template, revision.name(), creation.ordinal);
        self.create_claims(set, creation.ordinal).await?;
        match self.pod_client.create(&pod).await {
            Ok(_) => {
                let message = format!(
                    "create Pod {} in StatefulSet {} successful",
                    pod.name(),
                    set.name()
                );
                self.events
                    .event(set, EventKind::Normal, reasons::SUCCESSFUL_CREATE, message);
                Ok(())
            }
            // The cache is behind; its next event brings us back.
            Err(error) if error.is_already_exists() || namespace_is_terminating(&error) => Ok(()),
            Err(error) => {
                let message = format!(
                    "create Pod {} in StatefulSet {} failed error: {error}",
                    pod.name(),
                    set.name()
                );
                self.events
                    .event(set, EventKind::Warning, reasons::FAILED_CREATE, message);
                Err(error.into())
            }
        }
    }

    async fn delete(&self, set: &StatefulSet, pod: &Pod) -> Result<(), ReconcileError> {
        if unless_gone(self.pod_client.delete(&pod.key(), &only(pod.uid())).await)?.is_some() {
            let message = format!(
                "delete Pod {} in StatefulSet {} successful",
                pod.name(),
                set.name()
            );
            self.events
                .event(set, EventKind::Normal, reasons::SUCCESSFUL_DELETE, message);
        }
        Ok(())
    }

    /// The set's pods, after adopting fitting ones of its names and releasing others.
    async fn claim(&self, set: &StatefulSet) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let selector = selector(set);
        let store = self.pods.store();
        let mut candidates = store.by_index(BY_CONTROLLER, set.uid());
        candidates.extend(store.by_index(ORPHANS, set.namespace()));
        let mut own = Vec::new();
        for pod in candidates {
            let matches = selector.matches(pod.labels()) && identity::ordinal(set, &pod).is_some();
            match owners::claim(&set.metadata, &pod.metadata, matches) {
                Claim::Own => own.push(pod),
                Claim::Ignore => {}
                Claim::Adopt => {
                    let fresh = self.client.get(set.namespace(), set.name()).await?;
                    if fresh.uid() != set.uid() || fresh.metadata.deletion_timestamp.is_some() {
                        return Err(ReconcileError::other(format!(
                            "StatefulSet {} has been deleted",
                            set.key()
                        )));
                    }
                    let patch = owners::adoption(&pod.metadata, new_controller_ref(set));
                    let adopted = self.pod_client.patch(&pod.key(), Patch::Merge(patch)).await;
                    own.extend(unless_gone(adopted)?.map(Arc::new));
                }
                Claim::Release => {
                    let patch = owners::release(&pod.metadata, &[set.uid()]);
                    unless_gone(self.pod_client.patch(&pod.key(), Patch::Merge(patch)).await)?;
                }
            }
        }
        Ok(own)
    }
}

fn selector(set: &StatefulSet) -> LabelSelector {
    let selector = set.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_meta(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// The revision that the set is coming from: as its status remembers it, else the one it is going to.
fn current(set: &StatefulSet, history: &History) -> Arc<ControllerRevision> {
    let name = set
        .status
        .as_ref()
        .and_then(|status| status.current_revision.as_deref());
    let found = history.all.iter().find(|revision| Some(revision.name()) == name);
    found.unwrap_or(&history.update).clone()
}
