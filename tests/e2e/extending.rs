//! What others add to the API: versions that a webhook converts, and group versions that another server serves.

use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_tests::isolation::NODE_IP;
use keelson_tests::servers::{Asked, Identity, Server};
use serde_json::{Value, json};

use crate::webhooks::refused_soon;
use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_webhook_converts_versions", a_webhook_converts_versions),
    (
        "a_service_is_where_a_converter_is",
        a_service_is_where_a_converter_is,
    ),
    (
        "another_server_serves_a_group_version",
        another_server_serves_a_group_version,
    ),
];

/// `host:port` in v1 is `host` and `port` in v2.
fn convert(asked: &Asked) -> Value {
    let review: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
    let wanted = review["request"]["desiredAPIVersion"].clone();
    let to_two = wanted.as_str().is_some_and(|version| version.ends_with("/v2"));
    let converted = review["request"]["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|object| {
            let mut object = object.clone();
            object["apiVersion"] = wanted.clone();
            let spec = &mut object["spec"];
            if to_two {
                let both = spec["hostPort"].as_str().unwrap_or_default().to_owned();
                let (host, port) = both.split_once(':').unwrap_or((&both, ""));
                *spec = json!({"host": host, "port": port});
            } else {
                let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
                *spec = json!({"hostPort": format!("{}:{}", text("host"), text("port"))});
            }
            object
        });
    let converted: Vec<Value> = converted.collect();
    let broken = converted
        .iter()
        .any(|object| object["metadata"]["labels"]["broken"] == "yes");
    let result = match broken {
        true => json!({"status": "Failed", "message": "it is broken"}),
        false => json!({"status": "Success"}),
    };
    json!({
        "kind": "ConversionReview",
        "apiVersion": review["apiVersion"],
        "response": {"uid": review["request"]["uid"], "convertedObjects": converted, "result": result},
    })
}

/// A server at the node's address, and its certificate for these names, base64 of PEM.
fn serve(
    names: Vec<String>,
    handler: impl Fn(Asked) -> (u16, String) + Send + Sync + 'static,
) -> Result<(Server, String)> {
    let identity = Identity::of(names)?;
    let address: std::net::IpAddr = NODE_IP.parse()?;
    let server = Server::start(address, Some(&identity), handler)?;
    Ok((server, STANDARD.encode(identity.certificate)))
}

/// A service whose endpoint is the server, on port 443 unless it says otherwise.
fn service(stage: &Stage, name: &str, port: u16, server: &Server) -> Result<()> {
    let target = server.address.port();
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"port": port, "targetPort": target}]}});
    stage.kubectl.feed("create -f -", &service.to_string())?;
    Ok(())
}

fn endpoint(stage: &Stage, name: &str, server: &Server) -> Result<()> {
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": format!("{name}-1"), "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "", "protocol": "TCP", "port": server.address.port()}],
        "endpoints": [{"addresses": [server.address.ip().to_string()]}]});
    stage.kubectl.feed("create -f -", &slice.to_string())?;
    Ok(())
}

/// Where a converter with an address of its own is.
fn at_address((server, bundle): &(Server, String)) -> Value {
    json!({"url": format!("https://{}/convert", server.address), "caBundle": bundle})
}

