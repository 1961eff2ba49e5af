//! The runtime over gRPC on a Unix socket. The connection is made when first needed and made anew when lost.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::TokioIo;
use keelson_proto::cri;
use keelson_proto::cri::image_service_client::ImageServiceClient;
use keelson_proto::cri::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Response, Status};

use super::{CriError, CriResult, ExecOutput, Runtime, labels};

/// How long the runtime may take for what should be quick.
const SHORT: Duration = Duration::from_secs(120);
/// How long a sandbox may take: CNI plugins are part of it.
const SANDBOX: Duration = Duration::from_secs(240);
/// How long a pull may take. Registries are slow; a pull that is stuck must still end.
const PULL: Duration = Duration::from_secs(30 * 60);
/// A list of a full node's containers, or a command's output, may be this large.
const MESSAGE_LIMIT: usize = 16 << 20;

/// A CRI v1 runtime at a Unix socket.
#[derive(Clone)]
pub struct CriClient {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

impl CriClient {
    /// A client for `endpoint`: `unix:///run/containerd/containerd.sock`, or the bare path.
    ///
    /// # Errors
    /// When the endpoint is no Unix socket.
    pub fn new(endpoint: &str) -> anyhow::Result<Self> {
        let path = match endpoint.split_once("://") {
            Some(("unix", path)) => path,
            Some((scheme, _)) => anyhow::bail!(
                "container runtime endpoint {endpoint:?}: {scheme} is not supported, want unix:///PATH"
            ),
            None => endpoint,
        };
        let path = PathBuf::from(path);
        // The address is never resolved; the connector below knows where to go.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(
            tower::service_fn(move |_: Uri| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }),
        );
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
        })
    }
}

fn failed(call: &'static str, status: Status) -> CriError {
    CriError {
        call,
        code: status.code(),
        message: status.message().to_owned(),
    }
}

async fn within<T>(
    call: &'static str,
    limit: Duration,
    future: impl Future<Output = Result<Response<T>, Status>>,
) -> CriResult<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(answer) => answer
            .map(Response::into_inner)
            .map_err(|status| failed(call, status)),
        Err(_) => Err(CriError {
            call,
            code: tonic::Code::DeadlineExceeded,
            message: format!("no answer within {limit:?}"),
        }),
    }
}

/// Runs a call in a task of its own: a sandbox half made because its caller was cancelled would be lost.
async fn to_the_end<T: Send + 'static>(
    call: &'static str,
    future: impl Future<Output = CriResult<T>> + Send + 'static,
) -> CriResult<T> {
    tokio::spawn(future).await.unwrap_or_else(|error| {
        Err(CriError {
            call,
            code: tonic::Code::Internal,
            message: error.to_string(),
        })
    })
}

fn of_pod(pod_uid: Option<&str>) -> std::collections::HashMap<String, String> {
    pod_uid
        .map(|uid| (labels::POD_UID.to_owned(), uid.to_owned()))
        .into_iter()
        .collect()
}

fn image(name: &str) -> Option<cri::ImageSpec> {
    Some(cri::ImageSpec {
        image: name.to_owned(),
        ..Default::default()
    })
}

#[async_trait]
impl Runtime for CriClient {
    async fn version(&self) -> CriResult<cri::VersionResponse> {
        let mut client = self.runtime.clone();
        within(
            "Version",
            SHORT,
            client.version(cri::VersionRequest {
                version: "0.1.0".into(),
            }),
        )
        .await
    }

    async fn status(&self) -> CriResult<cri::StatusResponse> {
        let mut client = self.runtime.clone();
        within(
            "Status",
            SHORT,
            client.status(cri::StatusRequest { verbose: false }),
        )
        .await
    }

    async fn run_pod_sandbox(&self, config: cri::PodSandboxConfig, handler: String) -> CriResult<String> {
        let mut client = self.runtime.clone();
        to_the_end("RunPodSandbox", async move {
            let request = cri::RunPodSandboxRequest {
                config: Some(config),
                runtime_handler: handler,
            };
            Ok(within("RunPodSandbox", SANDBOX, client.run_pod_sandbox(request))
                .await?
                .pod_sandbox_id)
        })
        .await
    }

