//! Who decides what callers may do, when a configuration says so.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::servers::{Handler, http, webhook_config};
use keelson_tests::control_plane::ControlPlane;

/// How long a changed file may take to count on a busy machine.
const RELOAD: Duration = Duration::from_secs(30);

/// A webhook that lets jane do everything but with secrets, which it refuses, and keeps what it was asked.
fn webhook(asked: Arc<Mutex<Vec<Value>>>) -> Handler {
    Arc::new(move |_, body| {
        let review: Value = serde_json::from_str(body).ok()?;
        let spec = &review["spec"];
        let secrets = spec["resourceAttributes"]["resource"] == "secrets";
        let status = match spec["user"].as_str()? {
            "jane" if secrets => json!({"allowed": false, "denied": true, "reason": "no secrets for jane"}),
            "jane" => json!({"allowed": true, "reason": "it is jane"}),
            _ => json!({"allowed": false, "reason": "never heard of"}),
        };
        asked.lock().ok()?.push(review.clone());
        Some(
            json!({"kind": "SubjectAccessReview", "apiVersion": review["apiVersion"], "status": status})
                .to_string(),
        )
    })
}

fn asked_about(asked: &Mutex<Vec<Value>>, user: &str) -> usize {
    asked.lock().map_or(0, |all| {
        all.iter().filter(|review| review["spec"]["user"] == user).count()
    })
}

#[test]
fn a_webhook_decides_in_its_place_and_its_answers_are_kept() -> Result<()> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let port = http(webhook(asked.clone()))?;
    let plane = ControlPlane::up(|folder, authority| {
        authority.issue("jane", &["dev"])?;
        authority.issue("joe", &[])?;
        let config = folder.join("webhook.yaml");
        std::fs::write(
            &config,
            webhook_config(&format!("http://127.0.0.1:{port}/authorize")),
        )?;
        Ok(vec![
            "--authorization-mode=RBAC,Webhook".into(),
            format!("--authorization-webhook-config-file={}", config.display()),
            "--authorization-webhook-version=v1".into(),
        ])
    })?;
    let get = |who: &str, path: &str| plane.curl("GET", path, None, &plane.certificate(who));
    for _ in 0..3 {
        ensure!(get("jane", "/api/v1/nodes")?.code == 200);
    }
    ensure!(
        asked_about(&asked, "jane") == 1,
        "asked {} times",
        asked_about(&asked, "jane")
    );
    let refused = get("jane", "/api/v1/namespaces/default/secrets")?;
    ensure!(
        refused.code == 403 && refused.body.contains("no secrets for jane"),
        "{refused:?}"
    );
    let unknown = get("joe", "/api/v1/nodes")?;
    ensure!(
        unknown.code == 403 && unknown.body.contains("never heard of"),
        "{unknown:?}"
    );
    let review = asked.lock().map_err(|_| anyhow::anyhow!("poisoned"))?[0].clone();
    ensure!(review["apiVersion"] == "authorization.k8s.io/v1", "{review}");
    let attributes = json!({"verb": "list", "version": "v1", "resource": "nodes"});
    ensure!(review["spec"]["resourceAttributes"] == attributes, "{review}");
    ensure!(
        review["spec"]["groups"] == json!(["dev", "system:authenticated"]),
        "{review}"
    );
    Ok(())
}

