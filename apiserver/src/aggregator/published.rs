//! What other servers serve, in this server's discovery and OpenAPI documents.

use std::collections::BTreeMap;
use std::sync::Arc;

use keelson_api::names::compare_versions;
use serde_json::{Map, Value, json};

use super::Remotes;
use super::remote::Remote;
use crate::registry::info::group_version;

/// The versions of each group, best first.
fn by_group(remotes: &Remotes) -> BTreeMap<&str, Vec<&Arc<Remote>>> {
    let mut groups: BTreeMap<&str, Vec<&Arc<Remote>>> = BTreeMap::new();
    for remote in remotes.values() {
        groups.entry(remote.group()).or_default().push(remote);
    }
    for versions in groups.values_mut() {
        versions.sort_by(|a, b| {
            let priority = b.spec.version_priority.cmp(&a.spec.version_priority);
            priority.then_with(|| compare_versions(b.version(), a.version()))
        });
    }
    groups
}

/// Adds groups to the list of `/apis`, and versions to those that are there.
pub fn add_groups(groups: &mut Vec<Value>, remotes: &Remotes) {
    for (group, versions) in by_group(remotes) {
        let entries = versions.iter().map(|remote| {
            json!({"groupVersion": group_version(group, remote.version()), "version": remote.version()})
        });
        let entries: Vec<Value> = entries.collect();
        match groups.iter_mut().find(|known| known["name"] == group) {
            Some(known) => {
                if let Some(all) = known["versions"].as_array_mut() {
                    all.retain(|version| !entries.contains(version));
                    all.extend(entries);
                }
            }
            None => groups.push(json!({
                "name": group,
                "preferredVersion": entries.first(),
                "versions": entries,
            })),
        }
    }
}

/// Adds groups to the aggregated document of `/apis`.
pub fn add_aggregated(items: &mut Vec<Value>, remotes: &Remotes) {
    for (group, versions) in by_group(remotes) {
        let entries = versions.iter().map(|remote| {
            let resources = remote.resources.as_deref().unwrap_or_default();
            let resources = aggregated(group, remote.version(), resources);
            let freshness = if remote.available { "Current" } else { "Stale" };
            json!({"version": remote.version(), "freshness": freshness, "resources": resources})
        });
        let entries: Vec<Value> = entries.collect();
        match items.iter_mut().find(|known| known["metadata"]["name"] == group) {
            Some(known) => {
                if let Some(all) = known["versions"].as_array_mut() {
                    all.retain(|version| entries.iter().all(|entry| entry["version"] != version["version"]));
                    all.extend(entries);
                }
            }
            None => items.push(json!({
                "metadata": {"name": group},
                "versions": entries,
            })),
        }
    }
}

/// The resources of an APIResourceList in the form of the aggregated documents.
pub fn aggregated(group: &str, version: &str, resources: &[Value]) -> Vec<Value> {
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let response = |resource: &Value| {
        let own = |field: &str, default: &str| match text(resource, field) {
            given if given.is_empty() => default.to_owned(),
            given => given,
        };
        json!({"group": own("group", group), "version": own("version", version), "kind": text(resource, "kind")})
    };
    let mut all: Vec<Value> = Vec::new();
    for resource in resources {
        let name = text(resource, "name");
        let Some((parent, subresource)) = name.split_once('/') else {
            let mut entry = json!({
                "resource": name,
                "responseKind": response(resource),
                "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" },
                "singularResource": text(resource, "singularName"),
                "verbs": resource["verbs"],
            });
            for field in ["shortNames", "categories"] {
                if resource[field].as_array().is_some_and(|list| !list.is_empty()) {
                    entry[field] = resource[field].clone();
                }
            }
            all.push(entry);
            continue;
        };
        let entry = json!({
            "subresource": subresource,
            "responseKind": response(resource),
            "verbs": resource["verbs"],
        });
        let Some(parent) = all.iter_mut().find(|known| known["resource"] == parent) else {
            continue;
        };
        match parent["subresources"].as_array_mut() {
            Some(subresources) => subresources.push(entry),
            None => parent["subresources"] = json!([entry]),
        }
    }
    all
}

/// Of another server's OpenAPI v2 document: the paths of a group version, and every type.
pub fn part_of_v2(document: &Value, path: &str) -> Value {
    let below = format!("{path}/");
    let paths: Map<String, Value> = document["paths"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, _)| *key == path || key.starts_with(&below))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    json!({"paths": paths, "definitions": document["definitions"]})
}

/// This server's OpenAPI v2 document with the parts of others. Types that are known here stay what they are here.
pub fn with_parts(document: &[u8], parts: &[Arc<Value>]) -> Value {
    let mut whole: Value = serde_json::from_slice(document).unwrap_or_default();
    for part in parts {
        for section in ["paths", "definitions"] {
            let (Some(all), Some(more)) = (whole[section].as_object_mut(), part[section].as_object()) else {
                continue;
            };
            for (key, value) in more {
                all.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_resources_become_aggregated_ones() {
        let list = [
            json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "PodMetrics", "verbs": ["get", "list"]}),
            json!({"name": "pods/scale", "singularName": "", "namespaced": true, "kind": "Scale",
                "group": "autoscaling", "version": "v1", "verbs": ["get"]}),
        ];
        assert_eq!(
            aggregated("metrics.k8s.io", "v1beta1", &list),
            [json!({
                "resource": "pods", "scope": "Namespaced", "singularResource": "pod", "verbs": ["get", "list"],
                "responseKind": {"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"},
                "subresources": [{"subresource": "scale", "verbs": ["get"],
                    "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}],
            })]
        );
    }

    #[test]
    fn of_a_document_only_the_group_versions_part_is_taken() {
        let theirs = json!({"paths": {"/apis/a.b/v1/": {}, "/apis/a.b/v1": {"x": 1}, "/apis/a.b/v10/": {}, "/api/": {}},
            "definitions": {"T": {"theirs": true}, "U": {}}});
        let part = part_of_v2(&theirs, "/apis/a.b/v1");
        assert_eq!(
            part["paths"],
            json!({"/apis/a.b/v1/": {}, "/apis/a.b/v1": {"x": 1}})
        );
        let ours = br#"{"paths":{"/api/":{"y":1}},"definitions":{"T":{}}}"#.to_vec();
        let whole = with_parts(&ours, &[Arc::new(part)]);
        assert_eq!(whole["paths"].as_object().map(Map::len), Some(3));
        assert_eq!(whole["definitions"], json!({"T": {}, "U": {}}));
    }
}
