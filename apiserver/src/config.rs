//! The command line, with upstream's flag names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use ipnet::IpNet;
use keelson_daemon::logging::LogArgs;

use crate::aggregator::flags::AggregatorArgs;
use crate::audit::AuditArgs;
use crate::authentication::oidc::config::OidcArgs;
use crate::authentication::webhook::TokenWebhookArgs;
use crate::authorization::config::AuthorizationArgs;
use crate::storage::connect::StoreAddress;

/// kube-apiserver: the Kubernetes API over REST and gRPC.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-apiserver", version)]
pub struct Config {
    /// YAML file of flag names and values; flags on the command line win.
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// Address to listen on.
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Port to serve HTTPS and gRPC on.
    #[arg(long, default_value_t = 6443)]
    pub secure_port: u16,
    /// Address under which other members of the cluster reach this server; by default the bind address, or for
    /// 0.0.0.0 the address of the interface with the default route.
    #[arg(long)]
    pub advertise_address: Option<IpAddr>,
    /// Server certificate, PEM.
    #[arg(long)]
    pub tls_cert_file: PathBuf,
    /// Key of the server certificate, PEM.
    #[arg(long)]
    pub tls_private_key_file: PathBuf,
    /// Authorities whose client certificates are believed, PEM.
    #[arg(long)]
    pub client_ca_file: Option<PathBuf>,
    /// CSV file of static tokens: token,user,uid,"group1,group2".
    #[arg(long)]
    pub token_auth_file: Option<PathBuf>,
    /// Whether callers without credentials are served as system:anonymous instead of being refused with 401.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub anonymous_auth: bool,
    /// Whether secrets of type bootstrap.kubernetes.io/token in kube-system let machines in.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_bootstrap_token_auth: bool,
    /// Tokens of OpenID Connect issuers.
    #[command(flatten)]
    pub oidc: OidcArgs,
    /// Tokens a webhook knows.
    #[command(flatten)]
    pub token_webhook: TokenWebhookArgs,
    /// Public or private keys service account tokens are verified with, PEM; may be repeated.
    #[arg(long)]
    pub service_account_key_file: Vec<PathBuf>,
    /// Private key service account tokens are signed with, PEM.
    #[arg(long)]
    pub service_account_signing_key_file: Option<PathBuf>,
    /// Issuer of service account tokens; the first one signs, all are accepted.
    #[arg(long, default_value = "https://kubernetes.default.svc.cluster.local")]
    pub service_account_issuer: Vec<String>,
    /// Audiences tokens may be for; by default the issuers.
    #[arg(long, value_delimiter = ',')]
    pub api_audiences: Vec<String>,
    /// Longest lifetime of a requested token, such as 24h; 0 is no limit.
    #[arg(long, default_value = "0", value_parser = duration)]
    pub service_account_max_token_expiration: Duration,
    /// Addresses of services.
    #[arg(long, default_value = "10.96.0.0/12")]
    pub service_cluster_ip_range: IpNet,
    /// Ports for services of type NodePort.
    #[arg(long, default_value = "30000-32767", value_parser = port_range)]
    pub service_node_port_range: PortRange,
    /// The store's endpoints.
    #[arg(long, value_delimiter = ',', required = true)]
    pub etcd_servers: Vec<String>,
    /// Authorities the store's certificate may come from, PEM.
    #[arg(long)]
    pub etcd_cafile: Option<PathBuf>,
    /// Certificate shown to the store, PEM.
    #[arg(long)]
    pub etcd_certfile: Option<PathBuf>,
    /// Key of the certificate shown to the store, PEM.
    #[arg(long)]
    pub etcd_keyfile: Option<PathBuf>,
    /// What every key in the store begins with.
    #[arg(long, default_value = "/registry")]
    pub etcd_prefix: String,
    /// Which resources are encrypted before they are stored, and how: an EncryptionConfiguration, YAML.
    #[arg(long)]
    pub encryption_provider_config: Option<PathBuf>,
    /// Whether that file is read again when it changes.
    #[arg(long, default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub encryption_provider_config_automatic_reload: bool,
    /// How long events are kept.
    #[arg(long, default_value = "1h", value_parser = duration)]
    pub event_ttl: Duration,
    /// Whether requests are served in fair queues by priority level, as FlowSchemas and PriorityLevelConfigurations say.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub enable_priority_and_fairness: bool,
    /// With `--max-mutating-requests-inflight`, the seats that all priority levels share. Without priority and fairness,
    /// reading requests served at the same time; 0 is no limit then.
    #[arg(long, default_value_t = 400)]
    pub max_requests_inflight: usize,
    /// Added to `--max-requests-inflight`. Without priority and fairness, writing requests served at the same time; 0 is
    /// no limit then.
    #[arg(long, default_value_t = 200)]
    pub max_mutating_requests_inflight: usize,
    /// Shortest time after which a watch without a timeout of its own is ended, in seconds.
    #[arg(long, default_value_t = 1800)]
    pub min_request_timeout: u64,
    /// Who may do what.
    #[command(flatten)]
    pub authorization: AuthorizationArgs,
    /// Admission plugins to run besides the default ones.
    #[arg(long, value_delimiter = ',')]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins not to run.
    #[arg(long, value_delimiter = ',')]
    pub disable_admission_plugins: Vec<String>,
    /// How admission plugins work: an AdmissionConfiguration, YAML.
    #[arg(long)]
    pub admission_control_config_file: Option<PathBuf>,
    /// Certificate shown to kubelets, PEM.
    #[arg(long)]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Key of the certificate shown to kubelets, PEM.
    #[arg(long)]
    pub kubelet_client_key: Option<PathBuf>,
    /// Authorities kubelets' certificates may come from, PEM; without it they are not checked.
    #[arg(long)]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Kinds of node addresses to reach kubelets by, best first.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP"
    )]
    pub kubelet_preferred_address_types: Vec<String>,
    /// Servers of other group versions.
    #[command(flatten)]
    pub aggregator: AggregatorArgs,
    /// Who did what.
    #[command(flatten)]
    pub audit: AuditArgs,
    /// Logging.
    #[command(flatten)]
    pub logging: LogArgs,
}

