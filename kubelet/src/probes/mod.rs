//! Probes: asking containers whether they have come up, live, and want traffic.
//!
//! - [`worker`]: one task per probe of a running pod
//! - [`http`], [`grpc`]: how to ask

pub mod grpc;
pub mod http;
pub mod worker;

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cri::Runtime;

/// How much of a command's output an event shows.
const OUTPUT_LIMIT: usize = 10 << 10;
/// How HTTP probes introduce themselves.
const USER_AGENT: &str = "kube-probe/1.36";

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    /// Has it come up?
    Startup,
    /// Does it live?
    Liveness,
    /// Does it want traffic?
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// As events say it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }

    /// A container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }
}

/// What one attempt brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Well.
    Success,
    /// Not well, and why.
    Failure(String),
    /// It could not be asked, which says nothing about it.
    Unasked(String),
}

/// The port an action names, by number or by the name it has in the container.
pub fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    match port {
        IntOrString::Int(number) => {
            u16::try_from(*number).map_err(|_| format!("invalid port number: {number}"))
        }
        IntOrString::String(name) => {
            if let Ok(number) = name.parse() {
                return Ok(number);
            }
            let found = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            found
                .and_then(|port| u16::try_from(port.container_port).ok())
                .ok_or_else(|| format!("couldn't find port: {name:?} in container {:?}", container.name))
        }
    }
}

/// Asks once.
pub async fn attempt(
    runtime: &dyn Runtime,
    probe: &Probe,
    container: &Container,
    id: &str,
    pod_ip: &str,
) -> Outcome {
    let limit = Duration::from_secs(
        probe
            .timeout_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(1),
    );
    match ask(runtime, probe, container, id, pod_ip, limit).await {
        Ok(()) => Outcome::Success,
        Err(Refusal::Unwell(text)) => Outcome::Failure(text),
        Err(Refusal::Unasked(text)) => Outcome::Unasked(text),
    }
}

enum Refusal {
    Unwell(String),
    Unasked(String),
}

impl From<String> for Refusal {
    fn from(text: String) -> Self {
        Self::Unwell(text)
    }
}

fn unwell(text: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal::Unwell(text.into()))
}

async fn ask(
    runtime: &dyn Runtime,
    probe: &Probe,
    container: &Container,
    id: &str,
    pod_ip: &str,
    limit: Duration,
) -> Result<(), Refusal> {
    if let Some(exec) = &probe.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        return match runtime.exec_sync(id, command, limit).await {
            Ok(output) if output.exit_code == 0 => Ok(()),
            Ok(output) => {
                let text = &output.output[..output.output.len().min(OUTPUT_LIMIT)];
                unwell(String::from_utf8_lossy(text))
            }
            Err(error)
                if error.code == tonic::Code::DeadlineExceeded || error.message.contains("exceeded") =>
            {
                unwell(format!(
                    "command timed out: \"{shown}\" timed out after {}",
                    crate::pods::backoff::go_duration(limit)
                ))
            }
            // The runtime did not run it: a runtime that restarts makes no container unwell.
            Err(error) => Err(Refusal::Unasked(error.message)),
        };
    }
    if let Some(action) = &probe.http_get {
        let get = http::Get::of(action, pod_ip, port(&action.port, container)?, USER_AGENT);
        let (status, _) = get.send(limit).await?;
        // Redirections count as being well.
        return if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            unwell(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        };
    }
    if let Some(action) = &probe.tcp_socket {
        let host = action
            .host
            .clone()
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| pod_ip.to_owned());
        let port = port(&action.port, container)?;
        return match tokio::time::timeout(limit, http::connect(&host, port)).await {
            Ok(connected) => Ok(connected.map(drop)?),
            Err(_) => unwell(format!("dial tcp {host}:{port}: i/o timeout")),
        };
    }
    if let Some(action) = &probe.grpc {
        let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
        return Ok(grpc::check(pod_ip, port, action.service.as_deref().unwrap_or_default(), limit).await?);
    }
    unwell("missing probe handler")
}
