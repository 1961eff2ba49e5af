//! The status a pod gets in the API, from its spec, what the runtime has and what probes say.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::k8s::api::core::v1::Container;

use crate::objects::{ContainerKind, PodExt, RestartPolicy, container_restart_policy, init_kind};
use crate::pods::conditions;
use crate::pods::plan::{Verdict, Verdicts};
use crate::pods::qos;
use crate::pods::runtime::{Activity, ContainerView, PodRuntime};

/// Exit code of a container that was lost: killed, as far as anybody knows.
const EXIT_LOST: i32 = 137;

/// Why a container waits: reason and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// The end that was decided for a whole pod: refused at admission, evicted, past its deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFailure {
    /// CamelCase.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Its containers have no more time than this to end.
    pub grace: Option<Duration>,
    /// The node ends it, not its own doing (KEP-3329).
    pub disrupted: bool,
}

impl PodFailure {
    /// A failure with a reason and a message.
    pub fn new(reason: &str, message: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            message: message.into(),
            grace: None,
            disrupted: false,
        }
    }
}

/// What a status is made from.
pub struct Inputs<'a> {
    /// The pod, with the status last known.
    pub pod: &'a Pod,
    /// What the runtime has; `None` while nobody could ask.
    pub runtime: &'a PodRuntime,
    /// By container id.
    pub verdicts: &'a HashMap<String, Verdicts>,
    /// Why containers that should run do not, by name.
    pub waiting: &'a HashMap<String, Waiting>,
    /// The pod was failed as a whole.
    pub failed: Option<&'a PodFailure>,
    /// Everything is stopped for good.
    pub stopped: bool,
    /// The runtime's name, before container ids.
    pub runtime_name: &'a str,
    /// The node's addresses, the primary one first.
    pub host_ips: &'a [String],
    /// When the kubelet first saw the pod.
    pub start_time: Timestamp,
    /// The present.
    pub now: Timestamp,
}

/// Makes the status. The previous one supplies what is remembered nowhere else.
pub fn status(inputs: &Inputs<'_>) -> PodStatus {
    let pod = inputs.pod;
    let old = pod.status();
    let mut status = PodStatus {
        qos_class: Some(
            old.qos_class
                .clone()
                .unwrap_or_else(|| qos::class(pod).as_str().into()),
        ),
        start_time: Some(old.start_time.clone().unwrap_or(Time(second(inputs.start_time)))),
        nominated_node_name: old.nominated_node_name.clone(),
        resource_claim_statuses: old.resource_claim_statuses.clone(),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    };
    if let Some(primary) = inputs.host_ips.first() {
        status.host_ip = Some(primary.clone());
        status.host_ips = Some(
            inputs
                .host_ips
                .iter()
                .map(|ip| HostIP { ip: ip.clone() })
                .collect(),
        );
    }
    let init: Vec<_> = pod
        .init_containers()
        .iter()
        .map(|container| container_status(inputs, container, init_kind(container)))
        .collect();
    let regular: Vec<_> = pod
        .containers()
        .iter()
        .map(|container| container_status(inputs, container, ContainerKind::Regular))
        .collect();
    let ephemeral: Vec<_> = pod
        .ephemeral_containers()
        .iter()
        .map(|container| container_status(inputs, container, ContainerKind::Ephemeral))
        .collect();

    let phase = match inputs.failed {
        Some(failed) => {
            status.reason = Some(failed.reason.clone());
            status.message = Some(failed.message.clone());
            "Failed"
        }
        None => phase(pod, &init, &regular, inputs.stopped),
    };
    // What ended does not begin again, whatever the runtime has forgotten since.
    let phase = match old.phase.as_deref() {
        Some(over @ ("Succeeded" | "Failed")) => {
            status.reason = status.reason.or_else(|| old.reason.clone());
            status.message = status.message.or_else(|| old.message.clone());
            over
        }
        _ => phase,
    };
    status.phase = Some(phase.to_owned());

    let addresses = addresses(inputs);
    status.pod_ip = addresses.first().cloned();
    status.pod_ips = (!addresses.is_empty()).then(|| addresses.into_iter().map(|ip| PodIP { ip }).collect());
    status.conditions = Some(conditions_of(inputs, phase, &init, &regular));
    // A pod refused before anything was made has no containers to report.
    let nothing_made =
        inputs.failed.is_some() && inputs.runtime.containers.is_empty() && old.container_statuses.is_none();
    if !nothing_made {
        status.init_container_statuses = (!init.is_empty()).then_some(init);
        status.container_statuses = (!regular.is_empty()).then_some(regular);
        status.ephemeral_container_statuses = (!ephemeral.is_empty()).then_some(ephemeral);
    }
    status
}

