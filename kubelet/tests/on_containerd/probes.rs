//! gRPC probes, and startup probes that the others wait for.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::shell;
use crate::support::{ECHO, Node};

/// Tells a pod of the echo image something.
async fn post(ip: &str, path: &str) {
    let mut stream = tokio::net::TcpStream::connect((ip, 8080))
        .await
        .expect("a connection");
    let request = format!("POST {path} HTTP/1.1\r\nhost: {ip}\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asked");
    let mut answer = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut stream, &mut answer)
        .await
        .expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 200");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_probes_ask_services() {
    let Some(node) = Node::start().await else { return };
    let probe = |service: &str| json!({"grpc": {"port": 9090, "service": service}, "periodSeconds": 1, "failureThreshold": 1});
    node.run_pod(
        "health",
        json!({"containers": [{"name": "c", "image": ECHO, "env": [{"name": "GRPC_PORT", "value": "9090"}],
            "startupProbe": {"grpc": {"port": 9090}, "periodSeconds": 1, "failureThreshold": 10},
            "readinessProbe": probe("readiness"), "livenessProbe": probe("liveness")}]}),
    );
    node.run_pod(
        "unknown",
        json!({"containers": [{"name": "c", "image": ECHO, "env": [{"name": "GRPC_PORT", "value": "9090"}],
            "readinessProbe": probe("nothing")}]}),
    );
    node.run_pod(
        "closed",
        json!({"containers": [{"name": "c", "image": ECHO, "readinessProbe": probe("")}]}),
    );
    let pod = node.wait_ready("health").await;
    let ip = pod["status"]["podIP"].as_str().expect("an address");
    post(ip, "/unready").await;
    node.wait_for_pod("health", "to be unready", |status| {
        status["containerStatuses"][0]["ready"] == false
    })
    .await;
    node.wait_for_event(
        "health Unhealthy Readiness probe failed: service unhealthy (responded with \"NOT_SERVING\")",
    )
    .await;
    post(ip, "/ready").await;
    node.wait_ready("health").await;
    post(ip, "/fail").await;
    node.wait_for_pod("health", "to be restarted", |status| {
        status["containerStatuses"][0]["restartCount"] == 1
    })
    .await;
    node.wait_for_event("health Killing Container c failed liveness probe, will be restarted")
        .await;
    node.wait_for_event("unknown Unhealthy Readiness probe failed: error: health rpc probe failed")
        .await;
    node.wait_for_event("closed Unhealthy Readiness probe failed: timeout: failed to connect service")
        .await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_startup_probe_holds_the_others_back() {
    let Some(node) = Node::start().await else { return };
    // The liveness probe would end the container at once; once the file is there both succeed.
    let there =
        json!({"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 1});
    node.run_pod(
        "slow",
        json!({"containers": [{"name": "c", "command": shell("sleep 4; touch /tmp/up; sleep 1000"),
            "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30},
            "livenessProbe": there, "readinessProbe": there}]}),
    );
    node.run_pod(
        "stuck",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000"),
            "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 2,
                "terminationGracePeriodSeconds": 1}}],
            "terminationGracePeriodSeconds": 600}),
    );
    node.wait_for_pod("slow", "to run without having started", |status| {
        let container = &status["containerStatuses"][0];
        container["state"]["running"].is_object()
            && container["started"] == false
            && container["ready"] == false
    })
    .await;
    let ready = node.wait_ready("slow").await;
    assert_eq!(ready["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(ready["status"]["containerStatuses"][0]["started"], true);
    let stuck = node
        .wait_for_pod("stuck", "to be restarted", |status| {
            status["containerStatuses"][0]["restartCount"] == 1
        })
        .await;
    let last = &stuck["status"]["containerStatuses"][0]["lastState"]["terminated"];
    // The shell ignores SIGTERM as the first process of its container.
    assert_eq!(last["exitCode"], 137, "{last}");
    node.wait_for_event("stuck Killing Container c failed startup probe, will be restarted")
        .await;
    node.api.patch(
        "pods",
        "default",
        "stuck",
        &json!({"spec": {"terminationGracePeriodSeconds": 1}}),
    );
    node.finish().await;
}
