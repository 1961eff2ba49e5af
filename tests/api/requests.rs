//! What is wrong with requests, and which of several things they are told first.

use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::process::eventually;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A kind whose objects have others inside of them, served when this returns.
fn crates(plane: &ControlPlane) -> Result<&'static str> {
    let whole = json!({"type": "object", "x-kubernetes-embedded-resource": true,
        "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"metadata": {"name": "crates.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster",
        "names": {"plural": "crates", "singular": "crate", "kind": "Crate", "listKind": "CrateList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "properties": {"spec": {"type": "object", "properties": {
                "one": whole,
                "list": {"type": "array", "items": whole},
                "map": {"type": "object", "additionalProperties": whole}}}}}}}]}});
    let made = plane.admin("POST", DEFINITIONS, Some(&definition.to_string()))?;
    ensure!(made.code == 201, "{made:?}");
    let crates = "/apis/example.com/v1/crates";
    eventually("crates are served", PATIENCE, || {
        let listed = plane.admin("GET", crates, None)?;
        ensure!(listed.code == 200, "{listed:?}");
        Ok(crates)
    })
}

#[test]
fn collections_are_not_written_over() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    for path in [
        "/api/v1/namespaces/default/configmaps",
        "/api/v1/configmaps",
        "/apis/apps/v1/namespaces/default/deployments",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
    ] {
        for method in ["PUT", "PATCH"] {
            // Good or bad, nobody reads it; nor is it asked of which type it is.
            for body in ["{}", "[", r#"{"metadata":{"name":"x"}}"#] {
                let answer = plane.admin(method, path, Some(body))?;
                ensure!(answer.code == 405, "{method} {path} {body}: {answer:?}");
                let status: Value = serde_json::from_str(&answer.body)?;
                ensure!(
                    status["kind"] == "Status"
                        && status["reason"] == "MethodNotAllowed"
                        && status["message"]
                            == "the server does not allow this method on the requested resource",
                    "{status}"
                );
            }
        }
    }
    let answer = plane.admin("POST", "/api/v1/configmaps", Some("["))?;
    ensure!(answer.code == 405, "{answer:?}");
    let answer = plane.admin("POST", "/api/v1/namespaces/default/configmaps/x", Some("["))?;
    ensure!(answer.code == 405, "{answer:?}");

    // Custom resources are asked for whatever the path; what is missing there is the name.
    let crates = crates(&plane)?;
    for method in ["PUT", "PATCH"] {
        let answer = plane.admin(method, crates, Some("["))?;
        ensure!(
            answer.code == 400 && answer.body.contains("name must be provided"),
            "{answer:?}"
        );
    }
    Ok(())
}

/// Kinds of which an update has to say which version it changes: where, and an object.
fn versioned() -> Vec<(String, Value)> {
    let resources = json!({"resourceRules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"],
        "operations": ["CREATE"], "resources": ["crates"]}]});
    let admission = |plural: &str| format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let storage = |plural: &str| format!("/apis/storage.k8s.io/v1/{plural}");
    vec![
        (
            admission("mutatingadmissionpolicies"),
            json!({"spec": {"reinvocationPolicy": "Never", "matchConstraints": resources, "mutations": [
                {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{}"}}]}}),
        ),
        (
            admission("validatingadmissionpolicies"),
            json!({"spec": {"matchConstraints": resources, "validations": [{"expression": "true"}]}}),
        ),
        (
            admission("mutatingadmissionpolicybindings"),
            json!({"spec": {"policyName": "p"}}),
        ),
        (
            admission("validatingadmissionpolicybindings"),
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}),
        ),
        (admission("mutatingwebhookconfigurations"), json!({})),
        (admission("validatingwebhookconfigurations"), json!({})),
        (
            "/apis/node.k8s.io/v1/runtimeclasses".to_owned(),
            json!({"handler": "h"}),
        ),
        (
            "/apis/policy/v1/namespaces/default/poddisruptionbudgets".to_owned(),
            json!({"spec": {}}),
        ),
        (
            "/apis/coordination.k8s.io/v1/namespaces/default/leases".to_owned(),
            json!({"spec": {}}),
        ),
        (storage("csidrivers"), json!({"spec": {}})),
        (storage("csinodes"), json!({"spec": {"drivers": []}})),
        (
            storage("namespaces/default/csistoragecapacities"),
            json!({"storageClassName": "s"}),
        ),
        (
            storage("volumeattachments"),
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "v"}}}),
        ),
    ]
}