fn addresses(inputs: &Inputs<'_>) -> Vec<String> {
    if inputs.pod.host_network() {
        return inputs
            .runtime
            .sandboxes
            .first()
            .map(|_| inputs.host_ips.to_vec())
            .unwrap_or_default();
    }
    if let Some(sandbox) = inputs.runtime.ready_sandbox() {
        return sandbox.ips.clone();
    }
    // A stopped pod keeps the addresses it had on record.
    inputs
        .pod
        .status()
        .pod_ips
        .iter()
        .flatten()
        .map(|ip| ip.ip.clone())
        .collect()
}

fn second(at: Timestamp) -> Timestamp {
    keelson_api::time::to_seconds(at)
}

fn moment(nanos: i64) -> Option<Time> {
    if nanos <= 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanos))
        .ok()
        .map(|at| Time(second(at)))
}

fn container_status(inputs: &Inputs<'_>, container: &Container, kind: ContainerKind) -> ContainerStatus {
    let pod = inputs.pod;
    let old = pod.container_status(&container.name);
    let view = inputs.runtime.container(&container.name);
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        volume_mounts: volume_mounts(container),
        ..Default::default()
    };
    if let Some(resources) = &container.resources
        && (resources.requests.is_some() || resources.limits.is_some())
    {
        status.allocated_resources = resources.requests.clone();
        status.resources = Some(resources.clone());
    }
    match view {
        Some(view) => from_view(inputs, container, kind, view, &mut status),
        None => without_view(inputs, old, &mut status),
    }
    status
}

fn from_view(
    inputs: &Inputs<'_>,
    container: &Container,
    kind: ContainerKind,
    view: &ContainerView,
    status: &mut ContainerStatus,
) {
    status.restart_count = i32::try_from(view.restart_count).unwrap_or(i32::MAX);
    status.container_id = Some(format!("{}://{}", inputs.runtime_name, view.id));
    if !view.image.is_empty() && !view.image.starts_with("sha256:") {
        status.image.clone_from(&view.image);
    }
    status.image_id = view.image_id.clone();
    let previous = inputs
        .runtime
        .previous(&container.name)
        .filter(|previous| previous.activity == Activity::Exited);
    status.last_state = previous.map(|previous| ended(inputs, previous));
    match view.activity {
        Activity::Running => {
            let verdicts = inputs
                .verdicts
                .get(&view.id)
                .copied()
                .unwrap_or_else(|| unasked(container));
            let started = verdicts.started();
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: moment(view.started_at),
                }),
                ..Default::default()
            });
            let is_init = kind == ContainerKind::Init;
            status.started = Some(started && !is_init);
            status.ready = !is_init
                && started
                && verdicts
                    .readiness
                    .is_none_or(|verdict| verdict == Verdict::Success);
        }
        Activity::Exited => {
            status.ready = kind == ContainerKind::Init && view.exit_code == 0;
            match inputs.waiting.get(&container.name) {
                Some(waiting) if !inputs.stopped && will_restart(inputs, container, kind, view) => {
                    status.last_state = Some(ended(inputs, view));
                    status.state = Some(waits(waiting));
                }
                _ => status.state = Some(ended(inputs, view)),
            }
        }
        Activity::Created | Activity::Unknown => {
            let waiting = inputs
                .waiting
                .get(&container.name)
                .cloned()
                .unwrap_or_else(|| default_waiting(inputs));
            status.state = Some(waits(&waiting));
        }
    }
}

/// The verdicts on a container that no probe has looked at yet.
fn unasked(container: &Container) -> Verdicts {
    Verdicts {
        startup: container.startup_probe.as_ref().map(|_| Verdict::Unknown),
        liveness: None,
        readiness: container.readiness_probe.as_ref().map(|_| Verdict::Unknown),
    }
}

fn will_restart(
    inputs: &Inputs<'_>,
    container: &Container,
    kind: ContainerKind,
    view: &ContainerView,
) -> bool {
    match container_restart_policy(inputs.pod, container, kind) {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => view.exit_code != 0,
        RestartPolicy::Never => false,
    }
}

fn without_view(inputs: &Inputs<'_>, old: Option<&ContainerStatus>, status: &mut ContainerStatus) {
    if let Some(old) = old {
        status.restart_count = old.restart_count;
        status.last_state = old.last_state.clone();
        let state = old.state.as_ref();
        if let Some(running) = state.and_then(|state| state.running.as_ref()) {
            // It ran, and the runtime has forgotten it: nobody can say how it ended.
            let lost = ContainerState {
                terminated: Some(ContainerStateTerminated {
                    container_id: old.container_id.clone(),
                    exit_code: EXIT_LOST,
                    reason: Some("ContainerStatusUnknown".into()),
                    message: Some("The container could not be located when the pod was terminated".into()),
                    started_at: running.started_at.clone(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            status.image_id = old.image_id.clone();
            status.container_id = old.container_id.clone();
            if inputs.stopped {
                status.state = Some(lost);
                return;
            }
            status.last_state = Some(lost);
            status.restart_count += 1;
        } else if state.is_some_and(|state| state.terminated.is_some()) {
            // Its remains were cleaned up.
            *status = old.clone();
            return;
        }
    }
    let waiting = inputs
        .waiting
        .get(&status.name)
        .cloned()
        .unwrap_or_else(|| default_waiting(inputs));
    status.state = Some(waits(&waiting));
}

fn default_waiting(inputs: &Inputs<'_>) -> Waiting {
    let reason = if inputs.pod.init_containers().is_empty() {
        "ContainerCreating"
    } else {
        "PodInitializing"
    };
    Waiting {
        reason: reason.into(),
        message: String::new(),
    }
}

fn waits(waiting: &Waiting) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(waiting.reason.clone()),
            message: (!waiting.message.is_empty()).then(|| waiting.message.clone()),
        }),
        ..Default::default()
    }
}

