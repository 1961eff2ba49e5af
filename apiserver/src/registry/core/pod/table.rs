//! What `kubectl get pods` shows.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodSpec, PodStatus};
use keelson_api::{conditions, pods};
use serde_json::{Value, json};

use crate::registry::common::cells;
use crate::registry::strategy::Column;

/// The columns.
pub const COLUMNS: &[Column] = &[
    Column::name(),
    Column::new(
        "Ready",
        "The aggregate readiness state of this pod for accepting traffic.",
    ),
    Column::new("Status", "The aggregate status of the containers in this pod."),
    Column::new(
        "Restarts",
        "The number of times the containers in this pod have been restarted and when the last container in this pod has restarted.",
    ),
    Column::new("Age", "Time since the object was created."),
    Column::new(
        "IP",
        "The address at which the pod can be reached; empty until one has been allocated.",
    )
    .wide(),
    Column::new("Node", "The node the pod has been bound to.").wide(),
    Column::new(
        "Nominated Node",
        "The node that is being made free for the pod by preemption.",
    )
    .wide(),
    Column::new(
        "Readiness Gates",
        "How many of the conditions the pod's readiness waits for are true.",
    )
    .wide(),
];

/// Whether the pod is done.
pub fn row_conditions(pod: &Pod) -> Vec<Value> {
    let (reason, message) = match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => ("Succeeded", "The pod has completed successfully."),
        Some("Failed") => ("Failed", "The pod failed."),
        _ => return Vec::new(),
    };
    vec![json!({"type": "Completed", "status": "True", "reason": reason, "message": message})]
}

