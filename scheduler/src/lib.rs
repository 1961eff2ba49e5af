//! kube-scheduler: binds pods to nodes through the scheduling framework.
//!
//! ```text
//! config.rs      flags
//! driver.rs      informers in, decisions out: the loop, and all I/O but binding
//! binder.rs      bindings in batches: the DefaultBinder plugin
//! trim.rs        what informers need not keep
//! metrics.rs     figures for Prometheus
//! engine/        the pure core
//!   cache.rs       nodes and the pods on them, assumed ones included
//!   queue.rs       active, back-off, unschedulable and gated pods
//!   cycle.rs       one pod: filter, score, choose, reserve
//!   shared.rs      verdicts shared by pods with equal requirements
//!   diagnosis.rs   why a pod fits nowhere, in words
//! framework/     the extension points as traits, profiles, events and hints
//! model/         pods and nodes as scheduling sees them
//! plugins/       the plugins, one in each file, and the default profile
//! ```
#![forbid(unsafe_code)]

mod binder;
pub mod config;
mod driver;
pub mod engine;
pub mod framework;
mod metrics;
pub mod model;
pub mod plugins;
#[cfg(test)]
mod testing;
mod trim;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context as _;
use keelson_client::{Client, ClientConfig, LeaderConfig, run_as_leader};
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use keelson_daemon::tls::ServerTls;
use tokio_util::sync::CancellationToken;

pub use config::Config;

/// Schedules pods until `shutdown`, or until leadership is lost.
///
/// # Errors
/// When the configuration does not work, the port is taken, or leadership is lost: the process is then to be started
/// again.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client_config = ClientConfig::from_kubeconfig(&config.kubeconfig)
        .with_context(|| format!("--kubeconfig {}", config.kubeconfig.display()))?;
    let client = Client::new(client_config).context("connecting to the apiserver")?;
    let registry = Metrics::new();
    let metrics = metrics::SchedulerMetrics::register(&registry);
    // The informers run before leadership comes, so that a new leader starts with everything it needs.
    let informers = driver::Informers::start(&client, &shutdown);
    serve(&config, HealthServer::new(registry), &shutdown).await?;
    keelson_daemon::notify::ready();
    let profiles = vec![plugins::default_profile(
        &config.scheduler_name,
        vec![Arc::new(binder::DefaultBinder::new(&client))],
    )];
    let lead = {
        let client = client.clone();
        let name = config.scheduler_name.clone();
        move |leading| driver::run(client, name, profiles, informers, metrics, leading)
    };
    if !config.leader_elect {
        lead(shutdown).await;
        return Ok(());
    }
    let mut lease = LeaderConfig::new(
        &config.leader_elect_resource_namespace,
        &config.leader_elect_resource_name,
    );
    lease.lease_duration = config.leader_elect_lease_duration;
    lease.renew_deadline = config.leader_elect_renew_deadline;
    lease.retry_period = config.leader_elect_retry_period;
    run_as_leader(client, lease, shutdown, lead)
        .await
        .context("leader election")
}

async fn serve(config: &Config, health: HealthServer, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let (address, tls) = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(certificate), Some(key)) => (
            config.bind_address,
            Some(ServerTls::load(certificate, key, None)?),
        ),
        // What is not protected does not leave the machine.
        _ => (IpAddr::V4(Ipv4Addr::LOCALHOST), None),
    };
    let address = SocketAddr::new(address, config.secure_port);
    health.serve(address, tls, shutdown.clone()).await?;
    Ok(())
}
