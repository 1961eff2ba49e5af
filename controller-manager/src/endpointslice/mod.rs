//! EndpointSlices: the addresses behind each service, a hundred to an object.
//!
//! ```text
//! desired.rs  the endpoints a service should have
//! plan.rs     the slices to write for them; the core
//! slices.rs   which slices there are, and writing them; for the controller of mirrors, too
//! written.rs  what was written and is not in the cache yet
//! ```

pub(crate) mod desired;
mod plan;
pub(crate) mod slices;
mod written;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use keelson_api::labels::ZONE;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::status::ApiError;
use keelson_client::{Event, EventKind, EventRecorder, Informer, ReconcileError, WorkQueue, run_workers};

use crate::common::services;
use crate::context::Context;
use slices::Slices;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        services: context.services(),
        slices: Slices::new(&context, plan::MANAGER),
        pods: context.pods(),
        nodes: context.nodes(),
        queue: WorkQueue::new("endpointslice"),
        events: context.recorder("endpoint-slice-controller"),
        capacity: context.config().max_endpoints_per_slice.clamp(1, 1000),
    });
    controller.clone().subscribe();
    controller.services.synced().await;
    controller.slices.synced().await;
    controller.pods.synced().await;
    controller.nodes.synced().await;
    let workers = context.config().concurrent_service_endpoint_syncs;
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
    services: Informer<Service>,
    slices: Arc<Slices>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
    capacity: usize,
}

impl Controller {
    fn subscribe(self: Arc<Self>) {
        let queue = self.queue.clone();
        self.services.subscribe(move |event| {
            if let Event::Updated { old, new } = event
                && old.spec == new.spec
                && old.metadata.labels == new.metadata.labels
                && old.uid() == new.uid()
            {
                return;
            }
            queue.add(event.object().key());
        });
        services::enqueue_for_pods(&self.pods, self.services.clone(), self.queue.clone());
        self.slices.subscribe(self.queue.clone());
        let this = self.clone();
        // Endpoints carry the zone of their node.
        self.nodes.subscribe(move |event| {
            if let Event::Updated { old, new } = event
                && old.labels().get(ZONE) == new.labels().get(ZONE)
            {
                return;
            }
            for service in this.services.store().list() {
                this.queue.add(service.key());
            }
        });
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let Some(service) = self.services.store().get(key) else {
            // The slices follow their owner: the garbage collector's work.
            self.slices.forget(key);
            return Ok(());
        };
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Ok(());
        }
        let Some(selector) = services::selector(&service) else {
            return Ok(());
        };
        let existing = self.slices.of(key)?;
        let pods = services::pods_of(&service, &selector, &self.pods);
        let node = |name: &str| self.nodes.store().get(&ObjectKey::cluster(name));
        let plan = plan::plan(&service, &pods, &existing, self.capacity, node);
        let complain = |error: &ApiError| {
            let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
            let reason = "FailedToUpdateEndpointSlices";
            self.events.event(&*service, EventKind::Warning, reason, message);
        };
        self.slices.carry_out(key, plan, complain).await
    }
}
