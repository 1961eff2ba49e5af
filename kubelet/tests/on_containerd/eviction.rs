//! Pods that use more than they may, and pods on a node that is short of memory.

use serde_json::{Value, json};

use crate::shell;
use crate::support::Node;

fn is_evicted(status: &Value) -> bool {
    status["phase"] == "Failed" && status["reason"] == "Evicted"
}

fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    let conditions = status["conditions"].as_array()?;
    conditions.iter().find(|condition| condition["type"] == kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_disk_is_evicted() {
    let Some(node) = Node::start().await else { return };
    let fill = |path: &str| shell(&format!("dd if=/dev/zero of={path} bs=1M count=4; sleep 1000"));
    node.run_pod(
        "scratch",
        json!({"containers": [{"name": "c", "command": fill("/v/file"), "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}], "terminationGracePeriodSeconds": 600}),
    );
    node.run_pod(
        "layer",
        json!({"containers": [{"name": "c", "command": fill("/tmp/file"), "resources": {"limits": {"ephemeral-storage": "1Mi"}}},
            {"name": "d", "command": shell("sleep 1000")}]}),
    );
    node.run_pod(
        "modest",
        json!({"containers": [{"name": "c", "command": fill("/v/file"), "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "64Mi"}}]}),
    );
    for (name, message) in [
        (
            "scratch",
            "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ",
        ),
        (
            "layer",
            "Container c exceeded its local ephemeral storage limit \"1Mi\". ",
        ),
    ] {
        let pod = node.wait_for_pod(name, "to be evicted", is_evicted).await;
        assert_eq!(pod["status"]["message"], message);
        let target = condition(&pod["status"], "DisruptionTarget").expect("a condition");
        assert_eq!(
            (&target["status"], &target["reason"]),
            (&json!("True"), &json!("TerminationByKubelet"))
        );
        node.wait_for_event(&format!("{name} Evicted")).await;
    }
    node.wait_ready("modest").await;
    node.api.patch(
        "pods",
        "default",
        "scratch",
        &json!({"spec": {"terminationGracePeriodSeconds": 1}}),
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_short_of_memory_ends_the_greediest_first() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let hold = shell("x=$(head -c 20000000 /dev/zero | tr '\\0' a); echo full; sleep 1000; echo $x");
    node.run_pod("greedy", json!({"containers": [{"name": "c", "command": hold}]}));
    node.run_pod(
        "promised",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000"), "resources": {"requests": {"memory": "64Mi"}}}]}),
    );
    node.wait_for_log("greedy", "c", "full").await;
    node.wait_ready("promised").await;
    // More than any machine has to spare.
    node.restart_with(&["--eviction-hard=memory.available<99%"]).await;
    let greedy = node.wait_for_pod("greedy", "to be evicted", is_evicted).await;
    let message = greedy["status"]["message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("The node was low on resource: memory. Threshold quantity: ")
            && message.contains("Container c was using ")
            && message.contains("request is 0, has larger consumption of memory. "),
        "{message}"
    );
    let promised = node.api.get("pods", "default", "promised").expect("the pod");
    assert_eq!(promised["status"]["phase"], "Running", "one at a time");
    node.wait_for("the node to say that it is short", |api| {
        let node = api.get("nodes", "", "test-node")?;
        (condition(&node["status"], "MemoryPressure")?["status"] == "True").then_some(())
    })
    .await;
    node.run_pod(
        "late",
        json!({"containers": [{"name": "c", "command": shell("sleep 1000")}]}),
    );
    let late = node.wait_for_pod("late", "to be refused", is_evicted).await;
    assert_eq!(
        late["status"]["message"],
        "Pod was rejected: The node had condition: [MemoryPressure]. "
    );
    node.finish().await;
}
