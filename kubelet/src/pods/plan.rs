//! The decision for one pod: from its spec and what the runtime has, to what to do next. Nothing here waits,
//! asks or changes anything.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::cri::labels;
use crate::objects::{ContainerKind, PodExt, RestartPolicy, container_restart_policy, init_kind};
use crate::pods::backoff::{BackoffMap, Nanos};
use crate::pods::runtime::{Activity, ContainerView, PodRuntime};

/// What a probe last said of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verdict {
    /// Not asked yet.
    #[default]
    Unknown,
    /// Well.
    Success,
    /// Not well, often enough to count.
    Failure,
}

/// The verdicts on one running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Verdicts {
    /// Has it come up? `None`: it has no such probe.
    pub startup: Option<Verdict>,
    /// Is it alive?
    pub liveness: Option<Verdict>,
    /// Should it get traffic?
    pub readiness: Option<Verdict>,
}

impl Verdicts {
    /// Has the container started, as the startup probe sees it?
    pub fn started(self) -> bool {
        self.startup.is_none_or(|verdict| verdict == Verdict::Success)
    }
}

/// What the decision is made from.
pub struct Inputs<'a> {
    /// What should run.
    pub pod: &'a Pod,
    /// What does.
    pub runtime: &'a PodRuntime,
    /// What probes say, by container id.
    pub verdicts: &'a HashMap<String, Verdicts>,
    /// Who crashed lately, by container name.
    pub backoff: &'a BackoffMap<String>,
    /// The present.
    pub now: Nanos,
}

/// Why a running container is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// Its image was changed.
    SpecChanged,
    /// The liveness probe failed.
    Unhealthy,
    /// The startup probe failed.
    NotStarted,
    /// The runtime does not know what it does.
    UnknownState,
    /// The pod's regular containers are done.
    SidecarNotNeeded,
}

/// A container to start.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Its spec.
    pub container: Container,
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// How often it was started before.
    pub attempt: u32,
    /// When the one before it ended: its back-off counts from there.
    pub after_exit_at: Option<Nanos>,
}

/// A container that must wait before it is started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The container's name.
    pub name: String,
    /// The whole wait.
    pub wait: Duration,
    /// What is left of it.
    pub remaining: Duration,
}

/// What to do now, in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// Stop the sandbox and whatever runs in it.
    pub kill_pod: bool,
    /// Then make a sandbox with this attempt number.
    pub create_sandbox: Option<u32>,
    /// End these, by container id.
    pub kill: Vec<(String, KillReason)>,
    /// Forget these, by container id: they would be in the way.
    pub remove: Vec<String>,
    /// Start these, one after the other.
    pub start: Vec<Start>,
    /// Leave these alone for now.
    pub hold: Vec<Hold>,
}

impl Plan {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        !self.kill_pod
            && self.create_sandbox.is_none()
            && self.kill.is_empty()
            && self.start.is_empty()
            && self.remove.is_empty()
    }
}

/// Decides. See [`Plan`].
pub fn plan(inputs: &Inputs<'_>) -> Plan {
    let mut plan = Plan::default();
    match sandbox_needed(inputs) {
        Some(attempt) => plan_anew(inputs, attempt, &mut plan),
        None => plan_within(inputs, &mut plan),
    }
    plan
}

/// The attempt number of the sandbox to make, unless the newest will do.
fn sandbox_needed(inputs: &Inputs<'_>) -> Option<u32> {
    let sandboxes = &inputs.runtime.sandboxes;
    let Some(newest) = sandboxes.first() else {
        return Some(0);
    };
    let ready = sandboxes.iter().filter(|sandbox| sandbox.ready).count();
    let host_network = inputs.pod.host_network();
    let fit = ready == 1
        && newest.ready
        && newest.host_network == host_network
        && (host_network || !newest.ips.is_empty());
    (!fit).then_some(newest.attempt + 1)
}

fn plan_anew(inputs: &Inputs<'_>, attempt: u32, plan: &mut Plan) {
    let Inputs { pod, runtime, .. } = inputs;
    plan.kill_pod = attempt > 0;
    // A pod that never restarts is over when its sandbox is.
    if pod.restart_policy() == RestartPolicy::Never && attempt > 0 && !runtime.containers.is_empty() {
        return;
    }
    let regular: Vec<&Container> = pod
        .containers()
        .iter()
        .filter(|container| !is_done(inputs, container, ContainerKind::Regular))
        .collect();
    if regular.is_empty() {
        return;
    }
    plan.create_sandbox = Some(attempt);
    // Init containers prepare what a new sandbox lacks: they run again.
    match pod.init_containers().first() {
        Some(first) => start(inputs, first, init_kind(first), plan),
        None => {
            for container in regular {
                start(inputs, container, ContainerKind::Regular, plan);
            }
        }
    }
}

/// Has this container ended for good?
fn is_done(inputs: &Inputs<'_>, container: &Container, kind: ContainerKind) -> bool {
    let Some(view) = inputs.runtime.container(&container.name) else {
        return false;
    };
    if view.activity != Activity::Exited {
        return false;
    }
    match container_restart_policy(inputs.pod, container, kind) {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => view.exit_code == 0,
        RestartPolicy::Never => true,
    }
}

