//! Waiting for the cluster: each daemon says that it is ready, the apiserver answers, the node reports Ready.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::Node;
use keelson_client::{Client, ClientConfig};

use crate::cluster::{Cluster, Paths};
use crate::https;
use crate::supervisor::{self, Process, State, Verb};

/// How often the state is looked at while waiting.
const LOOK: Duration = Duration::from_millis(25);
/// How many of a failing daemon's last log lines are shown.
const LOG_LINES: usize = 15;
/// A daemon that ended this often is not going to recover by itself: it is missing something it cannot wait for.
const GIVE_UP_RESTARTS: u32 = 8;

/// Waits until a daemon has said that it is ready.
pub(crate) async fn daemon(cluster: &Cluster, name: &str, deadline: Instant) -> anyhow::Result<((), String)> {
    loop {
        let process = find(&cluster.paths, name).await?;
        if process.state == State::Ready {
            let pid = process.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
            let restarts = match process.restarts {
                0 => String::new(),
                n => format!(", started {} times", n + 1),
            };
            return Ok(((), format!("{pid}{restarts}")));
        }
        if process.restarts >= GIVE_UP_RESTARTS || Instant::now() > deadline {
            let how = process
                .last_exit
                .map_or("has not become ready".into(), |how| format!("ends with {how}"));
            bail!(
                "{name} {how}; its log ({}) ends with:\n{}",
                cluster.paths.log(name).display(),
                tail(&cluster.paths, name)
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the apiserver says that it is ready.
pub(crate) async fn apiserver(cluster: &Cluster, deadline: Instant) -> anyhow::Result<((), String)> {
    let paths = &cluster.paths;
    let (ca, certificate, key) = (
        paths.pki("ca.crt"),
        paths.pki("admin-client.crt"),
        paths.pki("admin-client.key"),
    );
    let identity = https::Identity {
        ca: &ca,
        certificate: &certificate,
        key: &key,
    };
    let host = cluster.parameters.node_ip.to_string();
    loop {
        let problem = match https::get(&host, cluster.parameters.ports.secure, "/readyz", &identity).await {
            Ok((200, _)) => return Ok(((), cluster.server())),
            Ok((status, body)) => format!("/readyz answers {status}: {}", body.trim()),
            Err(error) => format!("{error:#}"),
        };
        let process = find(paths, "kube-apiserver").await?;
        if process.restarts >= GIVE_UP_RESTARTS || Instant::now() > deadline {
            bail!(
                "kube-apiserver is not ready: {problem}; its log ({}) ends with:\n{}",
                paths.log("kube-apiserver").display(),
                tail(paths, "kube-apiserver")
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the node reports that it can run pods.
pub(crate) async fn node(cluster: &Cluster, deadline: Instant) -> anyhow::Result<((), String)> {
    let config = ClientConfig::from_kubeconfig(&cluster.paths.kubeconfig("admin"))?;
    let nodes = Client::new(config)?.resource::<Node>();
    let name = &cluster.parameters.node_name;
    loop {
        let problem = match nodes.get("", name).await {
            Ok(node) => match not_ready(&node) {
                None => return Ok(((), pod_range(&node))),
                Some(reason) => reason,
            },
            Err(error) => error.to_string(),
        };
        if Instant::now() > deadline {
            bail!(
                "node {name} is not ready: {problem}; the kubelet's log ({}) ends with:\n{}",
                cluster.paths.log("kubelet").display(),
                tail(&cluster.paths, "kubelet")
            );
        }
        tokio::time::sleep(LOOK * 2).await;
    }
}

fn pod_range(node: &Node) -> String {
    let range = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
    range.map(|range| format!("pods in {range}")).unwrap_or_default()
}

fn not_ready(node: &Node) -> Option<String> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => None,
        Some(ready) => Some(ready.message.clone().unwrap_or_default()),
        None => Some("it has not reported yet".into()),
    }
}

async fn find(paths: &Paths, name: &str) -> anyhow::Result<Process> {
    supervisor::ask(paths, Verb::Status, &[])
        .await?
        .into_iter()
        .find(|process| process.name == name)
        .with_context(|| format!("the supervisor does not know {name}"))
}

fn tail(paths: &Paths, name: &str) -> String {
    let bytes = std::fs::read(paths.log(name)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    let shown: Vec<String> = lines[lines.len().saturating_sub(LOG_LINES)..]
        .iter()
        .map(|line| format!("    {line}"))
        .collect();
    if shown.is_empty() {
        "    (empty)".into()
    } else {
        shown.join("\n")
    }
}
