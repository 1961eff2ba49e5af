//! What the runtime has of one pod: its sandboxes and containers, as plain data.

use std::collections::HashMap;
use std::path::Path;

use keelson_proto::cri;

use crate::cri::{CriResult, Runtime, labels};
use crate::logs::cri_format;

/// The longest message a container may leave.
const MESSAGE_LIMIT: usize = 4096;
/// How much of the log stands in for a missing message.
const LOG_MESSAGE_LIMIT: usize = 2048;
const LOG_MESSAGE_LINES: usize = 80;

/// A sandbox of the pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// Is it up?
    pub ready: bool,
    /// Nanoseconds since the epoch.
    pub created_at: i64,
    /// How many the pod had before it.
    pub attempt: u32,
    /// Its addresses, the primary one first.
    pub ips: Vec<String>,
    /// Does it use the node's network?
    pub host_network: bool,
}

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Made, not started.
    Created,
    /// Runs.
    Running,
    /// Ended.
    Exited,
    /// The runtime cannot say.
    Unknown,
}

/// A container of the pod, present or past.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerView {
    /// The runtime's id.
    pub id: String,
    /// Its name in the pod's spec.
    pub name: String,
    /// What it does.
    pub activity: Activity,
    /// Nanoseconds since the epoch; zero: not yet.
    pub created_at: i64,
    /// Nanoseconds since the epoch; zero: not yet.
    pub started_at: i64,
    /// Nanoseconds since the epoch; zero: not yet.
    pub finished_at: i64,
    /// Of an ended container.
    pub exit_code: i32,
    /// One word on the state.
    pub reason: String,
    /// More on the state: the container's last words.
    pub message: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image by digest.
    pub image_id: String,
    /// How often the container was started before.
    pub restart_count: u32,
    /// Hash of the spec it was made from.
    pub hash: String,
    /// Its log file.
    pub log_path: String,
}

/// Everything the runtime has of one pod, the newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodRuntime {
    /// Sandboxes, the newest first.
    pub sandboxes: Vec<Sandbox>,
    /// Containers, the newest first.
    pub containers: Vec<ContainerView>,
}

impl PodRuntime {
    /// The newest container of a name.
    pub fn container(&self, name: &str) -> Option<&ContainerView> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// The container of a name before the newest.
    pub fn previous(&self, name: &str) -> Option<&ContainerView> {
        self.containers
            .iter()
            .filter(|container| container.name == name)
            .nth(1)
    }

    /// Containers that run.
    pub fn running(&self) -> impl Iterator<Item = &ContainerView> {
        self.containers
            .iter()
            .filter(|container| container.activity == Activity::Running)
    }

    /// The sandbox in use.
    pub fn ready_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.ready)
    }

    /// Nothing runs and no sandbox is up.
    pub fn is_stopped(&self) -> bool {
        self.ready_sandbox().is_none()
            && !self
                .containers
                .iter()
                .any(|container| matches!(container.activity, Activity::Running | Activity::Created))
    }
}

/// Statuses of containers that ended: they do not change any more, and asking for them again costs.
pub type Ended = HashMap<String, ContainerView>;

/// Asks the runtime about one pod. `ended` is carried from call to call.
///
/// # Errors
/// Those of the runtime. What vanished between listing and asking is left out.
pub async fn inspect(runtime: &dyn Runtime, uid: &str, ended: &mut Ended) -> CriResult<PodRuntime> {
    let mut view = PodRuntime::default();
    for sandbox in runtime.list_pod_sandboxes(Some(uid)).await? {
        match runtime.pod_sandbox_status(&sandbox.id).await {
            Ok(status) => view.sandboxes.push(sandbox_view(status)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    let listed = runtime.list_containers(Some(uid)).await?;
    ended.retain(|id, _| listed.iter().any(|container| container.id == *id));
    for container in listed {
        if let Some(known) = ended.get(&container.id) {
            view.containers.push(known.clone());
            continue;
        }
        match runtime.container_status(&container.id).await {
            Ok(status) => {
                let one = container_view(status).await;
                if one.activity == Activity::Exited {
                    ended.insert(one.id.clone(), one.clone());
                }
                view.containers.push(one);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    view.sandboxes
        .sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    view.containers
        .sort_by_key(|container| std::cmp::Reverse((container.created_at, container.restart_count)));
    Ok(view)
}

fn sandbox_view(status: cri::PodSandboxStatus) -> Sandbox {
    let network = status.network.unwrap_or_default();
    let host_network = status
        .linux
        .and_then(|linux| linux.namespaces?.options)
        .is_some_and(|options| options.network() == cri::NamespaceMode::Node);
    let ips = std::iter::once(network.ip)
        .chain(network.additional_ips.into_iter().map(|ip| ip.ip))
        .filter(|ip| !ip.is_empty())
        .collect();
    Sandbox {
        ready: status.state == cri::PodSandboxState::SandboxReady as i32,
        id: status.id,
        created_at: status.created_at,
        attempt: status.metadata.unwrap_or_default().attempt,
        ips,
        host_network,
    }
}

async fn container_view(status: cri::ContainerStatus) -> ContainerView {
    let activity = match status.state() {
        cri::ContainerState::ContainerCreated => Activity::Created,
        cri::ContainerState::ContainerRunning => Activity::Running,
        cri::ContainerState::ContainerExited => Activity::Exited,
        cri::ContainerState::ContainerUnknown => Activity::Unknown,
    };
    let metadata = status.metadata.clone().unwrap_or_default();
    let message = if activity == Activity::Exited {
        last_words(&status).await
    } else {
        String::new()
    };
    let message = match (message.is_empty(), status.message.is_empty()) {
        (true, _) => status.message.clone(),
        (false, true) => message,
        (false, false) => format!("{}: {message}", status.message),
    };
    let annotation = |key: &str| status.annotations.get(key).cloned().unwrap_or_default();
    ContainerView {
        name: status
            .labels
            .get(labels::CONTAINER_NAME)
            .cloned()
            .unwrap_or(metadata.name),
        activity,
        created_at: status.created_at,
        started_at: status.started_at,
        finished_at: status.finished_at,
        exit_code: status.exit_code,
        reason: status.reason.clone(),
        message,
        image: status
            .image
            .as_ref()
            .map(|image| image.image.clone())
            .unwrap_or_default(),
        image_id: status.image_ref.clone(),
        restart_count: annotation(labels::RESTART_COUNT)
            .parse()
            .unwrap_or(metadata.attempt),
        hash: annotation(labels::CONTAINER_HASH),
        log_path: status.log_path.clone(),
        id: status.id,
    }
}

/// What the container wrote for its survivors.
async fn last_words(status: &cri::ContainerStatus) -> String {
    let path = status
        .annotations
        .get(labels::TERMINATION_PATH)
        .map_or("", String::as_str);
    let file = status
        .mounts
        .iter()
        .find(|mount| !path.is_empty() && mount.container_path == path);
    if let Some(mount) = file
        && let Ok(text) = tokio::fs::read(&mount.host_path).await
        && !text.is_empty()
    {
        let cut = &text[text.len().saturating_sub(MESSAGE_LIMIT)..];
        return String::from_utf8_lossy(cut).into_owned();
    }
    let wants_log = status
        .annotations
        .get(labels::TERMINATION_POLICY)
        .is_some_and(|policy| policy == "FallbackToLogsOnError");
    if wants_log && status.exit_code != 0 && !status.log_path.is_empty() {
        return cri_format::last_lines(Path::new(&status.log_path), LOG_MESSAGE_LINES, LOG_MESSAGE_LIMIT)
            .await;
    }
    String::new()
}
