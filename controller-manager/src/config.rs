//! The flags of kube-controller-manager.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use keelson_daemon::logging::LogArgs;

/// The control loops of the cluster.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-controller-manager", version)]
pub struct Config {
    /// YAML file with flag names as keys; the command line overrides it
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// How to reach the apiserver, and as whom
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,

    /// Work only while holding the lease `kube-system/kube-controller-manager`
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// How long others wait before they take over a lease that is not renewed
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it stops working
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// How often the lease is tried for
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,

    /// Controllers to run: `*` for all, `name` for one, `-name` for all but one
    #[arg(long, value_delimiter = ',', default_value = "*", allow_hyphen_values = true)]
    pub controllers: Vec<String>,

    /// Give nodes pod ranges out of `--cluster-cidr`
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub allocate_node_cidrs: bool,
    /// The range of all pods; with a second one of the other family, both
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub cluster_cidr: Vec<String>,
    /// The range of all services: never given to a node
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub service_cluster_ip_range: Vec<String>,
    /// Prefix length of a node's IPv4 pod range
    #[arg(long, default_value_t = 24)]
    pub node_cidr_mask_size: u8,
    /// Prefix length of a node's IPv6 pod range
    #[arg(long, default_value_t = 64)]
    pub node_cidr_mask_size_ipv6: u8,

    /// Certificates published to every namespace as `kube-root-ca.crt`
    #[arg(long, value_name = "FILE")]
    pub root_ca_file: Option<PathBuf>,

    /// Key that tokens of service accounts in secrets are signed with; without it, none are made
    #[arg(long, value_name = "FILE")]
    pub service_account_private_key_file: Option<PathBuf>,
    /// Run each controller as a service account of its own, in kube-system, with no more than the role it needs
    #[arg(long, default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub use_service_account_credentials: bool,

    /// Certificate of the authority that signs certificate requests
    #[arg(long, value_name = "FILE", requires = "cluster_signing_key_file")]
    pub cluster_signing_cert_file: Option<PathBuf>,
    /// Key of that authority
    #[arg(long, value_name = "FILE", requires = "cluster_signing_cert_file")]
    pub cluster_signing_key_file: Option<PathBuf>,
    /// The longest life of certificates signed for requests
    #[arg(long, default_value = "8760h", value_parser = duration)]
    pub cluster_signing_duration: Duration,

    /// How long a node may be silent before it counts as unknown
    #[arg(long, default_value = "50s", value_parser = duration)]
    pub node_monitor_grace_period: Duration,
    /// Nodes a second that are given up in a healthy zone
    #[arg(long, default_value_t = 0.1)]
    pub node_eviction_rate: f32,
    /// Nodes a second that are given up in a zone where many are silent
    #[arg(long, default_value_t = 0.01)]
    pub secondary_node_eviction_rate: f32,
    /// The share of silent nodes at which a zone counts as unhealthy
    #[arg(long, default_value_t = 0.55)]
    pub unhealthy_zone_threshold: f32,
    /// In an unhealthy zone of no more nodes than this, none is given up
    #[arg(long, default_value_t = 50)]
    pub large_cluster_size_threshold: usize,

    /// How many ended pods are kept before the oldest are deleted; 0 keeps all
    #[arg(long, default_value_t = 12_500)]
    pub terminated_pod_gc_threshold: usize,
    /// Whether objects whose owners are gone are deleted
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_garbage_collector: bool,
    /// Pods of one service in one endpoint slice
    #[arg(long, default_value_t = 100)]
    pub max_endpoints_per_slice: usize,
    /// Addresses of one subset of Endpoints that are mirrored to endpoint slices
    #[arg(long, default_value_t = 1000)]
    pub mirroring_max_endpoints_per_subset: usize,

    /// Deployments reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_deployment_syncs: usize,
    /// ReplicaSets reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_replicaset_syncs: usize,
    /// ReplicationControllers reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_rc_syncs: usize,
    /// Endpoints objects reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_endpoint_syncs: usize,
    /// Services whose endpoint slices are reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_service_endpoint_syncs: usize,
    /// Endpoints that are mirrored to endpoint slices at once
    #[arg(long, default_value_t = 5)]
    pub mirroring_concurrent_service_endpoint_syncs: usize,
    /// DaemonSets reconciled at once
    #[arg(long, default_value_t = 2)]
    pub concurrent_daemonset_syncs: usize,
    /// StatefulSets reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_statefulset_syncs: usize,
    /// Jobs reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_job_syncs: usize,
    /// CronJobs reconciled at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_cron_job_syncs: usize,
    /// Namespaces emptied at once
    #[arg(long, default_value_t = 10)]
    pub concurrent_namespace_syncs: usize,
    /// Objects garbage collected at once
    #[arg(long, default_value_t = 20)]
    pub concurrent_gc_syncs: usize,
    /// Default service accounts created at once
    #[arg(long, default_value_t = 5)]
    pub concurrent_serviceaccount_token_syncs: usize,

    /// The address of the health and metrics server
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Its port
    #[arg(long, default_value_t = 10257)]
    pub secure_port: u16,
    /// Its certificate; without one it listens on 127.0.0.1 only, in plain HTTP
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// The certificate's key
    #[arg(long, value_name = "FILE", requires = "tls_cert_file")]
    pub tls_private_key_file: Option<PathBuf>,

    /// Logging
    #[command(flatten)]
    pub log: LogArgs,
}

/// Durations as Go writes them: `50s`, `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a duration (as in 50s or 1m30s)");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..unit_end] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            _ => return Err(wrong()),
        };
        total += unit.saturating_mul(u32::try_from(number).map_err(|_| wrong())?);
        rest = &rest[unit_end..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("").is_err() && duration("5").is_err() && duration("s").is_err());
    }

    #[test]
    fn flags_parse() {
        let config = Config::try_parse_from(["x", "--kubeconfig=k", "--controllers=*,-namespace-controller"]);
        let config = config.expect("flags");
        assert_eq!(config.controllers, ["*", "-namespace-controller"]);
        assert!(config.leader_elect);
        assert!(Config::try_parse_from(["x", "--kubeconfig=k", "--nonesuch"]).is_err());
    }
}
