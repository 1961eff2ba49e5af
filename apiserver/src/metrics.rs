//! What the server counts about itself.

pub mod flows;

use std::time::{Duration, Instant};

use keelson_daemon::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::flow_control::Pool;
use flows::FlowMetrics;

/// Labels of requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    code: u16,
}

/// Labels of durations.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DurationLabels {
    verb: &'static str,
    group: String,
    resource: String,
}

/// Labels of what is under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InflightLabels {
    request_kind: &'static str,
}

/// Labels of watches under way.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WatchLabels {
    group: String,
    resource: String,
}

/// Upper ends of the buckets of durations, in seconds.
const BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

type Durations = Family<DurationLabels, Histogram, fn() -> Histogram>;

/// Everything the server counts.
#[derive(Clone)]
pub struct ServerMetrics {
    registry: Metrics,
    requests: Family<RequestLabels, Counter>,
    durations: Durations,
    inflight: Family<InflightLabels, Gauge>,
    watches: Family<WatchLabels, Gauge>,
}

/// What a request is counted as.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// `GET`, `LIST`, `WATCH`, `POST`, ...
    pub verb: &'static str,
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural.
    pub resource: String,
    /// Subresource.
    pub subresource: String,
}

/// Something under way; ends when dropped.
pub struct Running(Gauge);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for ServerMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerMetrics {
    /// Everything at zero.
    pub fn new() -> Self {
        let registry = Metrics::new();
        let requests = Family::<RequestLabels, Counter>::default();
        let durations: Durations = Family::new_with_constructor(|| Histogram::new(BUCKETS.iter().copied()));
        let inflight = Family::<InflightLabels, Gauge>::default();
        let watches = Family::<WatchLabels, Gauge>::default();
        registry.register(|r| {
            r.register(
                "apiserver_request",
                "Requests answered, by verb, resource and code",
                requests.clone(),
            );
            r.register(
                "apiserver_request_duration_seconds",
                "Time to answer, watches and connections left out",
                durations.clone(),
            );
            r.register(
                "apiserver_current_inflight_requests",
                "Requests being served",
                inflight.clone(),
            );
            r.register(
                "apiserver_longrunning_requests",
                "Watches being served",
                watches.clone(),
            );
        });
        Self {
            registry,
            requests,
            durations,
            inflight,
            watches,
        }
    }

    /// Figures of priority and fairness.
    pub fn flows(&self) -> FlowMetrics {
        let flows = FlowMetrics::default();
        self.registry.register(|registry| flows.register(registry));
        flows
    }

    /// Where others add what they count.
    pub fn registry(&self) -> &Metrics {
        &self.registry
    }

    /// The exposition text.
    pub fn encode(&self) -> String {
        self.registry.encode()
    }

    /// Counts a request as being served, if it is of those that are soon over.
    pub fn enter(&self, pool: Pool) -> Option<Running> {
        let request_kind = match pool {
            Pool::Reading => "readOnly",
            Pool::Writing => "mutating",
            Pool::Beginning | Pool::Unlimited => return None,
        };
        let gauge = self
            .inflight
            .get_or_create_owned(&InflightLabels { request_kind });
        gauge.inc();
        Some(Running(gauge))
    }

    /// Counts a watch as being served.
    pub fn watch(&self, group: &str, resource: &str) -> Running {
        let labels = WatchLabels {
            group: group.to_owned(),
            resource: resource.to_owned(),
        };
        let gauge = self.watches.get_or_create_owned(&labels);
        gauge.inc();
        Running(gauge)
    }

    /// Counts a request as answered.
    pub fn answered(&self, subject: Subject, code: u16, begun: Instant) {
        let Subject {
            verb,
            group,
            version,
            resource,
            subresource,
        } = subject;
        if !matches!(verb, "WATCH" | "CONNECT") {
            let labels = DurationLabels {
                verb,
                group: group.clone(),
                resource: resource.clone(),
            };
            self.durations
                .get_or_create(&labels)
                .observe(seconds(begun.elapsed()));
        }
        let labels = RequestLabels {
            verb,
            group,
            version,
            resource,
            subresource,
            code,
        };
        self.requests.get_or_create(&labels).inc();
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
