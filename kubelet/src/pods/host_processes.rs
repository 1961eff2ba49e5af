//! Processes of the node that are no containers, shown as pods: a control plane that a supervisor keeps running, so
//! that whoever looks into kube-system finds it there.
//!
//! The supervisor says in a file what runs. The kubelet reads it, starts and ends nothing, and keeps a mirror of each
//! process as it does of static pods: deleted, the mirror comes back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodIP, PodSpec, PodStatus, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use super::conditions;
use super::static_pods::{HASH, SOURCE, hash};
use crate::context::Context;

/// Where such pods are.
pub const NAMESPACE: &str = "kube-system";
/// Where such a pod comes from.
const FROM_HOST: &str = "host";
/// The node goes under without them.
const PRIORITY_CLASS: &str = "system-node-critical";

/// What a supervisor says of one process.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The process, while there is one.
    pid: Option<u32>,
    /// Field 22 of proc(5) stat: clock ticks between boot and the process's start.
    #[serde(default)]
    started: u64,
    /// It serves.
    ready: bool,
    /// It was stopped on request.
    #[serde(default)]
    stopped: bool,
    /// How often it was started again.
    restarts: i32,
    /// How it last ended.
    last_exit: Option<String>,
    /// Whether it belongs to the control plane or to the node; one that says neither is not shown.
    tier: Option<String>,
    /// The program and its arguments.
    command: Vec<String>,
    /// Where its output goes.
    log: PathBuf,
}

/// The processes to be shown, by name. None while there is no such file.
pub fn read(file: &Path) -> BTreeMap<String, Process> {
    let mut processes: BTreeMap<String, Process> = match std::fs::read(file) {
        Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
            tracing::warn!(path = %file.display(), %error, "reading what runs on the host");
            BTreeMap::new()
        }),
        Err(_) => BTreeMap::new(),
    };
    processes.retain(|_, process| process.tier.is_some());
    processes
}

/// The log of the process that a pod stands for.
pub fn log(context: &Context, namespace: &str, pod: &str) -> Option<PathBuf> {
    let file = context.config.host_processes.as_ref()?;
    let name = pod.strip_suffix(&context.node_name)?.strip_suffix('-')?;
    (namespace == NAMESPACE)
        .then(|| read(file).remove(name))
        .flatten()
        .map(|process| process.log)
}

/// The pod that stands for a process.
pub fn pod(name: &str, process: &Process, node: &str) -> Pod {
    let program = process.command.first().cloned().unwrap_or_default();
    let hash = hash(&format!("{node}\0{name}\0{}", process.command.join("\0")));
    let labels = [
        ("component", name),
        ("tier", process.tier.as_deref().unwrap_or_default()),
    ];
    let annotations = [(SOURCE, FROM_HOST), (HASH, hash.as_str())];
    let owned = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Some(pairs.collect::<BTreeMap<_, _>>())
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{node}")),
            namespace: Some(NAMESPACE.into()),
            uid: Some(hash.clone()),
            labels: owned(&labels),
            annotations: owned(&annotations),
            ..Default::default()
        },
        spec: Some(PodSpec {
            node_name: Some(node.into()),
            host_network: Some(true),
            host_pid: Some(true),
            priority_class_name: Some(PRIORITY_CLASS.into()),
            automount_service_account_token: Some(false),
            enable_service_links: Some(false),
            tolerations: Some(vec![Toleration {
                operator: Some("Exists".into()),
                ..Default::default()
            }]),
            containers: vec![Container {
                name: name.into(),
                // There is no image: what runs is a program of the host.
                image: Some(program),
                image_pull_policy: Some("Never".into()),
                command: Some(process.command.clone()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        status: None,
    }
}

/// The status of the pod that stands for a process. `mirror` is the pod as the apiserver has it.
pub fn status(name: &str, process: &Process, mirror: &Pod, host_ips: &[String], now: Timestamp) -> PodStatus {
    let started_at = process.pid.and_then(|_| started_at(process, mirror)).map(Time);
    let message = process.last_exit.clone();
    let state = match (&started_at, process.stopped) {
        (Some(at), _) => ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(at.clone()),
            }),
            ..Default::default()
        },
        (None, stopped) => ContainerState {
            waiting: Some(ContainerStateWaiting {
                reason: Some(if stopped { "Stopped" } else { "CrashLoopBackOff" }.into()),
                message,
            }),
            ..Default::default()
        },
    };
    let runs = started_at.is_some();
    let container = ContainerStatus {
        name: name.into(),
        image: process.command.first().cloned().unwrap_or_default(),
        container_id: process.pid.map(|pid| format!("process://{pid}")),
        ready: process.ready,
        started: Some(runs),
        restart_count: process.restarts,
        state: Some(state),
        ..Default::default()
    };
    let statuses = vec![container];
    let made = vec![
        conditions::ready_to_start(true),
        conditions::initialized(mirror, "Running", &[], &statuses),
        conditions::ready(mirror, "Running", &[], &statuses),
        conditions::containers_ready("Running", &[], &statuses),
        conditions::scheduled(),
    ];
    let known_start = mirror
        .status
        .as_ref()
        .and_then(|status| status.start_time.clone());
    PodStatus {
        phase: Some("Running".into()),
        conditions: Some(conditions::merge(mirror, made, now)),
        host_ip: host_ips.first().cloned(),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: host_ips.first().cloned(),
        pod_ips: Some(host_ips.iter().map(|ip| PodIP { ip: ip.clone() }).collect()),
        qos_class: Some("BestEffort".into()),
        start_time: known_start.or(started_at),
        container_statuses: Some(statuses),
        ..Default::default()
    }
}

