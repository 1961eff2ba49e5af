//! Endpoints written by hand are seen as slices too.

use anyhow::{Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ENDPOINTS: &str = "/api/v1/namespaces/default/endpoints";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// Waits until the addresses in the mirrors of Endpoints are these.
fn mirrored(plane: &Plane, name: &str, wanted: &[&str]) -> Result<Vec<Value>> {
    let path = format!("{SLICES}?labelSelector=kubernetes.io/service-name={name}");
    eventually(&format!("{name} at {wanted:?}"), SOON, || {
        let list = plane.get(&path)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let mut addresses: Vec<&str> = items
            .iter()
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten())
            .filter_map(|endpoint| endpoint["addresses"][0].as_str())
            .collect();
        addresses.sort_unstable();
        ensure!(addresses == wanted, "{list}");
        Ok(items)
    })
}

#[test]
fn endpoints_without_a_selector_are_mirrored() -> Result<()> {
    let plane = Plane::start("endpointslice-mirroring-controller")?;
    let ports = json!([{"name": "example", "port": 80}]);
    let service = json!({"metadata": {"name": "custom"}, "spec": {"ports": ports}});
    plane.call("POST", SERVICES, &service, 201)?;
    let endpoints = json!({"metadata": {"name": "custom", "labels": {"a": "b"}},
        "subsets": [{"addresses": [{"ip": "10.1.2.3"}], "ports": ports}]});
    plane.call("POST", ENDPOINTS, &endpoints, 201)?;
    let slices = mirrored(&plane, "custom", &["10.1.2.3"])?;
    let slice = &slices[0];
    ensure!(
        slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
            == "endpointslicemirroring-controller.k8s.io"
            && slice["metadata"]["labels"]["a"] == "b"
            && slice["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
            && slice["ports"] == json!([{"name": "example", "port": 80, "protocol": "TCP"}])
            && slice["endpoints"][0]["conditions"] == json!({"ready": true}),
        "{slice}"
    );

    let at = format!("{ENDPOINTS}/custom");
    let changed = json!({"subsets": [{"addresses": [{"ip": "10.2.3.4"}], "ports": ports}]});
    plane.call("PATCH", &at, &changed, 200)?;
    let after = mirrored(&plane, "custom", &["10.2.3.4"])?;
    ensure!(
        after[0]["metadata"]["uid"] == slice["metadata"]["uid"],
        "{after:?}"
    );
    plane.call("DELETE", &at, &Value::Null, 200)?;
    mirrored(&plane, "custom", &[])?;

    // What a service selects, or what asks to be left alone, has slices of others or none.
    let selecting =
        json!({"metadata": {"name": "selecting"}, "spec": {"selector": {"a": "b"}, "ports": ports}});
    plane.call("POST", SERVICES, &selecting, 201)?;
    let skipped = json!({"metadata": {"name": "skipped"}, "spec": {"ports": ports}});
    plane.call("POST", SERVICES, &skipped, 201)?;
    for (name, labels) in [
        ("selecting", json!({})),
        (
            "skipped",
            json!({"endpointslice.kubernetes.io/skip-mirror": "true"}),
        ),
        ("last", json!({})),
    ] {
        let one = json!({"metadata": {"name": name, "labels": labels},
            "subsets": [{"addresses": [{"ip": "10.3.4.5"}]}]});
        plane.call("POST", ENDPOINTS, &one, 201)?;
    }
    // A service may come after its addresses.
    let last = json!({"metadata": {"name": "last"}, "spec": {"ports": ports}});
    plane.call("POST", SERVICES, &last, 201)?;
    mirrored(&plane, "last", &["10.3.4.5"])?;
    mirrored(&plane, "selecting", &[])?;
    mirrored(&plane, "skipped", &[])?;
    // A selector makes the addresses somebody else's.
    plane.call(
        "PATCH",
        &format!("{SERVICES}/last"),
        &json!({"spec": {"selector": {"a": "b"}}}),
        200,
    )?;
    mirrored(&plane, "last", &[])?;
    Ok(())
}
