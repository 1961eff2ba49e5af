//! Disruption budgets: their status says how many of their pods may be evicted now.
//!
//! The apiserver spends what the status allows; this controller counts anew whenever a pod changes, and takes back what
//! was granted and not used in time.

pub mod figures;
mod scale;
mod stale;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::selector::LabelSelector;
use keelson_api::time;
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::unless_gone;
use crate::context::Context;
use scale::{ScaleError, Scales};

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("disruption");
    let controller = Arc::new(Controller {
        budgets: context.pod_disruption_budgets(),
        pods: context.pods(),
        client: context.client().resource(),
        scales: Scales::new(&context).await,
        recorder: context.recorder("controllermanager"),
        queue: queue.clone(),
    });
    controller.budgets.synced().await;
    controller.pods.synced().await;
    let this = controller.clone();
    controller.budgets.subscribe(move |event| {
        if let Event::Added(budget) | Event::Updated { new: budget, .. } = event {
            this.queue.add(budget.key());
        }
    });
    let this = controller.clone();
    controller.pods.subscribe(move |event| match event {
        Event::Added(pod) | Event::Deleted(pod) => this.recount(pod),
        Event::Updated { old, new } => {
            this.recount(new);
            if old.metadata.labels != new.metadata.labels {
                this.recount(old);
            }
        }
    });
    let shutdown = context.shutdown().clone();
    let budgets = run_workers(queue, 2, shutdown, move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
    tokio::join!(budgets, stale::run(&context));
}

struct Controller {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    client: ResourceClient<PodDisruptionBudget>,
    scales: Scales,
    recorder: EventRecorder,
    queue: WorkQueue<ObjectKey>,
}

impl Controller {
    fn recount(&self, pod: &Pod) {
        for budget in self.budgets.store().namespace(pod.namespace()) {
            if selects(&budget, pod) {
                self.queue.add(budget.key());
            }
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(budget) = self.budgets.store().get(key) else {
            return Ok(());
        };
        let all = self.pods.store().namespace(&key.namespace);
        let pods: Vec<&Pod> = all
            .iter()
            .map(Arc::as_ref)
            .filter(|pod| selects(&budget, pod))
            .collect();
        if pods.is_empty() {
            self.recorder
                .event(&*budget, EventKind::Normal, "NoPods", "No matching pods found");
        }
        let wanted = match self.expectation(&budget, &pods).await {
            Ok(wanted) => wanted,
            Err(error) => {
                let message = format!("Failed to calculate the number of expected pods: {error}");
                self.recorder.event(
                    &*budget,
                    EventKind::Warning,
                    "CalculateExpectedPodCountFailed",
                    message,
                );
                self.write(&budget, figures::failed(&budget, error.to_string()))
                    .await?;
                return Err(ReconcileError::other(error));
            }
        };
        let now = time::now().0;
        let disrupted = figures::disrupted(&budget, &pods, now);
        for pod in pods
            .iter()
            .filter(|pod| disrupted.late.iter().any(|late| late == pod.name()))
        {
            let message = format!(
                "Pod was expected by PDB {}/{} to be deleted but it wasn't",
                key.namespace, key.name
            );
            self.recorder
                .event(*pod, EventKind::Warning, "NotDeleted", message);
        }
        let look_again = disrupted.look_again;
        let healthy = figures::healthy(&pods, &disrupted);
        self.write(&budget, figures::status(&budget, wanted, healthy, disrupted))
            .await?;
        match look_again {
            Some(at) => Err(ReconcileError::RequeueAfter(time::until(at))),
            None => Ok(()),
        }
    }

    async fn expectation(
        &self,
        budget: &PodDisruptionBudget,
        pods: &[&Pod],
    ) -> Result<figures::Expectation, Failure> {
        let count = i32::try_from(pods.len()).unwrap_or(i32::MAX);
        let mut scale = 0;
        if figures::needs_scale(budget) {
            let (sum, alone) = self.scales.of(pods).await?;
            scale = sum;
            if !alone.is_empty() {
                let message = format!(
                    "Pods selected by this PodDisruptionBudget were found to be unmanaged: {}. As a result, the status \
                     of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for \
                     these pods please set \".spec.minAvailable\" field of the PDB to an integer value.",
                    alone.join(", ")
                );
                self.recorder
                    .event(budget, EventKind::Warning, "UnmanagedPods", message);
            }
        }
        figures::expectation(budget, scale, count).map_err(Failure::Limit)
    }

    async fn write(
        &self,
        budget: &PodDisruptionBudget,
        status: k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus,
    ) -> Result<(), ReconcileError> {
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut budget = budget.clone();
        budget.status = Some(status);
        // Carries the version that was read: an eviction in between makes this a conflict, and it is counted again.
        unless_gone(self.client.update_status(&budget).await)?;
        Ok(())
    }
}

/// Why there are no figures.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Scale(#[from] ScaleError),
    #[error("{0}")]
    Limit(String),
}

/// Whether the budget is for the pod. One without a selector is for none, one with an empty selector for all.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    if budget.namespace() != pod.namespace() {
        return false;
    }
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let none = std::collections::BTreeMap::new();
    LabelSelector::from_meta(selector)
        .is_ok_and(|selector| selector.matches(pod.metadata.labels.as_ref().unwrap_or(&none)))
}
