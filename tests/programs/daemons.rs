//! Daemon sets and their revisions on a node that is only said to be there.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};
use crate::workloads::{PODS, start, tell, template};

const SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const AGENT: &str = "/apis/apps/v1/namespaces/default/daemonsets/agent";
const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";

/// Controllers and one node.
fn with_a_node(controllers: &str) -> Result<Plane> {
    let plane = start(controllers)?;
    let resources = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "one"}, "status": {"capacity": resources, "allocatable": resources,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    plane.call("POST", "/api/v1/nodes", &node, 201)?;
    // A new node waits for the controller of nodes to find it ready.
    let open = json!({"spec": {"taints": null}});
    plane.call("PATCH", "/api/v1/nodes/one", &open, 200)?;
    Ok(plane)
}

/// A daemon set, made; with its answer.
fn agent(plane: &Plane) -> Result<Value> {
    let set = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent")}});
    plane.call("POST", SETS, &set, 201)
}

/// The one pod there is, once it fits.
fn daemon(plane: &Plane, what: &str, fits: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut found = Value::Null;
    eventually(what, SOON, || {
        let list = plane.get(PODS)?;
        let items = list["items"].as_array().context("a list")?;
        ensure!(items.len() == 1 && fits(&items[0]), "{list}");
        found = items[0].clone();
        Ok(())
    })?;
    Ok(found)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Revisions, once there are so many, oldest first.
fn revisions(plane: &Plane, count: usize) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    eventually(&format!("{count} revisions"), SOON, || {
        let list = plane.get(REVISIONS)?;
        found = list["items"].as_array().cloned().context("a list")?;
        ensure!(found.len() == count, "{list}");
        Ok(())
    })?;
    found.sort_by_key(|revision| revision["revision"].as_i64());
    Ok(found)
}

#[test]
fn daemons_say_which_template_they_are_of() -> Result<()> {
    let plane = with_a_node("daemonset-controller")?;
    agent(&plane)?;
    daemon(&plane, "a daemon", |pod| {
        let labels = &pod["metadata"]["labels"];
        labels["pod-template-generation"] == "1" && labels["controller-revision-hash"].is_string()
    })?;
    Ok(())
}

#[test]
fn going_back_restarts_nobody_who_stayed() -> Result<()> {
    let plane = with_a_node("daemonset-controller")?;
    agent(&plane)?;
    let first = daemon(&plane, "a daemon", |_| true)?;
    tell(&plane, name(&first), true)?;
    let image = |image: &str| json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}});
    // The only daemon is not available while it is replaced: a second one would be one too many.
    plane.call("PATCH", AGENT, &image("broken"), 200)?;
    let second = daemon(&plane, "the new image", |pod| {
        pod["spec"]["containers"][0]["image"] == "broken"
    })?;
    let before = revisions(&plane, 2)?;
    plane.call("PATCH", AGENT, &image("i"), 200)?;
    let third = daemon(&plane, "the old image", |pod| {
        pod["spec"]["containers"][0]["image"] == "i"
    })?;
    ensure!(name(&second) != name(&third));
    // The revision is the one that was, and the latest.
    let after = revisions(&plane, 2)?;
    ensure!(
        name(&after[1]) == name(&before[0]) && after[1]["revision"] == 3 && after[0]["revision"] == 2,
        "{after:?}"
    );
    ensure!(
        third["metadata"]["labels"]["controller-revision-hash"]
            == first["metadata"]["labels"]["controller-revision-hash"],
        "{third}"
    );
    Ok(())
}

#[test]
fn a_second_revision_of_the_same_template_restarts_nobody() -> Result<()> {
    let plane = with_a_node("daemonset-controller")?;
    agent(&plane)?;
    let pod = daemon(&plane, "a daemon", |_| true)?;
    tell(&plane, name(&pod), true)?;
    let mut copy = revisions(&plane, 1)?.remove(0);
    let uid = pod["metadata"]["uid"].clone();
    copy["metadata"] = json!({"name": "agent-copy", "ownerReferences": copy["metadata"]["ownerReferences"],
        "labels": {"app": "agent", "controller-revision-hash": "copy"}});
    copy["revision"] = 2.into();
    plane.call("POST", REVISIONS, &copy, 201)?;
    // Something makes the controller look at the set.
    plane.call(
        "PATCH",
        AGENT,
        &json!({"metadata": {"annotations": {"look": "here"}}}),
        200,
    )?;
    let left = revisions(&plane, 1)?;
    ensure!(name(&left[0]) == "agent-copy", "{left:?}");
    daemon(&plane, "the daemon as it was", |pod| {
        pod["metadata"]["uid"] == uid && pod["metadata"]["labels"]["controller-revision-hash"] == "copy"
    })?;
    Ok(())
}

#[test]
fn a_set_made_again_takes_daemons_and_revisions_over() -> Result<()> {
    let plane = with_a_node("daemonset-controller,garbage-collector-controller")?;
    agent(&plane)?;
    let pod = daemon(&plane, "a daemon", |_| true)?;
    tell(&plane, name(&pod), true)?;
    let revision = revisions(&plane, 1)?.remove(0);
    plane.call("DELETE", AGENT, &json!({"propagationPolicy": "Orphan"}), 200)?;
    eventually("the set is gone", SOON, || {
        plane.call("GET", AGENT, &Value::Null, 404).map(drop)
    })?;
    let again = agent(&plane)?;
    eventually("its status", SOON, || {
        let status = &plane.get(AGENT)?["status"];
        ensure!(
            status["updatedNumberScheduled"] == 1
                && status["numberReady"] == 1
                && status["collisionCount"].is_null(),
            "{status}"
        );
        Ok(())
    })?;
    let taken = daemon(&plane, "the daemon", |_| true)?;
    ensure!(
        taken["metadata"]["uid"] == pod["metadata"]["uid"]
            && taken["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"],
        "{taken}"
    );
    let left = revisions(&plane, 1)?.remove(0);
    ensure!(
        left["metadata"]["uid"] == revision["metadata"]["uid"]
            && left["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"],
        "{left}"
    );
    Ok(())
}

#[test]
fn daemons_that_fail_are_replaced() -> Result<()> {
    let plane = with_a_node("daemonset-controller")?;
    agent(&plane)?;
    let failed = json!({"status": {"phase": "Failed", "reason": "OutOfcpu"}});
    let mut last = daemon(&plane, "a daemon", |_| true)?;
    for _ in 0..2 {
        plane.call("PATCH", &format!("{PODS}/{}/status", name(&last)), &failed, 200)?;
        last = daemon(&plane, "another daemon", |pod| name(pod) != name(&last))?;
    }
    eventually("events", SOON, || {
        let list = plane.get("/api/v1/namespaces/default/events?fieldSelector=reason=FailedDaemonPod")?;
        let message = list["items"][0]["message"].as_str().context("an event")?;
        ensure!(
            message.starts_with("Found failed daemon pod default/agent-")
                && message.ends_with(" on node one, will try to kill it"),
            "{list}"
        );
        Ok(())
    })
}
