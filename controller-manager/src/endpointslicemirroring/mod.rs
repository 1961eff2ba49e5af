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

use k8s_openapi::api::core::v1::{Endpoints, Service};
use keelson_api::labels::SKIP_MIRROR;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::status::ApiError;
use keelson_client::{Event, EventKind, EventRecorder, Informer, ReconcileError, WorkQueue, run_workers};

use crate::common::services;
use crate::context::Context;
use crate::endpointslice::slices::{Plan, Slices};

/// Leader election of old kept its records in Endpoints, which are not addresses of anything.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let config = context.config();
    let controller = Arc::new(Controller {
        services: context.services(),
        endpoints: context.endpoints(),
        slices: Slices::new(&context, plan::MANAGER),
        queue: WorkQueue::new("endpointslicemirroring"),
        events: context.recorder("endpoint-slice-mirroring-controller"),
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
    slices: Arc<Slices>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
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
        self.slices.subscribe(self.queue.clone());
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let existing = self.slices.of(key)?;
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
            return self.slices.carry_out(key, plan, |_| ()).await;
        };
        let wanted = wanted::wanted(&endpoints, self.capacity);
        for (reason, message) in wanted.complaints(self.capacity) {
            self.events
                .event(&*endpoints, EventKind::Warning, reason, message);
        }
        let plan = plan::plan(&endpoints, wanted.groups, &existing, self.capacity);
        let complain = |error: &ApiError| {
            let message = format!("Error updating Endpoint Slices for Endpoints {key}: {error}");
            let reason = "FailedToUpdateEndpointSlices";
            self.events
                .event(&*endpoints, EventKind::Warning, reason, message);
        };
        self.slices.carry_out(key, plan, complain).await
    }
}

/// Whether an Endpoints object wants to be seen as slices.
fn may_mirror(endpoints: &Endpoints) -> bool {
    endpoints.labels().get(SKIP_MIRROR).map(String::as_str) != Some("true")
        && !endpoints.annotations().contains_key(LEADER)
}
