//! Putting the parts together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use keelson_client::{Client, ClientConfig, EventRecorder, Informer, InformerOptions};
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use keelson_daemon::notify;
use keelson_daemon::tls::ServerTls;
use prometheus_client::metrics::gauge::Gauge;
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Changed};
use crate::cgroups::{Cgroups, Version};
use crate::config::Config;
use crate::containers::dns::ClusterDns;
use crate::containers::resources::Limits;
use crate::context::Context;
use crate::cri::{CriClient, Runtime};
use crate::events::{Events, Level};
use crate::eviction;
use crate::images::Images;
use crate::images::gc::ImageCollector;
use crate::logs::rotate;
use crate::node::{facts, register};
use crate::paths::Paths;
use crate::pods::manager::PodManager;
use crate::pods::pleg::{self, Pulse};
use crate::pods::static_pods;
use crate::pods::status_writer::StatusWriter;
use crate::quantity;
use crate::server::{self, Server};
use crate::volumes::Volumes;

/// How long the node's first status waits for the runtime.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How long to wait for a runtime that is not up yet.
const RUNTIME_RETRY: Duration = Duration::from_millis(100);

/// Runs the kubelet until `shutdown`. Pods are left running.
///
/// # Errors
/// When the configuration cannot be used, or the address cannot be bound.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    let client_config = ClientConfig::from_kubeconfig(&config.kubeconfig)?;
    let server_address = client_config.servers.first().cloned().unwrap_or_default();
    let client = Client::new(client_config)?;
    let tls = ServerTls::load(
        &config.tls_cert_file,
        &config.tls_private_key_file,
        Some(&config.client_ca_file),
    )?;
    let runtime: Arc<dyn Runtime> = Arc::new(CriClient::new(&config.container_runtime_endpoint)?);

    let manager_slot: Arc<OnceLock<Weak<PodManager>>> = Arc::default();
    let context = Arc::new(assemble(
        &config,
        &client,
        &server_address,
        runtime.clone(),
        manager_slot.clone(),
        &shutdown,
    )?);
    let memory = context.allocatable.get("memory").map_or(0, quantity::value);
    let cpu = context.allocatable.get("cpu").map_or(0, quantity::milli);
    context
        .cgroups
        .prepare(cpu, memory)
        .context("making the cgroups of pods")?;
    let manager = PodManager::new(context.clone(), shutdown.clone());
    let _ = manager_slot.set(Arc::downgrade(&manager));

    let metrics = Metrics::new();
    register_metrics(&metrics, &manager, &shutdown);
    let pulse = Pulse::default();
    let (beat, health) = (pulse.clone(), HealthServer::new(metrics.clone()));
    let health = health.check("syncloop", move || beat.healthy());
    if config.healthz_port != 0 {
        let address = SocketAddr::new(config.healthz_bind_address, config.healthz_port);
        health.clone().serve(address, None, shutdown.clone()).await?;
    }
    let server = Arc::new(Server {
        context: context.clone(),
        manager: manager.clone(),
        health,
        shutdown: shutdown.clone(),
    });
    server::serve(server, SocketAddr::new(config.address, config.port), tls).await?;
    context
        .events
        .node(&context.node_name, Level::Normal, "Starting", "Starting kubelet.");

    // What runs already is looked at before any pod is decided on; and if the runtime answers soon, before the node
    // says how it is, so that a restarted kubelet does not call itself not ready in between.
    let mut look = tokio::spawn(first_look(runtime.clone(), pulse.clone(), shutdown.clone()));
    let looked = tokio::time::timeout(FIRST_LOOK, &mut look).await;
    let node = tokio::spawn(register::run(context.clone(), pulse.clone(), shutdown.clone()));
    notify::ready();
    let looked = match looked {
        Ok(looked) => looked,
        Err(_) => look.await,
    };
    let Some(sandboxes) = looked.unwrap_or_default() else {
        return Ok(());
    };
    manager.recover(&sandboxes);
    wait_for_node(&context, &shutdown).await;
    let options = InformerOptions {
        field_selector: format!("spec.nodeName={}", context.node_name),
        ..Default::default()
    };
    let pods: Informer<Pod> = Informer::start(&client, options, Vec::new(), &shutdown);
    manager.follow(&pods);
    if config.pod_manifest_path.is_some() || config.host_processes.is_some() {
        tokio::spawn(static_pods::run(
            context.clone(),
            manager.clone(),
            pods.clone(),
            shutdown.clone(),
        ));
    }
    let limits = rotate::Limits {
        size: config.container_log_max_size,
        files: config.container_log_max_files,
    };
    tokio::spawn(rotate::run(runtime.clone(), limits, shutdown.clone()));
    if let Some(root) = image_root(runtime.as_ref()).await {
        let _ = context.image_root.set(root);
    }
    let images = Arc::new(ImageCollector::new(context.clone()));
    tokio::spawn(images.clone().run(shutdown.clone()));
    tokio::spawn(eviction::run(
        context.clone(),
        manager.clone(),
        images,
        shutdown.clone(),
    ));
    let synced = move || pods.has_synced();
    pleg::run(runtime, manager, pulse, synced, shutdown.clone()).await;
    notify::stopping();
    let _ = node.await;
    Ok(())
}

