//! Usage figures of containers.

use serde_json::{Value, json};

use crate::shell;
use crate::support::Node;

fn labelled<'a>(text: &'a str, metric: &str, labels: &[&str]) -> Option<&'a str> {
    text.lines()
        .find(|line| {
            line.starts_with(&format!("{metric}{{")) && labels.iter().all(|label| line.contains(label))
        })
        .and_then(|line| line.rsplit(' ').next())
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_is_counted() {
    let Some(node) = Node::start().await else { return };
    node.run_pod(
        "busy",
        json!({"containers": [
            {"name": "burner", "command": shell("while true; do :; done"), "resources": {"limits": {"cpu": "100m"}}},
            {"name": "idler", "command": shell("sleep 1000")}]}),
    );
    node.wait_ready("busy").await;
    let begun = std::time::Instant::now();
    let pod = loop {
        let (code, body) = node.get("/stats/summary").await;
        assert_eq!(code, 200);
        let summary: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(summary["node"]["nodeName"], "test-node");
        for path in [
            "/node/memory/workingSetBytes",
            "/node/cpu/usageCoreNanoSeconds",
            "/node/fs/capacityBytes",
        ] {
            assert!(
                summary.pointer(path).and_then(Value::as_u64) > Some(0),
                "{path}: {summary}"
            );
        }
        let pods = summary["pods"].as_array().expect("pods").clone();
        let pod = pods.into_iter().find(|pod| pod["podRef"]["name"] == "busy");
        // The rate is there once there are two readings.
        if let Some(pod) = pod
            && pod["cpu"]["usageNanoCores"].as_u64() > Some(0)
        {
            break pod;
        }
        assert!(begun.elapsed().as_secs() < 40, "no rate: {summary:#}");
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    };
    let container = |name: &str| {
        let containers = pod["containers"].as_array().expect("containers");
        containers
            .iter()
            .find(|container| container["name"] == name)
            .expect("the container")
            .clone()
    };
    let cpu = |name: &str| {
        container(name)["cpu"]["usageCoreNanoSeconds"]
            .as_u64()
            .unwrap_or(0)
    };
    assert!(cpu("burner") > cpu("idler"), "{pod:#}");
    assert!(
        container("burner")["memory"]["workingSetBytes"].as_u64() > Some(0),
        "{pod:#}"
    );
    let (_, resource) = node.get("/metrics/resource").await;
    let (_, cadvisor) = node.get("/metrics/cadvisor").await;
    let of = ["container=\"burner\"", "namespace=\"default\"", "pod=\"busy\""];
    for (text, metric) in [
        (&resource, "container_cpu_usage_seconds_total"),
        (&resource, "container_memory_working_set_bytes"),
        (&cadvisor, "container_cpu_usage_seconds_total"),
        (&cadvisor, "container_memory_working_set_bytes"),
    ] {
        let value: f64 = labelled(text, metric, &of)
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {metric} in {text}"));
        assert!(value > 0.0, "{metric} {value}");
    }
    let pod_metric = labelled(&resource, "pod_cpu_usage_seconds_total", &of[1..]);
    assert!(pod_metric.is_some(), "{resource}");
    assert!(
        resource.contains("node_cpu_usage_seconds_total ")
            && resource.contains("node_memory_working_set_bytes ")
    );
    node.finish().await;
}
