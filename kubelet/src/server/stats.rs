//! What the node and its pods use: the summary API, and the two metrics endpoints that monitoring reads.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use http::{Response, StatusCode};
use jiff::Timestamp;
use keelson_daemon::metrics::CONTENT_TYPE;
use keelson_proto::cri;
use serde_json::{Value, json};

use super::Server;
use super::reply::{Body, typed};
use crate::cri::labels;
use crate::node::facts;
use crate::objects::PodExt;

/// Nanoseconds of one core that all processes together have had.
fn node_cpu() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let Some(line) = text.lines().next() else { return 0 };
    // user nice system idle iowait irq softirq steal, in hundredths of a second.
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let busy: u64 = [0, 1, 2, 5, 6, 7]
        .iter()
        .filter_map(|index| fields.get(*index))
        .sum();
    busy * 10_000_000
}

fn value(value: Option<&cri::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

struct Used {
    namespace: String,
    pod: String,
    uid: String,
    container: String,
    cpu: u64,
    cpu_rate: u64,
    memory: u64,
    rss: u64,
    usage: u64,
    layer: u64,
    at: i64,
}

async fn used(server: &Server) -> Vec<Used> {
    let stats = server
        .context
        .runtime
        .list_container_stats()
        .await
        .unwrap_or_default();
    let used = stats.into_iter().filter_map(|stats| {
        let attributes = stats.attributes?;
        let label = |key: &str| attributes.labels.get(key).cloned().unwrap_or_default();
        let (cpu, memory) = (stats.cpu.unwrap_or_default(), stats.memory.unwrap_or_default());
        Some(Used {
            namespace: label(labels::POD_NAMESPACE),
            pod: label(labels::POD_NAME),
            uid: label(labels::POD_UID),
            container: label(labels::CONTAINER_NAME),
            cpu: value(cpu.usage_core_nano_seconds.as_ref()),
            cpu_rate: value(cpu.usage_nano_cores.as_ref()),
            memory: value(memory.working_set_bytes.as_ref()),
            rss: value(memory.rss_bytes.as_ref()),
            usage: value(memory.usage_bytes.as_ref()),
            layer: value(stats.writable_layer.unwrap_or_default().used_bytes.as_ref()),
            at: cpu.timestamp,
        })
    });
    used.collect()
}

fn time_of(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos))
        .map(keelson_api::time::rfc3339)
        .unwrap_or_default()
}

/// The summary API.
pub(super) async fn summary(server: &Arc<Server>) -> Value {
    let now = keelson_api::time::rfc3339(Timestamp::now());
    let total = facts::meminfo("MemTotal");
    let available = facts::meminfo("MemAvailable");
    let disk = facts::file_system(&server.context.config.root_dir);
    let file_system = json!({"time": now, "availableBytes": disk.available, "capacityBytes": disk.capacity, "usedBytes": disk.capacity - disk.available.min(disk.capacity),
        "inodesFree": disk.inodes_free, "inodes": disk.inodes, "inodesUsed": disk.inodes - disk.inodes_free.min(disk.inodes)});
    let (pid_limit, pids) = facts::pids();
    let mut pods: BTreeMap<String, Vec<Used>> = BTreeMap::new();
    for one in used(server).await {
        pods.entry(one.uid.clone()).or_default().push(one);
    }
    let started: HashMap<String, String> = server
        .manager
        .pods()
        .iter()
        .filter_map(|pod| {
            Some((
                pod.uid().to_owned(),
                keelson_api::time::rfc3339(pod.status().start_time.as_ref()?.0),
            ))
        })
        .collect();
    let pods: Vec<Value> = pods
        .values()
        .filter_map(|containers| {
            let first = containers.first()?;
            let sum = |of: fn(&Used) -> u64| containers.iter().map(of).sum::<u64>();
            let at = time_of(first.at);
            let each: Vec<Value> = containers
                .iter()
                .map(|one| {
                    json!({"name": one.container, "startTime": started.get(&one.uid),
                        "cpu": {"time": time_of(one.at), "usageNanoCores": one.cpu_rate, "usageCoreNanoSeconds": one.cpu},
                        "memory": {"time": time_of(one.at), "usageBytes": one.usage, "workingSetBytes": one.memory, "rssBytes": one.rss},
                        "rootfs": {"time": time_of(one.at), "usedBytes": one.layer, "availableBytes": disk.available, "capacityBytes": disk.capacity}})
                })
                .collect();
            Some(json!({"podRef": {"name": first.pod, "namespace": first.namespace, "uid": first.uid}, "startTime": started.get(&first.uid),
                "containers": each,
                "cpu": {"time": at, "usageNanoCores": sum(|one| one.cpu_rate), "usageCoreNanoSeconds": sum(|one| one.cpu)},
                "memory": {"time": at, "usageBytes": sum(|one| one.usage), "workingSetBytes": sum(|one| one.memory), "rssBytes": sum(|one| one.rss)}}))
        })
        .collect();
    json!({"node": {"nodeName": server.context.node_name, "startTime": now,
            "cpu": {"time": now, "usageCoreNanoSeconds": node_cpu()},
            "memory": {"time": now, "availableBytes": available, "usageBytes": total - available.min(total), "workingSetBytes": total - available.min(total)},
            "fs": file_system, "runtime": {"imageFs": file_system}, "rlimit": {"time": now, "maxpid": pid_limit, "curproc": pids}},
        "pods": pods})
}

