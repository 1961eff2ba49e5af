//! Webhooks: somebody else is asked before something is written.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use k8s_openapi::ByteString;
use keelson_tests::process::eventually;
use keelson_tests::webhooks::Webhooks;
use serde_json::{Value, json};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("webhooks_refuse", webhooks_refuse),
    ("webhooks_change", webhooks_change),
    ("webhooks_that_do_not_answer", webhooks_that_do_not_answer),
    (
        "webhooks_are_asked_about_what_they_name",
        webhooks_are_asked_about_what_they_name,
    ),
    ("webhooks_see_custom_resources", webhooks_see_custom_resources),
    ("webhooks_refuse_connections", webhooks_refuse_connections),
    ("webhooks_are_read_when_written", webhooks_are_read_when_written),
];

/// Until a configuration is in force.
const SOON: Duration = Duration::from_secs(20);

/// What the stories' server answers, by the path it is reached at.
fn answer(path: &str, request: &Value) -> Value {
    let allowed = json!({"allowed": true});
    let changed = |patch: Value| {
        let patch = ByteString(patch.to_string().into_bytes());
        json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
    };
    let object = &request["object"];
    match path {
        "/refuse" => json!({"allowed": false, "status": {"message": format!(
            "not this {} while dryRun is {}", request["kind"]["kind"].as_str().unwrap_or("?"), request["dryRun"])}}),
        "/refuse-marked" => {
            let of = |object: &Value| object["data"]["mark"] == "bad";
            let bad = of(object) || (object.is_null() && of(&request["oldObject"]));
            json!({"allowed": !bad, "warnings": ["looked at it"],
                "status": {"message": "marked", "code": 403, "reason": "Forbidden"}})
        }
        "/mark" => changed(json!([{"op": "add", "path": "/data/webhook", "value": "was here"}])),
        "/first" if object["data"]["first"].is_null() => {
            changed(json!([{"op": "add", "path": "/data/first", "value": "1"}]))
        }
        // Only who looks after the second one sees what it did.
        "/first" if object["data"]["second"] == "2" && object["data"]["third"].is_null() => {
            changed(json!([{"op": "add", "path": "/data/third", "value": "3"}]))
        }
        "/second" if object["data"]["first"] == "1" && object["data"]["second"].is_null() => {
            changed(json!([{"op": "add", "path": "/data/second", "value": "2"}]))
        }
        "/image" => changed(json!([{"op": "replace", "path": "/spec/containers/0/image",
            "value": "keelson.local/echo:1"}, {"op": "add", "path": "/spec/initContainers", "value":
            [{"name": "added", "image": "keelson.local/echo:1"}]}])),
        "/custom" => changed(json!([
            {"op": "add", "path": "/spec/size", "value": 7}, {"op": "add", "path": "/spec/unknown", "value": 1},
            {"op": "add", "path": "/metadata/annotations", "value": {"seen": object["apiVersion"]}},
        ])),
        "/slow" => {
            std::thread::sleep(Duration::from_secs(3));
            allowed
        }
        "/nonsense" => json!({"allowed": true, "patch": "bm90IGpzb24=", "patchType": "JSONPatch"}),
        _ => allowed,
    }
}

/// A webhook about config maps in the story's namespace.
fn webhook(stage: &Stage, name: &str, client: Value) -> Value {
    json!({
        "name": format!("{name}.{}.example.com", stage.namespace),
        "clientConfig": client, "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stage.namespace}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
            "resources": ["configmaps"]}],
    })
}

fn put(stage: &Stage, kind: &str, webhooks: &[Value]) -> Result<()> {
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
        "metadata": {"name": stage.namespace}, "webhooks": webhooks});
    stage
        .kubectl
        .feed("apply -f -", &configuration.to_string())
        .map(drop)
}

fn withdraw(stage: &Stage, kind: &str) -> Result<()> {
    stage
        .kubectl
        .run(&format!("delete {kind} {}", stage.namespace))
        .map(drop)
}

