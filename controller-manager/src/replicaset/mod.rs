//! ReplicaSets: a number of equal pods, kept running.
//!
//! The loop serves ReplicationControllers too: it is generic over [`Replicated`].
//!
//! ```text
//! decide.rs      how many to create, which to delete, what the status says; the core
//! rank.rs        which of too many go first
//! replicated.rs  what the two kinds have in common
//! ```

mod decide;
pub(crate) mod rank;
pub mod replicated;

pub(crate) use decide::next_available;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_api::status::ApiError;
use keelson_client::{Event, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers};

use crate::common::answers::unless_gone;
use crate::common::owners::{self, Claim};
use crate::common::pod_control::PodControl;
use crate::common::{pods, reasons, template};
use crate::context::{BY_CONTROLLER, Context, ORPHANS};
use replicated::Replicated;

/// Pods that become ready within this time share one status update: a thousand of them in a second
/// would otherwise be a thousand updates.
const STATUS_WINDOW: Duration = Duration::from_millis(20);

/// Runs the controller of ReplicaSets until shutdown.
pub async fn run(context: Context) {
    let workers = context.config().concurrent_replicaset_syncs;
    run_loop(
        "replicaset",
        "replicaset-controller",
        context.replica_sets(),
        context,
        workers,
    )
    .await;
}

