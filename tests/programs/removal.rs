//! What goes with what: owners and dependents, namespaces and their contents.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::aggregation::{REGISTRATIONS, register, second_server};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::plane::{Plane, SOON};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const BOXES: &str = "/apis/example.com/v1/namespaces/default/boxes";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
/// Until the collector follows a definition.
const SETTLED: Duration = Duration::from_secs(6);

fn map(plane: &Plane, name: &str, owners: &[(&str, &str, bool)]) -> Result<String> {
    let owners: Vec<Value> = owners
        .iter()
        .map(|(name, uid, blocks)| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": blocks})
        })
        .collect();
    let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
    let made = plane.call("POST", MAPS, &map, 201)?;
    Ok(made["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

fn delete(plane: &Plane, name: &str, policy: &str) -> Result<()> {
    let options = json!({"propagationPolicy": policy});
    // Whoever waits for dependents is told that the request is accepted, not that it is done.
    let code = if policy == "Foreground" { 202 } else { 200 };
    plane.call("DELETE", &format!("{MAPS}/{name}"), &options, code)?;
    Ok(())
}

fn gone(plane: &Plane, name: &str) -> Result<()> {
    eventually(&format!("{name} is gone"), SOON, || {
        plane
            .call("GET", &format!("{MAPS}/{name}"), &Value::Null, 404)
            .map(drop)
    })
}

#[test]
fn dependents_go_with_their_owners() -> Result<()> {
    let plane = Plane::start("garbage-collector-controller")?;
    // In the background: the owner first.
    let owner = map(&plane, "owner", &[])?;
    map(&plane, "child", &[("owner", &owner, true)])?;
    delete(&plane, "owner", "Background")?;
    gone(&plane, "owner")?;
    gone(&plane, "child")?;

    // Orphans stay, without the reference.
    let owner = map(&plane, "owner", &[])?;
    map(&plane, "child", &[("owner", &owner, true)])?;
    delete(&plane, "owner", "Orphan")?;
    gone(&plane, "owner")?;
    let child = plane.get(&format!("{MAPS}/child"))?;
    ensure!(child["metadata"]["ownerReferences"].is_null(), "{child}");

    // In the foreground: dependents first, and the owner is still to be seen while one of them holds out.
    let owner = map(&plane, "above", &[])?;
    map(&plane, "below", &[("above", &owner, true)])?;
    let held = json!({"metadata": {"finalizers": ["example.com/stay"]}});
    plane.call("PATCH", &format!("{MAPS}/below"), &held, 200)?;
    delete(&plane, "above", "Foreground")?;
    eventually("its dependent is asked to go", SOON, || {
        let below = plane.get(&format!("{MAPS}/below"))?;
        ensure!(below["metadata"]["deletionTimestamp"].is_string(), "{below}");
        Ok(())
    })?;
    let above = plane.get(&format!("{MAPS}/above"))?;
    ensure!(
        above["metadata"]["finalizers"] == json!(["foregroundDeletion"]),
        "{above}"
    );
    let free = json!({"metadata": {"finalizers": null}});
    plane.call("PATCH", &format!("{MAPS}/below"), &free, 200)?;
    gone(&plane, "above")?;

    // Whoever has another owner that stays, stays with that one.
    let (going, staying) = (map(&plane, "going", &[])?, map(&plane, "staying", &[])?);
    map(
        &plane,
        "both",
        &[("going", &going, true), ("staying", &staying, false)],
    )?;
    delete(&plane, "going", "Foreground")?;
    gone(&plane, "going")?;
    let both = plane.get(&format!("{MAPS}/both"))?;
    let owners = both["metadata"]["ownerReferences"].as_array().context("owners")?;
    ensure!(owners.len() == 1 && owners[0]["name"] == "staying", "{both}");

    // Three that own each other in a circle.
    let names = ["one", "two", "three"];
    let mut uids = Vec::new();
    for name in names {
        uids.push(map(&plane, name, &[])?);
    }
    for (index, name) in names.into_iter().enumerate() {
        let before = (index + 2) % 3;
        let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": names[before], "uid": uids[before],
            "controller": true, "blockOwnerDeletion": true}]);
        let patch = json!({"metadata": {"ownerReferences": owner}});
        plane.call("PATCH", &format!("{MAPS}/{name}"), &patch, 200)?;
    }
    delete(&plane, "one", "Foreground")?;
    names.into_iter().try_for_each(|name| gone(&plane, name))
}

