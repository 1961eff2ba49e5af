use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

fn verbs(list: &str) -> Vec<Name> {
    list.split(' ').map(|verb| verb.to_owned().into()).collect()
}

fn deployments() -> Resource {
    Resource {
        group: "apps".into(),
        version: "v1".into(),
        kind: "Deployment".into(),
        plural: "deployments".into(),
        namespaced: true,
        verbs: verbs("create delete deletecollection get list patch update watch"),
        subresources: vec![Subresource {
            name: "scale".into(),
            kind: Gvk::new("autoscaling", "v1", "Scale"),
            verbs: verbs("get patch update"),
        }],
        custom: None,
    }
}

#[test]
fn v3_tells_what_kubectl_looks_for() {
    let document: Value = serde_json::from_slice(&v3_document("apps", "v1", &[deployments()])).expect("json");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Deployment");
    let named = |name: &str| {
        patch["parameters"]
            .as_array()
            .expect("parameters")
            .iter()
            .any(|one| one["name"] == name)
    };
    assert!(named("fieldValidation") && named("dryRun"));
    let schemas = &document["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert!(
        containers["description"]
            .as_str()
            .is_some_and(|text| text.starts_with("List of containers"))
    );
    assert_eq!(containers["items"]["default"], serde_json::json!({}));
    assert_eq!(
        schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"]["default"],
        serde_json::json!({})
    );
    assert!(schemas["io.k8s.api.autoscaling.v1.Scale"].is_object());
    let index: Value = serde_json::from_slice(&v3_index_document("apis/apps")).expect("json");
    assert!(index["paths"]["/apis/apps/"]["get"].is_object());
}

#[test]
fn v2_refers_only_to_what_it_has() {
    let document: Value = serde_json::from_slice(&v2_document(&[deployments()])).expect("json");
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 100);
    for reference in found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference}"
        );
    }
    assert!(!v2_protobuf(&[deployments()]).is_empty());
}

/// Reads what upstream serves from the reference folder that `KEELSON_REFERENCE` names.
fn reference(file: &str) -> Option<Value> {
    let folder = std::env::var_os("KEELSON_REFERENCE")?;
    let bytes = std::fs::read(std::path::Path::new(&folder).join(file)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn upstream_resources() -> Option<Vec<Resource>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| -> Vec<Name> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .map(|verb| text(verb).into())
            .collect()
    };
    let mut resources = Vec::new();
    let core = reference("discovery-core-v1.json")?;
    let groups = reference("discovery-aggregated.json")?;
    let mut subresources: BTreeMap<String, Vec<Subresource>> = BTreeMap::new();
    for one in core["resources"].as_array()? {
        let (name, kind) = (text(&one["name"]), text(&one["kind"]));
        let or = |key: &str, other: &str| match one[key].as_str() {
            Some(found) => found.to_owned(),
            None => other.to_owned(),
        };
        let gvk = Gvk::new(or("group", ""), or("version", "v1"), kind.clone());
        match name.split_once('/') {
            Some((parent, below)) => subresources
                .entry(parent.to_owned())
                .or_default()
                .push(Subresource {
                    name: below.to_owned().into(),
                    kind: gvk,
                    verbs: list(&one["verbs"]),
                }),
            None => resources.push(Resource {
                group: "".into(),
                version: "v1".into(),
                kind: kind.into(),
                plural: name.into(),
                namespaced: one["namespaced"] == true,
                verbs: list(&one["verbs"]),
                subresources: Vec::new(),
                custom: None,
            }),
        }
    }
    for resource in &mut resources {
        resource.subresources = subresources.remove(&*resource.plural).unwrap_or_default();
    }
    for group in groups["items"].as_array()? {
        for version in group["versions"].as_array()? {
            let (group, name) = (text(&group["metadata"]["name"]), text(&version["version"]));
            if name.contains("alpha") || name.contains("beta") {
                continue;
            }
            let gvk = |kind: &Value| {
                let or = |key: &str, other: &str| match kind[key].as_str() {
                    Some("") | None => other.to_owned(),
                    Some(found) => found.to_owned(),
                };
                Gvk::new(or("group", &group), or("version", &name), text(&kind["kind"]))
            };
            for one in version["resources"].as_array()? {
                resources.push(Resource {
                    group: group.clone().into(),
                    version: name.clone().into(),
                    kind: gvk(&one["responseKind"]).kind,
                    plural: text(&one["resource"]).into(),
                    namespaced: one["scope"] == "Namespaced",
                    verbs: list(&one["verbs"]),
                    subresources: one["subresources"]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .map(|below| Subresource {
                            name: text(&below["subresource"]).into(),
                            kind: gvk(&below["responseKind"]),
                            verbs: list(&below["verbs"]),
                        })
                        .collect(),
                    custom: None,
                });
            }
        }
    }
    Some(resources)
}

