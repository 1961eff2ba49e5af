//! Events under both of their groups: one object, two sets of names, two sets of rules.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::Wire;
use serde_json::{Value, json};

const OLD: &str = "/api/v1/namespaces/default/events";
const NEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn event(name: &str) -> Value {
    json!({"metadata": {"name": name}, "type": "Normal", "reason": "Test", "action": "Do", "note": "first",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "web"}, "eventTime": "2017-09-19T13:49:16.000000Z",
        "reportingController": "test-controller", "reportingInstance": "test-node"})
}

async fn up() -> Result<(ControlPlane, Wire)> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let admin = Wire::connect(&plane, "admin").await?;
    Ok((plane, admin))
}

/// The fields that a refusal with 422 complains about.
fn causes(status: &Value) -> Result<Vec<&str>> {
    ensure!(status["code"] == 422, "{status}");
    let causes = status["details"]["causes"].as_array().context("causes")?;
    Ok(causes
        .iter()
        .filter_map(|cause| cause["field"].as_str())
        .collect())
}

#[tokio::test]
async fn each_group_selects_by_its_own_names() -> Result<()> {
    let (_plane, admin) = up().await?;
    admin.create(NEW, &event("mine")).await?;
    let other = json!({"metadata": {"name": "other"}, "involvedObject": {"namespace": "default", "name": "db"},
        "source": {"component": "other"}});
    admin.create(OLD, &other).await?;
    let found = [
        (NEW, "reportingController=test-controller"),
        (
            NEW,
            "regarding.name=web,regarding.kind=Pod,type=Normal,reason=Test",
        ),
        (NEW, "regarding.name!=db"),
        (OLD, "source=test-controller"),
        (OLD, "reportingComponent=test-controller"),
        (OLD, "involvedObject.name=web"),
    ];
    for (path, selector) in found {
        let list = admin
            .get(&format!("{path}?fieldSelector={selector}"))
            .await?
            .json()?;
        let items = list["items"]
            .as_array()
            .with_context(|| format!("{selector}: {list}"))?;
        ensure!(
            items.len() == 1 && items[0]["metadata"]["name"] == "mine",
            "{selector}: {list}"
        );
    }
    for (path, field) in [
        (NEW, "involvedObject.name"),
        (NEW, "source"),
        (OLD, "regarding.name"),
    ] {
        let refused = admin
            .get(&format!("{path}?fieldSelector={field}=x"))
            .await?
            .json()?;
        let told = refused["message"].as_str().unwrap_or_default();
        ensure!(
            refused["code"] == 400 && told.ends_with(&format!("field label not supported: {field}")),
            "{refused}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn the_new_group_asks_for_more() -> Result<()> {
    let (_plane, admin) = up().await?;
    let bad = json!({"metadata": {"name": "bad"}, "regarding": {"namespace": "default"}, "type": "Odd",
        "deprecatedCount": 1, "series": {"count": 1, "lastObservedTime": "2017-09-19T13:49:16.000000Z"}});
    let refused = admin.ask("POST", NEW, Some(&bad)).await?.json()?;
    let wanted = ["series.count", "eventTime", "type", "count"];
    ensure!(causes(&refused)? == wanted, "{refused}");

    // Who gives an event a time of its own has to say who does what, in either group.
    let timed = json!({"metadata": {"name": "bad"}, "eventTime": "2017-09-19T13:49:16.000000Z"});
    let refused = admin.ask("POST", OLD, Some(&timed)).await?.json()?;
    let fields = causes(&refused)?;
    ensure!(
        ["reportingComponent", "reportingInstance", "action", "reason"]
            .iter()
            .all(|field| fields.contains(field)),
        "{refused}"
    );

    // Only the series may change, where it came through the new group.
    let mut event = admin.create(NEW, &event("mine")).await?;
    let path = format!("{NEW}/mine");
    event["series"] = json!({"count": 2, "lastObservedTime": "2017-09-19T13:49:16.000000Z"});
    let mut event = admin.ask("PUT", &path, Some(&event)).await?.json()?;
    ensure!(event["series"]["count"] == 2, "{event}");
    event["note"] = "second".into();
    event["action"] = "Undo".into();
    let refused = admin.ask("PUT", &path, Some(&event)).await?.json()?;
    ensure!(causes(&refused)? == ["message", "action"], "{refused}");
    let mut event = admin.get(&format!("{OLD}/mine")).await?.json()?;
    event["message"] = "second".into();
    let event = admin
        .ask("PUT", &format!("{OLD}/mine"), Some(&event))
        .await?
        .json()?;
    ensure!(event["message"] == "second", "{event}");
    Ok(())
}
