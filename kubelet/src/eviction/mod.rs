//! Taking room back: pods that use more than they may, and pods on a node that runs out of memory or disk.
//!
//! ```text
//! pressure.rs  what the node is short of
//! rank.rs      who goes first, and what is said of it
//! limits.rs    pods beyond their own limits of local storage
//! usage.rs     what pods use
//! ```
//!
//! The node is looked at every few seconds. A pod that exceeds a limit of its own is ended. A node that is short of
//! disk first loses images that nobody uses; if that does not help, or memory is short, one pod is ended, and the node
//! is looked at again.

pub mod limits;
pub mod pressure;
pub mod rank;
pub mod usage;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::events::Level;
use crate::images::gc::ImageCollector;
use crate::node::status::{Readings, instruments};
use crate::objects::PodExt;
use crate::pods::manager::PodManager;
use crate::pods::static_pods::is_static;
use crate::pods::status::PodFailure;
use pressure::{Resource, Shortage};

/// How often the node is looked at, as upstream does.
const PERIOD: Duration = Duration::from_secs(10);
/// A pod that is driven out has no time to spare.
const GRACE: Duration = Duration::from_secs(1);
/// How long a pod that was driven out may take to free what it holds before the next one is looked for, and how often
/// that is looked at; as upstream does.
const CLEAN_UP: Duration = Duration::from_secs(30);
const CLEAN_UP_PERIOD: Duration = Duration::from_secs(1);
/// Pods of this priority and above are not driven out (`system-cluster-critical`).
const CRITICAL: i32 = 2_000_000_000;

/// Whether the node keeps a pod whatever happens.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec().priority.is_some_and(|priority| priority >= CRITICAL)
}

/// The failure of a pod that is driven out.
fn evicted(message: String) -> PodFailure {
    PodFailure {
        reason: "Evicted".into(),
        message,
        grace: Some(GRACE),
        disrupted: true,
    }
}

/// Looks at the node until `shutdown`.
pub async fn run(
    context: Arc<Context>,
    manager: Arc<PodManager>,
    images: Arc<ImageCollector>,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(PERIOD) => {}
        }
        let pods = candidates(&manager);
        let exceeding = limits::exceeded(&context, &pods).await;
        let mut ended = false;
        for (uid, message) in exceeding {
            if let Some(pod) = pods.iter().find(|pod| pod.uid() == uid) {
                end(&context, &manager, pod, message);
                ended = true;
            }
        }
        let readings = instruments(&context);
        if let Some(shortage) = pressure::worst(&context.config, &readings)
            && !ended
        {
            let ended = relieve(&context, &manager, &images, &pods, shortage).await;
            if let Some(pod) = ended {
                shutdown.run_until_cancelled(cleaned_up(&context, pod)).await;
            }
        }
    }
}

fn candidates(manager: &PodManager) -> Vec<Pod> {
    let mut pods = manager.pods();
    pods.retain(|pod| !pod.is_over() && !pod.is_deleted() && !is_critical(pod));
    pods
}

/// Until the pod's files are gone: only then the node shows what it has gained.
async fn cleaned_up(context: &Context, pod: &Pod) {
    let files = context.paths.pod(pod.uid());
    let gone = async {
        while tokio::fs::try_exists(&files).await.unwrap_or_default() {
            tokio::time::sleep(CLEAN_UP_PERIOD).await;
        }
    };
    if tokio::time::timeout(CLEAN_UP, gone).await.is_err() {
        tracing::warn!(pod = pod.full_name(), "still holds its files");
    }
}

/// Removes images or, if that does not do, ends one pod and tells which.
async fn relieve<'a>(
    context: &Arc<Context>,
    manager: &PodManager,
    images: &ImageCollector,
    pods: &'a [Pod],
    shortage: Shortage,
) -> Option<&'a Pod> {
    let resource = shortage.resource.name();
    context.events.node(
        &context.node_name,
        Level::Warning,
        "EvictionThresholdMet",
        &format!("Attempting to reclaim {resource}"),
    );
    if shortage.resource != Resource::Memory {
        images.remove_unused().await;
        let readings: Readings = instruments(context);
        pressure::worst(&context.config, &readings)?;
    }
    let usage = usage::of_pods(context, pods, shortage.resource).await;
    let Some(first) = rank::first(pods, &usage, shortage.resource) else {
        tracing::warn!(resource, "the node is short of it, and there is no pod to end");
        return None;
    };
    let message = rank::message(first, &usage, &shortage);
    end(context, manager, first, message);
    Some(first)
}

fn end(context: &Context, manager: &PodManager, pod: &Pod, message: String) {
    tracing::warn!(pod = pod.full_name(), message, "evicted");
    context.events.pod(pod, Level::Warning, "Evicted", &message);
    manager.fail(pod.uid(), evicted(message));
}
