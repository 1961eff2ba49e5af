//! Pods, through the runtime's own interface, so that it also undoes their network.

use std::time::Duration;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use keelson_proto::cri;
use keelson_proto::cri::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Paths;

/// For one call; containers get no grace, the cluster is going away.
const CALL: Duration = Duration::from_secs(20);
/// Removing many pods one after the other would take long; all at once would overwhelm a small machine.
const AT_ONCE: usize = 8;

pub(crate) async fn remove(paths: &Paths) -> anyhow::Result<((), String)> {
    let socket = paths.runtime_socket();
    if UnixStream::connect(&socket).await.is_err() {
        return Ok(((), "the runtime does not run".into()));
    }
    let client = connect(paths).await?;
    let sandboxes = client
        .clone()
        .list_pod_sandbox(cri::ListPodSandboxRequest::default())
        .await
        .context("listing pods in the runtime")?
        .into_inner()
        .items;
    let containers = client
        .clone()
        .list_containers(cri::ListContainersRequest::default())
        .await
        .context("listing containers in the runtime")?
        .into_inner()
        .containers;
    use futures::StreamExt;
    // Grace 0 first: stopping a sandbox would wait for each container's own grace.
    futures::stream::iter(containers)
        .for_each_concurrent(AT_ONCE, |container| {
            let mut client = client.clone();
            async move {
                let request = cri::StopContainerRequest {
                    container_id: container.id,
                    timeout: 0,
                };
                if let Err(error) = client.stop_container(request).await {
                    tracing::debug!(%error, "stopping a container");
                }
            }
        })
        .await;
    let count = sandboxes.len();
    let failures: Vec<String> = futures::stream::iter(sandboxes)
        .map(|sandbox| {
            let mut client = client.clone();
            async move {
                let id = sandbox.id.clone();
                let stop = cri::StopPodSandboxRequest {
                    pod_sandbox_id: id.clone(),
                };
                client
                    .stop_pod_sandbox(stop)
                    .await
                    .map_err(|error| format!("stopping {id}: {}", error.message()))?;
                let remove = cri::RemovePodSandboxRequest {
                    pod_sandbox_id: id.clone(),
                };
                client
                    .remove_pod_sandbox(remove)
                    .await
                    .map_err(|error| format!("removing {id}: {}", error.message()))?;
                Ok(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .filter_map(|result: Result<(), String>| async move { result.err() })
        .collect()
        .await;
    if failures.is_empty() {
        Ok(((), format!("{count} removed")))
    } else {
        // The later steps remove by force what is left.
        Ok((
            (),
            format!(
                "{} of {count} removed; {}",
                count - failures.len(),
                failures.join("; ")
            ),
        ))
    }
}

async fn connect(paths: &Paths) -> anyhow::Result<RuntimeServiceClient<Channel>> {
    let socket = paths.runtime_socket();
    let connecting = || format!("connecting to containerd at {}", socket.display());
    let path = socket.clone();
    // The address is a formality; the connector below knows the socket.
    let channel = Endpoint::from_static("http://localhost")
        .timeout(CALL)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .with_context(connecting)?;
    Ok(RuntimeServiceClient::new(channel))
}