fn ships(group: &str, client: &Value, storage: &str) -> Value {
    let version = |name: &str, spec: Value, fields: Value| {
        json!({"name": name, "served": true, "storage": name == storage, "selectableFields": fields, "schema": {
            "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}})
    };
    let text = json!({"type": "string"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("ships.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "ships", "singular": "ship", "kind": "Ship"},
            "conversion": {"strategy": "Webhook", "webhook": {
                "conversionReviewVersions": ["v1"], "clientConfig": client}},
            "versions": [
                version("v1", json!({"hostPort": text}), json!([])),
                version("v2", json!({"host": text, "port": text}), json!([{"jsonPath": ".spec.host"}])),
            ],
        },
    })
}

fn a_webhook_converts_versions(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let group = format!("{}.example.com", stage.namespace);
    let server = serve(vec![NODE_IP.to_owned()], |asked| {
        (200, convert(&asked).to_string())
    })?;
    kubectl.feed(
        "apply -f -",
        &ships(&group, &at_address(&server), "v1").to_string(),
    )?;
    kubectl.run(&format!(
        "wait --for=condition=Established --timeout=30s crd/ships.{group}"
    ))?;
    let (one, two) = (format!("ships.v1.{group}"), format!("ships.v2.{group}"));
    let ship = |version: &str, name: &str, spec: Value| {
        json!({"apiVersion": format!("{group}/{version}"), "kind": "Ship", "metadata": {"name": name}, "spec": spec})
            .to_string()
    };
    kubectl.feed("create -f -", &ship("v1", "a", json!({"hostPort": "here:80"})))?;
    kubectl.feed(
        "create -f -",
        &ship("v2", "b", json!({"host": "there", "port": "81"})),
    )?;
    let hosts = kubectl.run(&format!("get {two} -o jsonpath={{.items[*].spec.host}}"))?;
    ensure!(hosts == "here there", "{hosts}");
    let both = kubectl.run(&format!("get {one} -o jsonpath={{.items[*].spec.hostPort}}"))?;
    ensure!(both == "here:80 there:81", "{both}");
    let chosen = kubectl.run(&format!("get {two} --field-selector spec.host=there -o name"))?;
    ensure!(chosen.trim() == format!("ship.{group}/b"), "{chosen}");

    // A watch of what comes after the two, however long that takes.
    let path = format!("/apis/{group}/v2/namespaces/{}/ships", stage.namespace);
    let list: Value = serde_json::from_str(&kubectl.run(&format!("get --raw {path}"))?)?;
    let version = list["metadata"]["resourceVersion"]
        .as_str()
        .context("a version")?;
    let mut watch = kubectl.start(&format!("get --raw {path}?watch=1&resourceVersion={version}"))?;
    kubectl.run(&format!(
        r#"patch {one} a --type=merge -p {{"spec":{{"hostPort":"moved:82"}}}}"#
    ))?;
    kubectl.run(&format!(
        r#"patch {two} a --type=merge -p {{"spec":{{"port":"83"}}}}"#
    ))?;
    let applied = ship("v2", "a", json!({"port": "84"}));
    kubectl.feed("apply --server-side --force-conflicts -f -", &applied)?;
    let seen = kubectl.run(&format!("get {one} a -o jsonpath={{.spec.hostPort}}"))?;
    ensure!(seen == "moved:84", "{seen}");

    // Another version is stored from now on; what was stored before is read all the same.
    kubectl.feed(
        "apply -f -",
        &ships(&group, &at_address(&server), "v2").to_string(),
    )?;
    let stored = kubectl.run(&format!(
        "get crd ships.{group} -o jsonpath={{.status.storedVersions[*]}}"
    ))?;
    ensure!(stored == "v1 v2", "{stored}");
    kubectl.until(&format!("get {one} b -o jsonpath={{.spec.hostPort}}"), |both| {
        both == "there:81"
    })?;
    kubectl.run(&format!("annotate {one} a seen=yes"))?;
    let mut events = BufReader::new(watch.stdout.take().context("its output")?).lines();
    for wanted in ["82", "83", "84"] {
        let event: Value = serde_json::from_str(&events.next().context("the watch has ended")??)?;
        let port = &event["object"]["spec"]["port"];
        ensure!(event["type"] == "MODIFIED" && port == wanted, "{event}");
    }
    watch.kill()?;
    watch.wait()?;

    let mut broken: Value = serde_json::from_str(&ship("v1", "c", json!({"hostPort": "x:1"})))?;
    broken["metadata"]["labels"] = json!({"broken": "yes"});
    let refused = kubectl.refused("create -f -", Some(&broken.to_string()))?;
    let wanted = format!("conversion webhook for {group}/v1, Kind=Ship failed: it is broken");
    ensure!(refused.contains(&wanted), "{refused}");
    kubectl.run(&format!("delete crd ships.{group}")).map(drop)
}

fn a_service_is_where_a_converter_is(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let group = format!("{}.example.com", stage.namespace);
    let host = format!("converter.{}.svc", stage.namespace);
    let (server, bundle) = serve(vec![host.clone()], |asked| match asked.head.uri.path() {
        "/v1/convert" => (200, convert(&asked).to_string()),
        path => (404, json!({"message": format!("no {path} here")}).to_string()),
    })?;
    let client = |bundle: &str| {
        json!({"caBundle": bundle, "service": {"namespace": stage.namespace, "name": "converter", "port": 9443,
            "path": "/v1/convert"}})
    };
    let define = |bundle: &str| {
        let definition = ships(&group, &client(bundle), "v1");
        kubectl.feed("apply -f -", &definition.to_string())
    };
    define(&bundle)?;
    let definition = format!("crd/ships.{group}");
    kubectl.run(&format!(
        "wait --for=condition=Established --timeout=30s {definition}"
    ))?;
    let (one, two) = (format!("ships.v1.{group}"), format!("ships.v2.{group}"));
    let ship = json!({"apiVersion": format!("{group}/v1"), "kind": "Ship", "metadata": {"name": "a"},
        "spec": {"hostPort": "here:80"}});
    kubectl.feed("create -f -", &ship.to_string())?;

    // What is stored is read by nobody who has to ask for it, until there is somebody to ask.
    let failed = format!("conversion webhook for {group}/v1, Kind=Ship failed: ");
    let refused = |why: &str| {
        let wanted = format!("{failed}Post \"https://{host}:9443/v1/convert?timeout=30s\": {why}");
        refused_soon(stage, &format!("get {two} a"), None, &wanted)
    };
    refused("service \"converter\" not found")?;
    ensure!(
        kubectl.run(&format!("get {one} a -o name"))?.contains("/a"),
        "what is stored"
    );
    service(stage, "converter", 9443, &server)?;
    refused("no endpoints available for service \"converter\"")?;
    let mut elsewhere = client(&bundle);
    elsewhere["service"]["port"] = json!(9444);
    kubectl.feed("apply -f -", &ships(&group, &elsewhere, "v1").to_string())?;
    let wanted = format!(
        "{failed}Post \"https://{host}:9444/v1/convert?timeout=30s\": no service port 9444 found for service \"converter\""
    );
    refused_soon(stage, &format!("get {two} a"), None, &wanted)?;
    define(&bundle)?;
    endpoint(stage, "converter", &server)?;
    kubectl.until(
        &format!("get {two} -o jsonpath={{.items[*].spec.host}}"),
        |host| host == "here",
    )?;
    kubectl.run(&format!(
        r#"patch {two} a --type=merge -p {{"spec":{{"port":"81"}}}}"#
    ))?;
    let both = kubectl.path(&format!("get {one} a"), "{.spec.hostPort}")?;
    ensure!(both == "here:81", "{both}");

    // A certificate is for the service's name, and signed by whom the definition names.
    let stranger = STANDARD.encode(Identity::of(vec![host.clone()])?.certificate);
    define(&stranger)?;
    kubectl.run(&format!("annotate {one} a seen=yes"))?;
    refused("tls: failed to verify certificate")?;
    define(&bundle)?;
    kubectl.until(
        &format!("get {two} -o jsonpath={{.items[*].spec.port}}"),
        |port| port == "81",
    )?;
    kubectl.run(&format!("delete {definition}")).map(drop)
}

/// An API server of one group version.
fn extension(group: &str, asked: &Asked) -> (u16, Value) {
    let header = |name: &str| {
        let values = asked.head.headers.get_all(name).iter();
        values
            .filter_map(|value| value.to_str().ok())
            .collect::<Vec<_>>()
            .join(",")
    };
    let root = format!("/apis/{group}/v1");
    let path = asked.head.uri.path();
    match path.strip_prefix(&root) {
        Some("") => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/v1"),
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["get", "list"], "shortNames": ["fl"]}]}),
        ),
        Some(rest) if rest.ends_with("/flunders") => (
            200,
            json!({"kind": "FlunderList",
            "apiVersion": format!("{group}/v1"), "metadata": {}, "items": [{"metadata": {"name": "one",
                "annotations": {"user": header("x-remote-user"), "groups": header("x-remote-group"),
                    "authorization": header("authorization")}}}]}),
        ),
        _ => (
            404,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404,
            "reason": "NotFound", "message": format!("no {path} here")}),
        ),
    }
}

