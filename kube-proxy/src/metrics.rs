//! What is measured, by upstream's names where they exist.

use keelson_daemon::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// kube-proxy's metrics.
#[derive(Clone)]
pub(crate) struct ProxyMetrics {
    /// Seconds from looking at the wanted state to having it in the kernel.
    pub(crate) sync_duration: Histogram,
    pub(crate) last_sync: Gauge,
    pub(crate) last_queued: Gauge,
    pub(crate) failures: Counter,
    pub(crate) whole_syncs: Counter,
    pub(crate) services: Gauge,
    pub(crate) endpoints: Gauge,
}

impl ProxyMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let own = Self {
            sync_duration: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            failures: Counter::default(),
            whole_syncs: Counter::default(),
            services: Gauge::default(),
            endpoints: Gauge::default(),
        };
        metrics.register(|registry| {
            registry.register(
                "kubeproxy_sync_proxy_rules_duration_seconds",
                "Seconds taken to bring the kernel's rules up to date",
                own.sync_duration.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
                "When the rules were last brought up to date",
                own.last_sync.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
                "When a change was last seen",
                own.last_queued.clone(),
            );
            registry.register(
                "kubeproxy_sync_proxy_rules_nftables_sync_failures",
                "Transactions the kernel refused",
                own.failures.clone(),
            );
            registry.register(
                "keelson_proxy_whole_syncs",
                "Times the whole table was replaced",
                own.whole_syncs.clone(),
            );
            registry.register(
                "keelson_proxy_service_ports",
                "Service ports served",
                own.services.clone(),
            );
            registry.register(
                "keelson_proxy_endpoints",
                "Endpoints behind the service ports",
                own.endpoints.clone(),
            );
        });
        own
    }
}

/// Now, as metrics write it.
pub(crate) fn now() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map(|since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
        .unwrap_or_default()
}
