//! A pod's sandbox as CRI wants it described.

use k8s_openapi::api::core::v1::Pod;
use keelson_proto::cri;

use crate::containers::{dns, resources, security};
use crate::cri::labels;
use crate::objects::PodExt;
use crate::paths::Paths;

/// What a sandbox's description takes from the node.
pub struct SandboxInputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// How many sandboxes it had.
    pub attempt: u32,
    /// The kubelet's folders.
    pub paths: &'a Paths,
    /// The cluster's DNS.
    pub cluster: &'a dns::ClusterDns,
    /// The node's resolver configuration.
    pub resolv_conf: &'a str,
    /// The pod's cgroup; empty: the runtime's choice.
    pub cgroup_parent: String,
}

/// Describes a pod's sandbox.
pub fn config(inputs: &SandboxInputs<'_>) -> cri::PodSandboxConfig {
    let pod = inputs.pod;
    let (hostname, _) = dns::host_name(pod, &inputs.cluster.domain);
    let sysctls = pod
        .spec()
        .security_context
        .as_ref()
        .and_then(|context| context.sysctls.as_ref());
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.name().into(),
            uid: pod.uid().into(),
            namespace: pod.namespace().into(),
            attempt: inputs.attempt,
        }),
        hostname: if pod.host_network() {
            String::new()
        } else {
            hostname
        },
        log_directory: inputs.paths.pod_logs(pod).display().to_string(),
        dns_config: Some(dns::config(pod, inputs.cluster, inputs.resolv_conf)),
        port_mappings: port_mappings(pod),
        labels: labels::sandbox_labels(pod),
        annotations: labels::sandbox_annotations(pod),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: inputs.cgroup_parent.clone(),
            security_context: Some(security::of_sandbox(pod, &inputs.paths.seccomp())),
            sysctls: sysctls
                .into_iter()
                .flatten()
                .map(|sysctl| (sysctl.name.clone(), sysctl.value.clone()))
                .collect(),
            overhead: None,
            resources: Some(resources::of_pod(pod)),
        }),
        windows: None,
    }
}

/// Ports of the host that lead into the pod. With the node's network there is nothing to map.
fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if pod.host_network() {
        return Vec::new();
    }
    let containers = pod.init_containers().iter().chain(pod.containers());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| {
            let protocol = match port.protocol.as_deref() {
                Some("UDP") => cri::Protocol::Udp,
                Some("SCTP") => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            };
            cri::PortMapping {
                protocol: protocol.into(),
                container_port: port.container_port,
                host_port: port.host_port.unwrap_or(0),
                host_ip: port.host_ip.clone().unwrap_or_default(),
            }
        })
        .collect()
}