/// Drops what is meant to differ: our own words for parameters and lists, media types we do not serve.
fn comparable(value: &mut Value, keep_descriptions: bool) {
    match value {
        Value::Object(map) => {
            if !keep_descriptions {
                map.remove("description");
            }
            map.values_mut()
                .for_each(|value| comparable(value, keep_descriptions));
        }
        Value::Array(items) => {
            items.retain(|item| {
                !item.as_str().is_some_and(|text| text.contains("cbor"))
                    && item["$ref"] != "#/parameters/shardSelector-Kgyki_3_"
            });
            items
                .iter_mut()
                .for_each(|value| comparable(value, keep_descriptions));
        }
        _ => {}
    }
}

#[test]
fn matches_upstreams_document() {
    let (Some(upstream), Some(resources)) = (reference("swagger.json"), upstream_resources()) else {
        return;
    };
    let ours: Value = serde_json::from_slice(&v2_document(&resources)).expect("json");
    let mut wrong: Vec<String> = Vec::new();
    for (name, definition) in ours["definitions"].as_object().expect("definitions") {
        let (mut ours, mut theirs) = (definition.clone(), upstream["definitions"][name].clone());
        // One generic type each in the library: described in other words.
        let list = name.ends_with("List") || name.ends_with(".WatchEvent");
        comparable(&mut ours, !list);
        comparable(&mut theirs, !list);
        for definition in [&mut ours, &mut theirs] {
            // A set: upstream keeps the order of its sources.
            if let Some(Value::Array(required)) = definition.get_mut("required") {
                required.sort_by_key(Value::to_string);
            }
            // Listed per served version, which are fewer here.
            if definition["x-kubernetes-group-version-kind"]
                .as_array()
                .is_some_and(|kinds| kinds.len() > 3)
            {
                definition["x-kubernetes-group-version-kind"] = Value::Null;
            }
        }
        differences(&format!("definitions {name}"), &ours, &theirs, &mut wrong);
    }
    for (path, item) in ours["paths"].as_object().expect("paths") {
        let (mut ours, mut theirs) = (item.clone(), upstream["paths"][path].clone());
        comparable(&mut ours, false);
        comparable(&mut theirs, false);
        differences(path, &ours, &theirs, &mut wrong);
    }
    for (name, parameter) in ours["parameters"].as_object().expect("parameters") {
        let (mut ours, mut theirs) = (parameter.clone(), upstream["parameters"][name].clone());
        comparable(&mut ours, false);
        comparable(&mut theirs, false);
        differences(&format!("parameters {name}"), &ours, &theirs, &mut wrong);
    }
    let missing: Vec<&String> = upstream["paths"]
        .as_object()
        .expect("paths")
        .keys()
        .filter(|path| ours["paths"].get(path).is_none())
        .filter(|path| !path.contains("alpha") && !path.contains("beta"))
        .collect();
    eprintln!(
        "{} definitions, {} paths; upstream also has {missing:?}",
        ours["definitions"].as_object().map_or(0, |m| m.len()),
        ours["paths"].as_object().map_or(0, |m| m.len())
    );
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong[..wrong.len().min(60)].join("\n")
    );
}

fn differences(at: &str, ours: &Value, theirs: &Value, wrong: &mut Vec<String>) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                differences(&format!("{at} {key}"), &ours[key], &theirs[key], wrong);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().any(Value::is_object) => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{at}[{i}]"), a, b, wrong);
            }
        }
        _ if ours == theirs => {}
        _ => {
            let short = |value: &Value| value.to_string().chars().take(300).collect::<String>();
            wrong.push(format!("{at}: {} instead of {}", short(ours), short(theirs)));
        }
    }
}

#[test]
fn custom_resources_have_no_strategic_patches() {
    let rafts = Resource {
        group: "example.com".into(),
        kind: "Raft".into(),
        plural: "rafts".into(),
        subresources: Vec::new(),
        custom: Some(Custom {
            list_kind: "RaftList".into(),
            tag: "1".into(),
            schema: std::sync::Arc::new(|| json!({"type": "object"})),
        }),
        ..deployments()
    };
    let path = "/apis/example.com/v1/namespaces/{namespace}/rafts/{name}";
    let third: Value =
        serde_json::from_slice(&v3_document("example.com", "v1", std::slice::from_ref(&rafts)))
            .expect("json");
    let content = &third["paths"][path]["patch"]["requestBody"]["content"];
    let named: Vec<_> = content.as_object().expect("content").keys().collect();
    assert_eq!(
        named,
        [
            "application/apply-patch+yaml",
            "application/json-patch+json",
            "application/merge-patch+json"
        ]
    );
}
