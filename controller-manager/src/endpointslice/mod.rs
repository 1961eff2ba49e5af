//! EndpointSlices: the addresses behind each service, a hundred to an object.
//!
//! ```text
//! desired.rs  the endpoints a service should have
//! plan.rs     the slices to write for them; the core
//! written.rs  what was written and is not in the cache yet
//! ```

pub(crate) mod desired;
mod plan;
pub(crate) mod written;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::labels::{ENDPOINT_SLICE_MANAGED_BY, SERVICE_NAME, ZONE};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, ReconcileError, ResourceClient, WorkQueue, Write, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only};
use crate::common::services;
use crate::context::{BY_SERVICE, Context};
use written::Written;

/// Should the event that shows a write get lost, this is how long it is waited for before looking again.
const CACHE_GRACE: Duration = Duration::from_secs(5);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        services: context.services(),
        slices: context.endpoint_slices(),
        pods: context.pods(),
        nodes: context.nodes(),
        client: context.client().resource(),
        queue: WorkQueue::new("endpointslice"),
        events: context.recorder("endpoint-slice-controller"),
        written: Written::default(),
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
    slices: Informer<EndpointSlice>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    client: ResourceClient<EndpointSlice>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
    written: Written,
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
        let this = self.clone();
        self.slices.subscribe(move |event| {
            let slice = event.object();
            if let Some(service) = service_of(slice)
                && this
                    .written
                    .is_unexpected(&service, slice, matches!(event, Event::Deleted(_)))
            {
                this.queue.add(service);
            }
        });
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
            self.written.forget(key);
            return Ok(());
        };
        if service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
            return Ok(());
        }
        let Some(selector) = services::selector(&service) else {
            return Ok(());
        };
        let mut existing = self.slices.store().by_index(BY_SERVICE, &key.to_string());
        existing.retain(|slice| managed_by_us(slice));
        if self.written.is_ahead_of(key, &existing) {
            return Err(ReconcileError::RequeueAfter(CACHE_GRACE));
        }
        existing.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        existing.sort_by(|a, b| a.name().cmp(b.name()));
        let pods = services::pods_of(&service, &selector, &self.pods);
        let node = |name: &str| self.nodes.store().get(&ObjectKey::cluster(name));
        let plan = plan::plan(&service, &pods, &existing, self.capacity, node);
        self.carry_out(&service, plan).await
    }

    async fn carry_out(&self, service: &Service, plan: plan::Plan) -> Result<(), ReconcileError> {
        let mut writes: Vec<Write<EndpointSlice>> = Vec::new();
        writes.extend(plan.create.into_iter().map(Write::Create));
        writes.extend(plan.update.into_iter().map(Write::Update));
        let kept = writes.len();
        writes.extend(plan.delete.iter().map(|slice| Write::Delete {
            key: slice.key(),
            options: only(slice.uid()),
        }));
        if writes.is_empty() {
            return Ok(());
        }
        let key = service.key();
        let results = self.client.batch(writes).await?;
        let mut failure = None;
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(written) if index < kept => self.written.wrote(&key, &written["metadata"]),
                Ok(_) => self.written.deleted(&key, &plan.delete[index - kept]),
                Err(error) if namespace_is_terminating(&error) || error.is_not_found() => {}
                Err(error) => {
                    if !error.is_conflict() {
                        let message = format!("Error updating Endpoint Slices for Service {key}: {error}");
                        let reason = "FailedToUpdateEndpointSlices";
                        self.events.event(service, EventKind::Warning, reason, message);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

fn managed_by_us(slice: &EndpointSlice) -> bool {
    slice.labels().get(ENDPOINT_SLICE_MANAGED_BY).map(String::as_str) == Some(plan::MANAGER)
}

/// The service a slice of ours belongs to.
fn service_of(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.labels().get(SERVICE_NAME)?;
    managed_by_us(slice).then(|| ObjectKey::new(slice.namespace(), name.as_str()))
}
