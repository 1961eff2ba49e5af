//! Keeps the graph as the watch cache is.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use k8s_openapi::api::resource::v1::ResourceSlice;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use memchr::memmem;

use super::graph::Graph;
use crate::state::Server;
use crate::storage::cache::{Event, ResourceCache, Signal, Start};
use crate::storage::entry::{Entry, EventType};
use crate::storage::filter::Filter;

/// How often, and how many times, it is looked whether the graph has caught up.
const LOOK: Duration = Duration::from_millis(1);
const LOOKS: u32 = 500;
/// A watch that could not be started is started again after this.
const RETRY: Duration = Duration::from_millis(100);
/// Parts of a bound pod that may change and that lead to further objects.
const CHANGING: [&[u8]; 2] = [b"\"ephemeralContainers\"", b"\"resourceClaimStatuses\""];

/// How far the graph is with pods.
#[derive(Default)]
pub(super) struct Progress {
    cache: OnceLock<Arc<ResourceCache>>,
    applied: AtomicI64,
}

impl Progress {
    /// Waits until the graph knows every pod the watch cache knows. False if it did already.
    pub(super) async fn catch_up(&self) -> bool {
        let Some(cache) = self.cache.get() else {
            return false;
        };
        let (_, reached) = cache.snapshot(|| 0);
        for look in 0..LOOKS {
            if self.applied.load(Ordering::Acquire) >= reached {
                return look > 0;
            }
            tokio::time::sleep(LOOK).await;
        }
        true
    }
}

#[derive(Clone, Copy)]
enum Followed {
    Pods,
    Volumes,
    Attachments,
    Slices,
}

impl Followed {
    fn cache(self, server: &Server) -> Option<&Arc<ResourceCache>> {
        match self {
            Followed::Pods => server.catalog.of::<Pod>(),
            Followed::Volumes => server.catalog.of::<PersistentVolume>(),
            Followed::Attachments => server.catalog.of::<VolumeAttachment>(),
            Followed::Slices => server.catalog.of::<ResourceSlice>(),
        }
    }

    fn clear(self, graph: &mut Graph) {
        match self {
            Followed::Pods => graph.clear_pods(),
            Followed::Volumes => graph.clear_volumes(),
            Followed::Attachments => graph.clear_attachments(),
            Followed::Slices => graph.clear_slices(),
        }
    }

    fn put(self, graph: &mut Graph, entry: &Entry) {
        match self {
            Followed::Pods => {
                if !entry.field("spec.nodeName").is_empty()
                    && let Some(pod) = entry.read()
                {
                    graph.put_pod(&entry.key, &pod);
                }
            }
            Followed::Volumes => {
                if let Some(volume) = entry.read() {
                    graph.put_volume(&entry.key, &volume);
                }
            }
            Followed::Attachments => {
                if let Some(attachment) = entry.read::<VolumeAttachment>() {
                    graph.put_attachment(&entry.key, &attachment.spec.node_name);
                }
            }
            Followed::Slices => {
                if let Some(slice) = entry.read::<ResourceSlice>() {
                    graph.put_slice(&entry.key, slice.spec.node_name.as_deref());
                }
            }
        }
    }

    fn remove(self, graph: &mut Graph, key: &str) {
        match self {
            Followed::Pods => graph.remove_pod(key),
            Followed::Volumes => graph.remove_volume(key),
            Followed::Attachments => graph.remove_attachment(key),
            Followed::Slices => graph.remove_slice(key),
        }
    }

    /// Whether an event can have changed what belongs to a node. Most are about a pod's status.
    fn concerned(self, event: &Event) -> bool {
        let Followed::Pods = self else { return true };
        let Some(previous) = &event.previous else {
            return true;
        };
        event.entry.field("spec.nodeName") != previous.field("spec.nodeName")
            || CHANGING
                .iter()
                .any(|part| memmem::find(event.entry.json(), part).is_some())
    }
}

/// Starts following the caches.
pub fn start(server: &Arc<Server>) {
    if let Some(cache) = Followed::Pods.cache(server) {
        // Set once: a server is started once.
        let _ = server.authorizer.node.pods.cache.set(cache.clone());
    }
    for kind in [
        Followed::Pods,
        Followed::Volumes,
        Followed::Attachments,
        Followed::Slices,
    ] {
        let server = server.clone();
        tokio::spawn(async move {
            let shutdown = server.shutdown.clone();
            shutdown.run_until_cancelled(follow(&server, kind)).await
        });
    }
}

async fn follow(server: &Server, kind: Followed) {
    let Some(cache) = kind.cache(server) else { return };
    let node = &server.authorizer.node;
    let reached = |revision: i64| {
        if matches!(kind, Followed::Pods) {
            node.pods.applied.store(revision, Ordering::Release);
        }
    };
    let everything = Arc::new(Filter::namespace(""));
    loop {
        let Ok(mut watching) = cache.watch(everything.clone(), Start::Present, false, || 0) else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        {
            let mut graph = node.graph.write();
            kind.clear(&mut graph);
            for entry in &watching.initial {
                kind.put(&mut graph, entry);
            }
        }
        reached(watching.revision);
        // The entries are not needed any more, and may be many.
        watching.initial = Vec::new();
        let mut signals = Vec::new();
        while watching.queue.recv_many(&mut signals, 256).await > 0 {
            let mut last = 0;
            for signal in signals.drain(..) {
                let Signal::Event(seen, event) = signal else {
                    continue;
                };
                last = event.entry.revision;
                if seen == EventType::Deleted {
                    kind.remove(&mut node.graph.write(), &event.entry.key);
                } else if kind.concerned(&event) {
                    kind.put(&mut node.graph.write(), &event.entry);
                }
            }
            if last > 0 {
                reached(last);
            }
        }
    }
}
