//! Lists and watches of moments: past ones that are known no more, ones to come, and how they are asked for.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::{Answer, Socket, Wire};
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn up() -> Result<(ControlPlane, Wire)> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let admin = Wire::connect(&plane, "admin").await?;
    Ok((plane, admin))
}

async fn map(admin: &Wire, name: &str) -> Result<i64> {
    version(
        &admin
            .create(
                MAPS,
                &json!({"metadata": {"name": name, "labels": {"mine": "yes"}}}),
            )
            .await?,
    )
}

fn version(object: &Value) -> Result<i64> {
    let version = object["metadata"]["resourceVersion"].as_str();
    Ok(version.with_context(|| object.to_string())?.parse()?)
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array();
    let items = items.into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .collect()
}

/// A refusal with this code and reason whose message begins so.
fn refused(answer: &Answer, code: u16, reason: &str, message: &str) -> Result<Value> {
    let status = answer.json()?;
    is_refusal(&status, code, reason, message)?;
    ensure!(answer.code == code, "{answer:?}");
    Ok(status)
}

fn is_refusal(status: &Value, code: u16, reason: &str, message: &str) -> Result<()> {
    let told = status["message"].as_str().unwrap_or_default();
    ensure!(
        status["kind"] == "Status"
            && status["code"] == code
            && status["reason"] == reason
            && told.starts_with(message),
        "{status}"
    );
    Ok(())
}

