//! kube-apiserver: the Kubernetes API over REST and gRPC.
//!
//! A request goes down one staircase and its answer comes back up; each step is a room of this crate:
//!
//! | step | room |
//! | --- | --- |
//! | TLS, HTTP/1.1, HTTP/2 | [`server`] |
//! | REST | [`http`]: negotiation, answers, streams |
//! | gRPC | [`grpc`]: `keelson.v1.Resources` |
//! | what is asked | [`request_info`] |
//! | who asks | [`authentication`] |
//! | who did what | [`audit`] |
//! | how much at a time | [`flow_control`] |
//! | who may | [`authorization`] |
//! | the verbs, for every resource | [`handlers`] |
//! | plugins that change or refuse | [`admission`] |
//! | what is known about each kind | [`registry`] |
//! | what definitions add while the server runs | [`custom`] |
//! | what other servers serve | [`aggregator`] |
//! | the language of validation rules | [`cel`] |
//! | the store and the watch cache | [`storage`] |
//! | tunnels to kubelets and backends | [`connect`] |
//! | calls to webhooks | [`webhook`] |
//! | calls to what configuration files name | [`outbound`] |
//!
//! Beside it: [`discovery`], [`openapi`], [`table`], [`health`], [`version`], [`metrics`], the system's own objects in
//! [`bootstrap`], the command line in [`config`], what files of configuration have in common in [`files`], those that are
//! read again in [`reload`], and what all requests share in [`state`].

#![forbid(unsafe_code)]

pub mod admission;
pub mod aggregator;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod cel;
pub mod config;
pub mod connect;
pub mod custom;
pub mod discovery;
pub mod files;
pub mod flow_control;
pub mod grpc;
pub mod handlers;
pub mod health;
pub mod http;
pub mod metrics;
pub mod openapi;
pub mod outbound;
pub mod registry;
pub mod reload;
pub mod request_info;
pub mod server;
pub mod state;
pub mod storage;
pub mod table;
pub mod version;
pub mod webhook;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use keelson_daemon::tls::ServerTls;
use tokio_util::sync::CancellationToken;

use admission::chain::Chain;
use admission::config::AdmissionConfig;
use aggregator::Aggregator;
use audit::AuditLog;
use authentication::Authenticator;
use authorization::Authorizer;
use config::Config;
use connect::KubeletAccess;
use flow_control::FlowControl;
use grpc::GrpcDoor;
use metrics::ServerMetrics;
use registry::catalog::Catalog;
use state::Server;
use storage::encryption::{self, Encryption};
use storage::feed::Feed;
use storage::freshness::Freshness;
use storage::store::Store;

/// Serves the API until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let tls = ServerTls::load_with_proxies(
        &config.tls_cert_file,
        &config.tls_private_key_file,
        config.client_ca_file.as_deref(),
        config.aggregator.requestheader_client_ca_file.as_deref(),
    )
    .context("cannot load the server's certificate")?;
    let listener = server::bind(SocketAddr::new(config.bind_address, config.secure_port)).await?;
    let server = build(config, &shutdown)?;
    let address = listener
        .local_addr()
        .context("cannot tell the address listened on")?;
    tracing::info!(%address, advertised = %server.config.advertised(), plugins = ?server.admission.names(), "serving");

    let grpc = GrpcDoor::new(server.clone());
    authentication::start(&server);
    authorization::start(&server);
    let bootstrap = tokio::spawn(bootstrap::run(server.clone(), shutdown.clone()));
    tokio::spawn(bootstrap::addresses::run(server.clone(), shutdown.clone()));
    tokio::spawn(custom::controller::run(server.clone(), shutdown.clone()));
    tokio::spawn(aggregator::availability::run(server.clone(), shutdown.clone()));
    tokio::spawn(aggregator::registrations::run(server.clone(), shutdown.clone()));
    tokio::spawn(admission::policies::status::run(server.clone(), shutdown.clone()));
    tokio::spawn(flow_control::follow::run(server.clone(), shutdown.clone()));
    tokio::spawn(announce(server.clone(), shutdown.clone()));
    server::run(server, grpc, listener, tls, shutdown).await;
    bootstrap.await.context("looking after the system's objects")?;
    keelson_daemon::notify::stopping();
    Ok(())
}

