//! Cron jobs: jobs at given times.
//!
//! ```text
//! plan.rs      one step of a cron job as data; the core
//! schedule.rs  when is next
//! ```

mod plan;
mod schedule;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, is_controlled_by, refers_to};
use keelson_client::{
    EventKind, EventRecorder, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only, unless_gone};
use crate::context::{BY_CONTROLLER, Context};
use plan::{Observed, Plan};

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        cron_jobs: context.cron_jobs(),
        jobs: context.jobs(),
        client: context.client().resource(),
        job_client: context.client().resource(),
        queue: WorkQueue::new("cronjob"),
        events: context.recorder("cronjob-controller"),
    });
    let queue = controller.queue.clone();
    controller
        .cron_jobs
        .subscribe(move |event| queue.add(event.object().key()));
    let queue = controller.queue.clone();
    controller.jobs.subscribe(move |event| {
        let job = event.object();
        if let Some(owner) =
            controller_ref(&job.metadata).filter(|owner| refers_to(owner, "batch", "CronJob"))
        {
            queue.add(ObjectKey::new(job.namespace(), owner.name.as_str()));
        }
    });
    controller.cron_jobs.synced().await;
    controller.jobs.synced().await;
    let workers = context.config().concurrent_cron_job_syncs;
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
    cron_jobs: Informer<CronJob>,
    jobs: Informer<Job>,
    client: ResourceClient<CronJob>,
    job_client: ResourceClient<Job>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(cron) = self.cron_jobs.store().get(key) else {
            return Ok(());
        };
        let jobs = self.jobs.store().by_index(BY_CONTROLLER, cron.uid());
        let cron = match plan::unexpected(&cron, &jobs) {
            // A job shows in the cache before the status that lists it.
            true => match unless_gone(self.client.get(&key.namespace, &key.name).await)? {
                Some(present) if present.uid() == cron.uid() => Arc::new(present),
                _ => return Ok(()),
            },
            false => cron,
        };
        let mut gone = Vec::new();
        for (job, uid) in plan::unaccounted(&cron, &jobs) {
            // The cache may not show yet what was created a moment ago.
            let found = unless_gone(self.job_client.get(&job.namespace, &job.name).await)?;
            if found.is_none_or(|found| found.uid() != uid) {
                gone.push(uid);
            }
        }
        let now = keelson_api::time::now();
        let plan = plan::plan(&Observed {
            cron: &cron,
            jobs: &jobs,
            gone: &gone,
            now,
        });
        self.carry_out(&cron, plan).await
    }

    async fn carry_out(&self, cron: &CronJob, plan: Plan) -> Result<(), ReconcileError> {
        for (kind, reason, message) in plan.events {
            self.events.event(cron, kind, reason, message);
        }
        for (name, uid) in &plan.delete {
            let options = DeleteOptions {
                propagation_policy: Some("Background".into()),
                ..only(uid)
            };
            let key = ObjectKey::new(cron.namespace(), name.as_str());
            if unless_gone(self.job_client.delete(&key, &options).await)?.is_some() {
                self.events.event(
                    cron,
                    EventKind::Normal,
                    "SuccessfulDelete",
                    format!("Deleted job {name}"),
                );
            }
        }
        let mut status = plan.status;
        if let Some(job) = plan.create {
            match self.create(cron, &job).await? {
                Some(created) => {
                    let status = status.get_or_insert_with(|| cron.status.clone().unwrap_or_default());
                    status
                        .active
                        .get_or_insert_default()
                        .push(plan::reference(&created));
                }
                None => return Ok(()),
            }
        }
        if let Some(status) = status {
            let changed = CronJob {
                status: Some(status),
                ..cron.clone()
            };
            unless_gone(self.client.update_status(&changed).await)?;
        }
        if let Some(delay) = plan.look_again {
            self.queue.add_after(cron.key(), delay);
        }
        Ok(())
    }

    /// `None` if there is no point in it.
    async fn create(&self, cron: &CronJob, job: &Job) -> Result<Option<Job>, ReconcileError> {
        match self.job_client.create(job).await {
            Ok(created) => {
                let message = format!("Created job {}", created.name());
                self.events
                    .event(cron, EventKind::Normal, "SuccessfulCreate", message);
                Ok(Some(created))
            }
            Err(error) if error.is_already_exists() => {
                // Created before, but not noted.
                let existing = self.job_client.get(job.namespace(), job.name()).await?;
                Ok(Some(existing).filter(|existing| is_controlled_by(&existing.metadata, cron.uid())))
            }
            Err(error) if namespace_is_terminating(&error) => Ok(None),
            Err(error) => {
                let message = format!("Error creating job: {error}");
                self.events
                    .event(cron, EventKind::Warning, "FailedCreate", message);
                Err(error.into())
            }
        }
    }
}