/// Waits for a refusal with these words.
pub fn refused_soon(stage: &Stage, words: &str, input: Option<&str>, wanted: &str) -> Result<()> {
    eventually(words, SOON, || {
        let refusal = stage.kubectl.refused(words, input)?;
        if !refusal.contains(wanted) {
            bail!("{refusal}");
        }
        Ok(())
    })
}

/// Waits until something goes through.
fn allowed_soon(stage: &Stage, words: &str) -> Result<String> {
    eventually(words, SOON, || stage.kubectl.run(words))
}

const VALIDATING: &str = "ValidatingWebhookConfiguration";
const MUTATING: &str = "MutatingWebhookConfiguration";

fn webhooks_refuse(stage: &Stage) -> Result<()> {
    let (kubectl, namespace) = (&stage.kubectl, &stage.namespace);
    let server = Webhooks::start(answer)?;
    let mut hook = webhook(stage, "marked", server.client("/refuse-marked"));
    hook["rules"][0]["operations"] = json!(["*"]);
    hook["matchConditions"] = json!([
        {"name": "no-leases", "expression": "request.resource.resource != 'leases'"},
        {"name": "not-exempt", "expression": "object.metadata.name != 'exempt'"},
    ]);
    put(stage, VALIDATING, &[hook.clone()])?;
    let text = format!("admission webhook \"marked.{namespace}.example.com\" denied the request: marked");
    refused_soon(
        stage,
        "create configmap c --from-literal=mark=bad --dry-run=server",
        None,
        &text,
    )?;
    kubectl.run("create configmap exempt --from-literal=mark=bad")?;
    kubectl.run("create configmap c --from-literal=mark=good")?;
    for change in [
        "patch configmap c -p {\"data\":{\"mark\":\"bad\"}}",
        "patch configmap c --type=merge -p {\"data\":{\"mark\":\"bad\"}}",
    ] {
        let refusal = kubectl.refused(change, None)?;
        ensure!(refusal.contains("denied the request: marked"), "{refusal}");
    }
    // A deletion has no new object, so that a condition that looks at one has to see to it.
    withdraw(stage, VALIDATING)?;
    allowed_soon(stage, "patch configmap c -p {\"data\":{\"mark\":\"bad\"}}")?;
    put(stage, VALIDATING, &[hook.clone()])?;
    let failed = "resulted in error: no such key: metadata";
    refused_soon(stage, "delete configmap c --dry-run=server", None, failed)?;
    hook["failurePolicy"] = json!("Ignore");
    put(stage, VALIDATING, &[hook.clone()])?;
    // What cannot be said keeps an ignorant webhook out.
    allowed_soon(stage, "delete configmap c --dry-run=server")?;
    hook["matchConditions"] = json!([{"name": "yes", "expression": "true"}]);
    put(stage, VALIDATING, &[hook])?;
    refused_soon(
        stage,
        "delete configmap c --dry-run=server",
        None,
        "denied the request: marked",
    )?;
    withdraw(stage, VALIDATING)?;
    allowed_soon(stage, "delete configmap c")?;
    let refuse = webhook(stage, "refuse", server.client("/refuse"));
    put(stage, VALIDATING, &[refuse])?;
    refused_soon(
        stage,
        "create configmap d --dry-run=server",
        None,
        "not this ConfigMap while dryRun is true",
    )?;
    refused_soon(
        stage,
        "create configmap d",
        None,
        "not this ConfigMap while dryRun is false",
    )?;
    // So is a deletion that is only tried.
    withdraw(stage, VALIDATING)?;
    allowed_soon(stage, "create configmap d")?;
    let mut refuse = webhook(stage, "refuse", server.client("/refuse"));
    refuse["rules"][0]["operations"] = json!(["DELETE"]);
    put(stage, VALIDATING, &[refuse])?;
    refused_soon(
        stage,
        "delete configmap d --dry-run=server",
        None,
        "not this ConfigMap while dryRun is true",
    )?;
    withdraw(stage, VALIDATING)
}

