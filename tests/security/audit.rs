//! What is written down about requests, and where it goes.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::process::eventually;
use serde_json::Value;

use crate::servers::{http, webhook_config};
use keelson_tests::control_plane::ControlPlane;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ['system:apiserver']}
- {level: None, nonResourceURLs: ['/readyz*']}
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], omitManagedFields: true}
- {level: Metadata, omitStages: []}
";

const PATIENCE: Duration = Duration::from_secs(30);

fn events(log: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn event(log: &std::path::Path, id: &str, stage: &str) -> Result<Value> {
    eventually("the event is in the log", PATIENCE, || {
        let found = events(log)?
            .into_iter()
            .find(|event| event["auditID"] == id && event["stage"] == stage);
        found.with_context(|| format!("{id} {stage}"))
    })
}

fn named(id: &str, args: Vec<String>) -> Vec<String> {
    let mut all = vec!["-H".to_owned(), format!("Audit-ID: {id}")];
    all.extend(args);
    all
}

#[test]
fn requests_are_recorded_as_the_policy_asks() -> Result<()> {
    let (sent, batches) = mpsc::channel();
    let sent = Mutex::new(sent);
    let port = http(Arc::new(move |_, body| {
        sent.lock().ok()?.send(body.to_owned()).ok()?;
        Some("{}".to_owned())
    }))?;
    let plane = ControlPlane::up(|folder, authority| {
        authority.issue("jane", &["dev"])?;
        std::fs::write(folder.join("policy.yaml"), POLICY)?;
        let webhook = webhook_config(&format!("http://127.0.0.1:{port}/audit"));
        std::fs::write(folder.join("webhook.yaml"), webhook)?;
        Ok(vec![
            format!("--audit-policy-file={}", folder.join("policy.yaml").display()),
            format!("--audit-log-path={}", folder.join("audit.log").display()),
            format!(
                "--audit-webhook-config-file={}",
                folder.join("webhook.yaml").display()
            ),
            "--audit-webhook-batch-max-wait=1s".into(),
        ])
    })?;
    let log = plane.path("audit.log");
    let maps = "/api/v1/namespaces/default/configmaps";

    // With what it brought and what it was answered.
    let body = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"b"}}"#;
    let made = plane.curl(
        "POST",
        maps,
        Some(body),
        &named("make-c", plane.certificate("admin")),
    )?;
    ensure!(
        made.code == 201 && made.headers.to_lowercase().contains("audit-id: make-c"),
        "{made:?}"
    );
    let done = event(&log, "make-c", "ResponseComplete")?;
    ensure!(done["requestObject"]["data"]["a"] == "b", "{done}");
    ensure!(done["responseObject"]["metadata"]["uid"].is_string(), "{done}");
    ensure!(
        done["responseObject"]["metadata"].get("managedFields").is_none(),
        "{done}"
    );
    ensure!(
        done["responseStatus"]["code"] == 201 && done["objectRef"]["name"] == "c",
        "{done}"
    );
    ensure!(
        done["user"]["username"] == "admin" && done["verb"] == "create",
        "{done}"
    );
    ensure!(
        done["annotations"]["authorization.k8s.io/decision"] == "allow",
        "{done}"
    );

    // A refusal, with who was refused and why; the names of secrets, not what is in them.
    let secret = r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"s"},"stringData":{"k":"v"}}"#;
    let secrets = "/api/v1/namespaces/default/secrets";
    let refused = plane.curl(
        "POST",
        secrets,
        Some(secret),
        &named("no-s", plane.certificate("jane")),
    )?;
    ensure!(refused.code == 403, "{refused:?}");
    let done = event(&log, "no-s", "ResponseComplete")?;
    ensure!(
        done["responseStatus"]["reason"] == "Forbidden" && done["user"]["username"] == "jane",
        "{done}"
    );
    ensure!(
        done["annotations"]["authorization.k8s.io/decision"] == "forbid",
        "{done}"
    );
    ensure!(done.get("requestObject").is_none(), "{done}");

    // Acting as somebody else shows both.
    let mut acting = named("as-jane", plane.certificate("admin"));
    acting.extend(["-H".to_owned(), "Impersonate-User: jane".to_owned()]);
    plane.curl("GET", "/api/v1/nodes", None, &acting)?;
    let done = event(&log, "as-jane", "ResponseComplete")?;
    ensure!(
        done["user"]["username"] == "admin" && done["impersonatedUser"]["username"] == "jane",
        "{done}"
    );

    // A watch is noted when it begins and when it ends.
    let watch = named("watch-pods", plane.certificate("admin"));
    plane.curl("GET", "/api/v1/pods?watch=true&timeoutSeconds=1", None, &watch)?;
    event(&log, "watch-pods", "ResponseStarted")?;
    event(&log, "watch-pods", "ResponseComplete")?;

    // Somebody who is nobody.
    let stranger = named("who", vec!["-H".into(), "Authorization: Bearer nonsense".into()]);
    ensure!(plane.curl("GET", "/api/v1/pods", None, &stranger)?.code == 401);
    let done = event(&log, "who", "ResponseStarted")?;
    ensure!(done["responseStatus"]["code"] == 401, "{done}");
    ensure!(
        done["responseStatus"]["message"]
            .as_str()
            .unwrap_or_default()
            .contains("bearer"),
        "{done}"
    );

    // What rules leave out is not there, and the webhook has been told the same.
    let all = events(&log)?;
    ensure!(all.iter().all(|event| event["stage"] != "RequestReceived"));
    ensure!(all.iter().all(|event| event["requestURI"] != "/readyz"));
    let told = |id: &str| -> Result<()> {
        loop {
            let list: Value = serde_json::from_str(&batches.recv_timeout(PATIENCE)?)?;
            ensure!(
                list["kind"] == "EventList" && list["apiVersion"] == "audit.k8s.io/v1",
                "{list}"
            );
            if list["items"]
                .as_array()
                .is_some_and(|items| items.iter().any(|e| e["auditID"] == id))
            {
                return Ok(());
            }
        }
    };
    told("who")
}

