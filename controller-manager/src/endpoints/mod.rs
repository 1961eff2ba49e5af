//! Endpoints: the addresses behind each service, in one object of the service's name.

mod subsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::labels::HEADLESS;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{
    Event, EventKind, EventRecorder, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers,
};

use crate::common::answers::{namespace_is_terminating, only, unless_gone};
use crate::common::services;
use crate::context::Context;

/// Tells this controller's objects from hand-made ones.
const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Says that not all addresses fit.
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        services: context.services(),
        endpoints: context.endpoints(),
        pods: context.pods(),
        client: context.client().resource(),
        queue: WorkQueue::new("endpoints"),
        events: context.recorder("endpoint-controller"),
    });
    let queue = controller.queue.clone();
    controller.services.subscribe(move |event| {
        if let Event::Updated { old, new } = event
            && old.spec == new.spec
            && old.metadata.labels == new.metadata.labels
        {
            return;
        }
        queue.add(event.object().key());
    });
    let (services, queue) = (controller.services.clone(), controller.queue.clone());
    services::enqueue_for_pods(&controller.pods, services, queue);
    let queue = controller.queue.clone();
    // Its services are not known yet when the first ones arrive: whatever is there is checked once.
    controller.endpoints.subscribe(move |event| match event {
        Event::Added(endpoints) | Event::Deleted(endpoints) => queue.add(endpoints.key()),
        Event::Updated { .. } => {}
    });
    controller.services.synced().await;
    controller.endpoints.synced().await;
    controller.pods.synced().await;
    let workers = context.config().concurrent_endpoint_syncs;
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
    pods: Informer<Pod>,
    client: ResourceClient<Endpoints>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

impl Controller {
    async fn sync(&self, key: &ObjectKey) -> Result<(), ReconcileError> {
        let current = self.endpoints.store().get(key);
        let Some(service) = self.services.store().get(key) else {
            // Leader-election locks of old lived in Endpoints without a service: only our own are deleted.
            if let Some(current) = current
                && current.labels().get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1)
            {
                unless_gone(self.client.delete(key, &only(current.uid())).await)?;
            }
            return Ok(());
        };
        let Some(selector) = services::selector(&service) else {
            return Ok(());
        };
        let pods = services::pods_of(&service, &selector, &self.pods);
        let Some(wanted) = wanted(&service, &pods, current.as_deref()) else {
            return Ok(());
        };
        let written = match &current {
            Some(_) => self.client.update(&wanted).await,
            None => self.client.create(&wanted).await,
        };
        match written {
            Ok(_) => Ok(()),
            Err(error) if namespace_is_terminating(&error) || error.is_not_found() => Ok(()),
            Err(error) => {
                if !error.is_conflict() && !error.is_already_exists() {
                    let (reason, what) = match &current {
                        Some(_) => ("FailedToUpdateEndpoint", "update"),
                        None => ("FailedToCreateEndpoint", "create"),
                    };
                    let message = format!("Failed to {what} endpoint {key}: {error}");
                    self.events.event(&*service, EventKind::Warning, reason, message);
                }
                Err(error.into())
            }
        }
    }
}

/// The object to write; `None` if the one there is right.
fn wanted(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Option<Endpoints> {
    let (subsets, over) = subsets::subsets(service, pods);
    let subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    if services::is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    } else {
        labels.remove(HEADLESS);
    }
    let mut annotations: BTreeMap<String, String> = current
        .map(|current| current.annotations().clone())
        .unwrap_or_default();
    if over {
        annotations.insert(OVER_CAPACITY.0.into(), OVER_CAPACITY.1.into());
    } else {
        annotations.remove(OVER_CAPACITY.0);
    }
    if let Some(current) = current {
        let present = current.subsets.as_ref().filter(|subsets| !subsets.is_empty());
        if present == subsets.as_ref() && *current.labels() == labels && *current.annotations() == annotations
        {
            return None;
        }
    }
    let mut metadata = current.map_or_else(
        || ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.metadata.namespace.clone(),
            ..ObjectMeta::default()
        },
        |current| current.metadata.clone(),
    );
    metadata.labels = Some(labels);
    metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    Some(Endpoints { metadata, subsets })
}
