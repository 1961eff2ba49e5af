//! The container runtime behind a trait, so that everything above it is tested without one.
//!
//! - [`client`]: the trait over gRPC, for containerd and CRI-O
//! - [`labels`]: what the kubelet writes on sandboxes and containers so that it finds them again

mod client;
pub mod labels;

use async_trait::async_trait;
use keelson_proto::cri;
use std::time::Duration;

pub use client::CriClient;

/// A call to the runtime that failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call}: {message}")]
pub struct CriError {
    /// Which call.
    pub call: &'static str,
    /// The gRPC code.
    pub code: tonic::Code,
    /// The runtime's own words.
    pub message: String,
}

impl CriError {
    /// The sandbox, container or image is not there.
    pub fn is_not_found(&self) -> bool {
        self.code == tonic::Code::NotFound
    }

    /// The runtime does not know this call.
    pub fn is_unimplemented(&self) -> bool {
        self.code == tonic::Code::Unimplemented
    }

    /// The runtime does not answer: nothing is known about its containers.
    pub fn is_unavailable(&self) -> bool {
        matches!(self.code, tonic::Code::Unavailable | tonic::Code::Cancelled)
    }
}

/// What a runtime call returns.
pub type CriResult<T> = Result<T, CriError>;

/// Output of a command run in a container.
#[derive(Debug, Clone, Default)]
pub struct ExecOutput {
    /// Standard output and standard error, in this order.
    pub output: Vec<u8>,
    /// The command's exit code.
    pub exit_code: i32,
}

/// CRI as the kubelet uses it. Calls that make or end something run to their end even if the caller goes away.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Name and version of the runtime.
    async fn version(&self) -> CriResult<cri::VersionResponse>;
    /// Conditions of the runtime and its network.
    async fn status(&self) -> CriResult<cri::StatusResponse>;

    /// Makes a sandbox and returns its id.
    async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, handler: String) -> CriResult<String>;
    /// Ends a sandbox, releasing its network.
    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()>;
    /// Forgets a sandbox.
    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()>;
    /// One sandbox in full.
    async fn pod_sandbox_status(&self, id: &str) -> CriResult<cri::PodSandboxStatus>;
    /// All sandboxes, or those of a pod.
    async fn list_pod_sandboxes(&self, pod_uid: Option<&str>) -> CriResult<Vec<cri::PodSandbox>>;

    /// Makes a container and returns its id.
    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> CriResult<String>;
    /// Starts a created container.
    async fn start_container(&self, id: &str) -> CriResult<()>;
    /// Ends a container within `grace`.
    async fn stop_container(&self, id: &str, grace: Duration) -> CriResult<()>;
    /// Forgets a container.
    async fn remove_container(&self, id: &str) -> CriResult<()>;
    /// One container in full.
    async fn container_status(&self, id: &str) -> CriResult<cri::ContainerStatus>;
    /// All containers, or those of a pod.
    async fn list_containers(&self, pod_uid: Option<&str>) -> CriResult<Vec<cri::Container>>;
    /// Opens a rotated log anew.
    async fn reopen_container_log(&self, id: &str) -> CriResult<()>;

    /// Runs a command in a container.
    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> CriResult<ExecOutput>;
    /// The address at which a command's streams are served.
    async fn exec(&self, request: cri::ExecRequest) -> CriResult<String>;
    /// The address at which a container's streams are served.
    async fn attach(&self, request: cri::AttachRequest) -> CriResult<String>;
    /// The address at which a sandbox's ports are served.
    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> CriResult<String>;

    /// What running containers use.
    async fn list_container_stats(&self) -> CriResult<Vec<cri::ContainerStats>>;
    /// Beginnings and ends of containers, where the runtime tells them.
    async fn container_events(&self) -> CriResult<tonic::Streaming<cri::ContainerEventResponse>>;

    /// All images.
    async fn list_images(&self) -> CriResult<Vec<cri::Image>>;
    /// One image, if it is there.
    async fn image_status(&self, image: &str) -> CriResult<Option<cri::Image>>;
    /// Fetches an image; returns what to name in a container.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> CriResult<String>;
    /// Removes an image.
    async fn remove_image(&self, image: &str) -> CriResult<()>;
    /// What images take on disk.
    async fn image_fs_info(&self) -> CriResult<cri::ImageFsInfoResponse>;
}
