//! Priority and fairness (KEP-1040): who floods the server stands in the way of nobody but itself.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::{Answer, Wire};
use serde_json::{Value, json};

const FLOODER: &str = "flooder";
/// The files of a kubelet's certificate.
const KUBELET: &str = "system-node-n1";
const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SCHEMA_UID: &str = "x-kubernetes-pf-flowschema-uid";
const LEVEL_UID: &str = "x-kubernetes-pf-prioritylevel-uid";
const REFUSAL: &[u8] = b"Too many requests, please try again later.\n";
/// Of 30 seats, 30 shares of 275, rounded up.
const SEATS: usize = 4;
const QUEUE: usize = 2;

const SEATED: [&str; 2] = [
    "--max-requests-inflight=20",
    "--max-mutating-requests-inflight=10",
];

fn up(flags: &[&str]) -> Result<ControlPlane> {
    ControlPlane::up(|_, authority| {
        authority.issue(FLOODER, &[])?;
        authority.issue("system:node:n1", &["system:nodes"])?;
        Ok(flags.iter().map(|flag| (*flag).to_owned()).collect())
    })
}

/// Everything the flooder needs: leave to do anything, and lists too long for the buffers in between.
async fn furnish(admin: &Wire) -> Result<()> {
    let binding = json!({
        "metadata": {"name": FLOODER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": FLOODER}],
    });
    admin
        .create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding)
        .await?;
    for number in 0..40 {
        let map =
            json!({"metadata": {"name": format!("large-{number}")}, "data": {"x": "x".repeat(100_000)}});
        admin.create(MAPS, &map).await?;
    }
    Ok(())
}

/// A level with few seats and one short queue, and a schema that puts the flooder there. Their uids.
async fn confine(admin: &Wire) -> Result<(String, String)> {
    let level = json!({
        "metadata": {"name": "low"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 30, "lendablePercent": 0, "borrowingLimitPercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 1, "handSize": 1, "queueLengthLimit": QUEUE}},
        }},
    });
    let level = admin
        .create(&format!("{FLOWS}/prioritylevelconfigurations"), &level)
        .await?;
    let schema = schema("flooders", "low");
    let schema = admin.create(&format!("{FLOWS}/flowschemas"), &schema).await?;
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    Ok((uid(&level), uid(&schema)))
}

fn schema(name: &str, level: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": level},
            "matchingPrecedence": 50,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": FLOODER}}],
                "resourceRules": [
                    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true},
                ],
            }],
        },
    })
}

