//! The kubelet's flags, with upstream's names.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use k8s_openapi::api::core::v1::Taint;
use keelson_api::quantity::Amount;
use keelson_daemon::logging::LogArgs;

/// Runs the pods that are bound to one node, on a CRI runtime.
#[derive(Parser, Debug, Clone)]
#[command(name = "kubelet", version, about)]
pub struct Config {
    /// YAML file with these same flags as keys; the command line wins
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Kubeconfig with the apiserver's address and this node's identity
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// Name of the node; the host's name if not given
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Addresses of the node, comma-separated; the one towards the apiserver if not given
    #[arg(long, value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Labels for the node, KEY=VALUE, comma-separated
    #[arg(long, value_delimiter = ',', value_parser = key_value)]
    pub node_labels: Vec<(String, String)>,
    /// Taints for a new node, KEY=VALUE:EFFECT, comma-separated
    #[arg(long, value_delimiter = ',', value_parser = taint)]
    pub register_with_taints: Vec<Taint>,
    /// Register the node with the apiserver
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub register_node: bool,
    /// How often the node's status is computed, seconds or a duration such as 10s
    #[arg(long, default_value = "10s", value_parser = keelson_daemon::duration::parse)]
    pub node_status_update_frequency: Duration,
    /// How often the node's status is sent although it has not changed
    #[arg(long, default_value = "5m", value_parser = keelson_daemon::duration::parse)]
    pub node_status_report_frequency: Duration,
    /// How long the node's lease holds; it is renewed four times in this time
    #[arg(long, default_value = "40s", value_parser = keelson_daemon::duration::parse)]
    pub node_lease_duration: Duration,

    /// Socket of the container runtime
    #[arg(long, default_value = "unix:///run/containerd/containerd.sock")]
    pub container_runtime_endpoint: String,
    /// Ignored by runtimes that configure their own sandbox image
    #[arg(long)]
    pub pod_infra_container_image: Option<String>,
    /// Where pods' volumes and the kubelet's own files are
    #[arg(long, default_value = "/var/lib/kubelet")]
    pub root_dir: PathBuf,
    /// Where containers' logs are
    #[arg(long, default_value = "/var/log/pods")]
    pub pod_logs_dir: PathBuf,
    /// Size at which a container's log is rotated
    #[arg(long, default_value = "10Mi", value_parser = bytes)]
    pub container_log_max_size: u64,
    /// Files a container's log may have
    #[arg(long, default_value_t = 5)]
    pub container_log_max_files: usize,
    /// Folder of static pods' manifests
    #[arg(long)]
    pub pod_manifest_path: Option<PathBuf>,
    /// A file in which a supervisor keeps what runs on the host, to be shown as pods in kube-system
    #[arg(long)]
    pub host_processes: Option<PathBuf>,
    /// How many pods the node takes
    #[arg(long, default_value_t = 110)]
    pub max_pods: u32,

    /// Addresses of the cluster's DNS, comma-separated
    #[arg(long, value_delimiter = ',')]
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "")]
    pub cluster_domain: String,
    /// The node's resolver configuration
    #[arg(long, default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,

    /// Who makes pods' cgroups; only cgroupfs is supported
    #[arg(long, default_value = "cgroupfs", value_parser = ["cgroupfs"])]
    pub cgroup_driver: String,
    /// The cgroup under which pods' cgroups are made
    #[arg(long, default_value = "/")]
    pub cgroup_root: String,
    /// Make cgroups for the QoS classes and for pods
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub cgroups_per_qos: bool,
    /// What the system needs, as in cpu=100m,memory=256Mi
    #[arg(long, value_delimiter = ',', value_parser = reservation)]
    pub system_reserved: Vec<(String, Amount)>,
    /// What the cluster's own daemons need, as in cpu=100m,memory=256Mi
    #[arg(long, value_delimiter = ',', value_parser = reservation)]
    pub kube_reserved: Vec<(String, Amount)>,
    /// When the node is under pressure, as in memory.available<100Mi,nodefs.available<10%
    #[arg(long, value_delimiter = ',', default_value = "memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<15%,imagefs.inodesFree<5%", value_parser = threshold)]
    pub eviction_hard: Vec<Threshold>,
    /// How long the node keeps saying that it is under pressure once it no longer is
    #[arg(long, default_value = "5m", value_parser = keelson_daemon::duration::parse)]
    pub eviction_pressure_transition_period: Duration,
    /// How full the images' disk may be, in percent, before unused images are removed
    #[arg(long, default_value_t = 85, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub image_gc_high_threshold: u64,
    /// How full it may be afterwards
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u64).range(0..=100))]
    pub image_gc_low_threshold: u64,
    /// How long an image stays at least before it is removed for being unused
    #[arg(long, default_value = "2m", value_parser = keelson_daemon::duration::parse)]
    pub minimum_image_ttl_duration: Duration,
    /// Beginnings of names of images that are never removed, as there is no registry to fetch them from again
    #[arg(long, value_delimiter = ',')]
    pub image_gc_exempt: Vec<String>,

    /// Address to serve on
    #[arg(long, default_value = "0.0.0.0")]
    pub address: IpAddr,
    /// Port to serve on
    #[arg(long, default_value_t = 10250)]
    pub port: u16,
    /// Port for health checks without TLS, on the loopback address; 0 turns it off
    #[arg(long, default_value_t = 0)]
    pub healthz_port: u16,
    /// Address of the health port
    #[arg(long, default_value = "127.0.0.1")]
    pub healthz_bind_address: IpAddr,
    /// Certificate to serve with
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    /// Its key
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Authority of clients' certificates
    #[arg(long)]
    pub client_ca_file: PathBuf,

    /// How long streams may be silent before they are closed
    #[arg(long, default_value = "4h", value_parser = keelson_daemon::duration::parse)]
    pub streaming_connection_idle_timeout: Duration,
    /// How the log is written
    #[command(flatten)]
    pub logging: LogArgs,
}