#[test]
fn nobody_writes_over_what_they_have_not_read() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let unread = |path: &str, object: &str| {
        let answer = plane.admin("PUT", path, Some(object))?;
        let message = ": metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
        ensure!(
            answer.code == 422 && answer.body.contains(message),
            "{path}: {answer:?}"
        );
        Ok(())
    };
    for (path, mut object) in versioned() {
        object["metadata"] = json!({"name": "one"});
        let object = object.to_string();
        let made = plane.admin("POST", &path, Some(&object))?;
        ensure!(made.code == 201, "{made:?}");
        unread(&format!("{path}/one"), &object)?;
        if ["volumeattachments", "poddisruptionbudgets"]
            .iter()
            .any(|with_status| path.ends_with(with_status))
        {
            unread(&format!("{path}/one/status"), &object)?;
        }
        // The server itself may have something to say about it in between.
        eventually("what was read is written over", PATIENCE, || {
            let known = plane.read(&format!("{path}/one"))?.to_string();
            let again = plane.admin("PUT", &format!("{path}/one"), Some(&known))?;
            ensure!(again.code == 200, "{again:?}");
            Ok(())
        })?;
    }
    let crates = crates(&plane)?;
    let definition = format!("{DEFINITIONS}/crates.example.com");
    let mut known = plane.read(&definition)?;
    known["metadata"] = json!({"name": "crates.example.com"});
    unread(&definition, &known.to_string())?;
    let own =
        json!({"apiVersion": "example.com/v1", "kind": "Crate", "metadata": {"name": "one"}}).to_string();
    let made = plane.admin("POST", crates, Some(&own))?;
    ensure!(made.code == 201, "{made:?}");
    unread(&format!("{crates}/one"), &own)?;

    // Of most kinds it may be done.
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"metadata": {"name": "one"}}).to_string();
    for (method, path, code) in [
        ("POST", maps.to_owned(), 201),
        ("PUT", format!("{maps}/one"), 200),
    ] {
        let answer = plane.admin(method, &path, Some(&map))?;
        ensure!(answer.code == code, "{answer:?}");
    }
    Ok(())
}