#[test]
fn conditions_and_failures_decide_what_a_webhook_does_not() -> Result<()> {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let port = http(webhook(asked.clone()))?;
    let plane = ControlPlane::up(|folder, authority| {
        authority.issue("jane", &[])?;
        authority.issue("joe", &[])?;
        // Nobody listens there.
        let gone = keelson_ports::free()?;
        let mut authorizers = Vec::new();
        for (name, port, condition) in [
            ("first", port, "request.user == 'jane'"),
            (
                "gone",
                gone,
                "request.user == 'joe' && has(request.nonResourceAttributes)",
            ),
        ] {
            let file = folder.join(format!("{name}.yaml"));
            std::fs::write(&file, webhook_config(&format!("http://127.0.0.1:{port}/")))?;
            authorizers.push(json!({"type": "Webhook", "name": name, "webhook": {
                "timeout": "3s", "subjectAccessReviewVersion": "v1",
                "matchConditionSubjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": file},
                "matchConditions": [{"expression": condition}],
            }}));
        }
        authorizers.push(json!({"type": "RBAC", "name": "rbac"}));
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
            "authorizers": authorizers,
        });
        let file = folder.join("authorization.yaml");
        std::fs::write(&file, config.to_string())?;
        Ok(vec![format!("--authorization-config={}", file.display())])
    })?;
    let get = |who: &str, path: &str| {
        Ok::<_, anyhow::Error>(plane.curl("GET", path, None, &plane.certificate(who))?.code)
    };
    ensure!(get("jane", "/api/v1/nodes")? == 200);
    // Joe's requests for resources are none of the webhooks' business; for paths, the one that is gone counts as a no.
    ensure!(get("joe", "/api/v1/nodes")? == 403);
    ensure!(get("joe", "/version")? == 403);
    ensure!(get("jane", "/version")? == 200);
    ensure!(asked_about(&asked, "joe") == 0);

    // The file counts while the server runs: what cannot be used changes nothing, a webhook may go.
    let file = plane.path("authorization.yaml");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&file)?)?;
    let authorizers = config["authorizers"].as_array_mut().context("authorizers")?;
    authorizers.push(json!({"type": "AlwaysAllow", "name": "everything"}));
    std::fs::write(&file, config.to_string())?;
    eventually("the server says why it keeps what it has", RELOAD, || {
        let log = std::fs::read_to_string(plane.path("apiserver.log"))?;
        ensure!(log.contains("AlwaysAllow cannot be added"), "{log}");
        Ok(())
    })?;
    ensure!(get("joe", "/api/v1/nodes")? == 403);
    config["authorizers"] = json!([{"type": "RBAC", "name": "rbac"}]);
    std::fs::write(&file, config.to_string())?;
    eventually("the webhooks are asked no more", RELOAD, || {
        let codes = [get("jane", "/api/v1/nodes")?, get("joe", "/version")?];
        ensure!(codes == [403, 200], "{codes:?}");
        Ok(())
    })
}

/// A question about one namespace is asked there, by whoever may ask in it.
#[test]
fn reviews_are_about_their_namespace() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let rules = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let rule = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    plane.create(
        &format!("{rules}/roles"),
        &json!({"metadata": {"name": "lister"}, "rules": [rule]}),
    )?;
    let subject = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "lister"});
    plane.create(
        &format!("{rules}/rolebindings"),
        &json!({"metadata": {"name": "lister"}, "subjects": [subject], "roleRef": role}),
    )?;
    let reviews = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews";
    let asked = |spec: Value| {
        plane.admin(
            "POST",
            reviews,
            Some(&json!({"metadata": {"namespace": "default"}, "spec": spec}).to_string()),
        )
    };
    let about = |namespace: &str, verb: &str| {
        json!({"user": "jane",
        "resourceAttributes": {"namespace": namespace, "verb": verb, "resource": "pods"}})
    };
    for (verb, allowed) in [("list", true), ("delete", false)] {
        let review = plane.create(
            reviews,
            &json!({"metadata": {"namespace": "default"}, "spec": about("default", verb)}),
        )?;
        ensure!(review["status"]["allowed"] == json!(allowed), "{review}");
    }
    let elsewhere = asked(about("kube-system", "list"))?;
    ensure!(
        elsewhere.code == 422 && elsewhere.body.contains("must match metadata.namespace"),
        "{elsewhere:?}"
    );
    let named = json!({"metadata": {"name": "mine"}, "spec": about("default", "list")});
    let named = plane.admin("POST", reviews, Some(&named.to_string()))?;
    ensure!(
        named.code == 422 && named.body.contains("must be empty except for namespace"),
        "{named:?}"
    );
    let path = json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/healthz"}});
    let path = asked(path)?;
    ensure!(
        path.code == 422 && path.body.contains("disallowed on this kind of request"),
        "{path:?}"
    );
    Ok(())
}
