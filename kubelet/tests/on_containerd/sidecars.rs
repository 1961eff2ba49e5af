//! Containers beside the usual ones: sidecars (KEP-753) and ephemeral containers (KEP-277).

use serde_json::{Value, json};

use crate::shell;
use crate::support::Node;

/// Notes its name in a file of the host when it starts and when it is asked to end.
fn noting(name: &str) -> Value {
    shell(&format!(
        "trap 'echo {name}-ends >> /host/notes; exit 0' TERM; echo {name} >> /host/notes; touch /tmp/up; \
         while true; do sleep 0.1; done"
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_start_first_and_end_last() {
    let Some(node) = Node::start().await else { return };
    let host = node.shared_folder();
    let mounts = json!([{"name": "host", "mountPath": "/host"}]);
    let sidecar = |name: &str| {
        json!({"name": name, "restartPolicy": "Always", "volumeMounts": mounts, "command": noting(name),
        "startupProbe": {"exec": {"command": ["test", "-e", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30}})
    };
    let init = |name: &str| json!({"name": name, "volumeMounts": mounts, "command": shell(&format!("echo {name} >> /host/notes"))});
    node.run_pod(
        "ordered",
        json!({"initContainers": [init("init-1"), sidecar("side-1"), init("init-2"), sidecar("side-2")],
            "containers": [{"name": "main", "command": noting("main"), "volumeMounts": mounts}],
            "volumes": [{"name": "host", "hostPath": {"path": host}}], "terminationGracePeriodSeconds": 20}),
    );
    let pod = node.wait_ready("ordered").await;
    let statuses = pod["status"]["initContainerStatuses"]
        .as_array()
        .expect("statuses");
    let ready: Vec<_> = statuses.iter().map(|status| status["ready"] == true).collect();
    assert_eq!(ready, [true; 4], "those that are done and those that go on");
    assert!(statuses[1]["state"]["running"].is_object() && statuses[0]["state"]["terminated"].is_object());
    node.wait_for("the last container's note", |_| {
        let notes = std::fs::read_to_string(host.join("notes")).ok()?;
        notes.contains("main").then_some(())
    })
    .await;
    node.delete_pod("ordered").await;
    let notes = std::fs::read_to_string(host.join("notes")).expect("notes");
    assert_eq!(
        notes.split_whitespace().collect::<Vec<_>>(),
        [
            "init-1",
            "side-1",
            "init-2",
            "side-2",
            "main",
            "main-ends",
            "side-2-ends",
            "side-1-ends"
        ]
    );
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sidecars_are_restarted_and_hold_nobody_up() {
    let Some(node) = Node::start().await else { return };
    node.run_pod(
        "work",
        json!({"restartPolicy": "Never",
            "initContainers": [{"name": "side", "restartPolicy": "Always", "command": shell("sleep 2; exit 1")}],
            "containers": [{"name": "main", "command": shell("sleep 6")}]}),
    );
    node.wait_for_pod("work", "to have its sidecar restarted", |status| {
        status["initContainerStatuses"][0]["restartCount"].as_i64() >= Some(1) && status["phase"] == "Running"
    })
    .await;
    node.run_pod(
        "job",
        json!({"restartPolicy": "Never",
            "initContainers": [{"name": "side", "restartPolicy": "Always", "command": noting_nothing()}],
            "containers": [{"name": "main", "command": shell("sleep 1")}]}),
    );
    for name in ["work", "job"] {
        node.wait_for_pod(name, "to be done", |status| status["phase"] == "Succeeded")
            .await;
    }
    node.finish().await;
}

fn noting_nothing() -> Value {
    shell("trap 'exit 0' TERM; while true; do sleep 0.1; done")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ephemeral_container_joins() {
    let Some(node) = Node::start().await else { return };
    node.run_pod(
        "patient",
        json!({"containers": [{"name": "c", "command": shell("echo $$; exec sleep 12345")}, {"name": "d", "command": shell("sleep 1000")}]}),
    );
    node.wait_ready("patient").await;
    let doctor = json!({"name": "doctor", "image": node.image, "imagePullPolicy": "IfNotPresent", "targetContainerName": "c",
        "command": shell("tr '\\0' ' ' < /proc/1/cmdline; echo; sleep 3; exit 4")});
    node.api.patch(
        "pods",
        "default",
        "patient",
        &json!({"metadata": {"generation": 2}, "spec": {"ephemeralContainers": [doctor]}}),
    );
    node.wait_for_pod("patient", "to have a visitor", |status| {
        status["ephemeralContainerStatuses"][0]["state"]["running"].is_object()
    })
    .await;
    node.wait_for_log("patient", "doctor", "sleep 12345").await;
    let after = node
        .wait_for_pod("patient", "to be alone again", |status| {
            status["ephemeralContainerStatuses"][0]["state"]["terminated"].is_object()
        })
        .await;
    let ended = &after["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(
        (&ended["state"]["terminated"]["exitCode"], &ended["restartCount"]),
        (&json!(4), &json!(0))
    );
    // It is not started again and changes nothing about the pod.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let pod = node.wait_ready("patient").await;
    assert_eq!(pod["status"]["ephemeralContainerStatuses"][0]["restartCount"], 0);
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    node.finish().await;
}
