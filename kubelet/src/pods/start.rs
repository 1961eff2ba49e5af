//! Starting sandboxes and containers.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_proto::cri;
use tokio_util::sync::CancellationToken;

use crate::containers::container::{self, ContainerInputs};
use crate::containers::{dns, env, mounts, security};
use crate::context::{Context, read_or_empty};
use crate::events::Level;
use crate::objects::PodExt;
use crate::pods::hooks;
use crate::pods::plan::Start;
use crate::pods::runtime::PodRuntime;
use crate::pods::status::Waiting;

/// How long a postStart hook may take before the kubelet gives up on it.
const HOOK_LIMIT: Duration = Duration::from_secs(600);

/// Why a container did not start.
#[derive(Debug)]
pub enum StartError {
    /// It waits, and this is what its status says.
    Waits(Waiting),
    /// The pod is to end: nothing more is started.
    Cancelled,
}

fn waits(reason: &str, message: impl Into<String>) -> StartError {
    StartError::Waits(Waiting {
        reason: reason.into(),
        message: message.into(),
    })
}

/// Prepares a pod's cgroup, folders and volumes; returns the volumes' folders.
///
/// # Errors
/// A text for the log; the event about it has been recorded.
pub async fn prepare(
    context: &Context,
    pod: &Pod,
    pod_ips: Vec<String>,
) -> Result<HashMap<String, PathBuf>, String> {
    if let Err(error) = context.cgroups.create(pod) {
        let text = format!("error making pod cgroup: {error}");
        context
            .events
            .pod(pod, Level::Warning, "FailedCreatePodContainer", &text);
        return Err(text);
    }
    for folder in [
        context.paths.pod(pod.uid()),
        context.paths.volumes(pod.uid()),
        context.paths.pod_logs(pod),
    ] {
        fs::create_dir_all(&folder).map_err(|error| format!("making {}: {error}", folder.display()))?;
    }
    let facts = context.facts(pod_ips);
    context
        .volumes
        .setup(pod, &facts)
        .await
        .map_err(|(volume, error)| {
            let text = format!("MountVolume.SetUp failed for volume \"{volume}\" : {error}");
            context.events.pod(pod, Level::Warning, "FailedMount", &text);
            text
        })
}

/// Makes a pod's sandbox.
///
/// # Errors
/// A text for the log; the event about it has been recorded.
pub async fn sandbox(context: &Context, pod: &Pod, attempt: u32) -> Result<String, String> {
    let config = context.sandbox_config(pod, attempt);
    if pod
        .spec()
        .dns_policy
        .as_deref()
        .unwrap_or("ClusterFirst")
        .starts_with("ClusterFirst")
        && !pod.host_network()
        && context.cluster.servers.is_empty()
    {
        let text = format!(
            "pod: \"{}\". kubelet does not have ClusterDNS IP configured and cannot create Pod using \"{}\" policy. Falling back to \"Default\" policy.",
            pod.full_name(),
            pod.spec().dns_policy.as_deref().unwrap_or("ClusterFirst")
        );
        context
            .events
            .pod(pod, Level::Warning, "MissingClusterDNS", &text);
    }
    let made = match runtime_handler(context, pod).await {
        Ok(handler) => {
            let sandbox = context.runtime.run_pod_sandbox(config, handler).await;
            sandbox.map_err(|error| error.message)
        }
        Err(error) => Err(error),
    };
    made.map_err(|error| {
        let text = format!("Failed to create pod sandbox: {error}");
        context
            .events
            .pod(pod, Level::Warning, "FailedCreatePodSandBox", &text);
        text
    })
}

/// What the runtime calls the pod's runtime class; nothing for what it runs pods with otherwise.
async fn runtime_handler(context: &Context, pod: &Pod) -> Result<String, String> {
    let name = pod.spec().runtime_class_name.as_deref().unwrap_or_default();
    if name.is_empty() {
        return Ok(String::new());
    }
    let class = context.api.client.resource::<RuntimeClass>().get("", name).await;
    class
        .map(|class| class.handler)
        .map_err(|error| error.message().to_owned())
}

/// Writes a pod's `/etc/hosts`. It exists before any container does: it is mounted as a file.
///
/// # Errors
/// Those of the file system.
pub fn hosts(context: &Context, pod: &Pod, ips: &[String]) -> std::io::Result<()> {
    let node_hosts = if pod.host_network() {
        read_or_empty(&PathBuf::from("/etc/hosts"))
    } else {
        String::new()
    };
    let text = dns::hosts_file(pod, ips, &context.cluster.domain, &node_hosts);
    let path = context.paths.etc_hosts(pod.uid());
    if fs::read_to_string(&path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    fs::write(path, text)
}

/// The secrets that a pod's images are fetched with. Those that are missing are left out: the pull may work without.
pub async fn pull_secrets(context: &Context, pod: &Pod) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for reference in pod.spec().image_pull_secrets.iter().flatten() {
        match context.api.secret(pod, &reference.name).await {
            Ok(Some(secret)) => secrets.push((*secret).clone()),
            Ok(None) => {
                let text = format!(
                    "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                    reference.name
                );
                context
                    .events
                    .pod(pod, Level::Warning, "FailedToRetrieveImagePullSecret", &text);
            }
            Err(error) => tracing::warn!(
                pod = pod.full_name(),
                secret = reference.name,
                error = error.message(),
                "reading a pull secret"
            ),
        }
    }
    secrets
}

