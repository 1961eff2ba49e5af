//! Lifecycle hooks.

use serde_json::json;

use crate::shell;
use crate::support::{ECHO, Node};

#[tokio::test(flavor = "multi_thread")]
async fn hooks_call_over_http() {
    let Some(node) = Node::start().await else { return };
    node.run_pod("recorder", json!({"containers": [{"name": "c", "image": ECHO}]}));
    let recorder = node.wait_ready("recorder").await;
    let ip = recorder["status"]["podIP"].as_str().expect("an address");
    let call = |path: &str| {
        json!({"httpGet": {"host": ip, "port": "http", "path": path,
        "httpHeaders": [{"name": "X-Hook", "value": "yes"}]}})
    };
    node.run_pod(
        "caller",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000"), "ports": [{"name": "http", "containerPort": 8080}],
            "lifecycle": {"postStart": call("/after-start"), "preStop": call("/before-stop")}}]}),
    );
    node.wait_ready("caller").await;
    node.wait_for_log("recorder", "c", "GET /after-start").await;
    node.delete_pod("caller").await;
    node.wait_for_log("recorder", "c", "GET /before-stop").await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_comes_before_the_signal() {
    let Some(node) = Node::start().await else { return };
    let host = node.shared_folder();
    let note = |text: &str| format!("echo {text} >> /host/notes");
    let script = format!(
        "trap '{}; exit 0' TERM; while true; do sleep 0.1; done",
        note("signal")
    );
    let volumes = json!([{"name": "host", "hostPath": {"path": host}}]);
    let mounts = json!([{"name": "host", "mountPath": "/host"}]);
    node.run_pod(
        "polite",
        json!({"containers": [{"name": "c", "command": shell(&script), "volumeMounts": mounts,
            "lifecycle": {"postStart": {"exec": {"command": shell(&note("started"))}},
                "preStop": {"exec": {"command": shell(&format!("{}; sleep 1; {}", note("hook"), note("hook-done")))}}}}],
            "volumes": volumes, "terminationGracePeriodSeconds": 20}),
    );
    node.wait_ready("polite").await;
    node.delete_pod("polite").await;
    let notes = std::fs::read_to_string(host.join("notes")).expect("notes");
    assert_eq!(
        notes.split_whitespace().collect::<Vec<_>>(),
        ["started", "hook", "hook-done", "signal"]
    );
    // The hook's time counts: one that takes too long is cut short, and the container with it.
    node.run_pod(
        "endless",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000"),
            "lifecycle": {"preStop": {"exec": {"command": shell("sleep 1000")}}}}], "terminationGracePeriodSeconds": 2}),
    );
    node.wait_ready("endless").await;
    node.delete_pod("endless").await;
    // A container whose first hook fails has failed.
    node.run_pod(
        "unlucky",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000"),
            "lifecycle": {"postStart": {"exec": {"command": shell("echo no; exit 5")}}}}]}),
    );
    node.wait_for_event("unlucky FailedPostStartHook").await;
    node.wait_for_pod("unlucky", "to be tried again", |status| {
        status["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.finish().await;
}