/// A log that nothing can be written to.
#[test]
fn what_cannot_be_written_down_is_not_done_where_the_log_is_strict() -> Result<()> {
    let flags = |folder: &std::path::Path, mode: &str| {
        vec![
            format!("--audit-policy-file={}", folder.join("policy.yaml").display()),
            "--audit-log-path=/dev/full".to_owned(),
            format!("--audit-log-mode={mode}"),
        ]
    };
    let mut own = Vec::new();
    let mut plane = ControlPlane::up(|folder, _| {
        let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n\
                      - {level: Metadata, resources: [{group: '', resources: [configmaps]}], users: [admin]}\n";
        std::fs::write(folder.join("policy.yaml"), policy)?;
        own = flags(folder, "blocking");
        Ok(flags(folder, "blocking-strict"))
    })?;
    let maps = "/api/v1/namespaces/default/configmaps";
    let refused = plane.admin("GET", maps, None)?;
    ensure!(
        refused.code == 500 && refused.body.contains("failed to store audit event"),
        "{refused:?}"
    );
    ensure!(
        plane
            .admin("GET", "/api/v1/namespaces/default/secrets", None)?
            .code
            == 200
    );
    let metrics = plane.admin("GET", "/metrics", None)?.body;
    for line in [
        "apiserver_audit_requests_rejected_total 1",
        "apiserver_audit_event_total 1",
        "apiserver_audit_error_total{plugin=\"log\"} 1",
    ] {
        ensure!(metrics.contains(line), "{line}: {metrics}");
    }
    plane.restart(own)?;
    ensure!(plane.admin("GET", maps, None)?.code == 200);
    eventually("what is lost is counted", PATIENCE, || {
        let metrics = plane.admin("GET", "/metrics", None)?.body;
        ensure!(
            metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 2"),
            "{metrics}"
        );
        Ok(())
    })
}
