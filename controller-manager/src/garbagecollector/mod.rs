//! Objects whose owners are gone.
//!
//! ```text
//! graph.rs      who owns whom; pure
//! resources.rs  which resources there are
//! monitors.rs   watching all of them
//! judge.rs      whether an object has a reason to exist, and what follows
//! ```

mod graph;
mod judge;
mod monitors;
mod resources;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{Client, ReconcileError, WorkQueue, run_workers};
use parking_lot::Mutex;

use crate::context::Context;
use graph::{Graph, Work};
use monitors::Monitors;
use resources::{Resource, Resources};

/// Most of what an informer has shown, the one that takes over from it has shown as well after this time.
const TAKEN_OVER: Duration = Duration::from_secs(10);

/// Runs the controller until shutdown, unless it is switched off.
pub async fn run(context: Context) {
    if !context.config().enable_garbage_collector {
        return;
    }
    let collector = Arc::new(Collector {
        client: context.client().clone(),
        graph: Mutex::new(Graph::default()),
        resources: ArcSwap::default(),
        queue: WorkQueue::new("garbagecollector"),
        rediscover: WorkQueue::new("garbagecollector-discovery"),
    });
    let Some(served) = crate::discover(&context).await else {
        return;
    };
    let mut monitors = Monitors::default();
    collector.resources.store(Arc::new(Resources::new(served)));
    monitors.update(&collector, &context, &collector.resources.load());
    monitors.synced().await;
    let monitors = Arc::new(tokio::sync::Mutex::new(monitors));
    let rediscovery = run_workers(collector.rediscover.clone(), 1, context.shutdown().clone(), {
        let (collector, context) = (collector.clone(), context.clone());
        move |()| {
            let (collector, context, monitors) = (collector.clone(), context.clone(), monitors.clone());
            async move {
                let discovered = context.client().discover().await?;
                collector.resources.store(Arc::new(Resources::new(discovered)));
                let resources = collector.resources.load_full();
                monitors.lock().await.update(&collector, &context, &resources);
                let work = collector
                    .graph
                    .lock()
                    .recognize(|owner| resources.of_owner(owner));
                collector.enqueue(work);
                Ok::<(), ReconcileError>(())
            }
        }
    });
    let workers = context.config().concurrent_gc_syncs;
    let collecting = run_workers(
        collector.queue.clone(),
        workers,
        context.shutdown().clone(),
        move |work| {
            let collector = collector.clone();
            async move { collector.attend_to(work).await }
        },
    );
    tokio::join!(rediscovery, collecting);
}

/// The graph and the work it makes.
struct Collector {
    client: Client,
    graph: Mutex<Graph>,
    resources: ArcSwap<Resources>,
    queue: WorkQueue<Work>,
    rediscover: WorkQueue<()>,
}

impl Collector {
    fn observe(&self, resource: &Arc<Resource>, meta: &ObjectMeta) {
        let resources = self.resources.load();
        let work = self
            .graph
            .lock()
            .observe(resource, meta, |owner| resources.of_owner(owner));
        self.enqueue(work);
    }

    fn remove(&self, meta: &ObjectMeta) {
        let work = self.graph.lock().remove(meta.uid.as_deref().unwrap_or_default());
        self.enqueue(work);
    }

    /// A resource is watched no longer: it is served in another version, or not at all.
    fn lose_sight(&self, resource: &Resource) {
        let again = self.resources.load().of_kind(&resource.gvr.group, &resource.kind);
        let work = self.graph.lock().lose_sight(resource, again.as_ref());
        for item in work {
            self.queue.add_after(item, TAKEN_OVER);
        }
    }

    /// A definition is gone, and its objects went before it did.
    fn withdrawn(&self, definition: &ObjectMeta) {
        let name = definition.name.as_deref().unwrap_or_default();
        if let Some((plural, group)) = name.split_once('.') {
            let work = self.graph.lock().withdraw(group, plural);
            self.enqueue(work);
        }
    }

    fn enqueue(&self, work: Vec<Work>) {
        for item in work {
            self.queue.add(item);
        }
    }

    async fn attend_to(&self, work: Work) -> Result<(), ReconcileError> {
        match work {
            Work::Judge(uid) => self.judge(&uid).await,
            Work::Orphan(uid) => self.orphan(&uid).await,
        }
    }
}