/// When a process was started. What the mirror says of the same process stays: the clock may have been set since.
fn started_at(process: &Process, mirror: &Pod) -> Option<Timestamp> {
    let known = mirror.status.as_ref().and_then(|status| {
        let container = status.container_statuses.as_ref()?.first()?;
        let same = container.container_id.as_deref() == Some(&format!("process://{}", process.pid?));
        let running = container.state.as_ref()?.running.as_ref()?;
        same.then(|| running.started_at.as_ref().map(|at| at.0)).flatten()
    });
    known.or_else(|| {
        let ticks = u64::try_from(nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??).ok()?;
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
        let second = boot.trim().parse::<i64>().ok()? + i64::try_from(process.started / ticks.max(1)).ok()?;
        Timestamp::from_second(second).ok()
    })
}

/// The pods to be shown, with the processes they stand for.
pub fn pods(context: &Context) -> Vec<(Arc<Pod>, String, Process)> {
    let Some(file) = &context.config.host_processes else {
        return Vec::new();
    };
    read(file)
        .into_iter()
        .map(|(name, process)| {
            let pod = pod(&name, &process, &context.node_name);
            (Arc::new(pod), name, process)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(text: &str) -> Process {
        serde_json::from_str(text).expect("a process")
    }

    const RUNNING: &str = r#"{"pid": 7, "started": 100, "ready": true, "restarts": 2, "lastExit": "SIGKILL",
        "tier": "control-plane", "command": ["/usr/local/bin/kube-store", "--config", "x"], "log": "/l"}"#;

    #[test]
    fn a_running_process_is_a_ready_pod() {
        let process = process(RUNNING);
        let pod = pod("kube-store", &process, "n1");
        assert_eq!(pod.metadata.name.as_deref(), Some("kube-store-n1"));
        let status = status(
            "kube-store",
            &process,
            &pod,
            &["10.0.0.1".into()],
            Timestamp::now(),
        );
        let container = &status.container_statuses.as_ref().expect("one")[0];
        assert_eq!((container.ready, container.restart_count), (true, 2));
        assert_eq!(container.container_id.as_deref(), Some("process://7"));
        let ready = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
        assert_eq!(ready.map(|c| c.status.as_str()), Some("True"));
        let again = super::status(
            "kube-store",
            &process,
            &Pod {
                status: Some(status.clone()),
                ..pod
            },
            &["10.0.0.1".into()],
            Timestamp::now() + jiff::SignedDuration::from_hours(2),
        );
        assert_eq!(again, status, "nothing happened, nothing changes");
    }

    #[test]
    fn one_that_keeps_ending_waits() {
        let text = RUNNING
            .replace("\"pid\": 7", "\"pid\": null")
            .replace("true", "false");
        let process = process(&text);
        let pod = pod("kube-store", &process, "n1");
        let status = status("kube-store", &process, &pod, &[], Timestamp::now());
        let state = status
            .container_statuses
            .as_ref()
            .and_then(|all| all[0].state.clone());
        let waiting = state.and_then(|state| state.waiting).expect("waiting");
        assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
        assert_eq!(waiting.message.as_deref(), Some("SIGKILL"));
    }
}
