//! Controllers with no more rights than they need, and the tokens they make.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::daemons::Daemon;
use keelson_tests::process::eventually;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A controller manager beside a control plane.
fn manager(plane: &ControlPlane, more: &[String]) -> Result<Daemon> {
    let file = |name: &str| plane.path(name).display().to_string();
    plane.authority.issue("system:kube-controller-manager", &[])?;
    let mut flags = vec![
        format!("--root-ca-file={}", file("ca.crt")),
        format!("--service-account-private-key-file={}", file("ca.key")),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        "--controllers=*,bootstrap-signer-controller,token-cleaner-controller".into(),
    ];
    flags.extend_from_slice(more);
    plane.daemon(
        "kube-controller-manager",
        "system-kube-controller-manager",
        &flags,
    )
}

fn made(plane: &ControlPlane, path: &str, object: &Value) -> Result<Value> {
    let answer = plane.admin("POST", path, Some(&object.to_string()))?;
    ensure!(answer.code == 201, "{answer:?}");
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
    let _manager = manager(&plane, &[])?;
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
        let secret = plane.read(&path)?;
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
        let secret = plane.read(&path)?;
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
    let _manager = manager(&plane, &[])?;
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
        plane.read("/api/v1/namespaces/kube-public")
    })?;
    made(
        &plane,
        maps,
        &json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": "apiVersion: v1\n"}}),
    )?;
    let info = format!("{maps}/cluster-info");
    eventually("the description is signed", PATIENCE, || {
        let map = plane.read(&info)?;
        let signature = map["data"]["jws-kubeconfig-keeper"].as_str().unwrap_or_default();
        ensure!(signature.contains(".."), "{map}");
        Ok(())
    })?;
    let passer = format!("{secrets}/bootstrap-token-passer");
    eventually("the token that has ended is gone", PATIENCE, || {
        gone(&plane, &passer)
    })?;
    eventually("and its signature", PATIENCE, || {
        let map = plane.read(&info)?;
        ensure!(map["data"].get("jws-kubeconfig-passer").is_none(), "{map}");
        Ok(())
    })?;
    plane.read(&format!("{secrets}/bootstrap-token-keeper")).map(drop)
}