fn is_too_large(status: &Value, version: i64) -> Result<()> {
    let message = format!("Timeout: Too large resource version: {version}, current: ");
    is_refusal(status, 504, "Timeout", &message)?;
    let details = json!({
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    });
    ensure!(status["details"] == details, "{status}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_to_come_is_waited_for_but_not_for_long() -> Result<()> {
    let (_plane, admin) = up().await?;
    let now = map(&admin, "first").await?;
    let later = now + 1_000_000;
    for path in [
        format!("{MAPS}?resourceVersion={later}"),
        format!("{MAPS}?resourceVersion={later}&resourceVersionMatch=NotOlderThan"),
        format!("{MAPS}?resourceVersion={later}&resourceVersionMatch=Exact"),
        format!("{MAPS}/first?resourceVersion={later}"),
    ] {
        let answer = admin.get(&path).await?;
        ensure!(
            answer.code == 504 && answer.header("retry-after") == "1",
            "{answer:?}"
        );
        is_too_large(&answer.json()?, later)?;
    }
    // A watch that begins with the objects of that moment says so as an event.
    let initial = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = admin.watch(&format!("{initial}&resourceVersion={later}")).await?;
    let event = events.one().await?;
    ensure!(event["type"] == "ERROR", "{event}");
    is_too_large(&event["object"], later)?;

    // What comes in time is waited for.
    let soon = version(&admin.get(MAPS).await?.json()?)? + 5;
    let waiting = admin.clone();
    let list = tokio::spawn(async move { waiting.get(&format!("{MAPS}?resourceVersion={soon}")).await });
    for number in 0..5 {
        map(&admin, &format!("soon-{number}")).await?;
    }
    let list = list.await??;
    ensure!(list.code == 200 && version(&list.json()?)? >= soon, "{list:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_of_what_is_to_come_begins_at_once() -> Result<()> {
    let (_plane, admin) = up().await?;
    let later = map(&admin, "map").await? + 20;
    let mut events = admin
        .watch(&format!(
            "{MAPS}?watch=true&resourceVersion={later}&labelSelector=mine"
        ))
        .await?;
    let mut written = 0;
    for turn in 0.. {
        if written > later {
            break;
        }
        let patched = admin
            .ask("PUT", &format!("{MAPS}/map"), Some(&json!({
                "metadata": {"name": "map", "labels": {"mine": "yes"}}, "data": {"turn": turn.to_string()},
            })))
            .await?;
        written = version(&patched.json()?)?;
    }
    let event = events.one().await?;
    ensure!(version(&event["object"])? == written, "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_whose_moment_is_gone_can_be_gone_on_with() -> Result<()> {
    let (mut plane, admin) = up().await?;
    let mut old = 0;
    for name in ["a", "b", "c", "d"] {
        old = map(&admin, name).await?;
    }
    let page = admin
        .get(&format!("{MAPS}?limit=2&labelSelector=mine"))
        .await?
        .json()?;
    ensure!(names(&page) == ["a", "b"], "{page}");
    let token = page["metadata"]["continue"]
        .as_str()
        .context("a token")?
        .to_owned();
    let now = map(&admin, "e").await?;
    // Of the moment of the first page, as long as that is known.
    let rest = admin
        .get(&format!("{MAPS}?limit=9&labelSelector=mine&continue={token}"))
        .await?
        .json()?;
    ensure!(
        names(&rest) == ["c", "d"] && version(&rest)? == version(&page)?,
        "{rest}"
    );

    // The server forgets its past, and so does the store.
    plane.restart(Vec::new())?;
    plane.etcdctl(&["compact", &now.to_string()])?;
    let admin = Wire::connect(&plane, "admin").await?;
    let gone = admin
        .get(&format!("{MAPS}?limit=9&labelSelector=mine&continue={token}"))
        .await?;
    let status = refused(
        &gone,
        410,
        "Expired",
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    )?;
    let token = status["metadata"]["continue"].as_str().context("a token")?;
    let inside: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token)?)?;
    ensure!(inside["rv"] == -1 && inside["v"] == "meta.k8s.io/v1", "{inside}");
    let rest = admin
        .get(&format!("{MAPS}?limit=2&labelSelector=mine&continue={token}"))
        .await?
        .json()?;
    ensure!(names(&rest) == ["c", "d"] && version(&rest)? >= now, "{rest}");
    // What was written since is there, too.
    let token = rest["metadata"]["continue"].as_str().context("a token")?;
    let rest = admin
        .get(&format!("{MAPS}?limit=2&labelSelector=mine&continue={token}"))
        .await?
        .json()?;
    ensure!(names(&rest) == ["e"], "{rest}");

    let exact = admin
        .get(&format!(
            "{MAPS}?resourceVersion={old}&resourceVersionMatch=Exact"
        ))
        .await?;
    let message = "The resourceVersion for the provided list is too old.";
    refused(&exact, 410, "Expired", message)?;
    // Not older than that is what there is now.
    let list = admin
        .get(&format!(
            "{MAPS}?resourceVersion={old}&resourceVersionMatch=NotOlderThan&labelSelector=mine"
        ))
        .await?
        .json()?;
    ensure!(names(&list).len() == 5, "{list}");

    let mut events = admin
        .watch(&format!("{MAPS}?watch=true&resourceVersion=1"))
        .await?;
    let event = events.one().await?;
    ensure!(event["type"] == "ERROR", "{event}");
    is_refusal(&event["object"], 410, "Expired", "too old resource version: 1 (")?;
    ensure!(events.next().await?.is_none(), "nothing follows");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_may_begin_with_what_there_is() -> Result<()> {
    let (_plane, admin) = up().await?;
    for name in ["a", "b"] {
        map(&admin, name).await?;
    }
    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&labelSelector=mine"
    );
    let mut events = admin.watch(&format!("{path}&allowWatchBookmarks=true")).await?;
    let mut last = 0;
    for name in ["a", "b"] {
        let event = events.one().await?;
        ensure!(
            event["type"] == "ADDED" && event["object"]["metadata"]["name"] == name,
            "{event}"
        );
        last = version(&event["object"])?;
    }
    let end = events.one().await?;
    let metadata = &end["object"]["metadata"];
    ensure!(
        end["type"] == "BOOKMARK"
            && end["object"]["kind"] == "ConfigMap"
            && metadata["annotations"] == json!({"k8s.io/initial-events-end": "true"})
            && version(&end["object"])? >= last,
        "{end}"
    );
    let written = map(&admin, "c").await?;
    let event = events.one().await?;
    ensure!(
        event["type"] == "ADDED" && version(&event["object"])? == written,
        "{event}"
    );

    // Who wants no bookmarks gets none.
    let mut events = admin.watch(&path).await?;
    for name in ["a", "b", "c"] {
        ensure!(events.one().await?["object"]["metadata"]["name"] == name);
    }
    map(&admin, "d").await?;
    let event = events.one().await?;
    ensure!(event["object"]["metadata"]["name"] == "d", "{event}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused() -> Result<()> {
    let (_plane, admin) = up().await?;
    let unless = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided";
    let with_continue =
        "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided";
    let zero = "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
    let unknown = "resourceVersionMatch: Unsupported value: \"Nope\": supported values: \"Exact\", \"NotOlderThan\", \"\"";
    let for_list = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list";
    let requires = "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
    let for_watch = "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless \
                     sendInitialEvents is provided";
    for (query, message) in [
        ("resourceVersionMatch=Exact", unless),
        (
            "resourceVersionMatch=NotOlderThan&resourceVersion=5&continue=x",
            with_continue,
        ),
        ("resourceVersionMatch=Exact&resourceVersion=0", zero),
        ("resourceVersionMatch=Nope&resourceVersion=5", unknown),
        ("sendInitialEvents=true", for_list),
        ("watch=true&sendInitialEvents=true", requires),
        ("watch=true&resourceVersionMatch=NotOlderThan", for_watch),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await?;
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {message}");
        refused(&answer, 422, "Invalid", &message).with_context(|| query.to_owned())?;
    }
    let token = URL_SAFE_NO_PAD.encode(r#"{"v":"meta.k8s.io/v1","rv":5,"start":"a\u0000"}"#);
    let both = format!("resourceVersion=5&continue={token}");
    for (query, message) in [
        ("resourceVersion=yesterday", "invalid resource version"),
        (
            "continue=nonsense",
            "invalid continue token: continue key is not valid: ",
        ),
        (
            both.as_str(),
            "specifying resource version is not allowed when using continue",
        ),
    ] {
        let answer = admin.get(&format!("{MAPS}?{query}")).await?;
        refused(&answer, 400, "BadRequest", message)?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_watch_over_websocket() -> Result<()> {
    const TEXT: u8 = 0x81;
    const CLOSE: u8 = 0x88;
    let (plane, admin) = up().await?;
    map(&admin, "a").await?;
    let path = format!("{MAPS}?watch=true&labelSelector=mine");
    let offer = "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.eA, base64.binary.k8s.io\r\n";
    let mut socket = Socket::open(&plane, "admin", &path, offer).await?;
    let head = socket.head.to_lowercase();
    for line in [
        "http/1.1 101 ",
        "upgrade: websocket\r\n",
        "sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n",
        "sec-websocket-protocol: base64.binary.k8s.io\r\n",
    ] {
        ensure!(head.contains(line), "{line:?} is missing: {head}");
    }
    for name in ["a", "b"] {
        if name == "b" {
            map(&admin, name).await?;
        }
        let (kind, message) = socket.message().await?;
        let event: Value = serde_json::from_slice(&message)?;
        ensure!(
            kind == TEXT && event["type"] == "ADDED" && event["object"]["metadata"]["name"] == name,
            "{kind} {event}"
        );
    }
    socket.close().await?;
    ensure!(socket.message().await?.0 == CLOSE);

    // What is refused is refused before protocols are switched; what is too old is told as an event.
    let refused = Socket::open(&plane, "admin", &format!("{path}&sendInitialEvents=true"), "").await?;
    ensure!(refused.head.starts_with("HTTP/1.1 422 "), "{}", refused.head);
    Ok(())
}