#[test]
fn a_namespace_loses_its_pods_before_what_they_use() -> Result<()> {
    let plane = Plane::start("namespace-controller,serviceaccount-controller")?;
    plane.call(
        "POST",
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "full"}}),
        201,
    )?;
    let inside = "/api/v1/namespaces/full";
    eventually("the account of pods", SOON, || {
        plane.get(&format!("{inside}/serviceaccounts/default")).map(drop)
    })?;
    let pod = json!({"metadata": {"name": "last", "finalizers": ["example.com/stay"]}, "spec": {
        "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "i"}]}});
    plane.call("POST", &format!("{inside}/pods"), &pod, 201)?;
    let map = json!({"metadata": {"name": "used"}});
    plane.call("POST", &format!("{inside}/configmaps"), &map, 201)?;
    plane.call("DELETE", inside, &Value::Null, 200)?;
    eventually("the namespace says what is left", SOON, || {
        let namespace = plane.get(inside)?;
        let conditions = namespace["status"]["conditions"].as_array();
        let remaining = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "NamespaceContentRemaining");
        ensure!(
            remaining.is_some_and(|one| one["message"]
                .as_str()
                .is_some_and(|text| text.contains("pods. has 1 resource instances"))),
            "{namespace}"
        );
        Ok(())
    })?;
    let used = plane.get(&format!("{inside}/configmaps/used"))?;
    ensure!(used["metadata"]["deletionTimestamp"].is_null(), "{used}");
    let free = json!({"metadata": {"finalizers": null}});
    plane.call("PATCH", &format!("{inside}/pods/last"), &free, 200)?;
    eventually("the namespace is gone", SOON, || {
        plane.call("GET", inside, &Value::Null, 404).map(drop)
    })
}

/// A definition of boxes in these versions.
fn boxes(versions: &[&str]) -> Value {
    let version = |name: &&str| json!({"name": name, "served": true, "storage": *name == "v1", "schema": {"openAPIV3Schema": {"type": "object"}}});
    json!({"metadata": {"name": "boxes.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "boxes", "kind": "Box"}, "versions": versions.iter().map(version).collect::<Vec<_>>()}})
}

/// Whoever is owned by an object says so.
fn owned_by(kind: &str, owner: &Value) -> Value {
    let api_version = if kind == "Box" { "example.com/v1" } else { "v1" };
    json!([{"apiVersion": api_version, "kind": kind, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}])
}

fn a_box(name: &str) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Box", "metadata": {"name": name}})
}

/// A box, and a map it owns.
fn box_and_map(plane: &Plane, name: &str) -> Result<()> {
    let owner = plane.call("POST", BOXES, &a_box(name), 201)?;
    let owners = owned_by("Box", &owner);
    let map = json!({"metadata": {"name": name, "ownerReferences": owners}});
    plane.call("POST", MAPS, &map, 201).map(drop)
}

#[test]
fn dependents_stay_while_their_owners_are_served_in_another_version() -> Result<()> {
    let plane = Plane::start("garbage-collector-controller")?;
    plane.call("POST", DEFINITIONS, &boxes(&["v1"]), 201)?;
    eventually("boxes are served", SOON, || plane.get(BOXES).map(drop))?;
    for name in ["first", "second"] {
        box_and_map(&plane, name)?;
    }
    plane.call("DELETE", &format!("{BOXES}/first"), &Value::Null, 200)?;
    gone(&plane, "first")?;

    // From now on the collector prefers the other version.
    let more = json!({"spec": boxes(&["v1", "v2"])["spec"]});
    plane.call("PATCH", &format!("{DEFINITIONS}/boxes.example.com"), &more, 200)?;
    std::thread::sleep(SETTLED);
    plane.get(&format!("{MAPS}/second"))?;
    plane.call("DELETE", &format!("{BOXES}/second"), &Value::Null, 200)?;
    gone(&plane, "second")?;

    // With the definition go the boxes, and what is theirs.
    box_and_map(&plane, "third")?;
    plane.call(
        "DELETE",
        &format!("{DEFINITIONS}/boxes.example.com"),
        &Value::Null,
        200,
    )?;
    gone(&plane, "third")
}

#[test]
fn a_namespace_stays_while_nobody_can_say_what_is_in_it() -> Result<()> {
    let plane = Plane::start("namespace-controller")?;
    let service = json!({"metadata": {"name": "nobody"}, "spec": {"type": "ExternalName", "externalName": "localhost"}});
    plane.call("POST", "/api/v1/namespaces/default/services", &service, 201)?;
    let registration = json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 1000, "versionPriority": 15, "insecureSkipTLSVerify": true,
        "service": {"namespace": "default", "name": "nobody", "port": 1}}});
    plane.call("POST", REGISTRATIONS, &registration, 201)?;
    let registered = format!("{REGISTRATIONS}/v1.example.com");
    eventually("nobody is found to serve it", SOON, || {
        let found = plane.get(&registered)?;
        ensure!(found["status"]["conditions"][0]["status"] == "False", "{found}");
        Ok(())
    })?;

    let made = json!({"metadata": {"name": "unsure"}});
    plane.call("POST", "/api/v1/namespaces", &made, 201)?;
    let inside = "/api/v1/namespaces/unsure";
    let map = json!({"metadata": {"name": "known"}});
    plane.call("POST", &format!("{inside}/configmaps"), &map, 201)?;
    plane.call("DELETE", inside, &Value::Null, 200)?;
    eventually("the namespace says why it stays", SOON, || {
        let namespace = plane.get(inside)?;
        let mut conditions = namespace["status"]["conditions"].as_array().into_iter().flatten();
        let told = conditions.find(|condition| condition["type"] == "NamespaceDeletionDiscoveryFailure");
        let wanted = "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: \
                      example.com/v1: stale GroupVersion discovery: example.com/v1";
        ensure!(told.is_some_and(|told| told["message"] == wanted), "{namespace}");
        Ok(())
    })?;
    // What is known of is gone already.
    plane.call("GET", &format!("{inside}/configmaps/known"), &Value::Null, 404)?;
    plane.call("DELETE", &registered, &Value::Null, 200)?;
    eventually("the namespace is gone", SOON, || {
        plane.call("GET", inside, &Value::Null, 404).map(drop)
    })
}

