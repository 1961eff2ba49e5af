//! The conditions a kubelet keeps on a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::objects::{ContainerKind, PodExt, init_kind};

const TRUE: &str = "True";
const FALSE: &str = "False";

/// The conditions that are the kubelet's to set; it leaves all others alone.
const OWN: [&str; 5] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
];

/// Is the condition the kubelet's to set?
pub fn is_own(kind: &str) -> bool {
    OWN.contains(&kind)
}

fn condition(kind: &str, holds: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: kind.into(),
        status: if holds { TRUE } else { FALSE }.into(),
        reason: (!reason.is_empty()).then(|| reason.into()),
        message: (!message.is_empty()).then_some(message),
        ..Default::default()
    }
}

fn named(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

/// The sandbox and its network are there.
pub fn ready_to_start(holds: bool) -> PodCondition {
    condition("PodReadyToStartContainers", holds, "", String::new())
}

/// A pod that a kubelet has was scheduled.
pub fn scheduled() -> PodCondition {
    condition("PodScheduled", true, "", String::new())
}

/// The kubelet ends the pod for the node's sake.
pub fn disrupted(message: &str) -> PodCondition {
    condition(
        "DisruptionTarget",
        true,
        "TerminationByKubelet",
        message.to_owned(),
    )
}

/// Init containers are through.
pub fn initialized(
    pod: &Pod,
    phase: &str,
    init: &[ContainerStatus],
    regular: &[ContainerStatus],
) -> PodCondition {
    let kind = "Initialized";
    if phase == "Succeeded" {
        return condition(kind, true, "PodCompleted", String::new());
    }
    // Once a regular container has run, initialization is behind the pod for good.
    let begun = regular.iter().any(|status| {
        let ran = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            state
                .as_ref()
                .is_some_and(|state| state.running.is_some() || state.terminated.is_some())
        };
        ran(&status.state) || ran(&status.last_state)
    });
    let incomplete: Vec<&str> = pod
        .init_containers()
        .iter()
        .zip(init)
        .filter(|(container, status)| match init_kind(container) {
            ContainerKind::Sidecar => status.started != Some(true),
            _ => !status.ready,
        })
        .map(|(_, status)| status.name.as_str())
        .collect();
    if begun || incomplete.is_empty() {
        return condition(kind, true, "", String::new());
    }
    condition(
        kind,
        false,
        "ContainersNotInitialized",
        format!("containers with incomplete status: {}", named(&incomplete)),
    )
}

/// All containers are ready.
pub fn containers_ready(
    phase: &str,
    sidecars: &[&ContainerStatus],
    regular: &[ContainerStatus],
) -> PodCondition {
    let kind = "ContainersReady";
    match phase {
        "Succeeded" => return condition(kind, false, "PodCompleted", String::new()),
        "Failed" => return condition(kind, false, "PodFailed", String::new()),
        _ => {}
    }
    let unready: Vec<&str> = sidecars
        .iter()
        .copied()
        .chain(regular)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    if unready.is_empty() {
        return condition(kind, true, "", String::new());
    }
    condition(
        kind,
        false,
        "ContainersNotReady",
        format!("containers with unready status: {}", named(&unready)),
    )
}

/// All containers are ready, and so say all readiness gates.
pub fn ready(
    pod: &Pod,
    phase: &str,
    sidecars: &[&ContainerStatus],
    regular: &[ContainerStatus],
) -> PodCondition {
    let containers = containers_ready(phase, sidecars, regular);
    if containers.status != TRUE {
        return PodCondition {
            type_: "Ready".into(),
            ..containers
        };
    }
    let conditions = pod.status().conditions.as_deref().unwrap_or_default();
    let problems: Vec<String> = pod
        .spec()
        .readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| {
            let gate = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *gate) {
                None => Some(format!(
                    "corresponding condition of pod readiness gate \"{gate}\" does not exist."
                )),
                Some(condition) if condition.status != TRUE => Some(format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    condition.status
                )),
                Some(_) => None,
            }
        })
        .collect();
    if problems.is_empty() {
        return condition("Ready", true, "", String::new());
    }
    condition("Ready", false, "ReadinessGatesNotReady", problems.join(", "))
}

/// The pod's conditions with ours in place. A condition whose status did not change keeps its time.
pub fn merge(pod: &Pod, made: Vec<PodCondition>, now: Timestamp) -> Vec<PodCondition> {
    let old = pod.status().conditions.as_deref().unwrap_or_default();
    let mut merged: Vec<PodCondition> = made
        .into_iter()
        .map(|mut condition| {
            let before = old
                .iter()
                .find(|old| old.type_ == condition.type_ && old.status == condition.status);
            condition.last_transition_time = before
                .and_then(|old| old.last_transition_time.clone())
                .or(Some(Time(keelson_api::time::to_seconds(now))));
            condition.observed_generation = pod.metadata.generation;
            condition
        })
        .collect();
    for other in old.iter().filter(|old| !is_own(&old.type_)) {
        if merged.iter().all(|known| known.type_ != other.type_) {
            merged.push(other.clone());
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;

    use super::*;

    #[test]
    fn every_condition_is_there_once_however_often_it_is_made() {
        let mut pod = Pod {
            status: Some(PodStatus {
                conditions: Some(vec![condition("example.test/gate", true, "", String::new())]),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        for _ in 0..3 {
            let merged = merge(&pod, vec![scheduled(), disrupted("too much")], Timestamp::now());
            let kinds: Vec<&str> = merged.iter().map(|condition| condition.type_.as_str()).collect();
            assert_eq!(kinds, ["PodScheduled", "DisruptionTarget", "example.test/gate"]);
            pod.status.get_or_insert_default().conditions = Some(merged);
        }
    }
}
