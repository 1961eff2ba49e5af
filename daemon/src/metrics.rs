//! The one metrics registry of a daemon, in the Prometheus text format.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::RwLock;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// What `/metrics` answers with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A shared registry; clones are the same registry.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<RwLock<Registry>>,
    started: f64,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// An empty registry; the process's own figures are added when it is encoded.
    #[must_use]
    pub fn new() -> Self {
        let started = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs_f64();
        Self {
            registry: Arc::default(),
            started,
        }
    }

    /// Registers metrics.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.write());
    }

    /// The exposition text.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.registry.read()) {
            tracing::error!(%error, "encoding metrics");
        }
        let text = text.trim_end_matches("# EOF\n");
        format!("{text}{}", self.process())
    }

    fn process(&self) -> String {
        let mut text = String::new();
        let mut add = |name: &str, kind: &str, help: &str, value: f64| {
            text.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
            ));
        };
        add(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since the Unix epoch in seconds.",
            self.started,
        );
        if let Some(usage) = ProcessUsage::read() {
            add(
                "process_cpu_seconds_total",
                "counter",
                "User and system CPU time in seconds.",
                usage.cpu_seconds,
            );
            add(
                "process_resident_memory_bytes",
                "gauge",
                "Resident memory in bytes.",
                usage.resident_bytes,
            );
        }
        text
    }
}

struct ProcessUsage {
    cpu_seconds: f64,
    resident_bytes: f64,
}

impl ProcessUsage {
    /// The kernel counts CPU time in hundredths of a second and memory in 4 KiB pages on every platform we run on.
    fn read() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (number(11)? + number(12)?) / 100.0,
            resident_bytes: number(21)? * 4096.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    #[test]
    fn own_and_process_metrics_are_in_one_text() {
        let metrics = Metrics::new();
        let counter = Counter::<u64>::default();
        metrics.register(|registry| registry.register("keelson_things", "Things", counter.clone()));
        counter.inc_by(3);
        let text = metrics.encode();
        assert!(text.contains("keelson_things_total 3\n"), "{text}");
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(!text.contains("# EOF"), "{text}");
    }
}
