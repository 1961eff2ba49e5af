//! EndpointSlices for Endpoints that somebody has written by hand, for a service without a selector: whoever follows
//! slices finds these addresses too (KEP-752).
//!
//! ```text
//! wanted.rs  the endpoints of the slices, from the subsets of an Endpoints object
//! plan.rs    the slices to write; the core
//! ```

mod plan;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::labels::{ENDPOINT_SLICE_MANAGED_BY, SERVICE_NAME, SKIP_MIRROR};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, ReconcileError, ResourceClient, WorkQueue, Write, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only};
use crate::common::services;
use crate::context::{BY_SERVICE, Context};
use crate::endpointslice::written::Written;
use plan::Plan;

/// Leader election of old kept its records in Endpoints, which are not addresses of anything.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Should the event that shows a write get lost, this is how long it is waited for before looking again.
const CACHE_GRACE: Duration = Duration::from_secs(5);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let config = context.config();
    let controller = Arc::new(Controller {
        services: context.services(),
        endpoints: context.endpoints(),
        slices: context.endpoint_slices(),
        client: context.client().resource(),
        queue: WorkQueue::new("endpointslicemirroring"),
        events: context.recorder("endpoint-slice-mirroring-controller"),
        written: Written::default(),
        capacity: config.mirroring_max_endpoints_per_subset.clamp(1, 1000),
    });
    controller.clone().subscribe();
    controller.services.synced().await;
    controller.endpoints.synced().await;
    controller.slices.synced().await;
    let workers = config.mirroring_concurrent_service_endpoint_syncs;
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
    endpoints: Informer<Endpoints>,
    slices: Informer<EndpointSlice>,
    client: ResourceClient<EndpointSlice>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
    written: Written,
    capacity: usize,
}

impl Controller {
    fn subscribe(self: Arc<Self>) {
        let queue = self.queue.clone();
        self.endpoints.subscribe(move |event| {
            let (old, new) = match event {
                Event::Updated { old, new } => (old, new),
                Event::Added(one) | Event::Deleted(one) => (one, one),
            };
            if may_mirror(old) || may_mirror(new) {
                queue.add(new.key());
            }
        });
        let queue = self.queue.clone();
        self.services.subscribe(move |event| {
            let selects = |service: &Service| services::selector(service).is_some();
            match event {
                Event::Updated { old, new } if selects(old) == selects(new) && old.uid() == new.uid() => {}
                Event::Added(service) if selects(service) => {}
                event => queue.add(event.object().key()),
            }
        });
        let this = self.clone();
        self.slices.subscribe(move |event| {
            let slice = event.object();
            if let Some(key) = mirrored(slice)
                && this
                    .written
                    .is_unexpected(&key, slice, matches!(event, Event::Deleted(_)))
            {
                this.queue.add(key);
            }
        });
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let mut existing = self.slices.store().by_index(BY_SERVICE, &key.to_string());
        existing.retain(|slice| mirrored(slice).is_some());
        if self.written.is_ahead_of(key, &existing) {
            return Err(ReconcileError::RequeueAfter(CACHE_GRACE));
        }
        existing.retain(|slice| slice.metadata.deletion_timestamp.is_none());
        existing.sort_by(|a, b| a.name().cmp(b.name()));
        let service = self.services.store().get(key);
        let endpoints = self
            .endpoints
            .store()
            .get(key)
            .filter(|endpoints| may_mirror(endpoints))
            .filter(|_| service.is_some_and(|service| services::selector(&service).is_none()));
        let Some(endpoints) = endpoints else {
            let plan = Plan {
                delete: existing,
                ..Plan::default()
            };
            return self.carry_out(key, None, plan).await;
        };
        let wanted = wanted::wanted(&endpoints, self.capacity);
        for (reason, message) in wanted.complaints(self.capacity) {
            self.events
                .event(&*endpoints, EventKind::Warning, reason, message);
        }
        let plan = plan::plan(&endpoints, wanted.groups, &existing, self.capacity);
        self.carry_out(key, Some(&endpoints), plan).await
    }

    async fn carry_out(
        &self,
        key: &ObjectKey,
        endpoints: Option<&Endpoints>,
        plan: Plan,
    ) -> Result<(), ReconcileError> {
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
        let mut failure = None;
        for (index, result) in self.client.batch(writes).await?.into_iter().enumerate() {
            match result {
                Ok(written) if index < kept => self.written.wrote(key, &written["metadata"]),
                Ok(_) => self.written.deleted(key, &plan.delete[index - kept]),
                Err(error) if namespace_is_terminating(&error) || error.is_not_found() => {}
                Err(error) => {
                    if let Some(endpoints) = endpoints.filter(|_| !error.is_conflict()) {
                        let message = format!("Error updating Endpoint Slices for Endpoints {key}: {error}");
                        let reason = "FailedToUpdateEndpointSlices";
                        self.events.event(endpoints, EventKind::Warning, reason, message);
                    }
                    failure.get_or_insert(error);
                }
            }
        }
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// Whether an Endpoints object wants to be seen as slices.
fn may_mirror(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP_MIRROR).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
}

/// The Endpoints object of which a slice is a mirror image.
fn mirrored(slice: &EndpointSlice) -> Option<ObjectKey> {
    let ours = slice.labels().get(ENDPOINT_SLICE_MANAGED_BY).map(String::as_str) == Some(plan::MANAGER);
    let name = slice.labels().get(SERVICE_NAME).filter(|_| ours)?;
    Some(ObjectKey::new(slice.namespace(), name.as_str()))
}
