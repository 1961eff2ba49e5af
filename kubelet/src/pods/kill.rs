//! Ending containers and pods.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;

use crate::context::Context;
use crate::cri::{CriError, CriResult};
use crate::events::Level;
use crate::logs::rotate;
use crate::objects::{ContainerKind, PodExt};
use crate::pods::hooks;
use crate::pods::plan::KillReason;
use crate::pods::runtime::{Activity, ContainerView, PodRuntime};

/// What a container has at least between being asked and being killed, once its hook has used up its time.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// The seconds a pod may take to end: what the deletion says, else its spec; at least one.
pub fn grace_of(pod: &Pod) -> Duration {
    let seconds = pod
        .metadata
        .deletion_grace_period_seconds
        .or(pod.spec().termination_grace_period_seconds)
        .unwrap_or(30);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
}

/// What the event about a container's end says.
pub fn message(name: &str, reason: Option<&KillReason>) -> String {
    match reason {
        None | Some(KillReason::SidecarNotNeeded) => format!("Stopping container {name}"),
        Some(KillReason::SpecChanged) => format!("Container {name} definition changed, will be restarted"),
        Some(KillReason::Unhealthy) => format!("Container {name} failed liveness probe, will be restarted"),
        Some(KillReason::NotStarted) => format!("Container {name} failed startup probe, will be restarted"),
        Some(KillReason::UnknownState) => {
            format!("Container {name} is in an unknown state, try killing it before restart")
        }
    }
}

/// Ends one container: its hook, then a request, then the kill.
///
/// # Errors
/// Those of the runtime.
pub async fn container(
    context: &Context,
    pod: &Pod,
    view: &ContainerView,
    reason: Option<&KillReason>,
    grace: Duration,
    ip: &str,
) -> CriResult<()> {
    context.events.container(
        pod,
        &view.name,
        Level::Normal,
        "Killing",
        &message(&view.name, reason),
    );
    let mut left = grace;
    let spec = pod
        .all_containers()
        .into_iter()
        .find(|(container, _)| container.name == view.name)
        .map(|(container, _)| container);
    // A probe's own grace period counts where the probe ends the container.
    if let Some(spec) = &spec {
        let probe = match reason {
            Some(KillReason::Unhealthy) => spec.liveness_probe.as_ref(),
            Some(KillReason::NotStarted) => spec.startup_probe.as_ref(),
            _ => None,
        };
        if let Some(seconds) = probe.and_then(|probe| probe.termination_grace_period_seconds) {
            left = Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1));
        }
    }
    if let Some(spec) = &spec
        && let Some(hook) = spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.pre_stop.as_ref())
        && view.activity == Activity::Running
    {
        let begun = Instant::now();
        let run = hooks::run(context.runtime.as_ref(), hook, spec, &view.id, ip, left);
        if let Ok(Err(text)) = tokio::time::timeout(left, run).await {
            let message = format!("PreStopHook failed: {text}");
            context
                .events
                .container(pod, &view.name, Level::Warning, "FailedPreStopHook", &message);
        }
        left = left.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
    }
    match context.runtime.stop_container(&view.id, left).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Ends everything of a pod: containers together (sidecars after the others), then the sandboxes.
///
/// # Errors
/// Those of the runtime; what can be ended is ended first.
pub async fn pod(
    context: &Arc<Context>,
    pod: &Pod,
    runtime: &PodRuntime,
    grace: Duration,
    ip: &str,
) -> CriResult<()> {
    let begun = Instant::now();
    let kinds: std::collections::HashMap<String, ContainerKind> = pod
        .all_containers()
        .into_iter()
        .map(|(container, kind)| (container.name, kind))
        .collect();
    let running = || {
        runtime
            .containers
            .iter()
            .filter(|view| matches!(view.activity, Activity::Running | Activity::Unknown))
    };
    let is_sidecar = |view: &&ContainerView| kinds.get(&view.name) == Some(&ContainerKind::Sidecar);
    let mut errors: Vec<CriError> = Vec::new();
    let first = running()
        .filter(|view| !is_sidecar(view))
        .map(|view| container(context, pod, view, None, grace, ip));
    errors.extend(join_all(first).await.into_iter().filter_map(Result::err));
    // The last sidecar to start is the first to end.
    let mut sidecars: Vec<&ContainerView> = running().filter(is_sidecar).collect();
    sidecars.sort_by_key(|view| std::cmp::Reverse(view.started_at));
    for view in sidecars {
        let left = grace.saturating_sub(begun.elapsed()).max(LEAST_GRACE);
        errors.extend(container(context, pod, view, None, left, ip).await.err());
    }
    for sandbox in &runtime.sandboxes {
        if let Err(error) = context.runtime.stop_pod_sandbox(&sandbox.id).await
            && !error.is_not_found()
        {
            errors.push(error);
        }
    }
    errors.into_iter().next().map_or(Ok(()), Err)
}

/// Removes what remains of a pod in the runtime, and its logs.
///
/// # Errors
/// Those of the runtime.
pub async fn remove_remains(context: &Context, runtime: &PodRuntime) -> CriResult<()> {
    for view in &runtime.containers {
        ignore_missing(context.runtime.remove_container(&view.id).await)?;
    }
    for sandbox in &runtime.sandboxes {
        ignore_missing(context.runtime.stop_pod_sandbox(&sandbox.id).await)?;
        ignore_missing(context.runtime.remove_pod_sandbox(&sandbox.id).await)?;
    }
    Ok(())
}

/// Removes containers and sandboxes that nobody will ask about again: all but the last two lives of each container,
/// and sandboxes whose containers are gone.
pub async fn prune(context: &Context, runtime: &PodRuntime) {
    let mut seen: std::collections::HashMap<&str, usize> = std::collections::HashMap::new();
    for view in &runtime.containers {
        let lives = seen.entry(view.name.as_str()).or_default();
        *lives += 1;
        if *lives > 2
            && view.activity == Activity::Exited
            && context.runtime.remove_container(&view.id).await.is_ok()
            && !view.log_path.is_empty()
        {
            rotate::remove(std::path::Path::new(&view.log_path));
        }
    }
    // A new sandbox makes the containers of the old one history; two old ones are enough of it.
    for sandbox in runtime.sandboxes.iter().skip(2).filter(|sandbox| !sandbox.ready) {
        let _ = context.runtime.remove_pod_sandbox(&sandbox.id).await;
    }
}

fn ignore_missing(result: CriResult<()>) -> CriResult<()> {
    match result {
        Err(error) if error.is_not_found() => Ok(()),
        other => other,
    }
}