/// A range of ports, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
}

impl Config {
    /// Where the store is and who we are to it.
    pub fn store_address(&self) -> StoreAddress {
        StoreAddress {
            servers: self.etcd_servers.clone(),
            authority: self.etcd_cafile.clone(),
            identity: self.etcd_certfile.clone().zip(self.etcd_keyfile.clone()),
        }
    }

    /// Address other members of the cluster reach this server by.
    pub fn advertised(&self) -> IpAddr {
        match self.advertise_address {
            Some(address) => address,
            None if !self.bind_address.is_unspecified() => self.bind_address,
            None => default_route_address().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        }
    }

    /// The address of the `kubernetes` service: the first of the range.
    pub fn kubernetes_service_address(&self) -> IpAddr {
        match self.service_cluster_ip_range {
            IpNet::V4(net) => IpAddr::V4((u32::from(net.network()) + 1).into()),
            IpNet::V6(net) => IpAddr::V6((u128::from(net.network()) + 1).into()),
        }
    }

    /// The issuer that signs new tokens.
    pub fn issuer(&self) -> &str {
        self.service_account_issuer.first().map_or("", String::as_str)
    }

    /// Audiences this server answers to.
    pub fn audiences(&self) -> &[String] {
        if self.api_audiences.is_empty() {
            &self.service_account_issuer
        } else {
            &self.api_audiences
        }
    }
}

/// The source address of packets to the outside. Connecting a UDP socket sends nothing.
fn default_route_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// Reads `1h30m`, `90s`, `500ms`, or `0`.
fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let bad = || format!("{text:?} is not a duration such as 1h30m or 90s");
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u64 = rest[..digits].parse().map_err(|_| bad())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        total += match &rest[digits..unit_end] {
            "h" => Duration::from_secs(number.saturating_mul(3600)),
            "m" => Duration::from_secs(number.saturating_mul(60)),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(bad()),
        };
        rest = &rest[unit_end..];
    }
    Ok(total)
}

fn port_range(text: &str) -> Result<PortRange, String> {
    let bad = || format!("{text:?} is not a range of ports such as 30000-32767");
    let (first, last) = text.split_once('-').ok_or_else(bad)?;
    let first = first.trim().parse().map_err(|_| bad())?;
    let last = last.trim().parse().map_err(|_| bad())?;
    if first > last || first == 0 {
        Err(bad())
    } else {
        Ok(PortRange { first, last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_ranges() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(duration("5 minutes").is_err());
        assert_eq!(port_range("1-2"), Ok(PortRange { first: 1, last: 2 }));
        assert!(port_range("9-2").is_err());
    }
}
