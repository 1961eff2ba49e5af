//! Flags, named as etcd's.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{ArgAction, Parser, ValueEnum};
use keelson_daemon::logging::LogArgs;
use keelson_daemon::tls::{PemSource, ServerTls, client_config};

use crate::urls::{InitialMember, Scheme, Url, parse_initial_cluster};

/// What `--quota-backend-bytes 0` means, as in etcd.
const DEFAULT_QUOTA_BYTES: u64 = 2 << 30;

/// Whether a group begins or is joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClusterState {
    /// It begins with the members of `--initial-cluster`.
    New,
    /// It exists, and was told of this member.
    Existing,
}

/// What `--auto-compaction-retention` counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompactionMode {
    /// Time.
    Periodic,
    /// Revisions.
    Revision,
}

/// A key-value store with the etcd v3 API, replicated by Raft.
#[derive(Debug, Clone, Parser)]
#[command(name = "kube-store", version)]
pub struct Config {
    /// YAML file of flags by name; flags on the command line win
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Human-readable name of this member
    #[arg(long, default_value = "default")]
    pub name: String,
    /// Folder of the state; NAME.etcd if not given
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
    /// Folder of the write-ahead log; in the data folder if not given
    #[arg(long)]
    pub wal_dir: Option<PathBuf>,

    /// URLs to listen on for clients
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    pub listen_client_urls: Vec<Url>,
    /// Client URLs that are told to the group
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2379")]
    pub advertise_client_urls: Vec<Url>,
    /// URLs to listen on for other members
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub listen_peer_urls: Vec<Url>,
    /// Peer URLs that are told to the group
    #[arg(long, value_delimiter = ',', default_value = "http://localhost:2380")]
    pub initial_advertise_peer_urls: Vec<Url>,
    /// URLs to serve /metrics and /health on, without client certificates
    #[arg(long, value_delimiter = ',')]
    pub listen_metrics_urls: Vec<Url>,

    /// Members that a new group begins with, or that an existing one has, as NAME=URL,...
    #[arg(long)]
    pub initial_cluster: Option<String>,
    /// Whether the group is new or exists
    #[arg(long, value_enum, default_value = "new")]
    pub initial_cluster_state: ClusterState,
    /// Distinguishes groups that begin with the same URLs
    #[arg(long, default_value = "etcd-cluster")]
    pub initial_cluster_token: String,

    /// Certificate for clients
    #[arg(long, requires = "key_file")]
    pub cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "cert_file")]
    pub key_file: Option<PathBuf>,
    /// Authority of clients' certificates
    #[arg(long)]
    pub trusted_ca_file: Option<PathBuf>,
    /// Refuse clients without a certificate of that authority
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub client_cert_auth: bool,
    /// Certificate for other members, as server and as client
    #[arg(long, requires = "peer_key_file")]
    pub peer_cert_file: Option<PathBuf>,
    /// Its key
    #[arg(long, requires = "peer_cert_file")]
    pub peer_key_file: Option<PathBuf>,
    /// Authority of members' certificates
    #[arg(long)]
    pub peer_trusted_ca_file: Option<PathBuf>,
    /// Refuse members without a certificate of that authority
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", action = ArgAction::Set)]
    pub peer_client_cert_auth: bool,

    /// What --auto-compaction-retention counts
    #[arg(long, value_enum, default_value = "periodic")]
    pub auto_compaction_mode: CompactionMode,
    /// History to keep: hours or a duration (5m, 1h30m), or a number of revisions; 0 keeps all
    #[arg(long, default_value = "0")]
    pub auto_compaction_retention: String,

    /// Milliseconds between a leader's heartbeats
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=10_000))]
    pub heartbeat_interval: u64,
    /// Milliseconds of a leader's silence before an election
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(50..=50_000))]
    pub election_timeout: u64,
    /// Raise the space alarm at this size; 0 is 2 GiB
    #[arg(long, default_value_t = 0)]
    pub quota_backend_bytes: u64,
    /// Largest request that is accepted
    #[arg(long, default_value_t = 1_572_864)]
    pub max_request_bytes: usize,
    /// Most operations in a transaction
    #[arg(long, default_value_t = 128)]
    pub max_txn_ops: usize,
    /// How often silent watches that asked for it are told where they are
    #[arg(long, default_value = "10m", value_parser = parse_duration, alias = "experimental-watch-progress-notify-interval")]
    pub watch_progress_notify_interval: Duration,
    /// Most entries of the log that are kept for members that are behind; beyond that they get a snapshot
    #[arg(long, default_value_t = 10_000)]
    pub snapshot_count: u64,
    /// Ask before an election whether it could be won
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub pre_vote: bool,
    /// Refuse changes of the group that would leave it without a working majority
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", action = ArgAction::Set)]
    pub strict_reconfig_check: bool,

    /// Logging
    #[command(flatten)]
    pub logging: LogArgs,
}