#[test]
fn what_other_servers_have_goes_as_well() -> Result<()> {
    let (second, shown) = second_server()?;
    let plane = Plane::start_with("garbage-collector-controller,namespace-controller", shown)?;
    second.create(DEFINITIONS, &boxes(&["v1"]))?;
    let namespace = json!({"metadata": {"name": "full"}});
    for servers in [&second, plane.servers()] {
        servers.create("/api/v1/namespaces", &namespace)?;
    }
    register(plane.servers(), &second, "example.com")?;

    // Owners there, dependents here, and the other way round.
    box_and_map(&plane, "owner")?;
    plane.call("DELETE", &format!("{BOXES}/owner"), &Value::Null, 200)?;
    gone(&plane, "owner")?;
    let owner = plane.call("POST", MAPS, &json!({"metadata": {"name": "owner"}}), 201)?;
    let mut dependent = a_box("dependent");
    dependent["metadata"]["ownerReferences"] = owned_by("ConfigMap", &owner);
    plane.call("POST", BOXES, &dependent, 201)?;
    delete(&plane, "owner", "Background")?;
    eventually("the box is gone", SOON, || {
        plane
            .call("GET", &format!("{BOXES}/dependent"), &Value::Null, 404)
            .map(drop)
    })?;

    // A namespace with all that is in it.
    let inside = "/apis/example.com/v1/namespaces/full/boxes";
    let held = json!({"apiVersion": "example.com/v1", "kind": "Box",
        "metadata": {"name": "held", "finalizers": ["example.com/stay"]}});
    for object in [a_box("free"), held] {
        plane.call("POST", inside, &object, 201)?;
    }
    plane.call("DELETE", "/api/v1/namespaces/full", &Value::Null, 200)?;
    eventually("the namespace says what is left", SOON, || {
        let namespace = plane.get("/api/v1/namespaces/full")?;
        let mut conditions = namespace["status"]["conditions"].as_array().into_iter().flatten();
        let told = conditions.find(|condition| condition["type"] == "NamespaceContentRemaining");
        let wanted = "Some resources are remaining: boxes.example.com has 1 resource instances";
        ensure!(told.is_some_and(|told| told["message"] == wanted), "{namespace}");
        Ok(())
    })?;
    let free = json!({"metadata": {"finalizers": null}});
    plane.call("PATCH", &format!("{inside}/held"), &free, 200)?;
    eventually("the namespace is gone", SOON, || {
        plane
            .call("GET", "/api/v1/namespaces/full", &Value::Null, 404)
            .map(drop)
    })?;
    let left = second.read(inside)?;
    ensure!(left["items"] == json!([]), "{left}");
    Ok(())
}
