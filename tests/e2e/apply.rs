//! Who manages which field, and applying on the server.

use anyhow::{Context, Result, ensure};
use keelson_tests::process::{output, text};
use serde_json::{Value, json};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("every_write_says_who_it_was", every_write_says_who_it_was),
    ("applying_together", applying_together),
    (
        "moving_over_from_client_side_apply",
        moving_over_from_client_side_apply,
    ),
    ("applying_parts_of_an_object", applying_parts_of_an_object),
    ("applying_what_does_not_fit", applying_what_does_not_fit),
];

const APPLY: &str = "apply --server-side -f -";

fn map(data: &Value) -> String {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data})
        .to_string()
}

/// Nobody runs it: no pods, no scheduler in the way.
fn deployment(spec: &Value) -> String {
    let mut whole = json!({
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "web", "image": "example.com/web:1"}]},
        },
    });
    if let (Some(whole), Some(spec)) = (whole.as_object_mut(), spec.as_object()) {
        whole.extend(spec.clone());
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": whole})
        .to_string()
}

/// The entry of a manager: its operation, its subresource, its fields.
fn managed(stage: &Stage, what: &str, manager: &str) -> Result<Option<Value>> {
    let object = stage.kubectl.json(&format!("get {what} --show-managed-fields"))?;
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    Ok(entries.into_iter().find(|entry| entry["manager"] == manager))
}

fn fields(stage: &Stage, what: &str, manager: &str) -> Result<Value> {
    let entry =
        managed(stage, what, manager)?.with_context(|| format!("{manager} manages nothing of {what}"))?;
    Ok(entry["fieldsV1"].clone())
}

fn every_write_says_who_it_was(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap settings --from-literal=a=1")?;
    let entry = managed(stage, "configmap settings", "kubectl-create")?.context("kubectl-create")?;
    ensure!(
        entry["operation"] == "Update"
            && entry["apiVersion"] == "v1"
            && entry["fieldsType"] == "FieldsV1"
            && entry["time"].is_string()
            && entry["fieldsV1"] == json!({"f:data": {".": {}, "f:a": {}}}),
        "{entry}"
    );
    kubectl.run("label configmap settings tier=front")?;
    ensure!(
        fields(stage, "configmap settings", "kubectl-label")?
            == json!({"f:metadata": {"f:labels": {".": {}, "f:tier": {}}}})
    );
    kubectl.args(&[
        "patch",
        "configmap",
        "settings",
        "--type=merge",
        "-p",
        r#"{"data":{"a":"2"}}"#,
    ])?;
    ensure!(fields(stage, "configmap settings", "kubectl-patch")? == json!({"f:data": {"f:a": {}}}));
    ensure!(fields(stage, "configmap settings", "kubectl-create")? == json!({"f:data": {}}));
    // Not shown unless asked for.
    ensure!(
        !kubectl
            .run("get configmap settings -o yaml")?
            .contains("managedFields")
    );
    // Written out of the list, everybody is forgotten.
    kubectl.args(&[
        "patch",
        "configmap",
        "settings",
        "--type=merge",
        "-p",
        r#"{"metadata":{"managedFields":[{}]}}"#,
    ])?;
    let object = kubectl.json("get configmap settings --show-managed-fields")?;
    ensure!(object["metadata"].get("managedFields").is_none(), "{object}");
    Ok(())
}

fn applying_together(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let applied = kubectl.feed(APPLY, &map(&json!({"a": "1", "b": "1"})))?;
    ensure!(
        applied.trim() == "configmap/settings serverside-applied",
        "{applied}"
    );
    let entry = managed(stage, "configmap settings", "kubectl")?.context("kubectl")?;
    ensure!(
        entry["operation"] == "Apply" && entry["fieldsV1"] == json!({"f:data": {"f:a": {}, "f:b": {}}}),
        "{entry}"
    );
    // Another one adds a field, and may not change what is the first one's.
    let second = format!("{APPLY} --field-manager=second");
    kubectl.feed(&second, &map(&json!({"c": "1"})))?;
    let refused = kubectl.refused(&second, Some(&map(&json!({"a": "2", "c": "1"}))))?;
    ensure!(
        refused.contains("Apply failed with 1 conflict: conflict with \"kubectl\": .data.a"),
        "{refused}"
    );
    let forced = format!("{second} --force-conflicts");
    kubectl.feed(&forced, &map(&json!({"a": "2", "c": "1"})))?;
    ensure!(fields(stage, "configmap settings", "kubectl")? == json!({"f:data": {"f:b": {}}}));
    // What the first one no longer wants goes; what the second one manages stays.
    kubectl.feed(&format!("{APPLY} --force-conflicts"), &map(&json!({})))?;
    let data = kubectl.json("get configmap settings")?["data"].clone();
    ensure!(data == json!({"a": "2", "c": "1"}), "{data}");
    // A difference is shown before it is made.
    let shown = output(
        kubectl.command(&["diff", "--server-side", "--field-manager=second", "-f", "-"]),
        Some(&map(&json!({"a": "3", "c": "1"}))),
    )?;
    let difference = text(&shown.stdout);
    ensure!(
        shown.status.code() == Some(1) && difference.contains("+  a: \"3\""),
        "{difference}{}",
        text(&shown.stderr)
    );
    let data = kubectl.json("get configmap settings")?["data"].clone();
    ensure!(data["a"] == "2", "{data}");
    kubectl.feed(
        &format!("{second} --dry-run=server"),
        &map(&json!({"a": "3", "c": "1"})),
    )?;
    ensure!(kubectl.json("get configmap settings")?["data"]["a"] == "2");
    Ok(())
}

