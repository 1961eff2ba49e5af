//! Informers, and the loop that brings the kernel to what they say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_client::{Client, ClientConfig, Event, Informer, InformerOptions};
use keelson_daemon::backoff::Backoff;
use keelson_daemon::health::HealthServer;
use keelson_daemon::metrics::Metrics;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, families};
use crate::health_check::HealthChecks;
use crate::metrics::{ProxyMetrics, now};
use crate::network::{self, Nodes, cni, routes};
use crate::rules::{self, Family, Options, ServicePort, Table};
use crate::{conntrack, nft};

/// Changes mostly come in groups: a rollout changes several slices within moments.
const GATHER: Duration = Duration::from_millis(5);
/// Waits after the kernel refused rules.
const RETRY_INITIAL: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Runs kube-proxy until `shutdown`. Rules stay in the kernel, so that services go on working while it restarts.
///
/// # Errors
/// When it cannot start: no kubeconfig, no node name, ports in use.
pub async fn run(config: Config, shutdown: CancellationToken) -> anyhow::Result<()> {
    if config.cleanup {
        return cleanup(&config).await;
    }
    let node_name = node_name(&config)?;
    let kubeconfig = config
        .kubeconfig
        .as_deref()
        .context("--kubeconfig is not given")?;
    let client = Client::new(ClientConfig::from_kubeconfig(kubeconfig)?)?;

    let registry = Metrics::new();
    let metrics = ProxyMetrics::register(&registry);
    let synced = Arc::new(AtomicBool::new(false));
    let health = {
        let synced = synced.clone();
        HealthServer::new(registry).check("rules", move || {
            if synced.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("the kernel does not have the current rules".into())
            }
        })
    };
    health
        .clone()
        .serve(config.healthz_bind_address, None, shutdown.clone())
        .await?;
    if config.metrics_bind_address != config.healthz_bind_address {
        health
            .serve(config.metrics_bind_address, None, shutdown.clone())
            .await?;
    }

    network::apply_kernel_settings(&config.cluster_cidr);
    let informers = Informers::start(&client, &shutdown, &metrics);
    let families = families(&config.cluster_cidr);
    let options = Options {
        table: config.nftables_table.clone(),
        cluster_cidrs: config.cluster_cidr.clone(),
        nodeport_addresses: config.nodeport_addresses.clone(),
        masquerade_all: config.masquerade_all,
        masquerade_mark: 1 << config.iptables_masquerade_bit.min(31),
    };
    let mut proxy = Proxy {
        config,
        node_name,
        families,
        options,
        informers,
        metrics,
        synced,
        applied: BTreeMap::new(),
        services: Vec::new(),
        nodes: None,
        checks: HealthChecks::default(),
        shutdown: shutdown.clone(),
    };
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        () = proxy.informers.synced() => {}
    }
    tracing::info!(node = proxy.node_name, "informers are synced");
    proxy.follow(&shutdown).await;
    Ok(())
}

