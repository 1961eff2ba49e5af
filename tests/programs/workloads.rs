//! Controllers of pods, where no node is needed to see what they do: pods are as well as their status says.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn start(controllers: &str) -> Result<Plane> {
    let plane = Plane::start(&format!("{controllers},serviceaccount-controller"))?;
    eventually("the account of pods", SOON, || {
        plane
            .get("/api/v1/namespaces/default/serviceaccounts/default")
            .map(drop)
    })?;
    Ok(plane)
}

fn template(app: &str) -> Value {
    json!({"metadata": {"labels": {"app": app}}, "spec": {"terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "i"}]}})
}

fn names(plane: &Plane) -> Result<Vec<String>> {
    let list = plane.get(PODS)?;
    let items = list["items"].as_array().context("a list")?;
    let names = items.iter().filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Waits for pods of these names.
fn pods(plane: &Plane, wanted: &[&str]) -> Result<()> {
    eventually(&format!("pods {wanted:?}"), SOON, || {
        let found = names(plane)?;
        ensure!(found == wanted, "{found:?}");
        Ok(())
    })
}

fn tell(plane: &Plane, pod: &str, ready: bool) -> Result<()> {
    let ready = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    plane.call("PATCH", &format!("{PODS}/{pod}/status"), &status, 200)?;
    Ok(())
}

fn ready(plane: &Plane, wanted: i64) -> Result<()> {
    eventually(&format!("{wanted} ready"), SOON, || {
        let status = &plane.get(&format!("{SETS}/db"))?["status"];
        ensure!(
            status["readyReplicas"].as_i64().unwrap_or(0) == wanted,
            "{status}"
        );
        Ok(())
    })
}

#[test]
fn a_stateful_set_halts_while_its_pods_are_not_well() -> Result<()> {
    let plane = start("statefulset-controller")?;
    let set = json!({"metadata": {"name": "db"}, "spec": {"replicas": 2, "serviceName": "db",
        "selector": {"matchLabels": {"app": "db"}}, "template": template("db")}});
    plane.call("POST", SETS, &set, 201)?;
    pods(&plane, &["db-0"])?;
    tell(&plane, "db-0", true)?;
    pods(&plane, &["db-0", "db-1"])?;
    tell(&plane, "db-1", true)?;
    ready(&plane, 2)?;

    for pod in ["db-0", "db-1"] {
        tell(&plane, pod, false)?;
    }
    ready(&plane, 0)?;
    let scale = |replicas: i64| {
        let scale = json!({"spec": {"replicas": replicas}});
        plane.call("PATCH", &format!("{SETS}/db/scale"), &scale, 200)
    };
    let generation = scale(0)?;
    eventually("the controller has seen it", SOON, || {
        let set = plane.get(&format!("{SETS}/db"))?;
        ensure!(
            set["status"]["observedGeneration"] == set["metadata"]["generation"],
            "{set} {generation}"
        );
        Ok(())
    })?;
    ensure!(
        names(&plane)? == ["db-0", "db-1"],
        "neither goes while both are ill"
    );
    // Only the last may go as it is; the others wait to be well.
    tell(&plane, "db-1", true)?;
    pods(&plane, &[])
}

#[test]
fn a_job_adopts_and_releases_pods() -> Result<()> {
    let plane = start("job-controller")?;
    let job = json!({"metadata": {"name": "sums"}, "spec": {"parallelism": 2, "completions": 4, "template": {
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
    let job = plane.call("POST", JOBS, &job, 201)?;
    let uid = &job["metadata"]["uid"];
    eventually("two pods", SOON, || {
        ensure!(names(&plane)?.len() == 2);
        Ok(())
    })?;
    let pod = format!("{PODS}/{}", names(&plane)?[0]);
    let tracked = json!(["batch.kubernetes.io/job-tracking"]);

    plane.call(
        "PATCH",
        &pod,
        &json!({"metadata": {"ownerReferences": null, "finalizers": null}}),
        200,
    )?;
    eventually("adoption", SOON, || {
        let metadata = &plane.get(&pod)?["metadata"];
        ensure!(
            metadata["ownerReferences"][0]["uid"] == *uid && metadata["finalizers"] == tracked,
            "{metadata}"
        );
        Ok(())
    })?;
    ensure!(names(&plane)?.len() == 2, "an orphan has a place to return to");

    let labels = plane.get(&pod)?["metadata"]["labels"].clone();
    let labels: serde_json::Map<String, Value> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| (name.clone(), Value::Null))
        .collect();
    plane.call("PATCH", &pod, &json!({"metadata": {"labels": labels}}), 200)?;
    eventually("release", SOON, || {
        let metadata = &plane.get(&pod)?["metadata"];
        ensure!(
            metadata["ownerReferences"].is_null() && metadata["finalizers"].is_null(),
            "{metadata}"
        );
        ensure!(names(&plane)?.len() == 3);
        Ok(())
    })
}

#[test]
fn daemons_say_which_template_they_are_of() -> Result<()> {
    let plane = start("daemonset-controller")?;
    let resources = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "one"}, "status": {"capacity": resources, "allocatable": resources,
        "conditions": [{"type": "Ready", "status": "True"}]}});
    plane.call("POST", "/api/v1/nodes", &node, 201)?;
    // A new node waits for the controller of nodes to find it ready.
    let open = json!({"spec": {"taints": null}});
    plane.call("PATCH", "/api/v1/nodes/one", &open, 200)?;
    let set = json!({"metadata": {"name": "agent"}, "spec": {
        "selector": {"matchLabels": {"app": "agent"}}, "template": template("agent")}});
    plane.call("POST", "/apis/apps/v1/namespaces/default/daemonsets", &set, 201)?;
    eventually("a daemon", SOON, || {
        let list = plane.get(PODS)?;
        let labels = &list["items"][0]["metadata"]["labels"];
        ensure!(
            labels["pod-template-generation"] == "1" && labels["controller-revision-hash"].is_string(),
            "{list}"
        );
        Ok(())
    })
}
