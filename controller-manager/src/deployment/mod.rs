//! Deployments: releases of a pod template, rolled out over ReplicaSets.
//!
//! ```text
//! plan.rs          one step of a rollout as data; the core
//! scaling.rs       how big each ReplicaSet should be
//! status.rs        the status that ReplicaSets add up to
//! conditions.rs    Available, Progressing, ReplicaFailure
//! limits.rs        what the strategy allows
//! replica_sets.rs  counts, revisions and annotations of ReplicaSets
//! ```

mod conditions;
mod limits;
mod plan;
mod replica_sets;
mod scaling;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, is_controlled_by, new_controller_ref, refers_to};
use keelson_api::selector::LabelSelector;
use keelson_api::status::ApiError;
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only, unless_gone};
use crate::common::owners::{self, Claim};
use crate::common::{pods, template};
use crate::context::{BY_CONTROLLER, Context, ORPHANS};
use plan::{Observed, Plan};

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        deployments: context.deployments(),
        replica_sets: context.replica_sets(),
        pods: context.pods(),
        client: context.client().resource(),
        set_client: context.client().resource(),
        queue: WorkQueue::new("deployment"),
        events: context.recorder("deployment-controller"),
    });
    controller.clone().subscribe();
    controller.deployments.synced().await;
    controller.replica_sets.synced().await;
    controller.pods.synced().await;
    let queue = controller.queue.clone();
    let workers = context.config().concurrent_deployment_syncs;
    run_workers(queue, workers, context.shutdown().clone(), move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    })
    .await;
}

struct Controller {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    client: ResourceClient<Deployment>,
    set_client: ResourceClient<ReplicaSet>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

impl Controller {
    fn subscribe(self: Arc<Self>) {
        let queue = self.queue.clone();
        self.deployments
            .subscribe(move |event| queue.add(event.object().key()));
        let this = self.clone();
        self.replica_sets
            .subscribe(move |event| this.on_replica_set(event));
        let this = self.clone();
        self.pods.subscribe(move |event| {
            if let Event::Deleted(pod) = event {
                this.on_pod_gone(pod);
            }
        });
    }

    fn on_replica_set(&self, event: &Event<ReplicaSet>) {
        let set = event.object();
        if let Event::Updated { old, .. } = event
            && old.metadata.owner_references != set.metadata.owner_references
            && let Some(owner) = controller_ref(&old.metadata)
        {
            self.enqueue_owner(old.namespace(), owner);
        }
        match controller_ref(&set.metadata) {
            Some(owner) => self.enqueue_owner(set.namespace(), owner),
            None if matches!(event, Event::Deleted(_)) => {}
            None => {
                // Somebody may want to adopt it.
                for deployment in self.deployments.store().namespace(set.namespace()) {
                    if selector(&deployment).matches(set.labels()) {
                        self.queue.add(deployment.key());
                    }
                }
            }
        }
    }

    /// A recreation waits for the last pod to go.
    fn on_pod_gone(&self, pod: &Pod) {
        let Some(owner) =
            controller_ref(&pod.metadata).filter(|owner| refers_to(owner, "apps", "ReplicaSet"))
        else {
            return;
        };
        let key = ObjectKey::new(pod.namespace(), owner.name.as_str());
        let Some(set) = self.replica_sets.store().get(&key) else {
            return;
        };
        let Some(owner) = controller_ref(&set.metadata) else {
            return;
        };
        let key = ObjectKey::new(pod.namespace(), owner.name.as_str());
        if self
            .deployments
            .store()
            .get(&key)
            .is_some_and(|deployment| !limits::is_rolling(&deployment))
        {
            self.queue.add(key);
        }
    }

