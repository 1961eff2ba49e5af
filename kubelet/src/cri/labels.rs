//! What the kubelet writes on sandboxes and containers. The names are upstream's, so that `crictl` and a
//! kubelet of another make read them; whatever a restarted kubelet needs to know about a container is here.

use std::collections::HashMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::objects::PodExt;

/// The pod's name.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod's spec.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Hash of the part of the container's spec whose change restarts it.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// How often the container was started before.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// Where the container writes its last words.
pub const TERMINATION_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Whether the log stands in for missing last words.
pub const TERMINATION_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// Seconds the pod has to end.
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Labels of a pod's sandbox: the pod's own, and its identity.
pub fn sandbox_labels(pod: &Pod) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = pod
        .metadata
        .labels
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect();
    labels.extend(identity(pod));
    labels
}

/// Annotations of a pod's sandbox.
pub fn sandbox_annotations(pod: &Pod) -> HashMap<String, String> {
    pod.metadata
        .annotations
        .clone()
        .unwrap_or_default()
        .into_iter()
        .collect()
}

/// Labels of a container.
pub fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    let mut labels: HashMap<String, String> = identity(pod).into();
    labels.insert(CONTAINER_NAME.into(), container.name.clone());
    labels
}

fn identity(pod: &Pod) -> [(String, String); 3] {
    [
        (POD_NAME.into(), pod.name().into()),
        (POD_NAMESPACE.into(), pod.namespace().into()),
        (POD_UID.into(), pod.uid().into()),
    ]
}

/// Annotations of a container.
pub fn container_annotations(
    pod: &Pod,
    container: &Container,
    restart_count: u32,
) -> HashMap<String, String> {
    let mut annotations = HashMap::from([
        (CONTAINER_HASH.into(), container_hash(container)),
        (RESTART_COUNT.into(), restart_count.to_string()),
        (
            TERMINATION_PATH.into(),
            container
                .termination_message_path
                .clone()
                .unwrap_or_else(|| DEFAULT_TERMINATION_PATH.into()),
        ),
        (
            TERMINATION_POLICY.into(),
            container
                .termination_message_policy
                .clone()
                .unwrap_or_else(|| "File".into()),
        ),
    ]);
    if let Some(grace) = pod.spec().termination_grace_period_seconds {
        annotations.insert(POD_GRACE.into(), grace.to_string());
    }
    annotations
}

/// Where last words go when the spec does not say.
pub const DEFAULT_TERMINATION_PATH: &str = "/dev/termination-log";

/// Hash of a container's name and image: the part of a running pod's spec that may change and then restarts it.
pub fn container_hash(container: &Container) -> String {
    // FNV-1a: stable between versions and processes, unlike the standard library's hasher.
    let mut hash: u32 = 0x811c_9dc5;
    for byte in container
        .name
        .bytes()
        .chain([0])
        .chain(container.image.as_deref().unwrap_or_default().bytes())
    {
        hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    }
    format!("{hash:x}")
}

/// The grace period written on a container, for when its pod is no longer known.
pub fn grace_period(annotations: &HashMap<String, String>) -> Option<Duration> {
    annotations.get(POD_GRACE)?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_follows_the_image_and_nothing_else() {
        let one = Container {
            name: "a".into(),
            image: Some("b:1".into()),
            ..Default::default()
        };
        let tty = Container {
            tty: Some(true),
            ..one.clone()
        };
        let two = Container {
            image: Some("b:2".into()),
            ..one.clone()
        };
        assert_eq!(container_hash(&one), container_hash(&tty));
        assert_ne!(container_hash(&one), container_hash(&two));
    }
}