/// When history is dropped without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoCompaction {
    /// Never.
    Off,
    /// What is older.
    Periodic(Duration),
    /// What is further back.
    Revisions(i64),
}

impl Config {
    /// Folder of the state.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name)))
    }

    /// Folder of the write-ahead log.
    #[must_use]
    pub fn wal_dir(&self) -> PathBuf {
        self.wal_dir
            .clone()
            .unwrap_or_else(|| self.data_dir().join("wal"))
    }

    /// The members of `--initial-cluster`; this one alone if it is not given.
    ///
    /// # Errors
    /// When the flag cannot be read or leaves this member out.
    pub fn initial_members(&self) -> anyhow::Result<Vec<InitialMember>> {
        let Some(text) = &self.initial_cluster else {
            return Ok(vec![InitialMember {
                name: self.name.clone(),
                peer_urls: self.initial_advertise_peer_urls.clone(),
            }]);
        };
        let members = parse_initial_cluster(text).map_err(anyhow::Error::msg)?;
        let Some(own) = members.iter().find(|member| member.name == self.name) else {
            bail!("--initial-cluster does not name this member, {:?}", self.name);
        };
        let sorted = |urls: &[Url]| {
            let mut texts: Vec<String> = urls.iter().map(Url::to_string).collect();
            texts.sort_unstable();
            texts
        };
        if sorted(&own.peer_urls) != sorted(&self.initial_advertise_peer_urls) {
            bail!(
                "--initial-cluster gives {:?} other URLs than --initial-advertise-peer-urls",
                self.name
            );
        }
        Ok(members)
    }

    /// The quota in bytes.
    #[must_use]
    pub fn quota(&self) -> u64 {
        match self.quota_backend_bytes {
            0 => DEFAULT_QUOTA_BYTES,
            bytes => bytes,
        }
    }

    /// When history is dropped without being asked.
    ///
    /// # Errors
    /// When the retention cannot be read.
    pub fn auto_compaction(&self) -> anyhow::Result<AutoCompaction> {
        let text = self.auto_compaction_retention.trim();
        let number: Option<i64> = text.parse().ok();
        let wrong = || format!("--auto-compaction-retention: {text:?}");
        Ok(match (self.auto_compaction_mode, number) {
            (_, Some(0)) => AutoCompaction::Off,
            (CompactionMode::Revision, Some(revisions)) if revisions > 0 => {
                AutoCompaction::Revisions(revisions)
            }
            (CompactionMode::Revision, _) => bail!("{} is not a number of revisions", wrong()),
            (CompactionMode::Periodic, Some(hours)) => {
                let hours = u64::try_from(hours).with_context(wrong)?;
                AutoCompaction::Periodic(Duration::from_secs(hours.saturating_mul(3600)))
            }
            (CompactionMode::Periodic, None) => AutoCompaction::Periodic(
                parse_duration(text)
                    .map_err(anyhow::Error::msg)
                    .with_context(wrong)?,
            ),
        })
    }

    /// TLS for clients, if a URL wants it.
    ///
    /// # Errors
    /// When key material is missing or cannot be used.
    pub fn client_tls(&self) -> anyhow::Result<Option<ServerTls>> {
        server_tls(
            &self.listen_client_urls,
            self.cert_file.as_ref().zip(self.key_file.as_ref()),
            self.trusted_ca_file.as_ref(),
            self.client_cert_auth,
            "--listen-client-urls",
        )
    }

    /// TLS for other members, if a URL wants it.
    ///
    /// # Errors
    /// When key material is missing or cannot be used.
    pub fn peer_tls(&self) -> anyhow::Result<Option<ServerTls>> {
        server_tls(
            &self.listen_peer_urls,
            self.peer_cert_file.as_ref().zip(self.peer_key_file.as_ref()),
            self.peer_trusted_ca_file.as_ref(),
            self.peer_client_cert_auth,
            "--listen-peer-urls",
        )
    }

    /// TLS towards other members.
    ///
    /// # Errors
    /// When key material cannot be used.
    pub fn peer_client_tls(&self) -> anyhow::Result<Option<rustls::ClientConfig>> {
        let Some(authority) = &self.peer_trusted_ca_file else {
            return Ok(None);
        };
        let identity = self
            .peer_cert_file
            .as_ref()
            .zip(self.peer_key_file.as_ref())
            .map(|(certificate, key)| (PemSource::File(certificate.clone()), PemSource::File(key.clone())));
        Ok(Some(client_config(
            Some(PemSource::File(authority.clone())),
            identity,
        )?))
    }
}