fn node_name(config: &Config) -> anyhow::Result<String> {
    if let Some(name) = &config.hostname_override {
        return Ok(name.trim().to_lowercase());
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").context("reading the host's name")?;
    Ok(name.trim().to_lowercase())
}

async fn cleanup(config: &Config) -> anyhow::Result<()> {
    let both = [Family::V4, Family::V6];
    nft::apply(&rules::render::removal(&both, &config.nftables_table)).await?;
    routes::remove_all().await?;
    cni::remove(&config.cni_conf_dir).with_context(|| {
        format!(
            "removing the CNI configuration in {}",
            config.cni_conf_dir.display()
        )
    })
}

struct Informers {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    nodes: Informer<Node>,
    changed: Arc<Notify>,
}

impl Informers {
    fn start(client: &Client, shutdown: &CancellationToken, metrics: &ProxyMetrics) -> Self {
        let all = InformerOptions::default;
        let services = Informer::start(client, all(), vec![], shutdown);
        let slices = Informer::start(client, all(), vec![], shutdown);
        let nodes = Informer::<Node>::start(client, all(), vec![], shutdown);
        let changed = Arc::new(Notify::new());
        let tell = {
            let (changed, queued) = (changed.clone(), metrics.last_queued.clone());
            move || {
                queued.set(now());
                changed.notify_one();
            }
        };
        services.subscribe({
            let tell = tell.clone();
            move |_| tell()
        });
        slices.subscribe({
            let tell = tell.clone();
            move |_| tell()
        });
        nodes.subscribe(move |event| match event {
            Event::Updated { old, new } if !network::differ(old, new) => {}
            _ => tell(),
        });
        Self {
            services,
            slices,
            nodes,
            changed,
        }
    }

    async fn synced(&self) {
        self.services.synced().await;
        self.slices.synced().await;
        self.nodes.synced().await;
    }
}

struct Proxy {
    config: Config,
    node_name: String,
    families: Vec<Family>,
    options: Options,
    informers: Informers,
    metrics: ProxyMetrics,
    synced: Arc<AtomicBool>,
    /// What is in the kernel, by the family's name; nothing after a failure.
    applied: BTreeMap<&'static str, Table>,
    services: Vec<ServicePort>,
    /// The nodes that the pod network was made for.
    nodes: Option<Nodes>,
    checks: HealthChecks,
    shutdown: CancellationToken,
}

impl Proxy {
    async fn follow(&mut self, shutdown: &CancellationToken) {
        let mut backoff = Backoff::new(RETRY_INITIAL, RETRY_MAX);
        let mut told_ready = false;
        let mut look_at_kernel = false;
        let mut looks = tokio::time::interval(self.config.sync_period.max(Duration::from_secs(1)));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            if look_at_kernel {
                self.forget_lost_tables().await;
            }
            let started = Instant::now();
            let rules = self.sync_rules().await;
            let network = self.sync_network().await;
            let pause = match rules.and(network) {
                Ok(()) => {
                    self.synced.store(true, Ordering::Relaxed);
                    if !told_ready {
                        keelson_daemon::notify::ready();
                        told_ready = true;
                    }
                    backoff.reset();
                    // Where a sync takes long, leave the machine time for other things.
                    self.config.min_sync_period.max(started.elapsed())
                }
                Err(error) => {
                    self.synced.store(false, Ordering::Relaxed);
                    self.informers.changed.notify_one();
                    let pause = backoff.next_wait();
                    tracing::error!(retry_in = ?pause, "{error:#}");
                    pause
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.informers.changed.notified() => {
                    look_at_kernel = false;
                    tokio::time::sleep(GATHER).await;
                }
                // A clock of its own: a busy cluster must not put the look off.
                _ = looks.tick() => look_at_kernel = true,
            }
        }
    }

    /// Somebody may have emptied the kernel's rules, as firewalls do when they are reloaded.
    async fn forget_lost_tables(&mut self) {
        for family in &self.families {
            if matches!(nft::exists(*family, &self.options.table).await, Ok(false))
                && self.applied.remove(family.name()).is_some()
            {
                tracing::warn!(
                    family = family.name(),
                    "somebody removed the table; it is made again"
                );
            }
        }
    }

    async fn sync_rules(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let known = self.informers.services.store().list();
        let services = rules::service_ports(&known, &self.informers.slices.store().list(), &self.node_name);
        for family in self.families.clone() {
            let wanted = rules::build(&self.options, family, &services);
            self.bring(family, wanted).await?;
        }
        self.checks.update(&known, &services, &self.shutdown).await;
        let stale = conntrack::stale(&self.services, &services);
        if !stale.is_empty() {
            conntrack::forget(stale).await;
        }
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.services.set(count(services.len()));
        self.metrics.endpoints.set(count(
            services.iter().map(|service| service.endpoints.len()).sum(),
        ));
        self.metrics
            .sync_duration
            .observe(started.elapsed().as_secs_f64());
        self.metrics.last_sync.set(now());
        self.services = services;
        Ok(())
    }

    async fn bring(&mut self, family: Family, wanted: Table) -> anyhow::Result<()> {
        let applied = self.applied.remove(family.name());
        let difference = applied
            .as_ref()
            .and_then(|applied| rules::difference(applied, &wanted));
        let partial = match &difference {
            Some(text) if text.is_empty() => Ok(()),
            Some(text) => nft::apply(text).await,
            None => Err(nft::NftError::Refused(
                "nothing is known of the kernel's rules".into(),
            )),
        };
        if let Err(error) = partial {
            if applied.is_some() {
                tracing::warn!(%error, "replacing the whole table");
            }
            self.metrics.whole_syncs.inc();
            if let Err(error) = nft::apply(&rules::whole(&wanted)).await {
                self.metrics.failures.inc();
                return Err(error.into());
            }
        }
        self.applied.insert(family.name(), wanted);
        Ok(())
    }

    async fn sync_network(&mut self) -> anyhow::Result<()> {
        if !self.config.manage_pod_network {
            return Ok(());
        }
        let nodes = Nodes::collect(&self.informers.nodes.store().list(), &self.node_name);
        if self.nodes.as_ref() == Some(&nodes) {
            return Ok(());
        }
        if nodes.own_ranges.is_empty() {
            tracing::info!(node = self.node_name, "waiting for the node's pod range");
        } else {
            let folder = &self.config.cni_conf_dir;
            let written = cni::write(folder, &nodes.own_ranges, &self.config.cni_data_dir)
                .with_context(|| format!("writing the CNI configuration in {}", folder.display()))?;
            if written {
                tracing::info!(ranges = ?nodes.own_ranges, folder = %folder.display(), "pod network configured");
            }
        }
        routes::apply(&nodes, &self.config.service_cluster_ip_range).await?;
        self.nodes = Some(nodes);
        Ok(())
    }
}
