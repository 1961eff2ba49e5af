//! What informers need not keep: of ten thousand pods, scheduling looks at a small part each.

use k8s_openapi::api::core::v1::{Container, Node, Pod};

/// Leaves of a pod what scheduling and its messages need.
pub fn pod(pod: &mut Pod) {
    pod.metadata.annotations = None;
    pod.metadata.finalizers = None;
    if let Some(spec) = &mut pod.spec {
        spec.containers.iter_mut().for_each(container);
        spec.init_containers.iter_mut().flatten().for_each(container);
        spec.ephemeral_containers = None;
        spec.volumes = None;
        spec.host_aliases = None;
        spec.dns_config = None;
        spec.security_context = None;
        spec.image_pull_secrets = None;
        spec.readiness_gates = None;
    }
    if let Some(status) = &mut pod.status {
        status.ephemeral_container_statuses = None;
        status.pod_ips = None;
        status.host_ips = None;
        let statuses = status
            .container_statuses
            .iter_mut()
            .chain(&mut status.init_container_statuses);
        for status in statuses.flatten() {
            // Resizing needs the names and the resources.
            status.state = None;
            status.last_state = None;
            status.image_id.clear();
            status.container_id = None;
            status.volume_mounts = None;
        }
    }
}

fn container(container: &mut Container) {
    container.args = None;
    container.command = None;
    container.env = None;
    container.env_from = None;
    container.lifecycle = None;
    container.liveness_probe = None;
    container.readiness_probe = None;
    container.startup_probe = None;
    container.security_context = None;
    container.volume_mounts = None;
    container.volume_devices = None;
}

/// Leaves of a node what scheduling needs.
pub fn node(node: &mut Node) {
    node.metadata.annotations = None;
    node.metadata.finalizers = None;
    if let Some(status) = &mut node.status {
        status.addresses = None;
        status.conditions = None;
        status.capacity = None;
        status.node_info = None;
        status.volumes_attached = None;
        status.volumes_in_use = None;
    }
}
