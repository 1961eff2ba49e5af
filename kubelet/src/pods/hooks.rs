//! Lifecycle hooks: what runs right after a container starts and right before it is asked to end.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::Runtime;
use crate::probes::{self, http::Get};

/// How HTTP hooks introduce themselves.
const USER_AGENT: &str = "kube-lifecycle/1.36";

/// Runs a hook for at most `limit`.
///
/// # Errors
/// A text for an event: upstream's.
pub async fn run(
    runtime: &dyn Runtime,
    handler: &LifecycleHandler,
    container: &Container,
    id: &str,
    pod_ip: &str,
    limit: Duration,
) -> Result<(), String> {
    if let Some(exec) = &handler.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        return match runtime.exec_sync(id, command, limit).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => Err(format!(
                "Exec lifecycle hook ([{shown}]) for Container \"{}\" failed - error: command '{shown}' exited with {}: {}, message: {:?}",
                container.name,
                output.exit_code,
                String::from_utf8_lossy(&output.output),
                String::from_utf8_lossy(&output.output),
            )),
            Err(error) => Err(format!(
                "Exec lifecycle hook ([{shown}]) for Container \"{}\" failed - error: {}",
                container.name, error.message
            )),
        };
    }
    if let Some(action) = &handler.http_get {
        let get = Get::of(action, pod_ip, probes::port(&action.port, container)?, USER_AGENT);
        let (status, body) = get.send(limit).await?;
        return if status.is_client_error() || status.is_server_error() {
            Err(format!(
                "HTTP lifecycle hook ({}) for Container \"{}\" failed - error: {status}, message: {body:?}",
                get.path, container.name
            ))
        } else {
            Ok(())
        };
    }
    if let Some(sleep) = &handler.sleep {
        let wanted = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0));
        tokio::time::sleep(wanted.min(limit)).await;
        return Ok(());
    }
    Err("invalid handler: none of exec, httpGet and sleep is set".into())
}