/// Puts the server together. Nothing is reached over the network yet.
fn build(config: Config, shutdown: &CancellationToken) -> anyhow::Result<Arc<Server>> {
    if config.etcd_certfile.is_some() != config.etcd_keyfile.is_some() {
        bail!("--etcd-certfile and --etcd-keyfile go together");
    }
    let address = config.store_address();
    let calls = storage::connect::channel(&address)?;
    let watches = storage::connect::channel(&address)?;
    let metrics = ServerMetrics::new();
    let kinds = registry::all();
    let store = Store::new(calls, watches, &config.etcd_prefix);
    let encryption = match &config.encryption_provider_config {
        None => None,
        Some(path) => {
            let infos = kinds.iter().map(|kind| kind.info());
            let encryption = Encryption::load(path, store.root(), infos).map_err(anyhow::Error::msg)?;
            let encryption = Arc::new(encryption);
            if config.encryption_provider_config_automatic_reload {
                let name = config.advertised().to_string();
                let reloads = reload::Reloads::new(metrics.registry(), "encryption", &name);
                encryption::reload::start(encryption.clone(), path.clone(), reloads, shutdown.clone());
            }
            Some(encryption)
        }
    };
    let store = store.encrypted(encryption);
    let catalog = Catalog::new(kinds);
    let feed = Feed::start(
        store.clone(),
        catalog.caches().to_vec(),
        catalog.custom().clone(),
        shutdown.clone(),
    );
    let freshness = Freshness::start(store.clone());
    let authenticator = Authenticator::load(&config)?;
    let identity = config
        .kubelet_client_certificate
        .as_deref()
        .zip(config.kubelet_client_key.as_deref());
    let kubelets = KubeletAccess::new(
        identity,
        config.kubelet_certificate_authority.as_deref(),
        config.kubelet_preferred_address_types.clone(),
    )
    .context("cannot prepare TLS to kubelets")?;
    let admission = Chain::new(admission::chain::enabled(
        &config.enable_admission_plugins,
        &config.disable_admission_plugins,
        AdmissionConfig::load(config.admission_control_config_file.as_deref())?,
    )?);
    let authorizers = config.authorization.steps()?;
    let (reading, writing) = (
        config.max_requests_inflight,
        config.max_mutating_requests_inflight,
    );
    let flow = match config.enable_priority_and_fairness {
        false => FlowControl::plain(reading, writing),
        true if reading.saturating_add(writing) == 0 => bail!(
            "--max-requests-inflight and --max-mutating-requests-inflight are 0: with priority and fairness they must \
             add up to something positive"
        ),
        true => {
            let seats = u32::try_from(reading.saturating_add(writing)).unwrap_or(u32::MAX);
            FlowControl::fair(seats, metrics.flows())
        }
    };
    Ok(Arc::new(Server {
        discovery: discovery::Published::new(SocketAddr::new(config.advertised(), config.secure_port)),
        openapi: openapi::Documents::default(),
        shapes: keelson_api::apply::Shapes::default(),
        aggregator: Aggregator::new(&config.aggregator),
        audit: AuditLog::open(&config.audit, metrics.registry())?,
        shutdown: shutdown.clone(),
        metrics,
        config,
        store,
        catalog,
        feed,
        freshness,
        admission,
        authenticator,
        authorizer: Authorizer::new(authorizers),
        flow,
        kubelets,
    }))
}

/// Tells the service manager when requests can be served.
async fn announce(server: Arc<Server>, shutdown: CancellationToken) {
    let wait = async {
        while !server.feed.loaded() || !server.authorizer.ready() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        keelson_daemon::notify::ready();
        tracing::info!("ready");
    };
    shutdown.run_until_cancelled(wait).await;
}