fn another_server_serves_a_group_version(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let group = format!("{}.example.com", stage.namespace);
    let name = format!("extension.{}.svc", stage.namespace);
    let served = group.clone();
    let (server, bundle) = serve(vec![name], move |asked| {
        let (code, answer) = extension(&served, &asked);
        (code, answer.to_string())
    })?;
    let registration = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("v1.{group}")},
        "spec": {"group": group, "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
            "caBundle": bundle,
            "service": {"namespace": stage.namespace, "name": "extension", "port": 444}}});
    kubectl.feed("create -f -", &registration.to_string())?;
    let reason = format!("get apiservice v1.{group} -o jsonpath={{.status.conditions[0].reason}}");
    kubectl.until(&reason, |reason| reason == "ServiceNotFound")?;
    let refused = kubectl.refused(&format!("get --raw /apis/{group}/v1/namespaces/x/flunders"), None)?;
    ensure!(refused.contains("unable to handle the request"), "{refused}");

    service(stage, "extension", 443, &server)?;
    kubectl.until(&reason, |reason| reason == "ServicePortError")?;
    let told = kubectl.path(
        &format!("get apiservice v1.{group}"),
        "{.status.conditions[0].message}",
    )?;
    ensure!(
        told == format!(
            "service/extension in \"{}\" is not listening on port 444",
            stage.namespace
        ),
        "{told}"
    );
    kubectl.run(&format!(
        r#"patch apiservice v1.{group} --type=merge -p {{"spec":{{"service":{{"port":443}}}}}}"#
    ))?;
    kubectl.until(&reason, |reason| reason == "EndpointsNotFound")?;
    endpoint(stage, "extension", &server)?;
    kubectl.until(&reason, |reason| reason == "Passed")?;

    let resources = kubectl.run(&format!("api-resources --api-group={group}"))?;
    ensure!(
        resources.contains("flunders") && resources.contains("Flunder"),
        "{resources}"
    );
    let found = kubectl.json(&format!("get flunders.{group}"))?;
    let told = &found["items"][0]["metadata"]["annotations"];
    ensure!(
        told["user"] == "kubernetes-admin"
            && told["groups"]
                .as_str()
                .is_some_and(|groups| groups.contains("system:masters"))
            && told["authorization"] == "",
        "{found}"
    );
    let refused = kubectl.refused(&format!("get --raw /apis/{group}/v1/nothing"), None)?;
    ensure!(refused.contains("no /apis/"), "{refused}");
    kubectl.run(&format!("delete apiservice v1.{group}")).map(drop)
}