fn plan_within(inputs: &Inputs<'_>, plan: &mut Plan) {
    let Inputs { pod, runtime, .. } = inputs;
    for container in pod.ephemeral_containers() {
        if runtime.container(&container.name).is_none() {
            start(inputs, &container, ContainerKind::Ephemeral, plan);
        }
    }
    let regular_has_begun = pod.containers().iter().any(|container| {
        runtime
            .container(&container.name)
            .is_some_and(|view| in_sandbox(inputs, view))
    });
    if plan_init(inputs, regular_has_begun, plan) == InitProgress::Wait {
        return;
    }
    let mut alive = 0;
    for container in pod.containers() {
        alive += usize::from(plan_container(inputs, container, ContainerKind::Regular, plan));
    }
    if alive == 0 && plan.hold.is_empty() {
        // Every regular container is done. Sidecars go with the sandbox.
        plan.kill_pod = true;
        plan.start.clear();
    }
}

/// Was the container made for the sandbox in use? One from an earlier sandbox counts for nothing.
fn in_sandbox(inputs: &Inputs<'_>, view: &ContainerView) -> bool {
    inputs
        .runtime
        .sandboxes
        .first()
        .is_none_or(|sandbox| view.created_at >= sandbox.created_at)
}

#[derive(PartialEq)]
enum InitProgress {
    /// Init containers must still run.
    Wait,
    /// Regular containers may run.
    Done,
}

fn plan_init(inputs: &Inputs<'_>, regular_has_begun: bool, plan: &mut Plan) -> InitProgress {
    for container in inputs.pod.init_containers() {
        let kind = init_kind(container);
        let view = inputs
            .runtime
            .container(&container.name)
            .filter(|view| in_sandbox(inputs, view));
        match (kind, view) {
            (ContainerKind::Sidecar, Some(view)) if view.activity == Activity::Running => {
                plan_container(inputs, container, kind, plan);
                // The next container waits until the sidecar has started, but only at first.
                let started = container.startup_probe.is_none()
                    || inputs
                        .verdicts
                        .get(&view.id)
                        .is_some_and(|verdicts| verdicts.started());
                if !regular_has_begun && !started {
                    return InitProgress::Wait;
                }
            }
            (ContainerKind::Sidecar, _) => {
                plan_container(inputs, container, kind, plan);
                if !regular_has_begun {
                    return InitProgress::Wait;
                }
            }
            _ if regular_has_begun => {}
            (_, Some(view)) if view.activity == Activity::Exited && view.exit_code == 0 => {}
            (_, Some(view)) if view.activity == Activity::Exited && is_done(inputs, container, kind) => {
                // It failed and is not tried again: the pod has failed.
                plan.kill_pod = true;
                return InitProgress::Wait;
            }
            _ => {
                plan_container(inputs, container, kind, plan);
                return InitProgress::Wait;
            }
        }
    }
    InitProgress::Done
}

/// Plans one container; true if it runs or will.
fn plan_container(inputs: &Inputs<'_>, container: &Container, kind: ContainerKind, plan: &mut Plan) -> bool {
    let Some(view) = inputs.runtime.container(&container.name) else {
        start(inputs, container, kind, plan);
        return true;
    };
    let restarts = container_restart_policy(inputs.pod, container, kind) != RestartPolicy::Never;
    match view.activity {
        Activity::Running => {
            let verdicts = inputs.verdicts.get(&view.id).copied().unwrap_or_default();
            let reason = if !view.hash.is_empty() && view.hash != labels::container_hash(container) {
                Some((KillReason::SpecChanged, true))
            } else if verdicts.liveness == Some(Verdict::Failure) {
                Some((KillReason::Unhealthy, restarts))
            } else if verdicts.startup == Some(Verdict::Failure) {
                Some((KillReason::NotStarted, restarts))
            } else {
                None
            };
            if let Some((reason, _)) = reason {
                // It is started again once it is seen to have ended, so that its end is on record.
                plan.kill.push((view.id.clone(), reason));
            }
            true
        }
        Activity::Exited => {
            if is_done(inputs, container, kind) && in_sandbox_or_done(inputs, view, kind) {
                return false;
            }
            start(inputs, container, kind, plan);
            true
        }
        Activity::Unknown => {
            plan.kill.push((view.id.clone(), KillReason::UnknownState));
            true
        }
        Activity::Created => {
            // Made but never started, by a kubelet that died in between: make it anew.
            plan.remove.push(view.id.clone());
            start(inputs, container, kind, plan);
            true
        }
    }
}

// An init container that ended in an earlier sandbox runs again in this one; a regular one that is done stays done.
fn in_sandbox_or_done(inputs: &Inputs<'_>, view: &ContainerView, kind: ContainerKind) -> bool {
    kind == ContainerKind::Regular || in_sandbox(inputs, view)
}

fn start(inputs: &Inputs<'_>, container: &Container, kind: ContainerKind, plan: &mut Plan) {
    let view = inputs.runtime.container(&container.name);
    let after_exit_at = view
        .filter(|view| view.activity == Activity::Exited)
        .map(|view| view.finished_at);
    if let Some(exited) = after_exit_at
        && let Some(remaining) = inputs.backoff.remaining(&container.name, exited, inputs.now)
    {
        plan.hold.push(Hold {
            name: container.name.clone(),
            wait: inputs.backoff.wait(&container.name),
            remaining,
        });
        return;
    }
    let attempt = view.map_or(0, |view| match view.activity {
        Activity::Created => view.restart_count,
        _ => view.restart_count + 1,
    });
    plan.start.push(Start {
        container: container.clone(),
        kind,
        attempt,
        after_exit_at,
    });
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