#[test]
fn every_controller_works_under_its_own_account() -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let _manager = manager(
        &plane,
        &[
            "--allocate-node-cidrs=true".into(),
            "--cluster-cidr=10.244.0.0/16".into(),
            format!("--cluster-signing-cert-file={}", plane.path("ca.crt").display()),
            format!("--cluster-signing-key-file={}", plane.path("ca.key").display()),
        ],
    )?;
    made(
        &plane,
        "/api/v1/namespaces",
        &json!({"metadata": {"name": "work"}}),
    )?;
    eventually("the namespace has its account", PATIENCE, || {
        plane.read("/api/v1/namespaces/work/serviceaccounts/default")
    })?;
    // A node that does not say that it is ready is given no daemon's pods.
    made(
        &plane,
        "/api/v1/nodes",
        &json!({
            "metadata": {"name": "n1"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }),
    )?;
    made(
        &plane,
        "/api/v1/namespaces/work/resourcequotas",
        &json!({
            "metadata": {"name": "q"}, "spec": {"hard": {"pods": "50"}},
        }),
    )?;
    let template = json!({
        "metadata": {"labels": {"app": "a"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    });
    let set = |kind: &str| {
        json!({
            "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": kind.to_lowercase()},
            "spec": {"selector": {"matchLabels": {"app": "a"}}, "serviceName": "s", "template": template},
        })
    };
    let apps = "/apis/apps/v1/namespaces/work";
    for (plural, kind) in [
        ("deployments", "Deployment"),
        ("statefulsets", "StatefulSet"),
        ("daemonsets", "DaemonSet"),
    ] {
        let mut object = set(kind);
        if kind != "StatefulSet" {
            object["spec"]
                .as_object_mut()
                .context("a spec")?
                .remove("serviceName");
        }
        made(&plane, &format!("{apps}/{plural}"), &object)?;
    }
    let mut of_job = template.clone();
    of_job["spec"]["restartPolicy"] = json!("Never");
    made(
        &plane,
        "/apis/batch/v1/namespaces/work/jobs",
        &json!({"metadata": {"name": "brief"}, "spec": {"template": of_job, "ttlSecondsAfterFinished": 1, "completions": 0}}),
    )?;
    made(
        &plane,
        "/apis/batch/v1/namespaces/work/jobs",
        &json!({"metadata": {"name": "j"}, "spec": {"template": of_job}}),
    )?;
    made(
        &plane,
        "/apis/batch/v1/namespaces/work/cronjobs",
        &json!({
            "metadata": {"name": "cj"},
            "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": of_job}}},
        }),
    )?;
    made(
        &plane,
        "/api/v1/namespaces/work/replicationcontrollers",
        &json!({
            "metadata": {"name": "rc"}, "spec": {"replicas": 1, "selector": {"app": "rc"}, "template": {
                "metadata": {"labels": {"app": "rc"}}, "spec": template["spec"]}},
        }),
    )?;
    made(
        &plane,
        "/api/v1/namespaces/work/services",
        &json!({
            "metadata": {"name": "s"}, "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]},
        }),
    )?;
    made(
        &plane,
        "/api/v1/namespaces/work/persistentvolumeclaims",
        &json!({
            "metadata": {"name": "claim"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }),
    )?;
    eventually("every controller has done its part", PATIENCE, || {
        let pods = plane.read("/api/v1/namespaces/work/pods")?;
        let mut owners: Vec<String> = Vec::new();
        for pod in pods["items"].as_array().context("pods")? {
            let owner = pod["metadata"]["ownerReferences"][0]["kind"]
                .as_str()
                .unwrap_or_default();
            owners.push(owner.to_owned());
        }
        for kind in [
            "ReplicaSet",
            "StatefulSet",
            "DaemonSet",
            "Job",
            "ReplicationController",
        ] {
            ensure!(
                owners.iter().any(|owner| owner == kind),
                "no pod of a {kind}: {owners:?}"
            );
        }
        plane.read("/api/v1/namespaces/work/configmaps/kube-root-ca.crt")?;
        let slices = plane.read("/apis/discovery.k8s.io/v1/namespaces/work/endpointslices")?;
        ensure!(
            slices["items"].as_array().is_some_and(|items| !items.is_empty()),
            "{slices}"
        );
        let quota = plane.read("/api/v1/namespaces/work/resourcequotas/q")?;
        ensure!(quota["status"]["used"]["pods"].is_string(), "{quota}");
        let node = plane.read("/api/v1/nodes/n1")?;
        ensure!(node["spec"]["podCIDR"].is_string(), "{node}");
        let view = plane.read("/apis/rbac.authorization.k8s.io/v1/clusterroles/view")?;
        ensure!(view["rules"].is_array(), "{view}");
        gone(&plane, "/apis/batch/v1/namespaces/work/jobs/brief")
    })?;
    // Somebody deletes an account: it is made again, and its controller works on.
    let account = "/api/v1/namespaces/kube-system/serviceaccounts/replicaset-controller";
    plane.admin("DELETE", account, None)?;
    eventually("the account is there again", PATIENCE, || plane.read(account))?;
    let scale = json!({
        "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "deployment", "namespace": "work"},
        "spec": {"replicas": 3},
    });
    let scaled = plane.admin(
        "PUT",
        &format!("{apps}/deployments/deployment/scale"),
        Some(&scale.to_string()),
    )?;
    ensure!(scaled.code == 200, "{scaled:?}");
    eventually("the set has its pods", PATIENCE, || {
        let sets = plane.read(&format!("{apps}/replicasets"))?;
        ensure!(sets["items"][0]["status"]["replicas"] == 3, "{sets}");
        Ok(())
    })?;
    // The process itself may do next to nothing.
    let itself = plane.certificate("system-kube-controller-manager");
    for (method, path) in [
        ("DELETE", "/api/v1/nodes/n1"),
        ("POST", "/api/v1/namespaces/work/pods"),
    ] {
        let answer = plane.curl(method, path, Some("{}"), &itself)?;
        ensure!(answer.code == 403, "{method} {path}: {answer:?}");
    }
    // Deleted in the background, with everything it owns; then everything in the namespace.
    plane.admin(
        "DELETE",
        &format!("{apps}/deployments/deployment?propagationPolicy=Background"),
        None,
    )?;
    eventually("what the deployment owned is gone", PATIENCE, || {
        let sets = plane.read(&format!("{apps}/replicasets"))?;
        ensure!(sets["items"].as_array().is_some_and(Vec::is_empty), "{sets}");
        Ok(())
    })?;
    plane.admin("DELETE", "/api/v1/namespaces/work", None)?;
    eventually("the namespace is gone", PATIENCE, || {
        gone(&plane, "/api/v1/namespaces/work")
    })?;
    let log = std::fs::read_to_string(plane.path("kube-controller-manager.log"))?;
    let refused: Vec<&str> = log.lines().filter(|line| line.contains("forbidden")).collect();
    ensure!(refused.is_empty(), "{}", refused.join("\n"));
    let accounts = plane.read("/api/v1/namespaces/kube-system/serviceaccounts")?;
    for account in [
        "deployment-controller",
        "generic-garbage-collector",
        "node-controller",
    ] {
        let there = accounts["items"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one["metadata"]["name"] == account));
        ensure!(there, "{account}");
    }
    Ok(())
}
