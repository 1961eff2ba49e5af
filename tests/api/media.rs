//! Media types of patches, where they say what may be patched how; warnings about what is to be used no more.

use anyhow::{Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::process::eventually;
use serde_json::{Value, json};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[test]
fn custom_resources_have_no_merge_rules() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let definition = json!({"metadata": {"name": "rafts.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster",
        "names": {"plural": "rafts", "singular": "raft", "kind": "Raft", "listKind": "RaftList"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
            "type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]}});
    let made = plane.admin("POST", DEFINITIONS, Some(&definition.to_string()))?;
    ensure!(made.code == 201, "{made:?}");
    let rafts = "/apis/example.com/v1/rafts";
    let raft = json!({"apiVersion": "example.com/v1", "kind": "Raft", "metadata": {"name": "one"}});
    eventually("rafts are served", PATIENCE, || {
        let made = plane.admin("POST", rafts, Some(&raft.to_string()))?;
        ensure!(made.code == 201, "{made:?}");
        Ok(())
    })?;
    let wanted = [
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];

    // kubectl apply sends what the document says.
    eventually("rafts are published", PATIENCE, || {
        let document: Value = serde_json::from_str(&plane.admin("GET", "/openapi/v2", None)?.body)?;
        let patch = &document["paths"]["/apis/example.com/v1/rafts/{name}"]["patch"];
        ensure!(patch["consumes"] == json!(wanted), "{patch}");
        Ok(())
    })?;
    let mut strategic = plane.certificate("admin");
    strategic.extend(
        [
            "-H",
            "Content-Type: application/strategic-merge-patch+json",
            "-d",
            "{}",
        ]
        .map(str::to_owned),
    );
    let refused = plane.curl("PATCH", &format!("{rafts}/one"), None, &strategic)?;
    ensure!(
        refused.code == 415 && refused.body.contains(&wanted.join(", ")),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn endpoints_are_to_be_used_no_more() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let warning = r#"299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice""#;
    let endpoints = "/api/v1/namespaces/default/endpoints";
    let answer = plane.admin("GET", endpoints, None)?;
    ensure!(
        answer.code == 200 && answer.headers.contains(warning),
        "{answer:?}"
    );
    let one = json!({"metadata": {"name": "one"}}).to_string();
    let answer = plane.admin("POST", endpoints, Some(&one))?;
    ensure!(
        answer.code == 201 && answer.headers.contains(warning),
        "{answer:?}"
    );
    Ok(())
}
