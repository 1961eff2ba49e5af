//! An API server behind another: the group version of a second kube-apiserver, registered with a Service and an APIService,
//! is used through the first as if it were its own.

use anyhow::{Result, ensure};
use keelson_tests::aggregation::{PATIENCE, available, register, second_server};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::kubectl::{Kubectl, versions};
use keelson_tests::process::eventually;
use keelson_tests::wire::{Socket, Wire};
use serde_json::{Value, json};

const GROUP: &str = "stable.example.com";
const PATH: &str = "/apis/stable.example.com/v1";
const WIDGETS: &str = "/apis/stable.example.com/v1/namespaces/default/widgets";
const TYPE: &str = "com.example.stable.v1.Widget";
const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

fn definition() -> Value {
    let spec = json!({"type": "object", "description": "What a widget is to be.", "properties": {
        "size": {"type": "integer", "description": "How large it is to be."}}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{GROUP}")},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}}]}})
}

fn widget(name: &str, size: u32) -> String {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Widget", "metadata": {"name": name}, "spec": {"size": size}})
        .to_string()
}

fn with_kubectl(kubectl: &Kubectl, name: &str) -> Result<()> {
    let resources = kubectl.run(&format!("api-resources --api-group={GROUP}"))?;
    ensure!(resources.contains("Widget"), "{resources}");
    kubectl.feed("apply -f -", &widget(name, 1))?;
    kubectl.feed("apply -f -", &widget(name, 2))?;
    kubectl.feed("apply --server-side --force-conflicts -f -", &widget(name, 3))?;
    let table = kubectl.run(&format!("get widgets {name}"))?;
    ensure!(table.contains("SIZE") && table.contains('3'), "{table}");
    let explained = kubectl.run("explain widgets.spec")?;
    ensure!(explained.contains("How large it is to be."), "{explained}");
    kubectl
        .run(&format!(
            "patch widget {name} --type=merge -p {{\"spec\":{{\"size\":4}}}}"
        ))
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apiserver_is_used_through_the_first() -> Result<()> {
    let (inner, shown) = second_server()?;
    let outer = ControlPlane::up(|_, _| Ok(shown))?;
    inner.create(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        &definition(),
    )?;
    register(&outer, &inner, GROUP)?;

    let config = outer.path("admin.kubeconfig");
    std::fs::write(&config, outer.kubeconfig("admin"))?;
    for version in versions()? {
        let name = format!("w-{}", version.number());
        with_kubectl(&Kubectl::new(version, &config), &name)?;
    }

    // What it serves is part of the documents in both encodings.
    let document = outer.read("/openapi/v2")?;
    ensure!(document["definitions"][TYPE]["type"] == "object");
    let mut args = outer.certificate("admin");
    args.extend(["-H".to_owned(), format!("Accept: {PROTOBUF}")]);
    let encoded = outer.curl("GET", "/openapi/v2", None, &args)?;
    ensure!(encoded.code == 200 && !encoded.body.starts_with('{') && encoded.body.contains(TYPE));

    // Watches, in one answer and over WebSocket.
    let admin = Wire::connect(&outer, "admin").await?;
    let mut events = admin.watch(&format!("{WIDGETS}?watch=true")).await?;
    let event = events.one().await?;
    ensure!(
        event["type"] == "ADDED" && event["object"]["spec"]["size"] == 4,
        "{event}"
    );
    let mut socket = Socket::open(&outer, "admin", &format!("{WIDGETS}?watch=true"), "").await?;
    ensure!(socket.head.starts_with("HTTP/1.1 101"), "{}", socket.head);
    let (_, message) = socket.message().await?;
    let event: Value = serde_json::from_slice(&message)?;
    ensure!(event["object"]["kind"] == "Widget", "{event}");
    socket.close().await?;

    // Without it, the first server says so.
    let port = inner.port;
    drop(inner);
    eventually("the second server is gone", PATIENCE, || {
        let condition = available(&outer, GROUP)?;
        let wanted = format!("failing or missing response from https://localhost:{port}{PATH}: ");
        ensure!(
            condition["status"] == "False"
                && condition["reason"] == "FailedDiscoveryCheck"
                && condition["message"]
                    .as_str()
                    .is_some_and(|message| message.starts_with(&wanted)),
            "{condition}"
        );
        Ok(())
    })?;
    let refused = outer.admin("GET", WIDGETS, None)?;
    ensure!(refused.code == 503, "{refused:?}");
    Ok(())
}