fn webhooks_change(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let server = Webhooks::start(answer)?;
    let mut first = webhook(stage, "first", server.client("/first"));
    first["reinvocationPolicy"] = json!("IfNeeded");
    let second = webhook(stage, "second", server.client("/second"));
    put(stage, MUTATING, &[first.clone(), second.clone()])?;
    let create = "create configmap c --from-literal=a=b --dry-run=server -o json";
    let data = |wanted: Value| {
        eventually("changes", SOON, || {
            let made: Value = serde_json::from_str(&kubectl.run(create)?)?;
            if made["data"] != wanted {
                bail!("{made}");
            }
            Ok(())
        })
    };
    data(json!({"a": "b", "first": "1", "second": "2", "third": "3"}))?;
    first["reinvocationPolicy"] = json!("Never");
    put(stage, MUTATING, &[first, second.clone()])?;
    data(json!({"a": "b", "first": "1", "second": "2"}))?;
    // Changed: no longer about creations. And back again.
    let patch = |operation: &str| {
        let patch =
            json!([{"op": "replace", "path": "/webhooks/0/rules/0/operations", "value": [operation]}]);
        kubectl.args(&[
            "patch",
            MUTATING,
            &stage.namespace,
            "--type=json",
            "-p",
            &patch.to_string(),
        ])
    };
    let mark = webhook(stage, "mark", server.client("/mark"));
    put(stage, MUTATING, &[mark])?;
    data(json!({"a": "b", "webhook": "was here"}))?;
    patch("UPDATE")?;
    data(json!({"a": "b"}))?;
    patch("CREATE")?;
    data(json!({"a": "b", "webhook": "was here"}))?;
    // A pod is changed before its defaults are filled in anew.
    let mut image = webhook(stage, "image", server.client("/image"));
    image["rules"][0]["resources"] = json!(["pods"]);
    put(stage, MUTATING, &[image])?;
    let pod = eventually("a changed pod", SOON, || {
        let pod: Value = serde_json::from_str(&kubectl.run("run p --image=other --dry-run=server -o json")?)?;
        if pod["spec"]["initContainers"].is_null() {
            bail!("{pod}");
        }
        Ok(pod)
    })?;
    let added = &pod["spec"]["initContainers"][0];
    ensure!(
        pod["spec"]["containers"][0]["image"] == "keelson.local/echo:1"
            && added["terminationMessagePolicy"] == "File"
            && added["terminationMessagePath"] == "/dev/termination-log",
        "{pod}"
    );
    let broken = webhook(stage, "nonsense", server.client("/nonsense"));
    put(stage, MUTATING, &[broken])?;
    refused_soon(
        stage,
        "create configmap c --dry-run=server",
        None,
        "failed calling webhook",
    )?;
    withdraw(stage, MUTATING)
}

fn webhooks_that_do_not_answer(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let server = Webhooks::start(answer)?;
    let create = "create configmap c --dry-run=server";
    // Nobody listens on port 1.
    let mut hook = webhook(stage, "gone", json!({"url": "https://127.0.0.1:1/"}));
    put(stage, VALIDATING, &[hook.clone()])?;
    let text = format!(
        "failed calling webhook \"gone.{}.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/?timeout=10s\"",
        stage.namespace
    );
    refused_soon(stage, create, None, &text)?;
    hook["failurePolicy"] = json!("Ignore");
    put(stage, VALIDATING, &[hook])?;
    allowed_soon(stage, create)?;
    // Slower than its timeout: refused, unless that is ignored; in time when it has more.
    let mut slow = webhook(stage, "slow", server.client("/slow"));
    slow["timeoutSeconds"] = json!(1);
    put(stage, VALIDATING, &[slow.clone()])?;
    refused_soon(stage, create, None, "context deadline exceeded")?;
    slow["failurePolicy"] = json!("Ignore");
    put(stage, VALIDATING, &[slow.clone()])?;
    allowed_soon(stage, create)?;
    slow["failurePolicy"] = json!("Fail");
    slow["timeoutSeconds"] = json!(30);
    put(stage, VALIDATING, &[slow])?;
    allowed_soon(stage, create)?;
    // A certificate that nobody trusts is no answer either.
    let mut stranger = webhook(stage, "stranger", server.client("/"));
    stranger["clientConfig"]["caBundle"] = Webhooks::start(answer)?.client("/")["caBundle"].clone();
    put(stage, VALIDATING, &[stranger])?;
    refused_soon(stage, create, None, "tls: failed to verify certificate")?;
    withdraw(stage, VALIDATING)?;
    allowed_soon(stage, create)?;
    kubectl.run(create).map(drop)
}

