//! Pods beyond their own limits of local storage: scratch volumes with a size, containers and pods with a limit of
//! ephemeral storage. Only pods that have such a limit are measured.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::usage::{Folder, layers, measure_all, scratch};
use crate::context::Context;
use crate::objects::PodExt;
use crate::pods::qos;
use crate::quantity;

const STORAGE: &str = "ephemeral-storage";

/// What of a pod was measured.
#[derive(Debug, Default)]
struct Measured {
    /// Scratch volumes on disk: name, limit as written, limit, what is in it.
    volumes: Vec<(String, String, u64, u64)>,
    /// Containers with a limit: name, limit as written, limit, writable layer.
    containers: Vec<(String, String, u64, u64)>,
    /// What the whole pod takes, and may take.
    pod: Option<(u64, u64)>,
}

/// What is said of a pod that exceeds a limit, in upstream's words.
fn complaint(measured: &Measured) -> Option<String> {
    for (name, written, limit, used) in &measured.volumes {
        if used > limit {
            return Some(format!(
                "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{written}\". "
            ));
        }
    }
    if let Some((used, limit)) = measured.pod
        && used > limit
    {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {}. ",
            super::rank::quantity(limit)
        ));
    }
    for (name, written, limit, used) in &measured.containers {
        if used > limit {
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{written}\". "
            ));
        }
    }
    None
}

fn bytes(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// Scratch volumes on disk that have a size: name, as written, bytes.
fn sized_volumes(pod: &Pod) -> Vec<(String, String, u64)> {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes
        .filter_map(|volume| {
            let empty = volume.empty_dir.as_ref()?;
            // What is in memory is limited by the kernel.
            if empty.medium.as_deref().is_some_and(|medium| !medium.is_empty()) {
                return None;
            }
            let limit = empty.size_limit.as_ref()?;
            let size = bytes(quantity::value(limit));
            (size > 0).then(|| (volume.name.clone(), limit.0.clone(), size))
        })
        .collect()
}

/// Containers that have a limit: name, as written, bytes.
fn limited_containers(pod: &Pod) -> Vec<(String, String, u64)> {
    let limited = pod.containers().iter().filter_map(|container| {
        let limit = container.resources.as_ref()?.limits.as_ref()?.get(STORAGE)?;
        Some((
            container.name.clone(),
            limit.0.clone(),
            bytes(quantity::value(limit)),
        ))
    });
    limited.collect()
}

/// The pods that exceed a limit, by UID, with what is to be said of them.
pub async fn exceeded(context: &Arc<Context>, pods: &[Pod]) -> Vec<(String, String)> {
    let concerned: Vec<&Pod> = pods
        .iter()
        .filter(|pod| !sized_volumes(pod).is_empty() || !limited_containers(pod).is_empty())
        .collect();
    if concerned.is_empty() {
        return Vec::new();
    }
    let layers = layers(context).await;
    let mut exceeding = Vec::new();
    for pod in concerned {
        let volumes = sized_volumes(pod);
        let mut folders: Vec<_> = volumes
            .iter()
            .map(|(name, ..)| scratch(context, pod, name))
            .collect();
        folders.extend([scratch(context, pod, ""), context.paths.pod_logs(pod)]);
        let sizes = measure_all(folders).await;
        let layer = |name: &str| {
            let key = (pod.uid().to_owned(), name.to_owned());
            layers.get(&key).copied().unwrap_or_default().bytes
        };
        let of_pod = sizes
            .iter()
            .rev()
            .take(2)
            .map(|folder: &Folder| folder.bytes)
            .sum::<u64>()
            + pod
                .containers()
                .iter()
                .map(|container| layer(&container.name))
                .sum::<u64>();
        let measured = Measured {
            volumes: volumes
                .into_iter()
                .zip(&sizes)
                .map(|((name, written, limit), folder)| (name, written, limit, folder.bytes))
                .collect(),
            containers: limited_containers(pod)
                .into_iter()
                .map(|(name, written, limit)| {
                    let used = layer(&name);
                    (name, written, limit, used)
                })
                .collect(),
            pod: qos::pod_limit(pod, STORAGE).map(|limit| (of_pod, bytes(limit))),
        };
        if let Some(message) = complaint(&measured) {
            exceeding.push((pod.uid().to_owned(), message));
        }
    }
    exceeding
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_has_a_limit_is_measured() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}, {"name": "b"}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1k"}}, {"name": "w", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]}}))
        .expect("a pod");
        assert_eq!(sized_volumes(&pod), [("v".to_owned(), "1k".to_owned(), 1000)]);
        assert_eq!(
            limited_containers(&pod),
            [("a".to_owned(), "1Mi".to_owned(), 1 << 20)]
        );
    }

    #[test]
    fn complaints_are_upstreams() {
        let mut measured = Measured {
            volumes: vec![("v".into(), "1Mi".into(), 1 << 20, 1 << 20)],
            containers: vec![("c".into(), "2Mi".into(), 2 << 20, 3 << 20)],
            pod: Some((5, 5)),
        };
        assert_eq!(
            complaint(&measured).as_deref(),
            Some("Container c exceeded its local ephemeral storage limit \"2Mi\". ")
        );
        measured.pod = Some((6 << 20, 5 << 20));
        assert_eq!(
            complaint(&measured).as_deref(),
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 5Mi. ")
        );
        measured.volumes[0].3 += 1;
        assert_eq!(
            complaint(&measured).as_deref(),
            Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ")
        );
    }
}