    fn enqueue_owner(&self, namespace: &str, owner: &OwnerReference) {
        if refers_to(owner, "apps", "Deployment") {
            self.queue.add(ObjectKey::new(namespace, owner.name.as_str()));
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(deployment) = self.deployments.store().get(key) else {
            return Ok(());
        };
        let selector = selector(&deployment);
        if selector.is_everything() {
            let message = "This deployment is selecting all pods. A non-empty selector is required.";
            self.events
                .event(&*deployment, EventKind::Warning, "SelectingAll", message);
            return Ok(());
        }
        let replica_sets = self.claim(&deployment, &selector).await?;
        let plan = self.plan(&deployment, replica_sets);
        self.carry_out(&deployment, plan).await
    }

    fn plan(&self, deployment: &Deployment, replica_sets: Vec<Arc<ReplicaSet>>) -> Plan {
        let has_live_pods = |uid: &str| {
            let of_set = self.pods.store().by_index(BY_CONTROLLER, uid);
            of_set.iter().any(|pod| !pods::is_terminal(pod))
        };
        let now = keelson_api::time::now();
        plan::plan(&Observed {
            deployment,
            replica_sets,
            has_live_pods: &has_live_pods,
            now,
        })
    }

    /// The Deployment's ReplicaSets, after adopting fitting ones that nobody controls and releasing others.
    async fn claim(
        &self,
        deployment: &Deployment,
        selector: &LabelSelector,
    ) -> Result<Vec<Arc<ReplicaSet>>, ReconcileError> {
        let store = self.replica_sets.store();
        let mut candidates = store.by_index(BY_CONTROLLER, deployment.uid());
        candidates.extend(store.by_index(ORPHANS, deployment.namespace()));
        let mut own = Vec::new();
        let mut may_adopt = false;
        for set in candidates {
            let matches = selector.matches(set.labels());
            match owners::claim(&deployment.metadata, &set.metadata, matches) {
                Claim::Own => own.push(set),
                Claim::Ignore => {}
                Claim::Adopt => {
                    if !may_adopt {
                        self.check_alive(deployment).await?;
                        may_adopt = true;
                    }
                    let patch = owners::adoption(&set.metadata, new_controller_ref(deployment));
                    if let Some(set) =
                        unless_gone(self.set_client.patch(&set.key(), Patch::Merge(patch)).await)?
                    {
                        own.push(Arc::new(set));
                    }
                }
                Claim::Release => {
                    let patch = owners::release(&set.metadata, &[deployment.uid()]);
                    unless_gone(self.set_client.patch(&set.key(), Patch::Merge(patch)).await)?;
                }
            }
        }
        Ok(own)
    }

    /// Nothing may be adopted in the name of a Deployment that is gone, whatever the cache says.
    async fn check_alive(&self, deployment: &Deployment) -> Result<(), ReconcileError> {
        let fresh = self.client.get(deployment.namespace(), deployment.name()).await?;
        if fresh.uid() != deployment.uid() || fresh.metadata.deletion_timestamp.is_some() {
            return Err(ReconcileError::other(format!(
                "{} has been deleted",
                deployment.key()
            )));
        }
        Ok(())
    }

    async fn carry_out(&self, deployment: &Deployment, plan: Plan) -> Result<(), ReconcileError> {
        if let Some(set) = &plan.create
            && !self.create(deployment, set).await?
        {
            return Ok(());
        }
        for update in &plan.update {
            self.set_client.update(&update.replica_set).await?;
            self.report_scaling(deployment, update.replica_set.name(), update.from, update.to);
        }
        for (name, uid) in &plan.delete {
            let key = ObjectKey::new(deployment.namespace(), name.as_str());
            unless_gone(self.set_client.delete(&key, &only(uid)).await)?;
        }
        if let Some(status) = &plan.status {
            self.client.update_status(status).await?;
        }
        if let Some(delay) = plan.look_again {
            self.queue.add_after(deployment.key(), delay);
        }
        Ok(())
    }

    fn report_scaling(&self, deployment: &Deployment, set: &str, from: i32, to: i32) {
        let direction = match from.cmp(&to) {
            std::cmp::Ordering::Less => "up",
            std::cmp::Ordering::Greater => "down",
            std::cmp::Ordering::Equal => return,
        };
        let message = format!("Scaled {direction} replica set {set} from {from} to {to}");
        self.events
            .event(deployment, EventKind::Normal, "ScalingReplicaSet", message);
    }

    /// Creates the ReplicaSet of the template. Returns whether the rest of the plan still holds.
    async fn create(&self, deployment: &Deployment, set: &ReplicaSet) -> Result<bool, ReconcileError> {
        match self.set_client.create(set).await {
            Ok(_) => {
                self.report_scaling(deployment, set.name(), 0, replica_sets::wanted(set));
                Ok(true)
            }
            Err(error) if error.is_already_exists() => {
                let existing = self.set_client.get(set.namespace(), set.name()).await?;
                if is_ours(deployment, &existing) {
                    // The cache is behind; its next event brings us back.
                    return Ok(false);
                }
                let mut changed = deployment.clone();
                let status = changed.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                tracing::info!(deployment = %deployment.key(), replica_set = set.name(), "hash collision");
                self.client.update_status(&changed).await?;
                Ok(false)
            }
            Err(error) => {
                if !namespace_is_terminating(&error) {
                    self.report_failed_create(deployment, set, &error).await?;
                }
                Err(error.into())
            }
        }
    }

    async fn report_failed_create(
        &self,
        deployment: &Deployment,
        set: &ReplicaSet,
        error: &ApiError,
    ) -> Result<(), ReconcileError> {
        let message = format!("Failed to create new replica set \"{}\": {error}", set.name());
        self.events.event(
            deployment,
            EventKind::Warning,
            conditions::FAILED_CREATE,
            message.clone(),
        );
        if limits::progress_deadline(deployment).is_none() {
            return Ok(());
        }
        let mut changed = deployment.clone();
        let now = keelson_api::time::now();
        let condition: DeploymentCondition = conditions::new(
            conditions::PROGRESSING,
            "False",
            conditions::FAILED_CREATE,
            message,
            &now,
        );
        conditions::set(changed.status.get_or_insert_default(), condition);
        if changed.status != deployment.status {
            self.client.update_status(&changed).await?;
        }
        Ok(())
    }
}

fn selector(deployment: &Deployment) -> LabelSelector {
    let selector = deployment.spec.as_ref().map(|spec| &spec.selector);
    LabelSelector::from_meta(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

fn is_ours(deployment: &Deployment, set: &ReplicaSet) -> bool {
    let wanted = deployment.spec.as_ref().map(|spec| &spec.template);
    let found = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
    is_controlled_by(&set.metadata, deployment.uid())
        && wanted
            .zip(found)
            .is_some_and(|(wanted, found)| template::equal_ignoring_hash(wanted, found))
}
