//! What a pod's metadata and status say about it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use keelson_api::object::Object as _;
use keelson_api::pods::is_sidecar;

pub use keelson_api::pods::{is_active, is_ready, is_terminal, phase};

/// The pod's phase before it runs.
pub const PENDING: &str = "Pending";
/// The pod's phase after it went wrong.
pub const FAILED: &str = "Failed";
/// The pod's phase while its node does not tell.
pub const UNKNOWN: &str = "Unknown";

/// Whether the pod is on its way out but its containers may still run.
#[must_use]
pub fn is_terminating(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_some()
}

/// The node the pod is bound to; empty before that.
#[must_use]
pub fn node_name(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.node_name.as_deref())
        .unwrap_or_default()
}

/// One condition of a pod.
#[must_use]
pub fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// When the pod became ready, if it is.
#[must_use]
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::MIN, |time| time.0),
    )
}

/// From when on the pod counts as available: `None` while it is not ready.
#[must_use]
pub fn available_from(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let since = ready_since(pod)?;
    if min_ready_seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    let wait = std::time::Duration::from_secs(u64::try_from(min_ready_seconds).unwrap_or_default());
    Some(keelson_api::time::after(since, wait))
}

/// Whether the pod has been ready for `min_ready_seconds`.
#[must_use]
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_from(pod, min_ready_seconds).is_some_and(|from| from <= now)
}

/// The addresses of a pod, the primary one first.
pub fn addresses(pod: &Pod) -> impl Iterator<Item = &str> {
    let status = pod.status.as_ref();
    let many = status
        .and_then(|status| status.pod_ips.as_deref())
        .unwrap_or_default();
    let single = status
        .and_then(|status| status.pod_ip.as_deref())
        .filter(|_| many.is_empty());
    many.iter()
        .map(|ip| ip.ip.as_str())
        .chain(single)
        .filter(|ip| !ip.is_empty())
}

/// Restarts of the container that has been restarted most: ordinary containers, then restartable init containers.
#[must_use]
pub fn max_restarts(pod: &Pod) -> (i32, i32) {
    let status = pod.status.as_ref();
    let regular = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    let init = status
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default();
    let sidecar_names: Vec<&str> = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.init_containers.as_deref())
        .unwrap_or_default()
        .iter()
        .filter(|container| is_sidecar(container))
        .map(|container| container.name.as_str())
        .collect();
    let regular = regular
        .iter()
        .map(|container| container.restart_count)
        .max()
        .unwrap_or_default();
    let sidecars = init
        .iter()
        .filter(|container| sidecar_names.contains(&container.name.as_str()))
        .map(|container| container.restart_count)
        .max()
        .unwrap_or_default();
    (regular, sidecars)
}

/// Sets a condition, keeping the transition time where the status stays. Returns whether anything changed.
pub fn set_condition(conditions: &mut Vec<PodCondition>, mut condition: PodCondition) -> bool {
    if let Some(old) = conditions.iter_mut().find(|old| old.type_ == condition.type_) {
        if old.status == condition.status {
            condition.last_transition_time = old.last_transition_time.clone();
        }
        let changed = *old != condition;
        *old = condition;
        changed
    } else {
        conditions.push(condition);
        true
    }
}

/// The patch that sets a pod's phase, where one is given, and its conditions, unless somebody else has changed the pod.
#[must_use]
pub fn status_patch(pod: &Pod, phase: Option<&str>, conditions: &[PodCondition]) -> serde_json::Value {
    let mut status = serde_json::json!({"conditions": conditions});
    if let Some(phase) = phase {
        status["phase"] = phase.into();
    }
    serde_json::json!({
        "metadata": {"uid": pod.metadata.uid, "resourceVersion": pod.metadata.resource_version},
        "status": status,
    })
}

/// The pod's conditions, to change.
#[must_use]
pub fn conditions(pod: &Pod) -> Vec<PodCondition> {
    pod.status
        .as_ref()
        .and_then(|status| status.conditions.clone())
        .unwrap_or_default()
}

/// Whether an update is one that a controller counting its pods has to look at.
///
/// Scheduling, addresses and heartbeats are not: reacting to them would sync a controller several times for each
/// of its pods to no effect.
#[must_use]
pub fn counts_differently(old: &Pod, new: &Pod) -> bool {
    phase(old) != phase(new)
        || ready_since(old) != ready_since(new)
        || old.metadata.deletion_timestamp.is_some() != new.metadata.deletion_timestamp.is_some()
        || old.metadata.labels != new.metadata.labels
        || old.metadata.owner_references != new.metadata.owner_references
        || old.uid() != new.uid()
}

#[cfg(test)]
pub mod testing {
    //! Pods for tests.

    use k8s_openapi::api::core::v1::{Pod, PodCondition, PodSpec, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

    /// A pod of that name, phase and readiness; ready since the epoch.
    #[must_use]
    pub fn pod(name: &str, phase: &str, ready: bool) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("default".into()),
                uid: Some(format!("uid-{name}")),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec::default()),
            status: Some(PodStatus {
                phase: Some(phase.into()),
                conditions: Some(vec![PodCondition {
                    type_: "Ready".into(),
                    status: if ready { "True" } else { "False" }.into(),
                    last_transition_time: Some(Time(jiff::Timestamp::UNIX_EPOCH)),
                    ..PodCondition::default()
                }]),
                ..PodStatus::default()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_available_after_its_minimum() {
        let pod = testing::pod("a", "Running", true);
        let at = |second| Timestamp::from_second(second).expect("a time");
        assert!(is_available(&pod, 0, at(0)));
        assert!(!is_available(&pod, 10, at(9)));
        assert!(is_available(&pod, 10, at(10)));
        assert!(!is_available(&testing::pod("b", "Running", false), 0, at(10)));
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let mut status = conditions(&testing::pod("a", "Running", true));
        let again = PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(keelson_api::time::now()),
            ..PodCondition::default()
        };
        assert!(!set_condition(&mut status, again.clone()));
        assert!(set_condition(
            &mut status,
            PodCondition {
                status: "False".into(),
                ..again
            }
        ));
    }
}
