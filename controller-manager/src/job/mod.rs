//! Jobs: pods that run until enough of them have ended well.
//!
//! ```text
//! claim.rs     pods that become the job's, and pods it lets go
//! plan.rs      one step of a job as data; the core
//! failures.rs  what a failed pod means: policy, back-off
//! indexes.rs   sets of completion indexes
//! pods.rs      the pods of a job
//! ```

mod claim;
mod failures;
mod indexes;
mod plan;
mod pods;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::deletion::{JOB_TRACKING_FINALIZER, has_finalizer};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::controller_ref;
use keelson_client::{Event, Informer, Patch, ReconcileError, ResourceClient, WorkQueue, Write, run_workers};
use serde_json::json;

use crate::common::answers::{only, unless_gone};
use crate::common::patches;
use crate::common::pod_control::PodControl;
use crate::context::Context;
use claim::owner_key;
use plan::{Observed, Plan};

pub use plan::finished;

/// Pods that change within this time share one sync.
const PODS_WINDOW: Duration = Duration::from_millis(20);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        jobs: context.jobs(),
        pods: context.pods(),
        client: context.client().resource(),
        control: PodControl::new(context.client(), context.recorder("job-controller")),
        queue: WorkQueue::new("job"),
    });
    let this = controller.clone();
    controller.jobs.subscribe(move |event| {
        if let Event::Deleted(job) = event {
            this.control.expectations().forget(&job.key());
        }
        this.queue.add(event.object().key());
    });
    let this = controller.clone();
    controller.pods.subscribe(move |event| this.on_pod(event));
    controller.jobs.synced().await;
    controller.pods.synced().await;
    let workers = context.config().concurrent_job_syncs;
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
    jobs: Informer<Job>,
    pods: Informer<Pod>,
    client: ResourceClient<Job>,
    control: PodControl,
    queue: WorkQueue<ObjectKey>,
}

impl Controller {
    fn on_pod(&self, event: &Event<Pod>) {
        let pod = event.object();
        if let Event::Updated { old, .. } = event
            && let Some(before) = owner_key(old)
            && owner_key(pod) != Some(before.clone())
        {
            self.queue.add(before);
        }
        let Some(key) = owner_key(pod) else {
            if !matches!(event, Event::Deleted(_)) {
                self.enqueue_adopters(pod);
            }
            return;
        };
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
        let Some(job) = self.jobs.store().get(key) else {
            return self.release_orphans(key).await;
        };
        if job
            .spec
            .as_ref()
            .and_then(|spec| spec.managed_by.as_deref())
            .is_some_and(|by| by != "kubernetes.io/job-controller")
        {
            return Ok(());
        }
        let may_write = self.control.expectations().satisfied(key);
        let pods = self.claim(&job).await?;
        let plan = plan::plan(&Observed {
            job: &job,
            pods: &pods,
            may_write,
            now: keelson_api::time::now(),
        });
        self.carry_out(&job, plan).await?;
        self.expire(&job).await
    }

    async fn carry_out(&self, job: &Job, plan: Plan) -> Result<(), ReconcileError> {
        let deleted = self.control.delete(job, &plan.delete).await;
        let created = self.control.create(job, plan.create).await;
        if let Some(status) = plan.status {
            let changed = Job {
                status: Some(status),
                ..job.clone()
            };
            if unless_gone(self.client.update_status(&changed).await)?.is_none() {
                return Ok(());
            }
        }
        for (kind, reason, message) in plan.events {
            self.control.events().event(job, kind, &reason, message);
        }
        // Only now that the status remembers them.
        self.release(&plan.release).await?;
        deleted.and(created)?;
        if let Some(delay) = plan.look_again {
            self.queue.add_after(job.key(), delay);
        }
        Ok(())
    }

    async fn release(&self, pods: &[Arc<Pod>]) -> Result<(), ReconcileError> {
        if pods.is_empty() {
            return Ok(());
        }
        let patch = |pod: &Arc<Pod>| {
            let mut finalizers = pod.metadata.finalizers.clone().unwrap_or_default();
            finalizers.retain(|finalizer| finalizer != JOB_TRACKING_FINALIZER);
            Write::Patch {
                key: pod.key(),
                subresource: String::new(),
                patch: Patch::Merge(json!({"metadata": {
                    "uid": pod.metadata.uid,
                    "resourceVersion": pod.metadata.resource_version,
                    "finalizers": patches::list(&finalizers),
                }})),
            }
        };
        for result in self
            .control
            .client()
            .batch_discard(pods.iter().map(patch).collect())
            .await?
        {
            unless_gone(result)?;
        }
        Ok(())
    }

    /// Pods of a job that is gone are counted by nobody.
    async fn release_orphans(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        self.control.expectations().forget(key);
        let mut pods = self.pods.store().namespace(&key.namespace);
        pods.retain(|pod| {
            has_finalizer(&pod.metadata, JOB_TRACKING_FINALIZER)
                && controller_ref(&pod.metadata)
                    .is_some_and(|owner| owner.name == key.name && owner.kind == "Job")
        });
        if pods.is_empty() || unless_gone(self.client.get(&key.namespace, &key.name).await)?.is_some() {
            return Ok(());
        }
        self.release(&pods).await
    }

    /// Deletes a job that has been over for as long as it is to be kept.
    async fn expire(&self, job: &Job) -> Result<(), ReconcileError> {
        let Some(keep) = job.spec.as_ref().and_then(|spec| spec.ttl_seconds_after_finished) else {
            return Ok(());
        };
        let Some(ended) = job.status.as_ref().and_then(finished) else {
            return Ok(());
        };
        let Some(since) = &ended.last_transition_time else {
            return Ok(());
        };
        if job.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let keep = Duration::from_secs(u64::try_from(keep).unwrap_or_default());
        let left = keelson_api::time::until(keelson_api::time::after(since.0, keep));
        if !left.is_zero() {
            return Err(ReconcileError::RequeueAfter(left));
        }
        let options = DeleteOptions {
            propagation_policy: Some("Foreground".into()),
            ..only(job.uid())
        };
        unless_gone(self.client.delete(&job.key(), &options).await)?;
        Ok(())
    }
}