/// Runs the loop for one kind until shutdown.
pub async fn run_loop<K: Replicated>(
    queue: &'static str,
    component: &str,
    owners: Informer<K>,
    context: Context,
    workers: usize,
) {
    let controller = Arc::new(Controller {
        owners,
        pods: context.pods(),
        client: context.client().resource(),
        control: PodControl::new(context.client(), context.recorder(component)),
        queue: WorkQueue::new(queue),
    });
    controller.clone().subscribe();
    controller.owners.synced().await;
    controller.pods.synced().await;
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

struct Controller<K> {
    owners: Informer<K>,
    pods: Informer<Pod>,
    client: ResourceClient<K>,
    control: PodControl,
    queue: WorkQueue<ObjectKey>,
}

impl<K: Replicated> Controller<K> {
    fn subscribe(self: Arc<Self>) {
        let this = self.clone();
        self.owners.subscribe(move |event| {
            let key = event.object().key();
            match event {
                // A new one of the same name must not wait for what the old one expected.
                Event::Updated { old, new } if old.uid() != new.uid() => {
                    this.control.expectations().forget(&key)
                }
                Event::Deleted(_) => this.control.expectations().forget(&key),
                // Labels: nothing to do. A status may have been written by somebody else.
                Event::Updated { old, new } if unchanged(&**old, &**new) => return,
                _ => {}
            }
            this.queue.add(key);
        });
        let this = self.clone();
        self.pods.subscribe(move |event| this.on_pod(event));
    }

    fn on_pod(&self, event: &Event<Pod>) {
        match event {
            Event::Added(pod) => match self.owner_key(pod) {
                Some(key) => {
                    if pod.metadata.deletion_timestamp.is_some() {
                        self.control.expectations().deleted(&key, pod.uid());
                    } else {
                        self.control.expectations().created(&key, 1);
                    }
                    // While more are expected there is nothing to decide, and counting them is left to the last one.
                    if self.control.expectations().satisfied(&key) {
                        self.queue.add(key);
                    }
                }
                None => self.enqueue_adopters(pod),
            },
            Event::Updated { old, new } => {
                if !pods::counts_differently(old, new) {
                    return;
                }
                let before = self.owner_key(old);
                let after = self.owner_key(new);
                if before != after
                    && let Some(before) = before
                {
                    self.queue.add(before);
                }
                match after {
                    Some(key) if new.metadata.deletion_timestamp.is_some() || pods::is_terminal(new) => {
                        self.control.expectations().deleted(&key, new.uid());
                        self.queue.add(key);
                    }
                    Some(key) => self.queue.add_after(key, STATUS_WINDOW),
                    None => self.enqueue_adopters(new),
                }
            }
            Event::Deleted(pod) => {
                if let Some(key) = self.owner_key(pod) {
                    self.control.expectations().deleted(&key, pod.uid());
                    self.queue.add(key);
                }
            }
        }
    }

    /// The key of the pod's controller, if that is of this kind.
    fn owner_key(&self, pod: &Pod) -> Option<ObjectKey> {
        let owner: &OwnerReference = controller_ref(&pod.metadata)?;
        refers_to(owner, K::GROUP, K::KIND).then(|| ObjectKey::new(pod.namespace(), owner.name.as_str()))
    }

    fn enqueue_adopters(&self, pod: &Pod) {
        if controller_ref(&pod.metadata).is_some() || pod.metadata.deletion_timestamp.is_some() {
            return;
        }
        for owner in self.owners.store().namespace(pod.namespace()) {
            if owner
                .selector()
                .is_some_and(|selector| selector.matches(pod.labels()))
            {
                self.queue.add(owner.key());
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(owner) = self.owners.store().get(key) else {
            self.control.expectations().forget(key);
            return Ok(());
        };
        let Some(selector) = owner.selector() else {
            return Ok(());
        };
        // Asked before the pods are read: what arrives in between must not count as seen.
        let may_write =
            self.control.expectations().satisfied(key) && owner.meta().deletion_timestamp.is_none();
        let own = self.claim(&*owner, &selector).await?;
        let active: Vec<Arc<Pod>> = own.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let terminating = own.iter().filter(|pod| pods::is_terminating(pod)).count();
        let now = keelson_api::time::now();
        let failure = if may_write {
            self.adjust(&*owner, &active, now.0).await.err()
        } else {
            None
        };
        let reported = failure
            .as_ref()
            .map(|(reason, error)| (*reason, error.to_string()));
        let status = decide::status(&*owner, &active, terminating, reported, &now);
        if status != owner.status() {
            let mut changed = (*owner).clone();
            changed.set_status(status);
            unless_gone(self.client.update_status(&changed).await)?;
        }
        if let Some((_, error)) = failure {
            return Err(error.into());
        }
        match decide::next_available(&active, owner.min_ready_seconds(), now.0) {
            // Timestamps are whole seconds: a little later, so that the second has passed.
            Some(delay) => Err(ReconcileError::RequeueAfter(delay + Duration::from_millis(10))),
            None => Ok(()),
        }
    }

    /// Creates or deletes pods. The error comes with the reason for the condition.
    async fn adjust(
        &self,
        owner: &K,
        active: &[Arc<Pod>],
        now: Timestamp,
    ) -> Result<(), (&'static str, ApiError)> {
        match decide::change(owner.replicas(), active, || self.related(owner), now) {
            decide::Change::None => Ok(()),
            decide::Change::Create(count) => {
                let Some(template) = owner.template() else {
                    return Ok(());
                };
                let pod = template::pod_from(template, owner.namespace(), new_controller_ref(owner));
                let created = self.control.create(owner, vec![pod; count]).await;
                created.map_err(|error| (reasons::FAILED_CREATE, error))
            }
            decide::Change::Delete(victims) => {
                let deleted = self.control.delete(owner, &victims).await;
                deleted.map_err(|error| (reasons::FAILED_DELETE, error))
            }
        }
    }

    /// Active pods of every controller with the same owner, this one included.
    fn related(&self, owner: &K) -> Vec<Arc<Pod>> {
        let siblings = match controller_ref(owner.meta()) {
            Some(above) => self.owners.store().by_index(BY_CONTROLLER, &above.uid),
            None => self.owners.store().get(&owner.key()).into_iter().collect(),
        };
        siblings
            .iter()
            .flat_map(|sibling| self.pods.store().by_index(BY_CONTROLLER, sibling.uid()))
            .filter(|pod| pods::is_active(pod))
            .collect()
    }

    /// The pods of `owner`, after adopting fitting ones that nobody controls and releasing others.
    async fn claim(&self, owner: &K, selector: &LabelSelector) -> Result<Vec<Arc<Pod>>, ReconcileError> {
        let store = self.pods.store();
        let mut own = store.by_index(BY_CONTROLLER, owner.uid());
        let mut released = Vec::new();
        own.retain(|pod| {
            let claim = owners::claim(owner.meta(), &pod.metadata, selector.matches(pod.labels()));
            if claim == Claim::Release {
                released.push(pod.clone());
            }
            claim == Claim::Own
        });
        for pod in released {
            let patch = owners::release(&pod.metadata, &[owner.uid()]);
            unless_gone(self.control.client().patch(&pod.key(), Patch::Merge(patch)).await)?;
        }
        let orphans: Vec<Arc<Pod>> = store
            .by_index(ORPHANS, owner.namespace())
            .into_iter()
            .filter(|pod| pods::is_active(pod))
            .filter(|pod| {
                owners::claim(owner.meta(), &pod.metadata, selector.matches(pod.labels())) == Claim::Adopt
            })
            .collect();
        if !orphans.is_empty() {
            self.check_alive(owner).await?;
        }
        for pod in orphans {
            let patch = owners::adoption(&pod.metadata, new_controller_ref(owner));
            if let Some(pod) =
                unless_gone(self.control.client().patch(&pod.key(), Patch::Merge(patch)).await)?
            {
                own.push(Arc::new(pod));
            }
        }
        Ok(own)
    }

    /// Nothing may be adopted in the name of an owner that is gone, whatever the cache says.
    async fn check_alive(&self, owner: &K) -> Result<(), ReconcileError> {
        let fresh = self.client.get(owner.namespace(), owner.name()).await?;
        if fresh.uid() != owner.uid() || fresh.meta().deletion_timestamp.is_some() {
            return Err(ReconcileError::other(format!(
                "{} {} has been deleted",
                K::KIND,
                owner.key()
            )));
        }
        Ok(())
    }
}

/// Whether an update concerns neither what is wanted, nor what is there, nor who owns it. (The generation counts changes of
/// the spec.)
fn unchanged<K: Replicated>(old: &K, new: &K) -> bool {
    let (before, after) = (old.meta(), new.meta());
    before.generation.is_some()
        && before.generation == after.generation
        && old.status() == new.status()
        && before.owner_references == after.owner_references
        && before.deletion_timestamp == after.deletion_timestamp
}
