//! The flags of kube-scheduler.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};
use keelson_daemon::logging::LogArgs;

/// Finds nodes for pods.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-scheduler", version)]
pub struct Config {
    /// YAML file with flag names as keys; the command line overrides it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How to reach the apiserver, and as whom
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: PathBuf,
    /// The name pods ask for this scheduler by, in spec.schedulerName
    #[arg(long, default_value = "default-scheduler")]
    pub scheduler_name: String,

    /// Work only while holding the lease kube-system/kube-scheduler
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,
    /// How long others wait before they take over a lease that is not renewed
    #[arg(long, default_value = "15s", value_parser = duration)]
    pub leader_elect_lease_duration: Duration,
    /// How long the leader tries to renew before it stops working
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub leader_elect_renew_deadline: Duration,
    /// How often the lease is renewed
    #[arg(long, default_value = "2s", value_parser = duration)]
    pub leader_elect_retry_period: Duration,
    /// Where the lease is
    #[arg(long, default_value = "kube-system")]
    pub leader_elect_resource_namespace: String,
    /// The lease's name
    #[arg(long, default_value = "kube-scheduler")]
    pub leader_elect_resource_name: String,

    /// The address of the health and metrics server
    #[arg(long, default_value = "0.0.0.0")]
    pub bind_address: IpAddr,
    /// Its port
    #[arg(long, default_value_t = 10259)]
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

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Result<jiff::SignedDuration, _> = text.parse();
    let wrong = || format!("{text:?} is not a duration (as in 15s or 1m30s)");
    parsed
        .ok()
        .and_then(|duration| duration.try_into().ok())
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_flags_are_understood() {
        let args = [
            "kube-scheduler",
            "--kubeconfig=/k",
            "--leader-elect=false",
            "--leader-elect-lease-duration=1m30s",
        ];
        let config = Config::try_parse_from(args).unwrap();
        assert!(!config.leader_elect);
        assert_eq!(config.leader_elect_lease_duration, Duration::from_secs(90));
        assert_eq!(config.secure_port, 10259);
        assert!(
            Config::try_parse_from([
                "kube-scheduler",
                "--kubeconfig=/k",
                "--leader-elect-retry-period=-1s"
            ])
            .is_err()
        );
        assert!(Config::try_parse_from(["kube-scheduler", "--kubeconfig=/k", "--no-such-flag"]).is_err());
    }
}