/// A limit below which the node counts as short of something.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    /// `memory.available`, `nodefs.available`, …
    pub signal: String,
    /// How much must be left.
    pub left: Left,
}

/// An amount, or a part of the capacity.
#[derive(Debug, Clone, PartialEq)]
pub enum Left {
    /// So much.
    Amount(Amount),
    /// So much of a hundred.
    Percent(f64),
}

impl Threshold {
    /// The limit in whole units, for a capacity.
    pub fn limit(&self, capacity: u64) -> u64 {
        match &self.left {
            Left::Amount(amount) => u64::try_from(amount.value()).unwrap_or(0),
            Left::Percent(percent) => (capacity as f64 * percent / 100.0) as u64,
        }
    }
}

impl Config {
    /// Node labels as a map.
    pub fn labels(&self) -> BTreeMap<String, String> {
        self.node_labels.iter().cloned().collect()
    }

    /// What is kept back of one resource.
    pub fn reserved(&self, name: &str) -> i128 {
        let of = |all: &[(String, Amount)]| {
            all.iter()
                .filter(|(key, _)| key == name)
                .map(|(_, amount)| amount.nanos())
                .sum::<i128>()
        };
        of(&self.system_reserved) + of(&self.kube_reserved)
    }

    /// Where a signal's limit is.
    pub fn threshold(&self, signal: &str) -> Option<&Threshold> {
        self.eviction_hard
            .iter()
            .find(|threshold| threshold.signal == signal)
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?}: want KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn taint(text: &str) -> Result<Taint, String> {
    let (what, effect) = text
        .rsplit_once(':')
        .ok_or_else(|| format!("{text:?}: want KEY=VALUE:EFFECT"))?;
    if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
        return Err(format!(
            "{text:?}: effect {effect:?} is none of NoSchedule, PreferNoSchedule, NoExecute"
        ));
    }
    let (key, value) = what.split_once('=').unwrap_or((what, ""));
    let value = (!value.is_empty()).then(|| value.to_owned());
    Ok(Taint {
        key: key.to_owned(),
        value,
        effect: effect.to_owned(),
        time_added: None,
    })
}

fn amount(text: &str) -> Result<Amount, String> {
    text.parse::<Amount>()
        .map_err(|error| format!("{text:?}: {error}"))
}

fn reservation(text: &str) -> Result<(String, Amount), String> {
    let (name, text) = key_value(text)?;
    Ok((name, amount(&text)?))
}

fn bytes(text: &str) -> Result<u64, String> {
    u64::try_from(amount(text)?.value()).map_err(|_| format!("{text:?}: want no negative size"))
}

fn threshold(text: &str) -> Result<Threshold, String> {
    let (signal, left) = text
        .split_once('<')
        .ok_or_else(|| format!("{text:?}: want SIGNAL<AMOUNT"))?;
    const SIGNALS: [&str; 7] = [
        "memory.available",
        "nodefs.available",
        "nodefs.inodesFree",
        "imagefs.available",
        "imagefs.inodesFree",
        "pid.available",
        "allocatableMemory.available",
    ];
    if !SIGNALS.contains(&signal) {
        return Err(format!("{text:?}: unknown signal {signal:?}"));
    }
    let left = match left.strip_suffix('%') {
        Some(percent) => Left::Percent(
            percent
                .parse()
                .map_err(|_| format!("{text:?}: {percent:?} is no number"))?,
        ),
        None => Left::Amount(amount(left)?),
    };
    Ok(Threshold {
        signal: signal.to_owned(),
        left,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_upstream_reads_them() {
        assert_eq!(
            threshold("nodefs.available<10%").map(|threshold| threshold.limit(500)),
            Ok(50)
        );
        assert!(threshold("ram<1").is_err());
        assert_eq!(taint("a=b:NoSchedule").map(|taint| taint.key), Ok("a".into()));
        assert!(taint("a=b:Never").is_err());
    }
}