fn assemble(
    config: &Config,
    client: &Client,
    server_address: &str,
    runtime: Arc<dyn Runtime>,
    manager: Arc<OnceLock<Weak<PodManager>>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Context> {
    let node_name = config
        .hostname_override
        .clone()
        .map_or_else(facts::host_name, |name| name.to_lowercase());
    anyhow::ensure!(
        !node_name.is_empty(),
        "the node has no name: give --hostname-override"
    );
    let host_ips: Vec<String> = if config.node_ip.is_empty() {
        let target = server_address.trim_start_matches("https://");
        let found = facts::address_towards(target)
            .with_context(|| format!("finding the node's address towards {target}: give --node-ip"))?;
        vec![found.to_string()]
    } else {
        config.node_ip.iter().map(ToString::to_string).collect()
    };
    let recorder = EventRecorder::new(client, "kubelet", &node_name, shutdown);
    let events = Events::new(recorder);
    let changed: Changed = Arc::new(move |users| {
        if let Some(manager) = manager.get().and_then(Weak::upgrade) {
            users.iter().for_each(|uid| manager.renew_volumes(uid));
        }
    });
    let api = Arc::new(Api::start(client, changed, shutdown));
    let paths = Paths::new(&config.root_dir, &config.pod_logs_dir);
    for folder in [paths.pods(), paths.logs().to_path_buf()] {
        std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let can_mount = facts::shares_mounts_with(&config.container_runtime_endpoint);
    if !can_mount {
        tracing::warn!(
            "the container runtime does not see what is mounted here: volumes in memory are made on disk"
        );
    }
    let cgroups = Cgroups::detect(&config.cgroup_root, config.cgroups_per_qos);
    let capacity = facts::capacity(config);
    Ok(Context {
        images: Images::new(runtime.clone(), events.clone()),
        volumes: Volumes::new(api.clone(), paths.clone(), can_mount),
        cluster: ClusterDns {
            servers: config.cluster_dns.clone(),
            domain: config.cluster_domain.trim_end_matches('.').to_owned(),
        },
        limits: Limits {
            memory_capacity: i64::try_from(facts::meminfo("MemTotal")).unwrap_or(i64::MAX),
            lowest_oom_score: facts::lowest_oom_score(),
            unified: cgroups.version() == Version::V2,
        },
        allocatable: facts::allocatable(config, &capacity),
        statuses: StatusWriter::start(client.resource(), shutdown.clone()),
        config: config.clone(),
        node_name,
        host_ips,
        runtime,
        runtime_name: OnceLock::new(),
        api,
        events,
        cgroups,
        paths,
        node: parking_lot::RwLock::default(),
        mirrors: parking_lot::RwLock::default(),
        image_root: OnceLock::new(),
    })
}

/// Where the runtime keeps images.
async fn image_root(runtime: &dyn Runtime) -> Option<PathBuf> {
    let info = runtime.image_fs_info().await.ok()?;
    let place = info.image_filesystems.into_iter().next()?.fs_id?.mountpoint;
    (!place.is_empty()).then(|| place.into())
}

async fn first_look(
    runtime: Arc<dyn Runtime>,
    pulse: Pulse,
    shutdown: CancellationToken,
) -> Option<Vec<keelson_proto::cri::PodSandbox>> {
    let mut told = false;
    loop {
        match runtime.list_pod_sandboxes(None).await {
            Ok(sandboxes) => {
                pulse.beat();
                return Some(sandboxes);
            }
            Err(error) if !told => {
                tracing::warn!(%error, "waiting for the container runtime");
                told = true;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return None,
            () = tokio::time::sleep(RUNTIME_RETRY) => {}
        }
    }
}

/// Pods are admitted against the node as the apiserver has it; without one they wait.
async fn wait_for_node(context: &Context, shutdown: &CancellationToken) {
    if !context.config.register_node {
        return;
    }
    while context.node.read().as_ref().is_none_or(|node| {
        node.status
            .as_ref()
            .is_none_or(|status| status.allocatable.is_none())
    }) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

fn register_metrics(metrics: &Metrics, manager: &Arc<PodManager>, shutdown: &CancellationToken) {
    let running: Gauge = Gauge::default();
    let gauge = running.clone();
    metrics.register(|registry| registry.register("kubelet_running_pods", "Pods that have a worker", gauge));
    let (manager, shutdown) = (Arc::downgrade(manager), shutdown.clone());
    tokio::spawn(async move {
        while let Some(manager) = manager.upgrade() {
            running.set(i64::try_from(manager.count()).unwrap_or(i64::MAX));
            drop(manager);
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
        }
    });
}