fn ended(inputs: &Inputs<'_>, view: &ContainerView) -> ContainerState {
    let reason = match (view.reason.as_str(), view.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(format!("{}://{}", inputs.runtime_name, view.id)),
            exit_code: view.exit_code,
            finished_at: moment(view.finished_at),
            message: (!view.message.is_empty()).then(|| view.message.clone()),
            reason: Some(reason.into()),
            signal: None,
            started_at: moment(view.started_at),
        }),
        ..Default::default()
    }
}

fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let statuses = mounts.iter().map(|mount| {
        let read_only = mount.read_only.unwrap_or(false);
        VolumeMountStatus {
            mount_path: mount.mount_path.clone(),
            name: mount.name.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| "Disabled".into()),
            ..Default::default()
        }
    });
    (!mounts.is_empty()).then(|| statuses.collect())
}

/// The phase: upstream's rules, counted over container statuses.
pub fn phase(
    pod: &Pod,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
    stopped: bool,
) -> &'static str {
    let policy = pod.restart_policy();
    let (mut init_pending, mut init_failed) = (0, 0);
    for (container, status) in pod.init_containers().iter().zip(init) {
        let sidecar = init_kind(container) == ContainerKind::Sidecar;
        let state = status.state.as_ref();
        let terminated = state.and_then(|state| state.terminated.as_ref());
        let last = status
            .last_state
            .as_ref()
            .and_then(|state| state.terminated.as_ref());
        if sidecar {
            init_pending +=
                usize::from(status.started != Some(true) && terminated.is_none() && last.is_none());
        } else if let Some(terminated) = terminated {
            init_failed += usize::from(terminated.exit_code != 0);
        } else if let Some(last) = last {
            init_failed += usize::from(last.exit_code != 0);
        } else {
            init_pending += 1;
        }
    }
    let (mut running, mut waiting, mut ended, mut succeeded) = (0, 0, 0, 0);
    for status in regular {
        let state = status.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(terminated) = state.terminated {
            ended += 1;
            succeeded += usize::from(terminated.exit_code == 0);
        } else if status
            .last_state
            .as_ref()
            .is_some_and(|last| last.terminated.is_some())
        {
            ended += 1;
        } else {
            waiting += 1;
        }
    }
    if init_failed > 0 && (policy == RestartPolicy::Never || stopped) {
        return "Failed";
    }
    if stopped {
        return if waiting == 0 && ended == succeeded && running == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    if init_pending > 0 || init_failed > 0 || waiting > 0 {
        // Once a regular container has run, a sidecar that restarts does not make the pod pending again.
        return if running > 0 && waiting == 0 {
            "Running"
        } else {
            "Pending"
        };
    }
    match (running, policy) {
        (1.., _) | (_, RestartPolicy::Always) => "Running",
        _ if ended == 0 => "Pending",
        _ if ended == succeeded => "Succeeded",
        (_, RestartPolicy::Never) => "Failed",
        (_, RestartPolicy::OnFailure) => "Running",
    }
}

fn conditions_of(
    inputs: &Inputs<'_>,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> Vec<PodCondition> {
    let pod = inputs.pod;
    let sidecars: Vec<&ContainerStatus> = pod
        .init_containers()
        .iter()
        .zip(init)
        .filter(|(container, _)| init_kind(container) == ContainerKind::Sidecar)
        .map(|(_, status)| status)
        .collect();
    let mut made = vec![
        conditions::ready_to_start(
            !inputs.stopped
                && inputs
                    .runtime
                    .ready_sandbox()
                    .is_some_and(|sandbox| sandbox.host_network || !sandbox.ips.is_empty()),
        ),
        conditions::initialized(pod, phase, init, regular),
        conditions::ready(pod, phase, &sidecars, regular),
        conditions::containers_ready(phase, &sidecars, regular),
        conditions::scheduled(),
    ];
    if let Some(failed) = inputs.failed.filter(|failed| failed.disrupted) {
        made.push(conditions::disrupted(&failed.message));
    }
    conditions::merge(pod, made, inputs.now)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