fn webhooks_are_asked_about_what_they_name(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let server = Webhooks::start(answer)?;
    let mut hook = webhook(stage, "refuse", server.client("/refuse"));
    hook["objectSelector"] = json!({"matchLabels": {"guarded": "yes"}});
    put(stage, VALIDATING, &[hook.clone()])?;
    let guarded = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "g", "labels": {"guarded": "yes"}}});
    refused_soon(
        stage,
        "create --dry-run=server -f -",
        Some(&guarded.to_string()),
        "not this ConfigMap",
    )?;
    kubectl.run("create configmap free")?;
    // Labels count before and after a change.
    let refusal = kubectl.refused("label configmap free guarded=yes", None)?;
    ensure!(refusal.contains("not this ConfigMap"), "{refusal}");
    // Another namespace is none of its business.
    kubectl.feed("create --dry-run=server -n default -f -", &guarded.to_string())?;
    // Scale is a part of its own, told by its kind.
    hook["objectSelector"] = json!({});
    hook["rules"] = json!([{"apiGroups": ["apps"], "apiVersions": ["*"], "operations": ["UPDATE"],
        "resources": ["deployments/scale"]}]);
    put(stage, VALIDATING, &[hook.clone()])?;
    kubectl.run("create deployment web --image=keelson.local/echo:1 --replicas=0")?;
    refused_soon(stage, "scale deployment web --replicas=1", None, "not this Scale")?;
    // A definition can be refused, a configuration of webhooks cannot.
    hook["namespaceSelector"] = json!({});
    hook["objectSelector"] = json!({"matchLabels": {"story": stage.namespace}});
    hook["rules"] = json!([{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"],
        "resources": ["customresourcedefinitions", "validatingwebhookconfigurations"]}]);
    put(stage, VALIDATING, &[hook])?;
    let group = format!("{}.example.net", stage.namespace);
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}"), "labels": {"story": stage.namespace}},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    refused_soon(
        stage,
        "create --dry-run=server -f -",
        Some(&definition.to_string()),
        "not this CustomResourceDefinition",
    )?;
    kubectl.run(&format!(
        "label validatingwebhookconfiguration {0} story={0}",
        stage.namespace
    ))?;
    withdraw(stage, VALIDATING)
}

