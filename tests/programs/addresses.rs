//! The addresses of services as objects, and the ranges they come from.

use anyhow::{Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const RANGES: &str = "/apis/networking.k8s.io/v1/servicecidrs";
const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, address: Option<&str>) -> Value {
    json!({"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}})
}

fn is_ready(range: &Value) -> bool {
    range["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

#[test]
fn services_have_addresses_and_ranges_keep_them() -> Result<()> {
    let plane = Plane::start("service-cidr-controller")?;
    eventually("the range the server was started with", SOON, || {
        let range = plane.get(&format!("{RANGES}/kubernetes"))?;
        ensure!(is_ready(&range), "{range}");
        ensure!(
            range["metadata"]["finalizers"] == json!(["networking.k8s.io/service-cidr-finalizer"]),
            "{range}"
        );
        Ok(())
    })?;

    // Every address of a service is an object that says whose it is.
    let made = plane.call("POST", SERVICES, &service("web", None), 201)?;
    let ip = made["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    let address = plane.get(&format!("{ADDRESSES}/{ip}"))?;
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    ensure!(address["spec"]["parentRef"] == parent, "{address}");
    let labels = &address["metadata"]["labels"];
    ensure!(
        labels["ipaddress.kubernetes.io/managed-by"] == "ipallocator.k8s.io"
            && labels["ipaddress.kubernetes.io/ip-family"] == "IPv4",
        "{address}"
    );
    // What somebody else holds is not given away.
    let held = json!({"metadata": {"name": "10.96.77.77"},
        "spec": {"parentRef": {"resource": "machines", "group": "example.com", "name": "m"}}});
    plane.call("POST", ADDRESSES, &held, 201)?;
    let refused = plane.call("POST", SERVICES, &service("late", Some("10.96.77.77")), 422)?;
    ensure!(
        refused["message"]
            .as_str()
            .is_some_and(|text| text.contains("provided IP is already allocated")),
        "{refused}"
    );
    // An address that is taken away from a service comes back, and goes with it.
    plane.call("DELETE", &format!("{ADDRESSES}/{ip}"), &Value::Null, 200)?;
    eventually("the address again", SOON, || {
        plane.get(&format!("{ADDRESSES}/{ip}")).map(drop)
    })?;
    plane.call("DELETE", &format!("{SERVICES}/web"), &Value::Null, 200)?;
    eventually("no address without its service", SOON, || {
        plane
            .call("GET", &format!("{ADDRESSES}/{ip}"), &Value::Null, 404)
            .map(drop)
    })?;

    // A second range gives addresses as soon as it is ready, and stays until they are gone.
    let outside = "10.222.0.9";
    plane.call("POST", SERVICES, &service("far", Some(outside)), 422)?;
    let range = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["10.222.0.0/24"]}});
    plane.call("POST", RANGES, &range, 201)?;
    let more = format!("{RANGES}/more");
    eventually("the second range", SOON, || {
        let range = plane.get(&more)?;
        ensure!(is_ready(&range), "{range}");
        Ok(())
    })?;
    eventually("a service in the second range", SOON, || {
        plane
            .call("POST", SERVICES, &service("far", Some(outside)), 201)
            .map(drop)
    })?;
    plane.call("DELETE", &more, &Value::Null, 200)?;
    eventually("a range that waits", SOON, || {
        let range = plane.get(&more)?;
        let condition = &range["status"]["conditions"][0];
        ensure!(
            condition["status"] == "False" && condition["reason"] == "Terminating",
            "{range}"
        );
        Ok(())
    })?;
    plane.call("DELETE", &format!("{SERVICES}/far"), &Value::Null, 200)?;
    eventually("no second range", SOON, || {
        plane.call("GET", &more, &Value::Null, 404).map(drop)
    })
}