/// Asks until an answer is as it should be.
async fn until(
    wire: &Wire,
    path: &str,
    right: impl Fn(&Answer) -> Result<bool> + Send + Sync,
) -> Result<Answer> {
    for _ in 0..300 {
        let answer = wire.get(path).await?;
        if right(&answer)? {
            return Ok(answer);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("{path}: {:?}", wire.get(path).await?)
}

/// A figure of the flooder's level.
fn figure(metrics: &[u8], name: &str, labels: &[&str]) -> Option<f64> {
    let text = String::from_utf8_lossy(metrics);
    let line = text.lines().find(|line| {
        line.split('{').next() == Some(name)
            && line.contains(r#"priority_level="low""#)
            && labels.iter().all(|label| line.contains(label))
    });
    line?.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_all_seats_of_a_level_waits_alone() -> Result<()> {
    let plane = up(&SEATED)?;
    let admin = Wire::connect(&plane, "admin").await?;
    furnish(&admin).await?;
    let (level, schema) = confine(&admin).await?;
    let flooder = Wire::connect(&plane, FLOODER).await?;
    let told = until(&flooder, "/api/v1/namespaces", |answer| {
        Ok(answer.header(LEVEL_UID) == level)
    });
    ensure!(told.await?.header(SCHEMA_UID) == schema);

    let mut held = Vec::new();
    for _ in 0..SEATS {
        let list = flooder.begin("GET", MAPS, None).await?;
        ensure!(list.status() == 200, "{list:?}");
        held.push(list);
    }
    let waiting: Vec<_> = (0..QUEUE)
        .map(|_| {
            let flooder = flooder.clone();
            tokio::spawn(async move { flooder.get("/api/v1/namespaces").await })
        })
        .collect();
    let of_schema = [r#"flow_schema="flooders""#];
    let metrics = until(&admin, "/metrics", |answer| {
        let waiting = figure(
            &answer.body,
            "apiserver_flowcontrol_current_inqueue_requests",
            &of_schema,
        );
        Ok(waiting == Some(2.0))
    })
    .await?;
    let seats = figure(
        &metrics.body,
        "apiserver_flowcontrol_current_executing_seats",
        &[],
    );
    ensure!(seats == Some(4.0), "{seats:?}");

    let refused = flooder.get("/api/v1/namespaces").await?;
    ensure!(
        refused.code == 429 && refused.body == REFUSAL && refused.header("retry-after") == "1",
        "{refused:?}"
    );
    ensure!(
        refused.header("content-type") == "text/plain; charset=utf-8",
        "{refused:?}"
    );
    ensure!(refused.header(LEVEL_UID) == level && refused.header(SCHEMA_UID) == schema);

    // Nobody else notices.
    let kubelet = Wire::connect(&plane, KUBELET).await?;
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let created = kubelet.ask("POST", LEASES, Some(&lease)).await?;
    ensure!(created.code == 201, "{created:?}");
    let high = admin
        .get(&format!("{FLOWS}/flowschemas/system-node-high"))
        .await?
        .json()?;
    ensure!(high["metadata"]["uid"] == created.header(SCHEMA_UID), "{high}");

    let metrics = admin.get("/metrics").await?.body;
    let refusals = figure(
        &metrics,
        "apiserver_flowcontrol_rejected_requests_total",
        &[r#"flow_schema="flooders""#, r#"reason="queue-full""#],
    );
    ensure!(refusals == Some(1.0), "{refusals:?}");
    drop(held);
    for waited in waiting {
        let answer = waited.await??;
        ensure!(answer.code == 200, "{answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_is_served_while_somebody_floods() -> Result<()> {
    let plane = up(&SEATED)?;
    let admin = Wire::connect(&plane, "admin").await?;
    furnish(&admin).await?;
    let (level, _) = confine(&admin).await?;
    let flooder = Wire::connect(&plane, FLOODER).await?;
    until(&flooder, "/api/v1/namespaces", |answer| {
        Ok(answer.header(LEVEL_UID) == level)
    })
    .await?;
    let kubelet = Wire::connect(&plane, KUBELET).await?;
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    let mut lease = kubelet.create(LEASES, &lease).await?;

    let mut flood = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let flooder = Wire::connect(&plane, FLOODER).await?;
        for _ in 0..60 {
            let flooder = flooder.clone();
            flood.spawn(async move {
                let mut codes = Vec::new();
                for _ in 0..10 {
                    codes.push(flooder.get(&format!("{MAPS}?limit=5")).await?.code);
                }
                anyhow::Ok(codes)
            });
        }
    }
    for renewal in 0..20 {
        lease["spec"]["leaseDurationSeconds"] = json!(40 + renewal);
        let renewed = kubelet.ask("PUT", &format!("{LEASES}/n1"), Some(&lease)).await?;
        ensure!(renewed.code == 200, "{renewed:?}");
        lease = renewed.json()?;
    }
    let mut codes = BTreeMap::new();
    while let Some(done) = flood.join_next().await {
        for code in done?? {
            *codes.entry(code).or_insert(0) += 1;
        }
    }
    ensure!(
        codes.keys().copied().eq([200, 429]),
        "some are served, some are told to come again: {codes:?}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_fairness_who_floods_stands_in_everybodys_way() -> Result<()> {
    let plane = up(&[
        "--enable-priority-and-fairness=false",
        "--max-requests-inflight=4",
    ])?;
    let admin = Wire::connect(&plane, "admin").await?;
    furnish(&admin).await?;
    let flooder = Wire::connect(&plane, FLOODER).await?;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(flooder.begin("GET", MAPS, None).await?);
    }
    let kubelet = Wire::connect(&plane, KUBELET).await?;
    let refused = kubelet.get("/api/v1/nodes/n1").await?;
    ensure!(refused.code == 429 && refused.body == REFUSAL, "{refused:?}");
    ensure!(refused.header("retry-after") == "1" && refused.header(LEVEL_UID).is_empty());
    // Who runs the cluster gets in, and so does whoever writes.
    let admitted = admin.get("/api/v1/namespaces").await?;
    ensure!(admitted.code == 200, "{admitted:?}");
    let lease = json!({"metadata": {"name": "n1"}, "spec": {"holderIdentity": "n1"}});
    kubelet.create(LEASES, &lease).await?;
    drop(held);
    until(&kubelet, "/api/v1/nodes/n1", |answer| Ok(answer.code == 404)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_without_its_level_says_so() -> Result<()> {
    let plane = up(&SEATED)?;
    let admin = Wire::connect(&plane, "admin").await?;
    let path = format!("{FLOWS}/flowschemas");
    admin.create(&path, &schema("lost", "nowhere")).await?;
    let dangles = |wanted: &'static str| {
        move |answer: &Answer| {
            let schema = answer.json()?;
            let conditions = schema["status"]["conditions"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let dangling = conditions
                .iter()
                .find(|condition| condition["type"] == "Dangling");
            Ok(dangling.is_some_and(|condition| condition["status"] == wanted))
        }
    };
    let lost = until(&admin, &format!("{path}/lost"), dangles("True"))
        .await?
        .json()?;
    ensure!(
        lost["status"]["conditions"][0]["message"]
            == "This FlowSchema references the PriorityLevelConfiguration object named \"nowhere\" but there is no such object",
        "{lost}"
    );
    let level = json!({"metadata": {"name": "nowhere"}, "spec": {"type": "Limited", "limited": {
        "limitResponse": {"type": "Reject"}
    }}});
    admin
        .create(&format!("{FLOWS}/prioritylevelconfigurations"), &level)
        .await?;
    until(&admin, &format!("{path}/lost"), dangles("False")).await?;
    let probes = admin.get(&format!("{path}/probes")).await?.json()?;
    let reason = probes["status"]["conditions"][0]["reason"].as_str();
    ensure!(reason.context("a condition")? == "Found", "{probes}");
    Ok(())
}