#[test]
fn objects_inside_of_objects_have_metadata_and_nothing_else_in_it() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let crates = crates(&plane)?;
    let whole = |metadata: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "free": 1});
    let named = |name: &str, spec: Value| {
        json!({"apiVersion": "example.com/v1", "kind": "Crate", "metadata": {"name": name, "odd": 1}, "spec": spec})
            .to_string()
    };
    let typo = || whole(json!({"name": "n", "typo": 1, "labels": {"a": "b"}}));
    let spec = json!({"one": typo(), "list": [whole(json!({})), typo()], "map": {"k": typo()}, "other": 1});
    let strict = plane.admin(
        "POST",
        &format!("{crates}?fieldValidation=Strict"),
        Some(&named("a", spec.clone())),
    )?;
    let wanted = "strict decoding error: unknown field \\\"metadata.odd\\\", unknown field \\\"spec.other\\\", \
                  unknown field \\\"spec.list[1].metadata.typo\\\", unknown field \\\"spec.map[k].metadata.typo\\\", \
                  unknown field \\\"spec.one.metadata.typo\\\"";
    ensure!(strict.code == 400 && strict.body.contains(wanted), "{strict:?}");

    // Otherwise it goes, with a warning where one is wanted.
    let made = plane.admin(
        "POST",
        &format!("{crates}?fieldValidation=Warn"),
        Some(&named("a", spec)),
    )?;
    let warning = r#"unknown field \"spec.one.metadata.typo\""#;
    ensure!(made.code == 201 && made.headers.contains(warning), "{made:?}");
    let made: Value = serde_json::from_str(&made.body)?;
    let left = whole(json!({"name": "n", "labels": {"a": "b"}}));
    ensure!(
        made["spec"] == json!({"one": left, "list": [whole(json!({})), left], "map": {"k": left}}),
        "{made}"
    );

    let wrong = json!({"one": whole(json!({"name": "n", "labels": {"a": 1}}))});
    let refused = plane.admin("POST", crates, Some(&named("b", wrong)))?;
    ensure!(
        refused.code == 400 && refused.body.contains("spec.one.metadata: Invalid value"),
        "{refused:?}"
    );
    let wrong = json!({"one": {"apiVersion": "v1", "kind": 1}});
    let refused = plane.admin("POST", crates, Some(&named("b", wrong)))?;
    ensure!(
        refused.code == 400
            && refused
                .body
                .contains("spec.one.kind: Invalid value: 1: must be a string"),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_condition_need_not_say_since_when() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let create = |path: &str, object: Value| -> Result<()> {
        let made = plane.admin("POST", path, Some(&object.to_string()))?;
        ensure!(made.code == 201, "{made:?}");
        Ok(())
    };
    // What a Go client sends for a time that nobody has set.
    let conditions = json!([{"type": "StatusUpdate", "status": "True", "reason": "Test", "message": "told",
        "lastTransitionTime": null}]);
    let services = "/api/v1/namespaces/default/services";
    create(
        services,
        json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}}),
    )?;
    let mut service = plane.read(&format!("{services}/s/status"))?;
    service["status"]["conditions"] = conditions.clone();
    let updated = plane.admin("PUT", &format!("{services}/s/status"), Some(&service.to_string()))?;
    ensure!(
        updated.code == 200 && updated.body.contains("\"StatusUpdate\""),
        "{updated:?}"
    );

    // Some kinds want to know.
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    create(
        budgets,
        json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1}}),
    )?;
    let mut budget = plane.read(&format!("{budgets}/b/status"))?;
    budget["status"]["conditions"] = conditions;
    budget["status"]["conditions"][0]["reason"] = json!("no reason");
    let refused = plane.admin("PUT", &format!("{budgets}/b/status"), Some(&budget.to_string()))?;
    ensure!(
        refused.code == 422
            && refused
                .body
                .contains("status.conditions[0].lastTransitionTime: Required value: must be set")
            && refused
                .body
                .contains("status.conditions[0].reason: Invalid value"),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn a_patch_of_the_metadata_alone_is_as_any_other() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let patches = [
        json!({"annotations": {"a": "1", "b": null}, "labels": {"l": "m"}}),
        json!({"annotations": null, "finalizers": ["example.com/f"]}),
        json!({"labels": {"l": null}, "unknown": 1}),
        json!({"labels": {"not a label": "x"}}),
        json!({"labels": {"l": 1}}),
        json!({"resourceVersion": "1"}),
        json!({"name": "other"}),
        json!({"uid": "other", "generation": 7, "creationTimestamp": null}),
    ];
    for media_type in ["merge-patch", "strategic-merge-patch"] {
        let mut answers = Vec::new();
        // What a patch says of the spec besides changes nothing.
        for beside in [json!({}), json!({"spec": {}})] {
            let template = json!({"metadata": {"labels": {"x": "y"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
            let deployment = json!({"metadata": {"name": "d", "annotations": {"b": "2"}},
                "spec": {"selector": {"matchLabels": {"x": "y"}}, "template": template}});
            let made = plane.admin("POST", deployments, Some(&deployment.to_string()))?;
            ensure!(made.code == 201, "{made:?}");
            let path = format!("{deployments}/d");
            let patched = |patch: &Value| {
                let mut args = plane.certificate("admin");
                let media_type = format!("Content-Type: application/{media_type}+json");
                args.extend([
                    "-H".to_owned(),
                    media_type,
                    "--data-binary".to_owned(),
                    patch.to_string(),
                ]);
                plane.curl("PATCH", &path, None, &args)
            };
            for metadata in &patches {
                let mut patch = beside.clone();
                patch["metadata"] = metadata.clone();
                let answer = patched(&patch)?;
                let mut body: Value = serde_json::from_str(&answer.body)?;
                if let Some(metadata) = body["metadata"].as_object_mut() {
                    for own in ["uid", "resourceVersion", "creationTimestamp"] {
                        metadata.remove(own);
                    }
                    for entry in metadata
                        .get_mut("managedFields")
                        .and_then(Value::as_array_mut)
                        .into_iter()
                        .flatten()
                    {
                        entry["time"].take();
                    }
                }
                let warned = answer.headers.to_lowercase().contains("\nwarning:");
                answers.push((answer.code, warned, body.to_string()));
            }
            patched(&json!({"metadata": {"finalizers": null}}))?;
            let gone = plane.admin("DELETE", &path, None)?;
            ensure!(gone.code == 200, "{gone:?}");
        }
        let (alone, beside) = answers.split_at(patches.len());
        for (i, (alone, beside)) in alone.iter().zip(beside).enumerate() {
            // Uids differ, of which one refusal speaks.
            let alike = if alone.0 == 200 {
                alone == beside
            } else {
                alone.0 == beside.0
            };
            ensure!(alike, "{}: {alone:?}\n{beside:?}", patches[i]);
        }
        let codes: Vec<u16> = alone.iter().map(|(code, ..)| *code).collect();
        ensure!(codes == [200, 200, 200, 422, 400, 409, 400, 409], "{codes:?}");
        ensure!(alone[2].1 && !alone[1].1, "{:?}", alone[2]);
    }
    Ok(())
}

/// Upstream: "ConfigMap ... should be immutable if `immutable` field is set", the same of Secrets.
#[test]
fn what_is_immutable_stays_so() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let refusal = "Forbidden: field is immutable when `immutable` is set";
    for (resource, kind, before, after) in [
        ("configmaps", "ConfigMap", "old", "new"),
        ("secrets", "Secret", "b2xk", "bmV3"),
    ] {
        let all = format!("/api/v1/namespaces/default/{resource}");
        let one = format!("{all}/fixed");
        plane.create(
            &all,
            &json!({"metadata": {"name": "fixed"}, "data": {"a": "b25l"}}),
        )?;
        let with = |(field, value): (&str, Value)| -> Result<(u16, String)> {
            let mut object = plane.read(&one)?;
            object[field] = value;
            let answer = plane.admin("PUT", &one, Some(&object.to_string()))?;
            let answered: Value = serde_json::from_str(&answer.body)?;
            Ok((
                answer.code,
                answered["message"].as_str().unwrap_or_default().to_owned(),
            ))
        };
        let data = |text: &str| ("data", json!({"a": text}));
        for change in [
            data(before),
            ("immutable", json!(true)),
            (
                "metadata",
                json!({"name": "fixed", "labels": {"still": "changes"}}),
            ),
        ] {
            let told = with(change)?;
            ensure!(told.0 == 200, "{resource}: {told:?}");
        }
        for (change, field) in [
            (data(after), "data"),
            (("immutable", json!(false)), "immutable"),
            (("immutable", Value::Null), "immutable"),
        ] {
            let told = with(change)?;
            let wanted = format!("{kind} \"fixed\" is invalid: {field}: {refusal}");
            ensure!(told == (422, wanted), "{resource}: {told:?}");
        }
        let gone = plane.admin("DELETE", &one, None)?;
        ensure!(gone.code == 200, "{gone:?}");
    }
    Ok(())
}