/// One row.
pub fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let no_spec = PodSpec::default();
    let no_status = PodStatus::default();
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let summary = summarize(pod, spec, status);
    let restarts = match summary.last_restart {
        Some(at) if summary.restarts != 0 => {
            let ago = cells::human_duration(now.as_second() - at.as_second());
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let gates = spec.readiness_gates.as_deref().unwrap_or(&[]);
    let gates = if gates.is_empty() {
        cells::NONE.to_owned()
    } else {
        let met = gates
            .iter()
            .filter(|g| conditions::is_true(status.conditions.as_ref(), &g.condition_type))
            .count();
        format!("{met}/{}", gates.len())
    };
    let address = status
        .pod_ips
        .as_ref()
        .and_then(|ips| ips.first())
        .map(|ip| ip.ip.as_str());
    vec![
        cells::name(&pod.metadata),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        cells::age(&pod.metadata, now),
        cells::or_none(address.or(status.pod_ip.as_deref())),
        cells::or_none(spec.node_name.as_deref()),
        cells::or_none(status.nominated_node_name.as_deref()),
        gates.into(),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

/// Restarts counted so far, and when the last one was.
#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i32,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += status.restart_count;
        let ended = status
            .last_state
            .as_ref()
            .and_then(|s| s.terminated.as_ref())
            .and_then(|t| t.finished_at.as_ref());
        self.last = self.last.max(ended.map(|at| at.0));
    }
}

/// One word for how the pod is doing: the most telling reason among its containers' states.
fn summarize(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let phase = status.phase.as_deref().unwrap_or("");
    let own_reason = status.reason.as_deref().unwrap_or("");
    let mut reason = if own_reason.is_empty() {
        phase.to_owned()
    } else {
        own_reason.to_owned()
    };
    let gated = |c: &&k8s_openapi::api::core::v1::PodCondition| {
        c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated")
    };
    if status.conditions.iter().flatten().find(gated).is_some() {
        reason = "SchedulingGated".to_owned();
    }

    let init = spec.init_containers.as_deref().unwrap_or(&[]);
    let total = spec.containers.len() + init.iter().filter(|c| pods::is_sidecar(c)).count();
    let mut ready = 0;
    let mut all = Restarts::default();
    let mut sidecars = Restarts::default();
    let mut initializing = false;
    for (i, container) in status.init_container_statuses.iter().flatten().enumerate() {
        all.add(container);
        let sidecar = init
            .iter()
            .any(|c| c.name == container.name && pods::is_sidecar(c));
        if sidecar {
            sidecars.add(container);
        }
        let state = container.state.as_ref();
        let terminated = state.and_then(|s| s.terminated.as_ref());
        if terminated.is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if sidecar && container.started == Some(true) {
            ready += usize::from(container.ready);
            continue;
        }
        let waiting = state
            .and_then(|s| s.waiting.as_ref())
            .and_then(|w| w.reason.as_deref())
            .unwrap_or("");
        reason = if terminated.is_some() {
            format!("Init:{}", ended_reason(state))
        } else if !waiting.is_empty() && waiting != "PodInitializing" {
            format!("Init:{waiting}")
        } else {
            format!("Init:{i}/{}", init.len())
        };
        initializing = true;
        break;
    }

    let mut restarts = all;
    if !initializing || conditions::is_true(status.conditions.as_ref(), "Initialized") {
        restarts = sidecars;
        let mut running = false;
        for container in status.container_statuses.iter().flatten().rev() {
            restarts.add(container);
            let state = container.state.as_ref();
            let waiting = state
                .and_then(|s| s.waiting.as_ref())
                .and_then(|w| w.reason.as_deref())
                .unwrap_or("");
            if !waiting.is_empty() {
                reason = waiting.to_owned();
            } else if state.is_some_and(|s| s.terminated.is_some()) {
                reason = ended_reason(state);
            } else if container.ready && state.is_some_and(|s| s.running.is_some()) {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            let word = if conditions::is_true(status.conditions.as_ref(), "Ready") {
                "Running"
            } else {
                "NotReady"
            };
            word.clone_into(&mut reason);
        }
    }
    if pod.metadata.deletion_timestamp.is_some() {
        if own_reason == "NodeLost" {
            reason = "Unknown".to_owned();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            reason = "Terminating".to_owned();
        }
    }
    Summary {
        ready,
        total,
        reason,
        restarts: restarts.count,
        last_restart: restarts.last,
    }
}

/// Why a container ended: its reason, else its signal, else its exit code.
fn ended_reason(state: Option<&ContainerState>) -> String {
    let Some(ended) = state.and_then(|s| s.terminated.as_ref()) else {
        return String::new();
    };
    match (ended.reason.as_deref().unwrap_or(""), ended.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", ended.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(pod: Value) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("a time");
        cells(&pod, now)
            .into_iter()
            .map(|cell| cell.as_str().unwrap_or_default().to_owned())
            .collect()
    }

    #[test]
    fn rows_of_pods_that_are_done_say_so() {
        for (phase, reason) in [
            ("Running", None),
            ("Succeeded", Some("Succeeded")),
            ("Failed", Some("Failed")),
        ] {
            let pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase}}));
            let conditions = row_conditions(&pod.expect("a pod"));
            let reasons: Vec<_> = conditions.iter().map(|c| c["reason"].as_str()).collect();
            assert_eq!(reasons, Vec::from_iter(reason.map(Some)), "{phase}");
        }
    }

    #[test]
    fn rows_read_like_upstream() {
        let meta = json!({"name": "p", "creationTimestamp": "2026-01-01T00:00:00Z"});
        let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n1"});
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:01Z"}});
        let cases = [
            (json!({"phase": "Pending"}), "0/2", "Pending", "0"),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "a", "ready": true, "restartCount": 3, "image": "", "imageID": "", "state": running,
                     "lastState": {"terminated": {"exitCode": 1, "finishedAt": "2026-01-01T00:55:00Z"}}},
                    {"name": "b", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": running}]}),
                "2/2",
                "Running",
                "3 (5m ago)",
            ),
            (
                json!({"phase": "Running", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 2, "image": "", "imageID": "",
                     "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                    {"name": "b", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": running}]}),
                "1/2",
                "CrashLoopBackOff",
                "2",
            ),
            (
                json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}], "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                     "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}},
                    {"name": "b", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": running}]}),
                "1/2",
                "NotReady",
                "0",
            ),
            (
                json!({"phase": "Failed", "containerStatuses": [
                    {"name": "a", "ready": false, "restartCount": 0, "image": "", "imageID": "",
                     "state": {"terminated": {"exitCode": 137}}}]}),
                "0/2",
                "ExitCode:137",
                "0",
            ),
        ];
        for (status, ready, reason, restarts) in cases {
            let cells = row(json!({"metadata": meta, "spec": spec, "status": status}));
            assert_eq!(
                (&cells[1][..], &cells[2][..], &cells[3][..]),
                (ready, reason, restarts)
            );
            assert_eq!(
                (&cells[4][..], &cells[5][..], &cells[6][..]),
                ("60m", "<none>", "n1")
            );
        }
    }

    #[test]
    fn init_containers_and_deletion_show() {
        let spec = json!({"containers": [{"name": "a"}],
            "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]});
        let done = json!({"name": "i", "ready": true, "restartCount": 0, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": 0}}});
        let waiting = json!({"name": "i", "ready": false, "restartCount": 0, "image": "", "imageID": "",
            "state": {"waiting": {"reason": "PodInitializing"}}});
        let failed = json!({"name": "i", "ready": false, "restartCount": 4, "image": "", "imageID": "",
            "state": {"terminated": {"exitCode": 1, "reason": "Error"}}});
        for (statuses, ready, reason) in [
            (json!([waiting]), "0/2", "Init:0/2"),
            (json!([failed]), "0/2", "Init:Error"),
            (
                json!([done, {"name": "s", "ready": false, "started": false, "restartCount": 0, "image": "", "imageID": ""}]),
                "0/2",
                "Init:1/2",
            ),
        ] {
            let cells = row(json!({"metadata": {"name": "p"}, "spec": spec,
                "status": {"phase": "Pending", "initContainerStatuses": statuses}}));
            assert_eq!(
                (&cells[1][..], &cells[2][..], &cells[4][..]),
                (ready, reason, "<unknown>")
            );
        }
        let cells = row(
            json!({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec,
            "status": {"phase": "Running"}}),
        );
        assert_eq!(cells[2], "Terminating");
    }
}
