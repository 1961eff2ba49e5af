//! What of a pod controllers look at: the rest is not kept in memory.
//!
//! Of ten thousand pods most of the bytes are containers' environments, mounts and probes, which only kubelets read.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec};
use keelson_api::labels::LAST_APPLIED;
use keelson_api::pods::is_sidecar;

/// Takes the rest out. A trimmed pod must not be written back: patch it.
pub fn pod(pod: &mut Pod) {
    if let Some(annotations) = &mut pod.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(spec) = pod.spec.take() {
        pod.spec = Some(trimmed_spec(spec));
    }
    if let Some(status) = pod.status.take() {
        pod.status = Some(trimmed_status(status));
    }
}

/// Of an address the name says all, and the labels who manages it.
pub fn address(address: &mut IPAddress) {
    address.spec = IPAddressSpec::default();
    address.metadata.managed_fields = None;
    address.metadata.annotations = None;
}

fn trimmed_spec(spec: PodSpec) -> PodSpec {
    let affinity = spec.affinity.and_then(|mut affinity| {
        affinity.pod_affinity = None;
        affinity.pod_anti_affinity = None;
        affinity.node_affinity.is_some().then_some(affinity)
    });
    PodSpec {
        node_name: spec.node_name,
        hostname: spec.hostname,
        subdomain: spec.subdomain,
        tolerations: spec.tolerations,
        affinity,
        containers: with_named_ports(spec.containers),
        init_containers: spec
            .init_containers
            .map(sidecars)
            .filter(|sidecars| !sidecars.is_empty()),
        ..PodSpec::default()
    }
}

/// Services find ports by name; nothing else is asked of containers.
fn with_named_ports(containers: Vec<Container>) -> Vec<Container> {
    let mut containers: Vec<Container> = containers
        .into_iter()
        .filter(has_named_port)
        .map(trimmed_container)
        .collect();
    containers.shrink_to_fit();
    containers
}

fn has_named_port(container: &Container) -> bool {
    container.ports.iter().flatten().any(|port| port.name.is_some())
}

/// Containers that run beside the others: their ports and restarts count.
fn sidecars(containers: Vec<Container>) -> Vec<Container> {
    let mut sidecars: Vec<Container> = containers
        .into_iter()
        .filter(is_sidecar)
        .map(trimmed_container)
        .collect();
    sidecars.shrink_to_fit();
    sidecars
}

fn trimmed_container(container: Container) -> Container {
    Container {
        name: container.name,
        ports: container.ports,
        restart_policy: container.restart_policy,
        ..Container::default()
    }
}

fn trimmed_status(status: PodStatus) -> PodStatus {
    PodStatus {
        phase: status.phase,
        reason: status.reason,
        conditions: status.conditions,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        start_time: status.start_time,
        container_statuses: status
            .container_statuses
            .map(telling)
            .filter(|statuses| !statuses.is_empty()),
        init_container_statuses: status
            .init_container_statuses
            .map(telling)
            .filter(|statuses| !statuses.is_empty()),
        ..PodStatus::default()
    }
}

/// Containers that were restarted or have ended.
fn telling(statuses: Vec<ContainerStatus>) -> Vec<ContainerStatus> {
    let tells = |status: &ContainerStatus| {
        status.restart_count > 0
            || status
                .state
                .as_ref()
                .is_some_and(|state| state.terminated.is_some())
    };
    let trimmed = |status: ContainerStatus| ContainerStatus {
        name: status.name,
        restart_count: status.restart_count,
        state: status.state,
        ..ContainerStatus::default()
    };
    let mut statuses: Vec<ContainerStatus> = statuses.into_iter().filter(tells).map(trimmed).collect();
    statuses.shrink_to_fit();
    statuses
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ContainerPort;

    #[test]
    fn what_is_looked_at_stays() {
        let port = ContainerPort {
            name: Some("web".into()),
            container_port: 80,
            ..ContainerPort::default()
        };
        let plain = Container {
            name: "plain".into(),
            image: Some("i".into()),
            ..Container::default()
        };
        let named = Container {
            ports: Some(vec![port]),
            ..plain.clone()
        };
        let restarted = ContainerStatus {
            restart_count: 2,
            image: "i".into(),
            ..ContainerStatus::default()
        };
        let mut one = Pod {
            spec: Some(PodSpec {
                node_name: Some("n".into()),
                service_account_name: Some("s".into()),
                containers: vec![plain, named],
                ..PodSpec::default()
            }),
            status: Some(PodStatus {
                container_statuses: Some(vec![ContainerStatus::default(), restarted]),
                ..PodStatus::default()
            }),
            ..Pod::default()
        };
        pod(&mut one);
        let spec = one.spec.expect("a spec");
        assert_eq!(
            (spec.node_name.as_deref(), spec.service_account_name),
            (Some("n"), None)
        );
        assert_eq!(
            (spec.containers.len(), spec.containers[0].image.as_ref()),
            (1, None)
        );
        let statuses = one
            .status
            .and_then(|status| status.container_statuses)
            .expect("statuses");
        assert_eq!((statuses.len(), statuses[0].restart_count), (1, 2));
    }
}
