use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema;

fn patched(kind: &str, document: Value, patch: Value) -> Result<Value, PatchError> {
    let definition = schema::by_name(&format!("io.k8s.api.{kind}")).expect("a type");
    let mut document = document;
    apply(&mut document, patch, definition)?;
    Ok(document)
}

fn pod_spec(document: Value, patch: Value) -> Result<Value, PatchError> {
    patched("core.v1.PodSpec", document, patch)
}

#[test]
fn lists_merge_by_key() {
    let got = pod_spec(
        json!({"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "1"}]}),
        json!({"containers": [{"name": "b", "image": "2"}, {"name": "c", "image": "3", "command": null}]}),
    );
    assert_eq!(
        got,
        Ok(json!({"containers": [
            {"name": "a", "image": "1", "args": ["x"]}, {"name": "b", "image": "2"}, {"name": "c", "image": "3"}]}))
    );
    // Lists without a merge strategy are replaced.
    let got = pod_spec(
        json!({"tolerations": [{"key": "a"}]}),
        json!({"tolerations": [{"key": "b"}]}),
    );
    assert_eq!(got, Ok(json!({"tolerations": [{"key": "b"}]})));
}

#[test]
fn elements_and_objects_are_deleted_and_replaced() {
    let two = json!({"containers": [{"name": "a"}, {"name": "b"}]});
    let got = pod_spec(
        two.clone(),
        json!({"containers": [{"name": "a", "$patch": "delete"}]}),
    );
    assert_eq!(got, Ok(json!({"containers": [{"name": "b"}]})));
    let got = pod_spec(
        two.clone(),
        json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
    );
    assert_eq!(got, Ok(json!({"containers": [{"name": "c"}]})));
    let got = pod_spec(
        json!({"nodeSelector": {"a": "b"}}),
        json!({"nodeSelector": {"$patch": "replace", "c": "d"}}),
    );
    assert_eq!(got, Ok(json!({"nodeSelector": {"c": "d"}})));
    let got = pod_spec(
        json!({"nodeSelector": {"a": "b"}}),
        json!({"nodeSelector": {"$patch": "delete"}}),
    );
    assert_eq!(got, Ok(json!({"nodeSelector": {}})));
    let got = pod_spec(
        json!({"nodeSelector": {"a": "b"}, "nodeName": "x"}),
        json!({"nodeSelector": null}),
    );
    assert_eq!(got, Ok(json!({"nodeName": "x"})));
    let got = pod_spec(two, json!({"containers": [{"image": "x"}]})).expect_err("no name");
    assert_eq!(
        got.to_string(),
        "map: {\"image\":\"x\"} does not contain declared merge key: name"
    );
}

#[test]
fn retained_keys_drop_the_others() {
    let deployment = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let got = patched(
        "apps.v1.DeploymentSpec",
        deployment.clone(),
        json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}),
    );
    assert_eq!(got, Ok(json!({"strategy": {"type": "Recreate"}})));
    let got = patched(
        "apps.v1.DeploymentSpec",
        deployment,
        json!({"strategy": {"$retainKeys": ["rollingUpdate"], "type": "Recreate"}}),
    );
    assert_eq!(
        got.expect_err("type").to_string(),
        "invalid patch format of retainKeys"
    );
    // A volume that changes its source: the old source goes.
    let got = pod_spec(
        json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}),
    );
    assert_eq!(
        got,
        Ok(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}))
    );
}

#[test]
fn orders_are_set() {
    let got = pod_spec(
        json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "server"}]}),
        json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "b"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "x"}],
        }),
    );
    assert_eq!(
        got,
        Ok(
            json!({"containers": [{"name": "c", "image": "x"}, {"name": "b"}, {"name": "a"}, {"name": "server"}]})
        )
    );
    let got = patched(
        "core.v1.Pod",
        json!({"metadata": {"finalizers": ["a", "b", "c"]}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["b"], "$setElementOrder/finalizers": ["d", "a"],
               "finalizers": ["d"]}}),
    );
    assert_eq!(got, Ok(json!({"metadata": {"finalizers": ["d", "a", "c"]}})));
    let got = pod_spec(
        json!({"containers": []}),
        json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "b"}]}),
    );
    assert!(
        got.expect_err("an order that does not fit")
            .to_string()
            .starts_with("The order in patch list:")
    );
}

#[test]
fn plain_lists_become_sets() {
    let got = patched(
        "core.v1.Pod",
        json!({"metadata": {"finalizers": ["a", "b"]}}),
        json!({"metadata": {"finalizers": ["b", "c"]}}),
    );
    assert_eq!(got, Ok(json!({"metadata": {"finalizers": ["a", "b", "c"]}})));
}

#[test]
fn what_is_new_loses_directives_and_nulls() {
    let got = pod_spec(
        json!({}),
        json!({"securityContext": {"$patch": "merge", "runAsUser": 1, "fsGroup": null},
               "containers": [{"name": "a", "$retainKeys": ["name"]}, {"name": "b", "$patch": "delete"}]}),
    );
    assert_eq!(
        got,
        Ok(json!({"securityContext": {"runAsUser": 1}, "containers": [{"name": "a"}]}))
    );
}

fn containers() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-f]", 0..3i32, 0..5).prop_map(|map| {
        Value::from(
            map.into_iter()
                .map(|(name, tag)| json!({"name": name, "image": tag.to_string()}))
                .collect::<Vec<_>>(),
        )
    })
}

proptest! {
    #[test]
    fn merging_is_idempotent_and_keeps_every_name_once(old in containers(), new in containers()) {
        let patch = json!({"containers": new});
        let once = pod_spec(json!({"containers": old}), patch.clone()).expect("merges");
        let twice = pod_spec(once.clone(), patch).expect("merges again");
        prop_assert_eq!(&once, &twice);
        let names: Vec<&str> = once["containers"].as_array().expect("a list").iter().filter_map(|c| c["name"].as_str()).collect();
        let mut distinct = names.clone();
        distinct.sort_unstable();
        distinct.dedup();
        prop_assert_eq!(distinct.len(), names.len());
        for wanted in new.as_array().expect("a list") {
            prop_assert!(once["containers"].as_array().expect("a list").contains(wanted));
        }
    }

    #[test]
    fn no_patch_panics(patch in ".{0,60}") {
        if let Ok(patch) = serde_json::from_str::<Value>(&patch) {
            let _ = pod_spec(json!({"containers": [{"name": "a"}]}), patch);
        }
    }
}