fn exposition(text: String) -> Response<Body> {
    typed(StatusCode::OK, CONTENT_TYPE, text)
}

struct Exposition(String);

impl Exposition {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        // Names of pods and containers need no escaping.
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let labels = if labels.is_empty() {
            String::new()
        } else {
            format!("{{{}}}", labels.join(","))
        };
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// `/metrics/resource`: what `top` is made from.
pub(super) async fn resource_metrics(server: &Arc<Server>) -> Response<Body> {
    let all = used(server).await;
    let mut out = Exposition(String::new());
    let total = facts::meminfo("MemTotal");
    out.metric(
        "node_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the node in core-seconds",
    );
    out.sample("node_cpu_usage_seconds_total", &[], seconds(node_cpu()));
    out.metric(
        "node_memory_working_set_bytes",
        "gauge",
        "Current working set of the node in bytes",
    );
    out.sample(
        "node_memory_working_set_bytes",
        &[],
        total - facts::meminfo("MemAvailable").min(total),
    );
    out.metric(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the container in core-seconds",
    );
    for one in &all {
        out.sample(
            "container_cpu_usage_seconds_total",
            &[
                ("container", &one.container),
                ("namespace", &one.namespace),
                ("pod", &one.pod),
            ],
            seconds(one.cpu),
        );
    }
    out.metric(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set of the container in bytes",
    );
    for one in &all {
        out.sample(
            "container_memory_working_set_bytes",
            &[
                ("container", &one.container),
                ("namespace", &one.namespace),
                ("pod", &one.pod),
            ],
            one.memory,
        );
    }
    let mut pods: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for one in &all {
        let sum = pods.entry((&one.namespace, &one.pod)).or_default();
        sum.0 += one.cpu;
        sum.1 += one.memory;
    }
    out.metric(
        "pod_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed by the pod in core-seconds",
    );
    for ((namespace, pod), (cpu, _)) in &pods {
        out.sample(
            "pod_cpu_usage_seconds_total",
            &[("namespace", namespace), ("pod", pod)],
            seconds(*cpu),
        );
    }
    out.metric(
        "pod_memory_working_set_bytes",
        "gauge",
        "Current working set of the pod in bytes",
    );
    for ((namespace, pod), (_, memory)) in &pods {
        out.sample(
            "pod_memory_working_set_bytes",
            &[("namespace", namespace), ("pod", pod)],
            memory,
        );
    }
    exposition(out.0)
}

/// `/metrics/cadvisor`: the figures of containers that dashboards know.
pub(super) async fn container_metrics(server: &Arc<Server>) -> Response<Body> {
    let all = used(server).await;
    let mut out = Exposition(String::new());
    let mut each = |name: &str, kind: &str, help: &str, of: &dyn Fn(&Used) -> f64| {
        out.metric(name, kind, help);
        for one in &all {
            out.sample(
                name,
                &[
                    ("container", &one.container),
                    ("namespace", &one.namespace),
                    ("pod", &one.pod),
                ],
                of(one),
            );
        }
    };
    each(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        &|one| seconds(one.cpu),
    );
    each(
        "container_memory_usage_bytes",
        "gauge",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        &|one| one.usage as f64,
    );
    each(
        "container_memory_working_set_bytes",
        "gauge",
        "Current working set in bytes.",
        &|one| one.memory as f64,
    );
    each("container_memory_rss", "gauge", "Size of RSS in bytes.", &|one| {
        one.rss as f64
    });
    each(
        "container_fs_usage_bytes",
        "gauge",
        "Number of bytes that are consumed by the container on this filesystem.",
        &|one| one.layer as f64,
    );
    exposition(out.0)
}
