//! Every process of a cluster: its program, its flags, how long it may take to stop.
//!
//! Flags go into `config/NAME.yaml`, which the daemon reads with `--config`, as it does under systemd: what a
//! daemon runs with can be read, and changed for an experiment, in one place.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::cluster::{Cluster, write_file};

/// A process to be supervised.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Unit {
    /// As shown by `status`.
    pub name: String,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_timeout: u64,
    /// What it belongs to, if the kubelet is to show it as a pod: the kubelet itself and the runtime, which carry all
    /// pods, are not shown.
    #[serde(default)]
    pub tier: Option<String>,
}

/// The container runtime's name.
pub const RUNTIME: &str = "containerd";

/// The daemons, in the order they depend on each other; they stop in the opposite order.
pub const DAEMONS: [&str; 6] = [
    "kube-store",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
];

/// Writes every daemon's configuration and returns the processes, the runtime first.
///
/// # Errors
/// When a file cannot be written.
pub fn write(cluster: &Cluster, containerd: &str) -> anyhow::Result<Vec<Unit>> {
    let paths = &cluster.paths;
    let mut units = vec![Unit {
        name: RUNTIME.into(),
        command: vec![
            containerd.into(),
            "--config".into(),
            paths.config("containerd.toml").display().to_string(),
        ],
        log: paths.log(RUNTIME),
        stop_timeout: 10,
        tier: None,
    }];
    for daemon in DAEMONS {
        let mut flags = flags(cluster, daemon)?;
        flags.insert("log-level".into(), json!(cluster.parameters.log_level));
        for extra in &cluster.parameters.extra_flags {
            if extra.daemon == daemon {
                flags.insert(extra.name.clone(), json!(extra.value));
            }
        }
        let config = paths.config(&format!("{daemon}.yaml"));
        let text = serde_yaml::to_string(&flags).with_context(|| format!("writing {}", config.display()))?;
        write_file(&config, text.as_bytes(), 0o644)?;
        units.push(Unit {
            name: daemon.into(),
            command: vec![
                cluster.parameters.bin_dir.join(daemon).display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
            log: paths.log(daemon),
            stop_timeout: 15,
            tier: match daemon {
                "kubelet" => None,
                "kube-proxy" => Some("node".into()),
                _ => Some("control-plane".into()),
            },
        });
    }
    write_file(&paths.processes(), &serde_json::to_vec_pretty(&units)?, 0o644)?;
    Ok(units)
}

/// One daemon's flags, by upstream's names.
fn flags(cluster: &Cluster, daemon: &str) -> anyhow::Result<Map<String, Value>> {
    let flags = match daemon {
        "kube-store" => store(cluster),
        "kube-apiserver" => apiserver(cluster),
        "kube-controller-manager" => controller_manager(cluster),
        "kube-scheduler" => scheduler(cluster),
        "kube-proxy" => proxy(cluster),
        _ => kubelet(cluster)?,
    };
    match flags {
        Value::Object(flags) => Ok(flags),
        other => anyhow::bail!("flags of {daemon} are not a mapping: {other}"),
    }
}

fn store(cluster: &Cluster) -> Value {
    let Cluster { paths, parameters } = cluster;
    let ports = &parameters.ports;
    let peer = format!("https://{}:{}", Ipv4Addr::LOCALHOST, ports.store_peer);
    json!({
        "name": parameters.node_name,
        "data-dir": paths.dir.join("store"),
        "listen-client-urls": cluster.store_endpoint(),
        "advertise-client-urls": cluster.store_endpoint(),
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": format!("{}={peer}", parameters.node_name),
        "listen-metrics-urls": format!("http://{}:{}", Ipv4Addr::LOCALHOST, ports.store_metrics),
        "cert-file": paths.pki("store-server.crt"),
        "key-file": paths.pki("store-server.key"),
        "client-cert-auth": true,
        "trusted-ca-file": paths.pki("store-ca.crt"),
        "peer-cert-file": paths.pki("store-peer.crt"),
        "peer-key-file": paths.pki("store-peer.key"),
        "peer-client-cert-auth": true,
        "peer-trusted-ca-file": paths.pki("store-ca.crt"),
    })
}

fn apiserver(cluster: &Cluster) -> Value {
    let Cluster { paths, parameters } = cluster;
    json!({
        "secure-port": parameters.ports.secure,
        "advertise-address": parameters.node_ip,
        "tls-cert-file": paths.pki("apiserver.crt"),
        "tls-private-key-file": paths.pki("apiserver.key"),
        "client-ca-file": paths.pki("ca.crt"),
        "etcd-servers": cluster.store_endpoint(),
        "etcd-cafile": paths.pki("store-ca.crt"),
        "etcd-certfile": paths.pki("apiserver-store-client.crt"),
        "etcd-keyfile": paths.pki("apiserver-store-client.key"),
        "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
        "service-account-key-file": paths.pki("sa.pub"),
        "service-account-signing-key-file": paths.pki("sa.key"),
        "service-cluster-ip-range": parameters.service_cidr,
        "service-node-port-range": parameters.service_node_port_range,
        "kubelet-client-certificate": paths.pki("apiserver-kubelet-client.crt"),
        "kubelet-client-key": paths.pki("apiserver-kubelet-client.key"),
        "kubelet-certificate-authority": paths.pki("ca.crt"),
        "proxy-client-cert-file": paths.pki("front-proxy-client.crt"),
        "proxy-client-key-file": paths.pki("front-proxy-client.key"),
        "requestheader-client-ca-file": paths.pki("front-proxy-ca.crt"),
        "requestheader-allowed-names": crate::pki::FRONT_PROXY,
        "requestheader-username-headers": "X-Remote-User",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-uid-headers": "X-Remote-Uid",
        // A node's name need not resolve.
        "kubelet-preferred-address-types": "InternalIP,Hostname",
    })
}

fn controller_manager(cluster: &Cluster) -> Value {
    let Cluster { paths, parameters } = cluster;
    json!({
        "kubeconfig": paths.kubeconfig("kube-controller-manager"),
        "secure-port": parameters.ports.controller_manager,
        "tls-cert-file": paths.pki("kube-controller-manager-server.crt"),
        "tls-private-key-file": paths.pki("kube-controller-manager-server.key"),
        "root-ca-file": paths.pki("ca.crt"),
        "service-account-private-key-file": paths.pki("sa.key"),
        "use-service-account-credentials": true,
        "cluster-signing-cert-file": paths.pki("ca.crt"),
        "cluster-signing-key-file": paths.pki("ca.key"),
        "allocate-node-cidrs": true,
        "cluster-cidr": parameters.cluster_cidr,
        "service-cluster-ip-range": parameters.service_cidr,
    })
}

fn scheduler(cluster: &Cluster) -> Value {
    let Cluster { paths, parameters } = cluster;
    json!({
        "kubeconfig": paths.kubeconfig("kube-scheduler"),
        "secure-port": parameters.ports.scheduler,
        "tls-cert-file": paths.pki("kube-scheduler-server.crt"),
        "tls-private-key-file": paths.pki("kube-scheduler-server.key"),
    })
}

fn proxy(cluster: &Cluster) -> Value {
    let Cluster { paths, parameters } = cluster;
    json!({
        "kubeconfig": paths.kubeconfig("kube-proxy"),
        "hostname-override": parameters.node_name,
        "cluster-cidr": parameters.cluster_cidr,
        "service-cluster-ip-range": parameters.service_cidr,
        "healthz-bind-address": any(parameters.ports.proxy_health),
        "metrics-bind-address": SocketAddr::new(Ipv4Addr::LOCALHOST.into(), parameters.ports.proxy_metrics),
        "cni-conf-dir": paths.cni_config(),
        "cni-data-dir": paths.cni_data(),
    })
}

fn kubelet(cluster: &Cluster) -> anyhow::Result<Value> {
    let Cluster { paths, parameters } = cluster;
    // The cluster's DNS address is reserved now, so that pods made before the add-on is there can use it later.
    let dns = cluster.dns_service_ip()?;
    Ok(json!({
        "kubeconfig": paths.kubeconfig("kubelet"),
        "hostname-override": parameters.node_name,
        "node-ip": parameters.node_ip,
        "container-runtime-endpoint": format!("unix://{}", paths.runtime_socket().display()),
        "root-dir": paths.dir.join("kubelet"),
        "pod-logs-dir": paths.dir.join("pod-logs"),
        "host-processes": paths.state(),
        // The machine is not the cluster's alone: what else fills its disk is no reason to refuse pods before it is full.
        "eviction-hard": ["memory.available<100Mi", "nodefs.available<1Gi", "imagefs.available<1Gi"],
        "image-gc-high-threshold": 100,
        "image-gc-low-threshold": 99,
        // They are imported, not pulled.
        "image-gc-exempt": format!("{}/", crate::images::REGISTRY),
        "pod-infra-container-image": crate::images::PAUSE,
        "cgroup-root": cluster.cgroup_root(),
        "cluster-dns": dns,
        "cluster-domain": "cluster.local",
        "port": parameters.ports.kubelet,
        "healthz-port": parameters.ports.kubelet_health,
        "tls-cert-file": paths.pki("kubelet.crt"),
        "tls-private-key-file": paths.pki("kubelet.key"),
        "client-ca-file": paths.pki("ca.crt"),
    }))
}

fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}
