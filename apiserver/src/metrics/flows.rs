//! Figures of priority and fairness, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Running;
use crate::flow_control::level::Gauges;

/// Labels of a level.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LevelLabels {
    priority_level: String,
}

/// Labels of a schema's requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct FlowLabels {
    priority_level: String,
    flow_schema: String,
}

/// Labels of requests turned away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RejectedLabels {
    priority_level: String,
    flow_schema: String,
    reason: &'static str,
}

/// Labels of requests that waited.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WaitedLabels {
    priority_level: String,
    flow_schema: String,
    execute: &'static str,
}

/// Upper ends of the buckets of waits and of what follows, in seconds.
const BUCKETS: &[f64] = &[
    0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0,
];

fn durations() -> Histogram {
    Histogram::new(BUCKETS.iter().copied())
}

/// What flow control counts.
#[derive(Clone)]
pub struct FlowMetrics(Arc<Families>);

struct Families {
    dispatched: Family<FlowLabels, Counter>,
    rejected: Family<RejectedLabels, Counter>,
    in_queue: Family<FlowLabels, Gauge>,
    executing: Family<FlowLabels, Gauge>,
    waits: Family<WaitedLabels, Histogram, fn() -> Histogram>,
    executions: Family<FlowLabels, Histogram, fn() -> Histogram>,
    seats: Family<LevelLabels, Gauge>,
    limit: Family<LevelLabels, Gauge>,
    nominal: Family<LevelLabels, Gauge>,
    least: Family<LevelLabels, Gauge>,
    most: Family<LevelLabels, Gauge>,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self(Arc::new(Families {
            dispatched: Family::default(),
            rejected: Family::default(),
            in_queue: Family::default(),
            executing: Family::default(),
            waits: Family::new_with_constructor(durations),
            executions: Family::new_with_constructor(durations),
            seats: Family::default(),
            limit: Family::default(),
            nominal: Family::default(),
            least: Family::default(),
            most: Family::default(),
        }))
    }
}

impl FlowMetrics {
    /// Adds the figures to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let all = &self.0;
        let name = |rest: &str| format!("apiserver_flowcontrol_{rest}");
        registry.register(
            name("dispatched_requests"),
            "Requests let in",
            all.dispatched.clone(),
        );
        registry.register(
            name("rejected_requests"),
            "Requests turned away",
            all.rejected.clone(),
        );
        registry.register(
            name("request_wait_duration_seconds"),
            "Time requests that found no free seat waited for one",
            all.waits.clone(),
        );
        registry.register(
            name("request_execution_seconds"),
            "Time requests had a seat",
            all.executions.clone(),
        );
        for (rest, help, family) in [
            (
                "current_inqueue_requests",
                "Requests that wait for a seat",
                &all.in_queue,
            ),
            (
                "current_executing_requests",
                "Requests being served",
                &all.executing,
            ),
        ] {
            registry.register(name(rest), help, family.clone());
        }
        for (rest, help, family) in [
            ("current_executing_seats", "Seats in use", &all.seats),
            ("current_limit_seats", "Seats a level may use now", &all.limit),
            (
                "nominal_limit_seats",
                "Seats a level has when every level has its own",
                &all.nominal,
            ),
            (
                "lower_limit_seats",
                "Seats a level keeps when it lends all it may",
                &all.least,
            ),
            (
                "upper_limit_seats",
                "Seats a level has when it borrows all it may",
                &all.most,
            ),
        ] {
            registry.register(name(rest), help, family.clone());
        }
    }

    /// The figures a level keeps itself.
    pub fn gauges(&self, level: &str) -> Gauges {
        let of = |family: &Family<LevelLabels, Gauge>| {
            family.get_or_create_owned(&LevelLabels {
                priority_level: level.to_owned(),
            })
        };
        let all = &self.0;
        Gauges {
            seats: of(&all.seats),
            limit: of(&all.limit),
            nominal: of(&all.nominal),
            least: of(&all.least),
            most: of(&all.most),
        }
    }

    /// The figures of a schema.
    pub fn of(&self, level: &str, schema: &str) -> FlowFigures {
        let labels = FlowLabels {
            priority_level: level.to_owned(),
            flow_schema: schema.to_owned(),
        };
        let all = &self.0;
        FlowFigures {
            dispatched: all.dispatched.get_or_create_owned(&labels),
            in_queue: all.in_queue.get_or_create_owned(&labels),
            executing: all.executing.get_or_create_owned(&labels),
            executions: all.executions.get_or_create_owned(&labels),
            all: self.clone(),
            labels,
        }
    }
}

/// What is counted about the requests of one schema. Nothing is looked up for a request that is let in at once.
pub struct FlowFigures {
    dispatched: Counter,
    in_queue: Gauge,
    executing: Gauge,
    executions: Histogram,
    all: FlowMetrics,
    labels: FlowLabels,
}

impl FlowFigures {
    /// Counts a request as being served.
    pub fn begun(&self) {
        self.dispatched.inc();
        self.executing.inc();
    }

    /// Counts it as served.
    pub fn ended(&self, time: Duration) {
        self.executing.dec();
        self.executions.observe(time.as_secs_f64());
    }

    /// Counts a request that waits, as long as it does.
    pub fn waiting(&self) -> Running {
        self.in_queue.inc();
        Running(self.in_queue.clone())
    }

    /// Counts a wait.
    pub fn waited(&self, served: bool, time: Duration) {
        let FlowLabels {
            priority_level,
            flow_schema,
        } = self.labels.clone();
        let labels = WaitedLabels {
            priority_level,
            flow_schema,
            execute: if served { "true" } else { "false" },
        };
        self.all
            .0
            .waits
            .get_or_create(&labels)
            .observe(time.as_secs_f64());
    }

    /// Counts a request that was turned away.
    pub fn rejected(&self, reason: &'static str) {
        let FlowLabels {
            priority_level,
            flow_schema,
        } = self.labels.clone();
        let labels = RejectedLabels {
            priority_level,
            flow_schema,
            reason,
        };
        self.all.0.rejected.get_or_create(&labels).inc();
    }
}
