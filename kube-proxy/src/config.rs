//! Flags, by upstream's names where the concept is the same.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use ipnet::IpNet;
use keelson_daemon::logging::LogArgs;

/// Brings service addresses and the pod network to this node.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-proxy", version)]
pub struct Config {
    /// File with further flags, as YAML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the apiserver is and who we are
    #[arg(long, value_name = "FILE", required_unless_present = "cleanup")]
    pub kubeconfig: Option<PathBuf>,
    /// The node's name, where it is not the host's
    #[arg(long)]
    pub hostname_override: Option<String>,
    /// Pod addresses of the whole cluster; traffic between them keeps its source address
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub cluster_cidr: Vec<IpNet>,
    /// Addresses of services: made reachable where the node has no default route
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub service_cluster_ip_range: Vec<IpNet>,
    /// Rewrite the source address of all traffic through services
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub masquerade_all: bool,
    /// The bit of the packet mark that asks for a rewritten source address
    #[arg(long, default_value_t = 14)]
    pub iptables_masquerade_bit: u32,
    /// Node addresses that answer on node ports [default: all of them]
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub nodeport_addresses: Vec<IpNet>,
    /// How changes reach the kernel
    #[arg(long, default_value = "nftables", value_parser = ["nftables"])]
    pub proxy_mode: String,
    /// The name of the nftables tables
    #[arg(long, default_value = "keelson")]
    pub nftables_table: String,
    /// How often the kernel's rules are compared with the wanted ones even if nothing changed
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub sync_period: Duration,
    /// The least time between two changes of the kernel's rules
    #[arg(long, default_value = "50ms", value_parser = duration)]
    pub min_sync_period: Duration,
    /// Where /healthz is served
    #[arg(long, default_value = "0.0.0.0:10256", value_parser = address)]
    pub healthz_bind_address: SocketAddr,
    /// Where /metrics is served
    #[arg(long, default_value = "127.0.0.1:10249", value_parser = address)]
    pub metrics_bind_address: SocketAddr,
    /// Where the pod network is configured for the container runtime
    #[arg(long, default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Where CNI plugins remember which addresses they gave out
    #[arg(long, default_value = "/var/lib/cni/networks")]
    pub cni_data_dir: PathBuf,
    /// Configure the node's pod network (CNI configuration and routes); off where something else does
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub manage_pod_network: bool,
    /// Remove everything that kube-proxy made on this node, and exit
    #[arg(long, num_args = 0..=1, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub cleanup: bool,
    /// How log lines look
    #[command(flatten)]
    pub logging: LogArgs,
}

/// `50ms`, `30s`, `2m`, `1h`, and sums of them, as Go writes durations.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 30s or 1m30s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += match &rest[..letters] {
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" => Duration::from_secs(number * 60),
            "h" => Duration::from_secs(number * 3600),
            _ => return Err(wrong()),
        };
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// `ADDRESS:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not ADDRESS:PORT"))
}

/// Families of addresses that rules are made for.
#[must_use]
pub fn families(addresses: &[IpNet]) -> Vec<crate::rules::Family> {
    use crate::rules::Family;
    let has = |v6: bool| {
        addresses
            .iter()
            .any(|net| matches!(net.addr(), IpAddr::V6(_)) == v6)
    };
    match (has(false), has(true)) {
        (true, true) => vec![Family::V4, Family::V6],
        (false, true) => vec![Family::V6],
        _ => vec![Family::V4],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for wrong in ["", "5", "5x", "s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn flags_are_consistent() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }
}
