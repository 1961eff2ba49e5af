//! Tokens that controllers make, sign with and remove.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::{Value, json};

use crate::control_plane::{ControlPlane, Daemon, free_port, start};

const PATIENCE: Duration = Duration::from_secs(60);

/// A controller manager beside a control plane.
fn manager(plane: &ControlPlane) -> Result<Daemon> {
    let file = |name: &str| plane.path(name).display().to_string();
    plane.authority.issue("system:kube-controller-manager", &[])?;
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\nclusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:{}', \
         certificate-authority: '{}'}}}}]\nusers: [{{name: u, user: {{client-certificate: '{}', client-key: '{}'}}}}]\n\
         contexts: [{{name: c, context: {{cluster: a, user: u}}}}]\ncurrent-context: c\n",
        plane.port,
        file("ca.crt"),
        file("system-kube-controller-manager.crt"),
        file("system-kube-controller-manager.key"),
    );
    std::fs::write(plane.path("manager.conf"), kubeconfig)?;
    let args = vec![
        format!("--kubeconfig={}", file("manager.conf")),
        format!("--secure-port={}", free_port()?),
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("ca.key")),
        "--leader-elect=false".into(),
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller".into(),
    ];
    start("kube-controller-manager", &args, &plane.path("manager.log"))
}

fn made(plane: &ControlPlane, path: &str, object: &Value) -> Result<Value> {
    let answer = plane.admin("POST", path, Some(&object.to_string()))?;
    ensure!(answer.code == 201, "{answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

fn read(plane: &ControlPlane, path: &str) -> Result<Value> {
    let answer = plane.admin("GET", path, None)?;
    ensure!(answer.code == 200, "{answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

fn gone(plane: &ControlPlane, path: &str) -> Result<()> {
    let answer = plane.admin("GET", path, None)?;
    ensure!(answer.code == 404, "{answer:?}");
    Ok(())
}

#[test]
fn tokens_in_secrets_live_as_long_as_their_accounts() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let _manager = manager(&plane)?;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let secrets = "/api/v1/namespaces/default/secrets";
    made(&plane, accounts, &json!({"metadata": {"name": "robot"}}))?;
    let secret = |name: &str, account: &str| {
        json!({
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
            "type": "kubernetes.io/service-account-token",
        })
    };
    made(&plane, secrets, &secret("robot-token", "robot"))?;
    let path = format!("{secrets}/robot-token");
    let filled = eventually("the secret has a token", PATIENCE, || {
        let secret = read(&plane, &path)?;
        ensure!(secret["data"]["token"].is_string(), "{secret}");
        Ok(secret)
    })?;
    ensure!(
        filled["data"]["ca.crt"].is_string() && filled["data"]["namespace"] == "ZGVmYXVsdA==",
        "{filled}"
    );
    use base64::Engine as _;
    let token = base64::engine::general_purpose::STANDARD
        .decode(filled["data"]["token"].as_str().context("text")?)?;
    let token = String::from_utf8(token)?;

    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let who = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let robot = plane.bearer(&token, "POST", who, Some(&review))?;
    ensure!(
        robot.code == 201 && robot.body.contains("system:serviceaccount:default:robot"),
        "{robot:?}"
    );
    eventually("the use is noted", PATIENCE, || {
        let secret = read(&plane, &path)?;
        ensure!(
            secret["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"].is_string(),
            "{secret}"
        );
        Ok(())
    })?;

    // A secret for an account that is not there is not kept; an account takes its secrets with it.
    made(&plane, secrets, &secret("nobody-token", "nobody"))?;
    eventually("the secret of nobody is gone", PATIENCE, || {
        gone(&plane, &format!("{secrets}/nobody-token"))
    })?;
    plane.admin("DELETE", &format!("{accounts}/robot"), None)?;
    eventually("the secret is gone", PATIENCE, || gone(&plane, &path))?;
    let refused = plane.bearer(&token, "POST", who, Some(&review))?;
    ensure!(refused.code == 401, "{refused:?}");
    Ok(())
}

#[test]
fn bootstrap_tokens_sign_and_end() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let _manager = manager(&plane)?;
    let secrets = "/api/v1/namespaces/kube-system/secrets";
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(15);
    for (id, expiration) in [
        ("keeper", "2100-01-01T00:00:00Z".to_owned()),
        ("passer", end.to_string()),
    ] {
        made(
            &plane,
            secrets,
            &json!({
                "metadata": {"name": format!("bootstrap-token-{id}")}, "type": "bootstrap.kubernetes.io/token",
                "stringData": {"token-id": id, "token-secret": "0123456789abcdef", "expiration": expiration,
                    "usage-bootstrap-signing": "true"},
            }),
        )?;
    }
    let maps = "/api/v1/namespaces/kube-public/configmaps";
    eventually("kube-public is there", PATIENCE, || {
        read(&plane, "/api/v1/namespaces/kube-public")
    })?;
    made(
        &plane,
        maps,
        &json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "apiVersion: v1\n"}}),
    )?;
    let info = format!("{maps}/cluster-info");
    eventually("the description is signed", PATIENCE, || {
        let map = read(&plane, &info)?;
        let signature = map["data"]["jws-kubeconfig-keeper"].as_str().unwrap_or_default();
        ensure!(signature.contains(".."), "{map}");
        Ok(())
    })?;
    let passer = format!("{secrets}/bootstrap-token-passer");
    eventually("the token that has ended is gone", PATIENCE, || {
        gone(&plane, &passer)
    })?;
    eventually("and its signature", PATIENCE, || {
        let map = read(&plane, &info)?;
        ensure!(map["data"].get("jws-kubeconfig-passer").is_none(), "{map}");
        Ok(())
    })?;
    read(&plane, &format!("{secrets}/bootstrap-token-keeper")).map(drop)
}