fn moving_over_from_client_side_apply(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.feed("apply -f -", &deployment(&json!({"replicas": 0, "paused": true})))?;
    ensure!(managed(stage, "deployment web", "kubectl-client-side-apply")?.is_some());
    kubectl.feed(APPLY, &deployment(&json!({"replicas": 0})))?;
    let entry = managed(stage, "deployment web", "kubectl")?.context("kubectl")?;
    ensure!(entry["operation"] == "Apply", "{entry}");
    let spec = kubectl.json("get deployment web")?["spec"].clone();
    ensure!(spec.get("paused").is_none_or(|paused| paused == false), "{spec}");
    // The annotation follows, for those who go back.
    let annotation = kubectl.path(
        "get deployment web",
        r"{.metadata.annotations.kubectl\.kubernetes\.io/last-applied-configuration}",
    )?;
    let noted: Value = serde_json::from_str(&annotation)?;
    ensure!(noted["spec"].get("paused").is_none(), "{noted}");
    // Going on with client-side apply works, too.
    kubectl.feed(
        "apply -f -",
        &deployment(&json!({"replicas": 0, "minReadySeconds": 3})),
    )?;
    ensure!(kubectl.path("get deployment web", "{.spec.minReadySeconds}")? == "3");
    Ok(())
}

fn applying_parts_of_an_object(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.feed(APPLY, &deployment(&json!({"replicas": 0, "paused": true})))?;
    // Scaling is a change like others, through a subresource.
    kubectl.run("scale deployment web --replicas=1")?;
    let entry = managed(stage, "deployment web", "kubectl")?.context("kubectl")?;
    let scaled = kubectl.json("get deployment web --show-managed-fields")?;
    let through_scale = scaled["metadata"]["managedFields"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|entry| entry["subresource"] == "scale")
        .cloned()
        .context("an entry of the scale subresource")?;
    ensure!(
        through_scale["fieldsV1"] == json!({"f:spec": {"f:replicas": {}}})
            && through_scale["operation"] == "Update",
        "{through_scale}"
    );
    ensure!(entry["fieldsV1"]["f:spec"].get("f:replicas").is_none(), "{entry}");
    let refused = kubectl.refused(APPLY, Some(&deployment(&json!({"replicas": 0, "paused": true}))))?;
    ensure!(
        refused.contains("with subresource \"scale\" using apps/v1: .spec.replicas"),
        "{refused}"
    );
    // A container more, and one less: told apart by their names.
    let with = |images: &[(&str, &str)]| {
        let containers: Vec<Value> = images
            .iter()
            .map(|(name, image)| json!({"name": name, "image": image}))
            .collect();
        deployment(&json!({"paused": true, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers},
        }}))
    };
    kubectl.feed(
        APPLY,
        &with(&[("web", "example.com/web:2"), ("side", "example.com/side:1")]),
    )?;
    let names = "{.spec.template.spec.containers[*].name}";
    ensure!(kubectl.path("get deployment web", names)? == "web side");
    kubectl.feed(
        APPLY,
        &with(&[("side", "example.com/side:1"), ("web", "example.com/web:2")]),
    )?;
    ensure!(kubectl.path("get deployment web", names)? == "side web");
    kubectl.feed(APPLY, &with(&[("web", "example.com/web:2")]))?;
    ensure!(kubectl.path("get deployment web", names)? == "web");
    ensure!(kubectl.path("get deployment web", "{.spec.replicas}")? == "1");
    Ok(())
}

fn applying_what_does_not_fit(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let quiet = format!("{APPLY} --validate=false");
    let refused = kubectl.refused(&quiet, Some(&deployment(&json!({"replicass": 1}))))?;
    ensure!(
        refused.contains(".spec.replicass: field not declared in schema"),
        "{refused}"
    );
    let refused = kubectl.refused(&quiet, Some(&deployment(&json!({"replicas": "many"}))))?;
    ensure!(
        refused.contains(".spec.replicas: expected numeric (int or float), got string"),
        "{refused}"
    );
    let refused = kubectl.refused(APPLY, Some(&deployment(&json!({"replicas": -1}))))?;
    ensure!(
        refused.contains("spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        "{refused}"
    );
    Ok(())
}
