//! Resource quotas: their status says what is allowed and what is used.
//!
//! The apiserver charges a quota before it lets an object in; this controller copies the limits into the status of a new
//! or changed quota and counts anew when something has gone, and every few minutes whatever happens.

mod count;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, ResourceQuota, ResourceQuotaStatus, Service};
use keelson_api::names::{GroupResource, Gvr};
use keelson_api::object::{Kind, Object as _, ObjectKey};
use keelson_api::pods::is_terminal;
use keelson_api::quota;
use keelson_client::{
    Event, Informer, InformerOptions, ListParams, MetadataInformer, ReconcileError, ResourceClient,
    WorkQueue, run_workers,
};
use parking_lot::Mutex;

use crate::common::answers::unless_gone;
use crate::context::Context;
use count::Counter;

/// What has been charged may still be on its way into the store: it is counted after this time.
const IN_FLIGHT: Duration = Duration::from_millis(250);
/// Things that go often go together: they are counted once.
const GATHER: Duration = Duration::from_millis(500);
/// Everything is counted again this often.
const RESYNC: Duration = Duration::from_secs(300);

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let queue: WorkQueue<ObjectKey> = WorkQueue::new("resource_quota");
    let controller = Arc::new(Controller {
        quotas: context.resource_quotas(),
        client: context.client().resource(),
        counter: Counter::new(context.client().clone()),
        queue: queue.clone(),
        watched: Mutex::default(),
        context: context.clone(),
    });
    let this = controller.clone();
    controller.quotas.subscribe(move |event| match event {
        Event::Added(quota) => this.queue.add(quota.key()),
        Event::Updated { new, .. } if !limits_are_copied(new) => this.queue.add(new.key()),
        Event::Updated { .. } | Event::Deleted(_) => {}
    });
    controller.quotas.synced().await;
    let this = controller.clone();
    context.pods().subscribe(move |event| match event {
        Event::Deleted(pod) => this.recount(pod.namespace()),
        Event::Updated { old, new } if is_terminal(new) && !is_terminal(old) => this.recount(new.namespace()),
        _ => {}
    });
    controller.on_change::<Service>(&context.services());
    controller.on_change::<PersistentVolumeClaim>(&context.persistent_volume_claims());
    let this = controller.clone();
    let resync = async {
        loop {
            tokio::time::sleep(RESYNC).await;
            this.quotas
                .store()
                .list()
                .iter()
                .for_each(|quota| this.queue.add(quota.key()));
        }
    };
    let workers = run_workers(queue, 2, context.shutdown().clone(), move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    });
    tokio::select! {
        () = workers => {}
        () = resync => {}
    }
}

struct Controller {
    quotas: Informer<ResourceQuota>,
    client: ResourceClient<ResourceQuota>,
    counter: Counter,
    queue: WorkQueue<ObjectKey>,
    /// Resources of which only the number counts: their deletions are heard of through these.
    watched: Mutex<HashMap<GroupResource, MetadataInformer>>,
    context: Context,
}

/// Whether the status already says what the spec says.
fn limits_are_copied(quota: &ResourceQuota) -> bool {
    let hard = |list: Option<&_>| quota::amounts(list);
    let spec = hard(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
    spec == hard(quota.status.as_ref().and_then(|s| s.hard.as_ref()))
}

impl Controller {
    fn on_change<K: Kind>(self: &Arc<Self>, informer: &Informer<K>) {
        let this = self.clone();
        informer.subscribe(move |event| match event {
            Event::Updated { new: object, .. } | Event::Deleted(object) => this.recount(object.namespace()),
            Event::Added(_) => {}
        });
    }

    /// Something of a namespace has gone or takes less.
    fn recount(&self, namespace: &str) {
        for quota in self.quotas.store().namespace(namespace) {
            self.queue.add_after(quota.key(), GATHER);
        }
    }

    /// Listens to deletions of a resource of which only the number counts.
    async fn listen(self: &Arc<Self>, resource: &GroupResource, gvr: &Gvr) {
        let known = matches!(
            (&*resource.group, &*resource.resource),
            ("", "pods" | "services" | "persistentvolumeclaims")
        );
        if known || self.watched.lock().contains_key(resource) {
            return;
        }
        let options = InformerOptions::default();
        let informer = MetadataInformer::start(self.context.client(), gvr, options, self.context.shutdown());
        informer.synced().await;
        let this = Arc::downgrade(self);
        informer.subscribe(move |event| {
            if let (Event::Deleted(object), Some(this)) = (event, this.upgrade()) {
                this.recount(object.metadata.namespace.as_deref().unwrap_or_default());
            }
        });
        self.watched.lock().insert(resource.clone(), informer);
    }

    async fn sync(self: &Arc<Self>, key: &ObjectKey) -> Result<(), ReconcileError> {
        if self.quotas.store().get(key).is_none() {
            return Ok(());
        }
        // As it is now: what it was charged with up to here has to be among what is counted. The role of this controller
        // lets it list quotas, not get one.
        let this_one = ListParams {
            field_selector: format!("metadata.name={}", key.name),
            ..ListParams::default()
        };
        let Some(mut quota) = self.client.list(&key.namespace, &this_one).await?.items.pop() else {
            return Ok(());
        };
        let hard = quota
            .spec
            .as_ref()
            .and_then(|s| s.hard.clone())
            .unwrap_or_default();
        for resource in hard.keys().filter_map(|name| quota::counted_resource(name)) {
            if let Some(gvr) = self.counter.served(&resource).await? {
                self.listen(&resource, &gvr).await;
            }
        }
        if quota.status.as_ref().is_some_and(|status| status.used.is_some()) {
            tokio::time::sleep(IN_FLIGHT).await;
        }
        let names: Vec<String> = hard.keys().cloned().collect();
        let used = self.counter.used(&quota, &names).await?;
        let status = ResourceQuotaStatus {
            hard: Some(hard),
            used: Some(quota::quantities(&used)),
        };
        if quota.status.as_ref() == Some(&status) {
            return Ok(());
        }
        quota.status = Some(status);
        // Carries the version it was read at: a charge in between makes this a conflict, and it is counted again.
        unless_gone(self.client.update_status(&quota).await)?;
        Ok(())
    }
}