    async fn stop_pod_sandbox(&self, id: &str) -> CriResult<()> {
        let (mut client, pod_sandbox_id) = (self.runtime.clone(), id.to_owned());
        to_the_end("StopPodSandbox", async move {
            within(
                "StopPodSandbox",
                SANDBOX,
                client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id }),
            )
            .await?;
            Ok(())
        })
        .await
    }

    async fn remove_pod_sandbox(&self, id: &str) -> CriResult<()> {
        let (mut client, pod_sandbox_id) = (self.runtime.clone(), id.to_owned());
        to_the_end("RemovePodSandbox", async move {
            within(
                "RemovePodSandbox",
                SANDBOX,
                client.remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id }),
            )
            .await?;
            Ok(())
        })
        .await
    }

    async fn pod_sandbox_status(&self, id: &str) -> CriResult<cri::PodSandboxStatus> {
        let mut client = self.runtime.clone();
        let request = cri::PodSandboxStatusRequest {
            pod_sandbox_id: id.to_owned(),
            verbose: false,
        };
        let answer = within("PodSandboxStatus", SHORT, client.pod_sandbox_status(request)).await?;
        answer.status.ok_or_else(|| {
            failed(
                "PodSandboxStatus",
                Status::not_found("the runtime gave no status"),
            )
        })
    }

    async fn list_pod_sandboxes(&self, pod_uid: Option<&str>) -> CriResult<Vec<cri::PodSandbox>> {
        let mut client = self.runtime.clone();
        let filter = cri::PodSandboxFilter {
            label_selector: of_pod(pod_uid),
            ..Default::default()
        };
        Ok(within(
            "ListPodSandbox",
            SHORT,
            client.list_pod_sandbox(cri::ListPodSandboxRequest { filter: Some(filter) }),
        )
        .await?
        .items)
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> CriResult<String> {
        let (mut client, pod_sandbox_id) = (self.runtime.clone(), sandbox.to_owned());
        to_the_end("CreateContainer", async move {
            let request = cri::CreateContainerRequest {
                pod_sandbox_id,
                config: Some(config),
                sandbox_config: Some(sandbox_config),
            };
            Ok(within("CreateContainer", SHORT, client.create_container(request))
                .await?
                .container_id)
        })
        .await
    }

    async fn start_container(&self, id: &str) -> CriResult<()> {
        let (mut client, container_id) = (self.runtime.clone(), id.to_owned());
        to_the_end("StartContainer", async move {
            within(
                "StartContainer",
                SHORT,
                client.start_container(cri::StartContainerRequest { container_id }),
            )
            .await?;
            Ok(())
        })
        .await
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> CriResult<()> {
        let mut client = self.runtime.clone();
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest {
            container_id: id.to_owned(),
            timeout,
        };
        within(
            "StopContainer",
            grace.saturating_add(SHORT),
            client.stop_container(request),
        )
        .await?;
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> CriResult<()> {
        let (mut client, container_id) = (self.runtime.clone(), id.to_owned());
        to_the_end("RemoveContainer", async move {
            within(
                "RemoveContainer",
                SHORT,
                client.remove_container(cri::RemoveContainerRequest { container_id }),
            )
            .await?;
            Ok(())
        })
        .await
    }

    async fn container_status(&self, id: &str) -> CriResult<cri::ContainerStatus> {
        let mut client = self.runtime.clone();
        let request = cri::ContainerStatusRequest {
            container_id: id.to_owned(),
            verbose: false,
        };
        let answer = within("ContainerStatus", SHORT, client.container_status(request)).await?;
        answer
            .status
            .ok_or_else(|| failed("ContainerStatus", Status::not_found("the runtime gave no status")))
    }

    async fn list_containers(&self, pod_uid: Option<&str>) -> CriResult<Vec<cri::Container>> {
        let mut client = self.runtime.clone();
        let filter = cri::ContainerFilter {
            label_selector: of_pod(pod_uid),
            ..Default::default()
        };
        Ok(within(
            "ListContainers",
            SHORT,
            client.list_containers(cri::ListContainersRequest { filter: Some(filter) }),
        )
        .await?
        .containers)
    }

    async fn reopen_container_log(&self, id: &str) -> CriResult<()> {
        let mut client = self.runtime.clone();
        let request = cri::ReopenContainerLogRequest {
            container_id: id.to_owned(),
        };
        within("ReopenContainerLog", SHORT, client.reopen_container_log(request)).await?;
        Ok(())
    }

    async fn exec_sync(&self, id: &str, command: Vec<String>, timeout: Duration) -> CriResult<ExecOutput> {
        let mut client = self.runtime.clone();
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command,
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        let limit = if timeout.is_zero() {
            SHORT
        } else {
            timeout.saturating_add(Duration::from_secs(5))
        };
        let answer = within("ExecSync", limit, client.exec_sync(Request::new(request))).await?;
        let mut output = answer.stdout.to_vec();
        output.extend_from_slice(&answer.stderr);
        Ok(ExecOutput {
            output,
            exit_code: answer.exit_code,
        })
    }

    async fn exec(&self, request: cri::ExecRequest) -> CriResult<String> {
        let mut client = self.runtime.clone();
        Ok(within("Exec", SHORT, client.exec(request)).await?.url)
    }

    async fn attach(&self, request: cri::AttachRequest) -> CriResult<String> {
        let mut client = self.runtime.clone();
        Ok(within("Attach", SHORT, client.attach(request)).await?.url)
    }

    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> CriResult<String> {
        let mut client = self.runtime.clone();
        let request = cri::PortForwardRequest {
            pod_sandbox_id: sandbox.to_owned(),
            port: ports,
        };
        Ok(within("PortForward", SHORT, client.port_forward(request))
            .await?
            .url)
    }

    async fn list_container_stats(&self) -> CriResult<Vec<cri::ContainerStats>> {
        let mut client = self.runtime.clone();
        Ok(within(
            "ListContainerStats",
            SHORT,
            client.list_container_stats(cri::ListContainerStatsRequest { filter: None }),
        )
        .await?
        .stats)
    }

    async fn container_events(&self) -> CriResult<tonic::Streaming<cri::ContainerEventResponse>> {
        let mut client = self.runtime.clone();
        within(
            "GetContainerEvents",
            SHORT,
            client.get_container_events(cri::GetEventsRequest {}),
        )
        .await
    }

    async fn list_images(&self) -> CriResult<Vec<cri::Image>> {
        let mut client = self.images.clone();
        Ok(within(
            "ListImages",
            SHORT,
            client.list_images(cri::ListImagesRequest { filter: None }),
        )
        .await?
        .images)
    }

    async fn image_status(&self, name: &str) -> CriResult<Option<cri::Image>> {
        let mut client = self.images.clone();
        let request = cri::ImageStatusRequest {
            image: image(name),
            verbose: false,
        };
        Ok(within("ImageStatus", SHORT, client.image_status(request))
            .await?
            .image)
    }

    async fn pull_image(
        &self,
        name: &str,
        auth: Option<cri::AuthConfig>,
        sandbox: cri::PodSandboxConfig,
    ) -> CriResult<String> {
        let mut client = self.images.clone();
        let request = cri::PullImageRequest {
            image: image(name),
            auth,
            sandbox_config: Some(sandbox),
        };
        Ok(within("PullImage", PULL, client.pull_image(request))
            .await?
            .image_ref)
    }

    async fn remove_image(&self, name: &str) -> CriResult<()> {
        let mut client = self.images.clone();
        within(
            "RemoveImage",
            SHORT,
            client.remove_image(cri::RemoveImageRequest { image: image(name) }),
        )
        .await?;
        Ok(())
    }

    async fn image_fs_info(&self) -> CriResult<cri::ImageFsInfoResponse> {
        let mut client = self.images.clone();
        within(
            "ImageFsInfo",
            SHORT,
            client.image_fs_info(cri::ImageFsInfoRequest {}),
        )
        .await
    }
}
