//! How the node is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_proto::cri;

use super::facts;
use crate::config::Config;
use crate::context::Context;
use crate::pods::pleg::Pulse;

/// How many images a node reports, the largest first.
const IMAGES: usize = 50;
/// How many names of an image a node reports.
const NAMES: usize = 5;

/// What conditions are judged from.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Bytes of memory that could be had.
    pub memory_available: u64,
    /// Bytes of memory there are.
    pub memory: u64,
    /// The file system of pods' files.
    pub disk: facts::FsUsage,
    /// The file system of images.
    pub images: facts::FsUsage,
    /// How many processes there may be, and are.
    pub pids: (u64, u64),
    /// What keeps the node from running pods.
    pub trouble: Vec<String>,
}

fn condition(kind: &str, holds: bool, reason: &str, message: &str) -> NodeCondition {
    NodeCondition {
        type_: kind.into(),
        status: if holds { "True" } else { "False" }.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        ..Default::default()
    }
}

/// Judges the node.
pub fn conditions(config: &Config, readings: &Readings) -> Vec<NodeCondition> {
    let below = |signal: &str, left: u64, capacity: u64| {
        config
            .threshold(signal)
            .is_some_and(|threshold| left < threshold.limit(capacity))
    };
    let (disk, images) = (readings.disk, readings.images);
    let memory = below("memory.available", readings.memory_available, readings.memory);
    let full = below("nodefs.available", disk.available, disk.capacity)
        || below("nodefs.inodesFree", disk.inodes_free, disk.inodes)
        || below("imagefs.available", images.available, images.capacity)
        || below("imagefs.inodesFree", images.inodes_free, images.inodes);
    let (limit, running) = readings.pids;
    let crowded = below("pid.available", limit.saturating_sub(running), limit);
    let pressure = |kind, holds, bad: (&str, &str), good: (&str, &str)| {
        let (reason, message) = if holds { bad } else { good };
        condition(kind, holds, reason, message)
    };
    let ready = if readings.trouble.is_empty() {
        condition("Ready", true, "KubeletReady", "kubelet is posting ready status")
    } else {
        let text = readings.trouble.join(", ");
        condition(
            "Ready",
            false,
            "KubeletNotReady",
            &if readings.trouble.len() > 1 {
                format!("[{text}]")
            } else {
                text
            },
        )
    };
    vec![
        pressure(
            "MemoryPressure",
            memory,
            (
                "KubeletHasInsufficientMemory",
                "kubelet has insufficient memory available",
            ),
            (
                "KubeletHasSufficientMemory",
                "kubelet has sufficient memory available",
            ),
        ),
        pressure(
            "DiskPressure",
            full,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            crowded,
            (
                "KubeletHasInsufficientPID",
                "kubelet has insufficient PID available",
            ),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        ready,
    ]
}

/// Pressures that were felt lately. A node that has just driven pods out has room again; were it to say so at once, the
/// same pods would come back.
#[derive(Debug, Default)]
pub struct Pressures(HashMap<String, (NodeCondition, Instant)>);

impl Pressures {
    /// The conditions, with each pressure going on for `period` after it was last felt.
    pub fn settle(&mut self, made: Vec<NodeCondition>, period: Duration) -> Vec<NodeCondition> {
        let settled = made.into_iter().map(|condition| {
            if !condition.type_.ends_with("Pressure") {
                return condition;
            }
            if condition.status == "True" {
                self.0
                    .insert(condition.type_.clone(), (condition.clone(), Instant::now()));
                return condition;
            }
            match self.0.get(&condition.type_) {
                Some((felt, at)) if at.elapsed() < period => felt.clone(),
                _ => condition,
            }
        });
        settled.collect()
    }
}

/// The node's conditions with ours in place; one that did not change keeps the time of its last change.
pub fn merge(old: &[NodeCondition], made: Vec<NodeCondition>, now: Timestamp) -> Vec<NodeCondition> {
    let now = Time(keelson_api::time::to_seconds(now));
    let kinds: Vec<String> = made.iter().map(|condition| condition.type_.clone()).collect();
    let others = old.iter().filter(|old| !kinds.contains(&old.type_)).cloned();
    let ours = made.into_iter().map(|mut condition| {
        let before = old
            .iter()
            .find(|old| old.type_ == condition.type_ && old.status == condition.status);
        condition.last_transition_time = before
            .and_then(|old| old.last_transition_time.clone())
            .or(Some(now.clone()));
        condition.last_heartbeat_time = Some(now.clone());
        condition
    });
    ours.chain(others).collect()
}

/// Reads the instruments.
pub async fn read(context: &Context, pulse: &Pulse) -> (Readings, Option<cri::StatusResponse>) {
    let mut trouble = Vec::new();
    let answer = context.runtime.status().await;
    let answer = match answer {
        Ok(answer) => {
            let conditions = answer.status.clone().unwrap_or_default().conditions;
            for (kind, text) in [
                ("RuntimeReady", "container runtime status check failed"),
                ("NetworkReady", "container runtime network not ready"),
            ] {
                match conditions.iter().find(|condition| condition.r#type == kind) {
                    Some(condition) if condition.status => {}
                    Some(condition) => trouble.push(format!(
                        "{text}: {kind}=false reason:{} message:{}",
                        condition.reason, condition.message
                    )),
                    None => trouble.push(format!("{text}: {kind} is not reported")),
                }
            }
            Some(answer)
        }
        Err(error) => {
            trouble.push(format!("container runtime is down: {}", error.message));
            None
        }
    };
    if answer.is_some()
        && let Err(text) = pulse.healthy()
    {
        trouble.push(format!("PLEG is not healthy: {text}"));
    }
    let readings = Readings {
        trouble,
        ..instruments(context)
    };
    (readings, answer)
}

/// What the node has left.
pub fn instruments(context: &Context) -> Readings {
    Readings {
        memory_available: facts::meminfo("MemAvailable"),
        memory: facts::meminfo("MemTotal"),
        disk: facts::file_system(&context.config.root_dir),
        images: context.image_disk(),
        pids: facts::pids(),
        trouble: Vec::new(),
    }
}

/// The whole status, apart from conditions.
pub async fn status(
    context: &Arc<Context>,
    version: &cri::VersionResponse,
    runtime: Option<&cri::StatusResponse>,
) -> NodeStatus {
    let mut addresses: Vec<NodeAddress> = context
        .host_ips
        .iter()
        .map(|ip| NodeAddress {
            type_: "InternalIP".into(),
            address: ip.clone(),
        })
        .collect();
    addresses.push(NodeAddress {
        type_: "Hostname".into(),
        address: context.node_name.clone(),
    });
    let capacity = facts::capacity(&context.config);
    let images = context.runtime.list_images().await.unwrap_or_default();
    let handlers = runtime
        .map(|runtime| runtime.runtime_handlers.iter().map(handler).collect::<Vec<_>>())
        .filter(|all| !all.is_empty());
    NodeStatus {
        addresses: Some(addresses),
        allocatable: Some(context.allocatable.clone()),
        capacity: Some(capacity),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint {
                port: i32::from(context.config.port),
            }),
        }),
        images: Some(report(images)),
        node_info: Some(facts::system_info(
            &version.runtime_name,
            version.runtime_version.trim_start_matches('v'),
        )),
        runtime_handlers: handlers,
        ..Default::default()
    }
}