fn webhooks_see_custom_resources(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let server = Webhooks::start(answer)?;
    let group = format!("{}.example.net", stage.namespace);
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}})
    };
    let definition = |stored: &str| {
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("boxes.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
                "versions": [version("v1", stored == "v1"), version("v2", stored == "v2")]}})
        .to_string()
    };
    kubectl.feed("apply -f -", &definition("v1"))?;
    kubectl.run(&format!(
        "wait --for=condition=Established --timeout=30s crd/boxes.{group}"
    ))?;
    let mut custom = webhook(stage, "custom", server.client("/custom"));
    custom["rules"] = json!([{"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["boxes"]}]);
    put(stage, MUTATING, &[custom])?;
    let made = |version: &str, name: &str| {
        json!({"apiVersion": format!("{group}/{version}"), "kind": "Box", "metadata": {"name": name}, "spec": {"size": 1}})
            .to_string()
    };
    let look = |version: &str, name: &str| {
        eventually("a changed box", SOON, || {
            let made = kubectl.feed("create --dry-run=server -o json -f -", &made(version, name))?;
            let made: Value = serde_json::from_str(&made)?;
            if made["spec"] != json!({"size": 7}) {
                bail!("{made}");
            }
            ensure!(
                made["metadata"]["annotations"]["seen"] == format!("{group}/v1"),
                "{made}"
            );
            ensure!(made["apiVersion"] == format!("{group}/{version}"), "{made}");
            Ok(())
        })
    };
    // What the schema does not know is dropped; the webhook knows v1, whatever is asked for or stored.
    look("v1", "a")?;
    look("v2", "b")?;
    kubectl.feed("apply -f -", &definition("v2"))?;
    look("v1", "c")?;
    look("v2", "d")?;
    withdraw(stage, MUTATING)?;
    let mut refuse = webhook(stage, "refuse", server.client("/refuse"));
    refuse["rules"] =
        json!([{"apiGroups": [group], "apiVersions": ["*"], "operations": ["*"], "resources": ["boxes"]}]);
    kubectl.feed("create -f -", &made("v1", "kept"))?;
    put(stage, VALIDATING, &[refuse])?;
    refused_soon(
        stage,
        "create --dry-run=server -f -",
        Some(&made("v2", "new")),
        "not this Box",
    )?;
    for words in ["delete", "annotate --overwrite x=y"] {
        let words = match words {
            "delete" => format!("delete boxes.{group} kept"),
            _ => format!("annotate boxes.{group} kept x=y"),
        };
        let refusal = kubectl.refused(&words, None)?;
        ensure!(refusal.contains("not this Box"), "{words}: {refusal}");
    }
    withdraw(stage, VALIDATING)?;
    allowed_soon(stage, &format!("delete boxes.{group} kept"))?;
    kubectl.run(&format!("delete crd boxes.{group}")).map(drop)
}

fn webhooks_refuse_connections(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let server = Webhooks::start(answer)?;
    kubectl.run("run p --image=keelson.local/toolbox:1 --command -- sleep 600")?;
    kubectl.run("wait --for=condition=Ready --timeout=120s pod/p")?;
    let mut hook = webhook(stage, "attach", server.client("/refuse"));
    hook["rules"] = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CONNECT"],
        "resources": ["pods/attach"]}]);
    put(stage, VALIDATING, &[hook])?;
    refused_soon(stage, "attach p", None, "not this PodAttachOptions")?;
    let said = kubectl.run("exec p -- echo hello")?;
    ensure!(said.trim() == "hello", "{said}");
    withdraw(stage, VALIDATING)?;
    kubectl.run("delete pod p --now").map(drop)
}

fn webhooks_are_read_when_written(stage: &Stage) -> Result<()> {
    let server = Webhooks::start(answer)?;
    for kind in [VALIDATING, MUTATING] {
        for (conditions, what) in [
            (
                json!([{"name": "a", "expression": "... [] bad"}]),
                "webhooks[0].matchConditions[0].expression: Invalid value: \"... [] bad\": compilation failed: ERROR",
            ),
            (json!([{"name": "a", "expression": "1"}]), "must evaluate to bool"),
            (
                json!([{"name": "", "expression": "true"}]),
                "webhooks[0].matchConditions[0].name: Required value",
            ),
            (
                json!([{"name": "a", "expression": ""}]),
                "webhooks[0].matchConditions[0].expression: Required value",
            ),
            (
                json!([{"name": "a", "expression": "params == null"}]),
                "undeclared reference to 'params'",
            ),
        ] {
            let mut hook = webhook(stage, "read", server.client("/"));
            hook["matchConditions"] = conditions;
            let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind,
                "metadata": {"name": stage.namespace}, "webhooks": [hook]});
            let refusal = stage
                .kubectl
                .refused("create -f -", Some(&configuration.to_string()))?;
            ensure!(refusal.contains(what), "{refusal}");
        }
        put(
            stage,
            kind,
            &[
                webhook(stage, "one", server.client("/")),
                webhook(stage, "two", server.client("/")),
            ],
        )?;
        let path = format!("/apis/admissionregistration.k8s.io/v1/{}s", kind.to_lowercase());
        let listed = stage.kubectl.run(&format!("get --raw {path}"))?;
        ensure!(
            listed.contains(&format!("two.{}.example.com", stage.namespace)),
            "{listed}"
        );
        withdraw(stage, kind)?;
    }
    let group = stage
        .kubectl
        .run("get --raw /apis/admissionregistration.k8s.io/v1")?;
    ensure!(
        group.contains("mutatingwebhookconfigurations") && group.contains("validatingwebhookconfigurations"),
        "{group}"
    );
    Ok(())
}
