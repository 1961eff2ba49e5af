//! Watching every resource there is, and noticing when there are others.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::names::Gvr;
use keelson_api::object::Kind;
use keelson_client::{Event, Informer, InformerOptions, MetadataInformer};
use tokio_util::sync::CancellationToken;

use super::Collector;
use super::resources::{Resource, Resources};
use crate::context::Context;

/// Resources that define other resources: custom ones, and those of other servers.
const DEFINITIONS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
const REGISTRATIONS: (&str, &str) = ("apiregistration.k8s.io", "apiservices");

/// How long the server may take to serve what a definition defines.
const SETTLING: Duration = Duration::from_secs(2);

/// A resource that cannot be listed must not keep all others from being collected.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// One informer a resource.
#[derive(Default)]
pub(super) struct Monitors {
    watched: HashMap<Gvr, Watched>,
}

struct Watched {
    resource: Arc<Resource>,
    /// Absent for informers that other controllers share: those never stop.
    own: Option<(MetadataInformer, CancellationToken)>,
}

impl Monitors {
    /// Starts what is missing and stops what is no longer served.
    pub(super) fn update(&mut self, collector: &Arc<Collector>, context: &Context, resources: &Resources) {
        for resource in resources.all() {
            if !self.watched.contains_key(&resource.gvr) {
                let own = self.watch(collector, context, resource);
                self.watched.insert(
                    resource.gvr.clone(),
                    Watched {
                        resource: resource.clone(),
                        own,
                    },
                );
            }
        }
        self.watched.retain(|gvr, watched| {
            let served = resources.may_have(gvr);
            if !served && let Some((_, stop)) = &watched.own {
                tracing::info!(resource = %gvr, "no longer served");
                stop.cancel();
                collector.lose_sight(&watched.resource);
            }
            served || watched.own.is_none()
        });
    }

    /// Waits until every resource has been listed.
    pub(super) async fn synced(&self) {
        let all = async {
            for watched in self.watched.values() {
                if let Some((informer, _)) = &watched.own {
                    informer.synced().await;
                }
            }
        };
        if tokio::time::timeout(SYNC_LIMIT, all).await.is_err() {
            let missing: Vec<String> = self
                .watched
                .values()
                .filter(|watched| {
                    watched
                        .own
                        .as_ref()
                        .is_some_and(|(informer, _)| !informer.has_synced())
                })
                .map(|watched| watched.resource.gvr.to_string())
                .collect();
            tracing::warn!(
                ?missing,
                "some resources cannot be listed; the others are collected"
            );
        }
    }

    fn watch(
        &self,
        collector: &Arc<Collector>,
        context: &Context,
        resource: &Arc<Resource>,
    ) -> Option<(MetadataInformer, CancellationToken)> {
        if share(collector, context, resource) {
            return None;
        }
        let stop = context.shutdown().child_token();
        let informer =
            MetadataInformer::start(context.client(), &resource.gvr, InformerOptions::default(), &stop);
        let (to, of) = (collector.clone(), resource.clone());
        let which = (&*resource.gvr.group, &*resource.gvr.resource);
        let (defines, registers) = (which == DEFINITIONS, which == REGISTRATIONS);
        informer.subscribe(move |event| {
            tell(&to, &of, event, |object| &object.metadata);
            if defines && let Event::Deleted(definition) = event {
                to.withdrawn(&definition.metadata);
            }
            if defines || registers {
                // What is no longer defined is no longer served: there is nothing to wait for.
                if matches!(event, Event::Deleted(_)) {
                    to.rediscover.add(());
                }
                to.rediscover.add_after((), SETTLING);
            }
        });
        Some((informer, stop))
    }
}

/// Listens to the informer that other controllers have for the resource anyway, if there is one.
fn share(collector: &Arc<Collector>, context: &Context, resource: &Arc<Resource>) -> bool {
    let gvr = &resource.gvr;
    match (&*gvr.group, &*gvr.version, &*gvr.resource) {
        ("", "v1", "pods") => listen(collector, &context.pods(), resource),
        ("", "v1", "nodes") => listen(collector, &context.nodes(), resource),
        ("", "v1", "namespaces") => listen(collector, &context.namespaces(), resource),
        ("", "v1", "services") => listen(collector, &context.services(), resource),
        ("", "v1", "endpoints") => listen(collector, &context.endpoints(), resource),
        ("", "v1", "replicationcontrollers") => {
            listen(collector, &context.replication_controllers(), resource)
        }
        ("apps", "v1", "deployments") => listen(collector, &context.deployments(), resource),
        ("apps", "v1", "replicasets") => listen(collector, &context.replica_sets(), resource),
        ("discovery.k8s.io", "v1", "endpointslices") => {
            listen(collector, &context.endpoint_slices(), resource)
        }
        _ => return false,
    }
    true
}

fn listen<K: Kind>(collector: &Arc<Collector>, informer: &Informer<K>, resource: &Arc<Resource>) {
    let (collector, resource) = (collector.clone(), resource.clone());
    informer.subscribe(move |event| tell(&collector, &resource, event, |object| object.meta()));
}

fn tell<T>(collector: &Collector, resource: &Arc<Resource>, event: &Event<T>, meta: fn(&T) -> &ObjectMeta) {
    match event {
        Event::Added(object) => collector.observe(resource, meta(object)),
        Event::Updated { old, new } => {
            let (old, new) = (meta(old), meta(new));
            if old.uid != new.uid {
                collector.remove(old);
            }
            collector.observe(resource, new);
        }
        Event::Deleted(object) => collector.remove(meta(object)),
    }
}
