//! A container as CRI wants it described.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_proto::cri;

use crate::containers::expansion::expand;
use crate::containers::{resources, security};
use crate::cri::labels;
use crate::objects::{ContainerKind, PodExt};
use crate::paths::{self, Paths};

/// What a container's description is made of.
pub struct ContainerInputs<'a> {
    /// Its pod.
    pub pod: &'a Pod,
    /// Its spec.
    pub container: &'a Container,
    /// Which list it stands in.
    pub kind: ContainerKind,
    /// How often it was started before.
    pub attempt: u32,
    /// The image as the runtime has it.
    pub image: &'a cri::Image,
    /// What names the image in the runtime.
    pub image_ref: String,
    /// Its variables.
    pub env: Vec<cri::KeyValue>,
    /// Its mounts.
    pub mounts: Vec<cri::Mount>,
    /// The container whose processes it sees.
    pub target: Option<String>,
    /// What the node can do.
    pub limits: resources::Limits,
    /// The kubelet's folders.
    pub paths: &'a Paths,
}

/// Describes a container.
pub fn config(inputs: ContainerInputs<'_>) -> cri::ContainerConfig {
    let ContainerInputs { pod, container, .. } = inputs;
    let variables: HashMap<String, String> = inputs
        .env
        .iter()
        .map(|pair| (pair.key.clone(), pair.value.clone()))
        .collect();
    let expanded = |words: &Option<Vec<String>>| {
        words
            .iter()
            .flatten()
            .map(|word| expand(word, &variables))
            .collect()
    };
    let context = security::of_container(
        pod,
        container,
        inputs.kind,
        inputs.target,
        inputs.image,
        &inputs.paths.seccomp(),
    );
    cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata {
            name: container.name.clone(),
            attempt: inputs.attempt,
        }),
        image: Some(cri::ImageSpec {
            image: inputs.image_ref,
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: inputs.env,
        mounts: inputs.mounts,
        labels: labels::container_labels(pod, container),
        annotations: labels::container_annotations(pod, container, inputs.attempt),
        log_path: paths::container_log(&container.name, inputs.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        stop_signal: stop_signal(container),
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::of_container(pod, container, inputs.limits)),
            security_context: Some(context),
        }),
        ..Default::default()
    }
}

fn stop_signal(container: &Container) -> i32 {
    let name = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.stop_signal.as_deref())
        .unwrap_or_default();
    let name = name
        .replace("SIGRTMIN+", "SIGRTMINPLUS")
        .replace("SIGRTMAX-", "SIGRTMAXMINUS");
    cri::Signal::from_str_name(&name).map_or(0, Into::into)
}

/// The container an ephemeral one wants to look into.
pub fn target_of(pod: &Pod, name: &str) -> Option<String> {
    let ephemeral = pod.spec().ephemeral_containers.as_ref()?;
    let found = ephemeral.iter().find(|container| container.name == name)?;
    found
        .target_container_name
        .clone()
        .filter(|target| !target.is_empty())
}
