//! kube-controller-manager: the control loops of the cluster.
//!
//! ```text
//! config.rs               flags
//! context.rs              what controllers share: client, configuration, one informer per kind
//! wiring.rs               the list of controllers
//! identities.rs           the service accounts they act as
//! common/                 pods, owners, templates, expectations: what several of them need
//! deployment/             rollouts over ReplicaSets
//! replicaset/             keeps a number of pods running; the loop is generic
//! replicationcontroller/  the same loop over the older kind
//! daemonset/              a pod on every node
//! statefulset/            pods with names, an order and storage of their own
//! job/                    pods that run to completion
//! cronjob/                jobs at given times
//! endpoints/              the addresses behind services, one object each
//! endpointslice/          the same in slices of a hundred
//! endpointslicemirroring/ slices of addresses that somebody has written by hand
//! namespace/              empties namespaces that are being deleted
//! disruption/             how many pods of a budget may be evicted
//! resourcequota/         what namespaces use of their quotas
//! servicecidr/           ranges of service addresses stay until nothing uses them
//! volumeprotection/      volumes and claims in use stay until nothing uses them
//! serviceaccount/         the account `default` in every namespace
//! serviceaccounttoken/    tokens in secrets, for accounts that want them
//! bootstraptokens/        tokens of machines that join: removed at their end, and what they sign
//! rootca/                 the cluster's root certificate in every namespace
//! certificates/           certificates for those who ask: approved, signed, cleaned up
//! clusterroleaggregation/ cluster roles made of other cluster roles
//! nodeipam/               pod ranges for nodes
//! nodelifecycle/          silent nodes: conditions, taints
//! tainteviction/          pods that do not tolerate their node's taints
//! podgc/                  pods that ended long ago, or whose node is gone
//! garbagecollector/       objects whose owners are gone
//! ```
//!
//! A controller is a pure core, from what is observed to what has to be written, and a shell around it that puts
//! keys into a queue when informers report changes, and carries out what the core decided.
#![forbid(unsafe_code)]

pub mod bootstraptokens;
pub mod certificates;
pub mod clusterroleaggregation;
pub mod common;
pub mod config;
pub mod context;
pub mod cronjob;
pub mod daemonset;
pub mod deployment;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslicemirroring;
pub mod garbagecollector;
pub mod identities;
pub mod job;
pub mod namespace;
pub mod nodeipam;
pub mod nodelifecycle;
pub mod podgc;
pub mod replicaset;
pub mod replicationcontroller;
pub mod resourcequota;
pub mod rootca;
pub mod serviceaccount;
pub mod serviceaccounttoken;
pub mod servicecidr;
pub mod statefulset;
pub mod tainteviction;
pub mod volumeprotection;
pub mod wiring;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use keelson_client::{Client, ClientConfig, Discovery, LeaderConfig, run_as_leader};
use keelson_daemon::backoff::Backoff;
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use keelson_daemon::tls::ServerTls;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use config::Config;
use context::Context;
use identities::Identities;
use wiring::Controller;

/// The first wait before the apiserver is asked again what it serves.
const DISCOVERY_RETRY: Duration = Duration::from_millis(200);
/// The longest wait.
const DISCOVERY_RETRY_MAX: Duration = Duration::from_secs(5);

/// Runs the controllers until `shutdown`, or until leadership is lost.
///
/// # Errors
/// When the configuration does not work, the port is taken, or leadership is lost: the process is then to be
/// started again, so that nothing of the former leader's state survives.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let controllers = wiring::selected(&config.controllers).map_err(anyhow::Error::msg)?;
    nodeipam::check(&config).map_err(anyhow::Error::msg)?;
    let client_config = ClientConfig::from_kubeconfig(&config.kubeconfig)?;
    let client = Client::new(client_config.clone())?;
    let identities = match config.use_service_account_credentials {
        true => Some(Identities::new(&client, client_config)?),
        false => None,
    };
    serve_health(&config, &shutdown).await?;
    keelson_daemon::notify::ready();
    let outcome = if config.leader_elect {
        let leader = LeaderConfig {
            namespace: "kube-system".into(),
            name: "kube-controller-manager".into(),
            identity: identity(),
            lease_duration: config.leader_elect_lease_duration,
            renew_deadline: config.leader_elect_renew_deadline,
            retry_period: config.leader_elect_retry_period,
        };
        let lead = {
            let client = client.clone();
            move |leading| run_controllers(Context::new(client, config, leading), controllers, identities)
        };
        run_as_leader(client, leader, shutdown, lead)
            .await
            .context("leader election")
    } else {
        run_controllers(Context::new(client, config, shutdown), controllers, identities).await;
        Ok(())
    };
    keelson_daemon::notify::stopping();
    outcome
}

async fn run_controllers(
    context: Context,
    controllers: Vec<&'static Controller>,
    identities: Option<Identities>,
) {
    let identities = identities.map(|identities| Arc::new(identities.renewed_in(&context)));
    let Some(served) = discover(&context).await else {
        return;
    };
    let is_served = |(group, plural): (&str, &str)| {
        served
            .resources
            .iter()
            .any(|resource| resource.group == group && resource.plural == plural)
    };
    let mut running = JoinSet::new();
    for controller in controllers {
        if is_served(controller.resource) {
            let started = start(context.clone(), controller, identities.clone());
            running.spawn(started.map(|()| controller.name));
        } else {
            tracing::info!(
                controller = controller.name,
                "not started: the apiserver does not serve its resource"
            );
        }
    }
    tracing::info!(count = running.len(), "controllers started");
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(controller) if context.shutdown().is_cancelled() => tracing::debug!(controller, "stopped"),
            Ok(controller) => tracing::debug!(controller, "has nothing to do with these flags"),
            Err(error) => tracing::error!(%error, "a controller died"),
        }
    }
}

/// Runs a controller, as its own service account if it is to have one.
async fn start(context: Context, controller: &'static Controller, identities: Option<Arc<Identities>>) {
    let context = match (identities, controller.account) {
        (Some(identities), Some(account)) => {
            let Some(client) = identities.client(account, context.shutdown()).await else {
                return;
            };
            context.calling_as(client)
        }
        _ => context,
    };
    (controller.run)(context).await;
}

/// What the apiserver serves; `None` if this process has to stop before it says so.
pub(crate) async fn discover(context: &Context) -> Option<Discovery> {
    let mut backoff = Backoff::new(DISCOVERY_RETRY, DISCOVERY_RETRY_MAX);
    loop {
        match context.client().discover().await {
            Ok(served) => return Some(served),
            Err(error) => tracing::warn!(%error, "asking the apiserver what it serves"),
        }
        tokio::select! {
            () = context.shutdown().cancelled() => return None,
            () = tokio::time::sleep(backoff.next_wait()) => {}
        }
    }
}

async fn serve_health(config: &Config, shutdown: &CancellationToken) -> anyhow::Result<()> {
    let (address, tls) = match (&config.tls_cert_file, &config.tls_private_key_file) {
        (Some(cert), Some(key)) => (config.bind_address, Some(ServerTls::load(cert, key, None)?)),
        // Metrics are not for the network in plain text.
        _ => (IpAddr::V4(Ipv4Addr::LOCALHOST), None),
    };
    let address = SocketAddr::new(address, config.secure_port);
    HealthServer::new(Metrics::new())
        .serve(address, tls, shutdown.clone())
        .await?;
    Ok(())
}

/// Names this process among those that want to lead.
fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{:016x}", host.trim(), rand::random::<u64>())
}