/// What starting containers of one pod needs, once for all of them.
pub struct Starter<'a> {
    /// What all parts share.
    pub context: &'a Arc<Context>,
    /// The pod.
    pub pod: &'a Pod,
    /// Its sandbox.
    pub sandbox_id: String,
    /// Its sandbox's description.
    pub sandbox_config: cri::PodSandboxConfig,
    /// Its addresses.
    pub ips: Vec<String>,
    /// Its volumes' folders.
    pub volumes: HashMap<String, PathBuf>,
    /// What its images are fetched with.
    pub secrets: Vec<Secret>,
    /// What runs already.
    pub runtime: &'a PodRuntime,
    /// Cancelled when the pod is to end.
    pub cancel: CancellationToken,
}

impl Starter<'_> {
    /// Starts one container.
    ///
    /// # Errors
    /// See [`StartError`]. Events have been recorded.
    pub async fn start(&self, start: &Start) -> Result<(), StartError> {
        let Self { context, pod, .. } = self;
        let spec = &start.container;
        let ensured = tokio::select! {
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
            ensured = context.images.ensure(pod, spec, &self.sandbox_config, &self.secrets) => ensured,
        };
        let image = ensured.map_err(|error| {
            self.warn(spec, "Failed", &format!("Error: {}", error.reason()));
            waits(error.reason(), error.to_string())
        })?;
        let config = self.describe(start, &image).await.map_err(|text| {
            self.warn(spec, "Failed", &format!("Error: {text}"));
            waits("CreateContainerConfigError", text)
        })?;
        if self.cancel.is_cancelled() {
            return Err(StartError::Cancelled);
        }
        let id = context
            .runtime
            .create_container(&self.sandbox_id, config, self.sandbox_config.clone())
            .await
            .map_err(|error| {
                self.warn(spec, "Failed", &format!("Error: {}", error.message));
                waits("CreateContainerError", error.message)
            })?;
        self.tell(spec, "Created", &format!("Created container: {}", spec.name));
        context.runtime.start_container(&id).await.map_err(|error| {
            self.warn(spec, "Failed", &format!("Error: {}", error.message));
            waits("RunContainerError", error.message)
        })?;
        self.tell(spec, "Started", &format!("Started container {}", spec.name));
        tracing::info!(pod = pod.full_name(), container = spec.name, attempt = start.attempt, %id, "started");
        self.post_start(spec, &id).await
    }

    async fn post_start(&self, spec: &Container, id: &str) -> Result<(), StartError> {
        let Some(hook) = spec
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.post_start.as_ref())
        else {
            return Ok(());
        };
        let ip = self.ips.first().map_or("", String::as_str);
        let ran = tokio::select! {
            () = self.cancel.cancelled() => return Err(StartError::Cancelled),
            ran = hooks::run(self.context.runtime.as_ref(), hook, spec, id, ip, HOOK_LIMIT) => ran,
        };
        let Err(text) = ran else { return Ok(()) };
        self.warn(
            spec,
            "FailedPostStartHook",
            &format!("PostStartHook failed: {text}"),
        );
        self.tell(
            spec,
            "Killing",
            &format!("FailedPostStartHook: container {} is killed", spec.name),
        );
        let grace = super::kill::grace_of(self.pod);
        if let Err(error) = self.context.runtime.stop_container(id, grace).await {
            tracing::warn!(pod = self.pod.full_name(), container = spec.name, %error, "ending a container whose postStart hook failed");
        }
        Err(waits("PostStartHookError", text))
    }

    /// The container's description, or why it has none.
    async fn describe(&self, start: &Start, image: &cri::Image) -> Result<cri::ContainerConfig, String> {
        let Self { context, pod, .. } = self;
        let spec = &start.container;
        security::verify_non_root(pod, spec, image).map_err(|error| error.to_string())?;
        let mut sources = env::Sources::default();
        let (config_maps, secrets) = env::references(spec);
        for name in config_maps {
            let found = context
                .api
                .config_map(pod, &name)
                .await
                .map_err(|error| error.message().to_owned())?;
            sources.config_maps.insert(name, found.map(|map| (*map).clone()));
        }
        for name in secrets {
            let found = context
                .api
                .secret(pod, &name)
                .await
                .map_err(|error| error.message().to_owned())?;
            sources
                .secrets
                .insert(name, found.map(|secret| (*secret).clone()));
        }
        let services = context
            .api
            .services()
            .await
            .map_err(|error| error.message().to_owned())?;
        let facts = context.facts(self.ips.clone());
        let env =
            env::variables(pod, spec, &services, &sources, &facts).map_err(|error| error.to_string())?;
        let mounts = mounts::prepare(pod, spec, &self.volumes, &env, &context.paths, start.attempt)
            .map_err(|error| error.to_string())?;
        let logs = context.paths.pod_logs(pod).join(&spec.name);
        fs::create_dir_all(&logs).map_err(|error| format!("making {}: {error}", logs.display()))?;
        let target = container::target_of(pod, &spec.name)
            .and_then(|name| self.runtime.container(&name))
            .map(|view| view.id.clone());
        Ok(container::config(ContainerInputs {
            pod,
            container: spec,
            kind: start.kind,
            attempt: start.attempt,
            image,
            image_ref: image.id.clone(),
            env,
            mounts,
            target,
            limits: context.limits,
            paths: &context.paths,
        }))
    }

    fn tell(&self, spec: &Container, reason: &str, text: &str) {
        self.context
            .events
            .container(self.pod, &spec.name, Level::Normal, reason, text);
    }

    fn warn(&self, spec: &Container, reason: &str, text: &str) {
        self.context
            .events
            .container(self.pod, &spec.name, Level::Warning, reason, text);
    }
}
