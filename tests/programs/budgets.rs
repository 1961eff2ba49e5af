//! Disruption budgets: what they allow, and what an eviction makes of it.

use anyhow::{Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGET: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets/most";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {
        "nodeName": "nowhere", "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]}})
}

fn eviction(name: &str) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}})
}

#[test]
fn evictions_wait_until_the_budget_allows_them() -> Result<()> {
    let plane = Plane::start("disruption-controller,serviceaccount-controller")?;
    eventually("the account of pods", SOON, || {
        plane
            .get("/api/v1/namespaces/default/serviceaccounts/default")
            .map(drop)
    })?;
    let budget = json!({"metadata": {"name": "most"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}});
    plane.call("POST", BUDGET.trim_end_matches("/most"), &budget, 201)?;
    let ready = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    for name in ["a", "b"] {
        plane.call("POST", PODS, &pod(name), 201)?;
        plane.call("PATCH", &format!("{PODS}/{name}/status"), &ready, 200)?;
    }
    let allowed = |wanted: i64, reason: &str| {
        eventually(&format!("{wanted} allowed"), SOON, || {
            let found = plane.get(BUDGET)?;
            let (status, condition) = (&found["status"], &found["status"]["conditions"][0]);
            ensure!(status["disruptionsAllowed"] == wanted, "{status}");
            ensure!(
                condition["type"] == "DisruptionAllowed" && condition["reason"] == reason,
                "{status}"
            );
            ensure!(
                status["observedGeneration"] == found["metadata"]["generation"],
                "{status}"
            );
            Ok(())
        })
    };
    allowed(0, "InsufficientPods")?;
    eventually("two healthy pods", SOON, || {
        let status = &plane.get(BUDGET)?["status"];
        ensure!(
            status["currentHealthy"] == 2 && status["desiredHealthy"] == 2 && status["expectedPods"] == 2,
            "{status}"
        );
        Ok(())
    })?;
    let refused = plane.call("POST", &format!("{PODS}/a/eviction"), &eviction("a"), 429)?;
    ensure!(
        refused["details"]["causes"][0]["reason"] == "DisruptionBudget",
        "{refused}"
    );

    plane.call("PATCH", BUDGET, &json!({"spec": {"minAvailable": 1}}), 200)?;
    allowed(1, "SufficientPods")?;
    // Whoever judges the end of the pod can see why it went: a finalizer keeps it in sight.
    let held = json!({"metadata": {"finalizers": ["example.com/look"]}});
    plane.call("PATCH", &format!("{PODS}/a"), &held, 200)?;
    plane.call("POST", &format!("{PODS}/a/eviction"), &eviction("a"), 201)?;
    let evicted = plane.get(&format!("{PODS}/a"))?;
    let condition = evicted["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "DisruptionTarget");
    ensure!(
        condition.is_some_and(|c| c["status"] == "True" && c["reason"] == "EvictionByEvictionAPI"),
        "{evicted}"
    );
    allowed(0, "InsufficientPods")
}