fn server_tls(
    urls: &[Url],
    identity: Option<(&PathBuf, &PathBuf)>,
    authority: Option<&PathBuf>,
    judge: bool,
    flag: &str,
) -> anyhow::Result<Option<ServerTls>> {
    if urls.iter().all(|url| url.scheme == Scheme::Http) {
        return Ok(None);
    }
    let Some((certificate, key)) = identity else {
        bail!("{flag} has an https URL, but there is no certificate for it");
    };
    if judge && authority.is_none() {
        bail!("{flag}: client certificates are asked for, but no authority to check them by is given");
    }
    Ok(Some(ServerTls::load(
        certificate,
        key,
        authority.map(PathBuf::as_path),
    )?))
}

/// Reads a duration as Go writes them: `1h30m`, `500ms`, `10s`.
///
/// # Errors
/// When it is something else.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration such as 1h30m, 10s or 500ms");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let unit = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        rest = &rest[unit..];
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Config, clap::Error> {
        let all = std::iter::once("kube-store").chain(args.iter().copied());
        keelson_daemon::config::try_parse(all.map(std::ffi::OsString::from))
    }

    #[test]
    fn durations_are_gos() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert!(parse_duration("5").is_err());
        assert!(parse_duration("").is_err());
    }

    #[test]
    fn an_unknown_flag_is_named() {
        let error = parse(&["--listen-clients-urls=http://x:1"])
            .map(|_| ())
            .expect_err("an unknown flag");
        assert!(error.to_string().contains("--listen-clients-urls"), "{error}");
    }

    #[test]
    fn retention_is_hours_a_duration_or_revisions() -> anyhow::Result<()> {
        let with = |args: &[&str]| -> anyhow::Result<AutoCompaction> { parse(args)?.auto_compaction() };
        assert_eq!(with(&[])?, AutoCompaction::Off);
        assert_eq!(
            with(&["--auto-compaction-retention=1"])?,
            AutoCompaction::Periodic(Duration::from_secs(3600))
        );
        assert_eq!(
            with(&["--auto-compaction-retention=5m"])?,
            AutoCompaction::Periodic(Duration::from_secs(300))
        );
        assert_eq!(
            with(&[
                "--auto-compaction-mode=revision",
                "--auto-compaction-retention=100"
            ])?,
            AutoCompaction::Revisions(100)
        );
        assert!(
            with(&[
                "--auto-compaction-mode=revision",
                "--auto-compaction-retention=5m"
            ])
            .is_err()
        );
        Ok(())
    }

    #[test]
    fn the_initial_cluster_must_name_this_member() -> anyhow::Result<()> {
        let config = parse(&["--name=a", "--initial-cluster=b=http://localhost:2380"])?;
        assert!(config.initial_members().is_err());
        let config = parse(&["--name=a", "--initial-cluster=a=http://localhost:2380"])?;
        assert_eq!(config.initial_members()?.len(), 1);
        Ok(())
    }
}
