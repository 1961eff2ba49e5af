//! Controllers of pods, where no node is needed to see what they do: pods are as well as their status says.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

/// Where all pods of these stories are.
pub const PODS: &str = "/api/v1/namespaces/default/pods";
const SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

/// These controllers, and the account that pods run under.
pub fn start(controllers: &str) -> Result<Plane> {
    let plane = Plane::start(&format!("{controllers},serviceaccount-controller"))?;
    eventually("the account of pods", SOON, || {
        plane
            .get("/api/v1/namespaces/default/serviceaccounts/default")
            .map(drop)
    })?;
    Ok(plane)
}

/// A template of pods with this label.
pub fn template(app: &str) -> Value {
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

/// Says as a kubelet does that a pod runs and whether it is ready.
pub fn tell(plane: &Plane, pod: &str, ready: bool) -> Result<()> {
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
fn a_stateful_set_made_again_takes_pods_and_revisions_over() -> Result<()> {
    let plane = start("statefulset-controller,garbage-collector-controller")?;
    let set = json!({"metadata": {"name": "db"}, "spec": {"serviceName": "db", "replicas": 1,
        "selector": {"matchLabels": {"app": "db"}}, "template": template("db")}});
    plane.call("POST", SETS, &set, 201)?;
    pods(&plane, &["db-0"])?;
    tell(&plane, "db-0", true)?;
    ready(&plane, 1)?;
    let before = plane.get(&format!("{PODS}/db-0"))?;
    let revisions = "/apis/apps/v1/namespaces/default/controllerrevisions";
    let revision = plane.get(revisions)?["items"][0].clone();
    let labels = &revision["metadata"]["labels"];
    ensure!(
        labels["controller.kubernetes.io/hash"].is_string() && labels["controller-revision-hash"].is_null(),
        "{revision}"
    );

    let orphan = json!({"propagationPolicy": "Orphan"});
    plane.call("DELETE", &format!("{SETS}/db"), &orphan, 200)?;
    eventually("the set is gone", SOON, || {
        plane
            .call("GET", &format!("{SETS}/db"), &Value::Null, 404)
            .map(drop)
    })?;
    let again = plane.call("POST", SETS, &set, 201)?;
    ready(&plane, 1)?;
    let status = &plane.get(&format!("{SETS}/db"))?["status"];
    ensure!(
        status["collisionCount"].as_i64().unwrap_or(0) == 0
            && status["updateRevision"] == revision["metadata"]["name"],
        "{status}"
    );
    let pod = plane.get(&format!("{PODS}/db-0"))?;
    ensure!(
        pod["metadata"]["uid"] == before["metadata"]["uid"]
            && pod["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"],
        "{pod}"
    );
    let list = plane.get(revisions)?;
    ensure!(
        list["items"].as_array().is_some_and(|items| items.len() == 1),
        "{list}"
    );
    Ok(())
}

/// A status that somebody else has written is put right, though nothing else has happened.
#[test]
fn replicas_are_counted_again_when_others_write_the_status() -> Result<()> {
    let plane = start("replicaset-controller,replicationcontroller-controller")?;
    for (path, selector) in [
        (
            "/apis/apps/v1/namespaces/default/replicasets",
            json!({"matchLabels": {"app": "rs"}}),
        ),
        (
            "/api/v1/namespaces/default/replicationcontrollers",
            json!({"app": "rc"}),
        ),
    ] {
        let app = if path.ends_with("sets") { "rs" } else { "rc" };
        let set =
            json!({"metadata": {"name": app}, "spec": {"selector": selector, "template": template(app)}});
        plane.call("POST", path, &set, 201)?;
        let own = || -> Result<Vec<String>> {
            let named = names(&plane)?.into_iter();
            Ok(named.filter(|name| name.starts_with(app)).collect())
        };
        eventually("a pod", SOON, || {
            ensure!(own()?.len() == 1);
            Ok(())
        })?;
        tell(&plane, &own()?[0], true)?;
        let counted = || -> Result<()> {
            let status = plane.get(&format!("{path}/{app}"))?["status"].clone();
            let counts =
                ["replicas", "readyReplicas", "availableReplicas"].map(|count| status[count].as_i64());
            ensure!(counts == [Some(1); 3], "{status}");
            Ok(())
        };
        eventually("a ready pod", SOON, counted)?;
        let wrong = json!({"status": {"replicas": 7, "readyReplicas": 0, "availableReplicas": 0}});
        plane.call("PATCH", &format!("{path}/{app}/status"), &wrong, 200)?;
        eventually("the count put right", SOON, counted)?;
    }
    Ok(())
}
