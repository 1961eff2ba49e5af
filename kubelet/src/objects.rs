//! What the kubelet keeps asking of pods.

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, EphemeralContainer, Pod, PodSpec, PodStatus};
use keelson_api::pods::is_sidecar;

static NO_SPEC: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
static NO_STATUS: LazyLock<PodStatus> = LazyLock::new(PodStatus::default);

/// Which of a pod's lists a container stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// Runs to its end before the next one starts.
    Init,
    /// An init container with `restartPolicy: Always`: starts in its turn and keeps running.
    Sidecar,
    /// The pod's purpose.
    Regular,
    /// Added to a running pod for debugging; never restarted.
    Ephemeral,
}

/// When a container that ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever it returned.
    Always,
    /// If it failed.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    fn of(text: Option<&str>) -> Self {
        match text {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }
}

/// Accessors without `Option`s: what admission guarantees is taken for granted, what is not there is empty.
pub trait PodExt {
    /// The name.
    fn name(&self) -> &str;
    /// The namespace.
    fn namespace(&self) -> &str;
    /// The UID.
    fn uid(&self) -> &str;
    /// The spec.
    fn spec(&self) -> &PodSpec;
    /// The status; empty if there is none.
    fn status(&self) -> &PodStatus;
    /// `name_namespace(uid)`: how upstream's messages name a pod.
    fn full_name(&self) -> String;
    /// The pod's restart policy.
    fn restart_policy(&self) -> RestartPolicy;
    /// Does the pod use the node's network?
    fn host_network(&self) -> bool;
    /// Init containers and sidecars in order.
    fn init_containers(&self) -> &[Container];
    /// Regular containers.
    fn containers(&self) -> &[Container];
    /// Ephemeral containers, as ordinary ones.
    fn ephemeral_containers(&self) -> Vec<Container>;
    /// Every container with its kind: init containers first, then regular, then ephemeral ones.
    fn all_containers(&self) -> Vec<(Container, ContainerKind)>;
    /// Is the pod to end?
    fn is_deleted(&self) -> bool;
    /// Has the pod already ended, as its status says?
    fn is_over(&self) -> bool;
    /// The status the API has for a container.
    fn container_status(&self, name: &str) -> Option<&ContainerStatus>;
}

impl PodExt for Pod {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&NO_SPEC)
    }

    fn status(&self) -> &PodStatus {
        self.status.as_ref().unwrap_or(&NO_STATUS)
    }

    fn full_name(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn restart_policy(&self) -> RestartPolicy {
        RestartPolicy::of(self.spec().restart_policy.as_deref())
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn containers(&self) -> &[Container] {
        &self.spec().containers
    }

    fn ephemeral_containers(&self) -> Vec<Container> {
        self.spec()
            .ephemeral_containers
            .iter()
            .flatten()
            .map(as_container)
            .collect()
    }

    fn all_containers(&self) -> Vec<(Container, ContainerKind)> {
        let init = self
            .init_containers()
            .iter()
            .map(|container| (container.clone(), init_kind(container)));
        let regular = self
            .containers()
            .iter()
            .map(|container| (container.clone(), ContainerKind::Regular));
        let ephemeral = self
            .ephemeral_containers()
            .into_iter()
            .map(|container| (container, ContainerKind::Ephemeral));
        init.chain(regular).chain(ephemeral).collect()
    }

    fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_over(&self) -> bool {
        matches!(self.status().phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    fn container_status(&self, name: &str) -> Option<&ContainerStatus> {
        let status = self.status();
        [
            &status.init_container_statuses,
            &status.container_statuses,
            &status.ephemeral_container_statuses,
        ]
        .into_iter()
        .flatten()
        .flatten()
        .find(|status| status.name == name)
    }
}

/// Whether an init container is a sidecar.
pub fn init_kind(container: &Container) -> ContainerKind {
    if is_sidecar(container) {
        ContainerKind::Sidecar
    } else {
        ContainerKind::Init
    }
}

/// When a container is restarted: its own policy before its pod's.
pub fn container_restart_policy(pod: &Pod, container: &Container, kind: ContainerKind) -> RestartPolicy {
    match (kind, container.restart_policy.as_deref()) {
        (ContainerKind::Ephemeral, _) => RestartPolicy::Never,
        (ContainerKind::Sidecar, _) => RestartPolicy::Always,
        (_, Some(own)) => RestartPolicy::of(Some(own)),
        // An init container of a pod that always restarts is over once it has succeeded.
        (ContainerKind::Init, None) if pod.restart_policy() == RestartPolicy::Always => {
            RestartPolicy::OnFailure
        }
        (_, None) => pod.restart_policy(),
    }
}

fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let EphemeralContainer {
        target_container_name: _,
        ..
    } = ephemeral;
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        lifecycle: None,
        liveness_probe: None,
        name: ephemeral.name.clone(),
        ports: None,
        readiness_probe: None,
        resize_policy: None,
        resources: None,
        restart_policy: None,
        security_context: ephemeral.security_context.clone(),
        startup_probe: None,
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Default::default()
    }
}
