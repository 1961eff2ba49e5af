//! Figures for Prometheus, under upstream's names.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use keelson_daemon::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::engine::Places;

type Labels = [(&'static str, &'static str); 1];

/// The scheduler's metrics.
#[derive(Clone)]
pub struct SchedulerMetrics {
    attempts: Family<Labels, Counter>,
    algorithm: Histogram,
    pending: Family<Labels, Gauge<i64, AtomicI64>>,
    binding: Histogram,
}

impl SchedulerMetrics {
    /// Registers them.
    pub fn register(metrics: &Metrics) -> Self {
        // From 10 µs: a cycle that shares its verdicts takes no longer.
        let short = || Histogram::new(exponential_buckets(0.00001, 2.0, 16));
        let all = SchedulerMetrics {
            attempts: Family::default(),
            algorithm: short(),
            pending: Family::default(),
            binding: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
        };
        metrics.register(|registry| {
            let help = "Attempts to schedule pods, by the result";
            registry.register("scheduler_schedule_attempts", help, all.attempts.clone());
            let help = "Time of one scheduling cycle";
            registry.register(
                "scheduler_scheduling_algorithm_duration_seconds",
                help,
                all.algorithm.clone(),
            );
            registry.register(
                "scheduler_pending_pods",
                "Pods that wait, by where",
                all.pending.clone(),
            );
            let help = "Time of one batch of bindings";
            registry.register("scheduler_binding_duration_seconds", help, all.binding.clone());
        });
        all
    }

    /// One pod was tried.
    pub fn attempt(&self, result: &'static str, took: Duration) {
        self.attempts.get_or_create(&[("result", result)]).inc();
        self.algorithm.observe(took.as_secs_f64());
    }

    /// A binding failed.
    pub fn failed(&self) {
        self.attempts.get_or_create(&[("result", "error")]).inc();
    }

    /// A batch was bound.
    pub fn bound(&self, took: Duration) {
        self.binding.observe(took.as_secs_f64());
    }

    /// How many pods wait.
    pub fn pending(&self, places: Places) {
        for (queue, count) in [
            ("active", places.active),
            ("backoff", places.backoff),
            ("unschedulable", places.unschedulable),
            ("gated", places.gated),
        ] {
            self.pending.get_or_create(&[("queue", queue)]).set(count as i64);
        }
    }
}