fn handler(handler: &cri::RuntimeHandler) -> NodeRuntimeHandler {
    let features = handler.features.unwrap_or_default();
    NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: Some(NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
            user_namespaces: Some(features.user_namespaces),
        }),
    }
}

fn report(mut images: Vec<cri::Image>) -> Vec<ContainerImage> {
    images.sort_by_key(|image| std::cmp::Reverse(image.size));
    images
        .into_iter()
        .take(IMAGES)
        .map(|image| ContainerImage {
            names: Some(
                image
                    .repo_digests
                    .into_iter()
                    .chain(image.repo_tags)
                    .take(NAMES)
                    .collect(),
            ),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn pressure_and_trouble_show() {
        let config = Config::parse_from([
            "kubelet",
            "--kubeconfig=k",
            "--tls-cert-file=c",
            "--tls-private-key-file=k",
            "--client-ca-file=a",
            "--eviction-hard=memory.available<1Gi,nodefs.available<10%",
        ]);
        let disk = facts::FsUsage {
            capacity: 100,
            available: 5,
            inodes: 0,
            inodes_free: 0,
        };
        let readings = Readings {
            memory_available: 2 << 30,
            memory: 4 << 30,
            disk,
            images: facts::FsUsage::default(),
            pids: (10, 1),
            trouble: vec!["x".into()],
        };
        let made = conditions(&config, &readings);
        let states: Vec<_> = made.iter().map(|condition| condition.status.as_str()).collect();
        assert_eq!(states, ["False", "True", "False", "False"]);
        let mut pressures = Pressures::default();
        let hour = Duration::from_secs(3600);
        pressures.settle(made.clone(), hour);
        let relieved = conditions(
            &config,
            &Readings {
                disk: facts::FsUsage {
                    available: 50,
                    ..disk
                },
                ..readings
            },
        );
        assert_eq!(relieved[1].status, "False");
        assert_eq!(pressures.settle(relieved.clone(), hour)[1], made[1], "not yet");
        assert_eq!(pressures.settle(relieved.clone(), Duration::ZERO), relieved);
        let later = merge(
            &merge(&[], made.clone(), Timestamp::UNIX_EPOCH),
            made,
            Timestamp::now(),
        );
        assert!(
            later
                .iter()
                .all(|condition| condition.last_transition_time == Some(Time(Timestamp::UNIX_EPOCH)))
        );
    }
}
