//! What discovery says, held against the facts of Kubernetes 1.36.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{AggregatedVersion, Documents, Remotes};
use crate::registry;
use crate::registry::catalog::Catalog;

const FACTS: &str = include_str!("../../testdata/resources.tsv");
const COLUMNS: usize = 10;
fn documents() -> Documents {
    let address = ([192, 0, 2, 1], 6443).into();
    Documents::new(&Catalog::new(registry::all()), &Remotes::new(), address)
}

#[test]
fn clients_learn_where_the_server_is() {
    let document: Value = serde_json::from_slice(&documents().plain["/api"].json).expect("json");
    let wanted = serde_json::json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": "192.0.2.1:6443"}]);
    assert_eq!(document["serverAddressByClientCIDRs"], wanted);
}

fn joined(list: &Value) -> String {
    let words = list.as_array().into_iter().flatten().filter_map(Value::as_str);
    words.collect::<Vec<_>>().join(",")
}

fn verbs(list: &Value) -> String {
    match joined(list).as_str() {
        "create,delete,deletecollection,get,list,patch,update,watch" => "*".to_owned(),
        some => some.to_owned(),
    }
}

/// A resource of the aggregated document as a row of the facts.
fn row(group: &str, version: &str, resource: &Value) -> String {
    let text = |key: &str| resource[key].as_str().unwrap_or_default().to_owned();
    let subresources: Vec<String> = resource["subresources"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|sub| {
            let kind = &sub["responseKind"];
            let own = kind["group"] == "" && kind["version"] == "";
            let parts = ["group", "version", "kind"].map(|key| kind[key].as_str().unwrap_or_default());
            let kind = match parts {
                [_, _, kind] if own => kind.to_owned(),
                ["", version, kind] => format!("{version}/{kind}"),
                [group, version, kind] => format!("{group}/{version}/{kind}"),
            };
            format!(
                "{}={kind} {}",
                sub["subresource"].as_str().unwrap_or_default(),
                joined(&sub["verbs"])
            )
        })
        .collect();
    [
        group.to_owned(),
        version.to_owned(),
        text("resource"),
        resource["responseKind"]["kind"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        text("scope"),
        text("singularResource"),
        joined(&resource["shortNames"]),
        joined(&resource["categories"]),
        verbs(&resource["verbs"]),
        subresources.join(";"),
    ]
    .join("\t")
}

#[test]
fn every_stable_resource_is_told_as_upstream_tells_it() {
    let documents = documents();
    let mut told = BTreeMap::new();
    for core in [true, false] {
        let document = documents.aggregated(core, AggregatedVersion::V2);
        let list: Value = serde_json::from_slice(&document.json).expect("JSON");
        for item in list["items"].as_array().expect("items") {
            let group = item["metadata"]["name"].as_str().unwrap_or_default();
            let said = item["metadata"].as_object().map_or(0, serde_json::Map::len);
            assert_eq!(said, usize::from(!group.is_empty()), "{item}");
            for version in item["versions"].as_array().expect("versions") {
                let name = version["version"].as_str().expect("a version");
                for resource in version["resources"].as_array().expect("resources") {
                    let from = ["group", "version"].map(|part| &resource["responseKind"][part]);
                    assert_eq!(from, ["", ""], "{resource}");
                    let plural = resource["resource"].as_str().expect("a name").to_owned();
                    told.insert(
                        (group.to_owned(), name.to_owned(), plural),
                        row(group, name, resource),
                    );
                }
            }
        }
    }
    let mut different = Vec::new();
    for fact in FACTS.lines().filter(|line| !line.starts_with('#')) {
        let parts: Vec<&str> = fact.split('\t').collect();
        assert_eq!(parts.len(), COLUMNS, "{fact}");
        let name = match parts[0] {
            "" => parts[2].to_owned(),
            group => format!("{}.{group}", parts[2]),
        };
        let ours = told.get(&(parts[0].to_owned(), parts[1].to_owned(), parts[2].to_owned()));
        assert!(ours.is_some(), "{name} is not served");
        if let Some(ours) = ours.filter(|ours| *ours != fact) {
            different.push(format!("- {fact}\n+ {ours}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn groups_come_in_upstreams_order() {
    let documents = documents();
    let list: Value =
        serde_json::from_slice(&documents.plain("/apis").expect("the groups").json).expect("JSON");
    let groups = list["groups"].as_array().into_iter().flatten();
    let names: Vec<&str> = groups.filter_map(|group| group["name"].as_str()).collect();
    let upstreams = [
        "apiregistration.k8s.io",
        "apps",
        "events.k8s.io",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "autoscaling",
        "batch",
        "certificates.k8s.io",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "storage.k8s.io",
        "admissionregistration.k8s.io",
        "apiextensions.k8s.io",
        "scheduling.k8s.io",
        "coordination.k8s.io",
        "node.k8s.io",
        "discovery.k8s.io",
        "resource.k8s.io",
        "flowcontrol.apiserver.k8s.io",
    ];
    let known: Vec<&str> = names
        .into_iter()
        .filter(|name| upstreams.contains(name))
        .collect();
    assert_eq!(known, upstreams);
}

#[test]
fn the_hash_of_the_stored_form_is_upstreams() {
    let documents = documents();
    let list: Value =
        serde_json::from_slice(&documents.plain("/api/v1").expect("the core group").json).expect("JSON");
    let hash = |name: &str| {
        let resources = list["resources"].as_array().expect("resources");
        let found = resources
            .iter()
            .find(|r| r["name"] == name)
            .expect("the resource");
        found["storageVersionHash"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(hash("pods"), "xPOwRZ+Yhw8=");
    assert_eq!(hash("configmaps"), "qFsyl6wFWjQ=");
    assert_eq!(hash("events"), "r2yiGXH7wu8=");
}
