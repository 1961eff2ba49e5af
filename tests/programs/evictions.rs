//! Pods that have to leave their node.

use anyhow::{Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};
use crate::workloads::{PODS, start};

fn pod(plane: &Plane, name: &str, tolerations: Value) -> Result<()> {
    let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": "one", "tolerations": tolerations,
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}});
    plane.call("POST", PODS, &pod, 201).map(drop)
}

#[test]
fn a_taint_without_a_date_is_tolerated_as_long_as_was_said() -> Result<()> {
    let plane = start("taint-eviction-controller")?;
    plane.call(
        "POST",
        "/api/v1/nodes",
        &json!({"metadata": {"name": "one"}}),
        201,
    )?;
    let toleration = |seconds: Value| {
        json!([{"key": "mine", "operator": "Exists", "effect": "NoExecute",
        "tolerationSeconds": seconds}])
    };
    pod(&plane, "guest", json!([]))?;
    pod(&plane, "patient", toleration(1.into()))?;
    pod(&plane, "resident", toleration(Value::Null))?;
    let taints = json!({"spec": {"taints": [{"key": "mine", "effect": "NoExecute"}]}});
    plane.call("PATCH", "/api/v1/nodes/one", &taints, 200)?;
    for gone in ["guest", "patient"] {
        eventually(&format!("{gone} is gone"), SOON, || {
            plane
                .call("GET", &format!("{PODS}/{gone}"), &Value::Null, 404)
                .map(drop)
        })?;
    }
    let resident = plane.get(&format!("{PODS}/resident"))?;
    ensure!(resident["metadata"]["deletionTimestamp"].is_null(), "{resident}");
    Ok(())
}
