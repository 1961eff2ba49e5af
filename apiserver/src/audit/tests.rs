use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;

use super::event::{Event, Origin, Stage};
use super::log::{Rotating, Rotation};
use super::policy::{Level, Policy};
use super::queue::{Counts, Mode, Queue};
use crate::authentication::User;
use crate::authorization::Attributes;
use crate::authorization::attributes::Resource;

fn policy(rules: &str) -> Policy {
    Policy::parse(&format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}")).expect("a policy")
}

fn to<'a>(verb: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes::resource(
        verb,
        Resource {
            version: "v1",
            resource,
            subresource,
            namespace,
            name: "x",
            ..Resource::default()
        },
    )
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = policy(
        "omitStages: [RequestReceived]\nrules:\n\
         - {level: None, users: ['system:kube-proxy'], verbs: [watch]}\n\
         - {level: None, userGroups: [quiet], nonResourceURLs: ['/healthz*', /version]}\n\
         - {level: Request, namespaces: [kube-system], resources: [{group: '', resources: [configmaps]}]}\n\
         - {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/log', '*/status']}], omitStages: [Panic]}\n\
         - {level: RequestResponse, resources: [{group: '', resources: [pods], resourceNames: [x]}], \
            omitManagedFields: true}\n",
    );
    let somebody = User::named("somebody", []);
    let level = |attributes: &Attributes<'_>| policy.find(&somebody, attributes).level;
    assert_eq!(level(&to("get", "configmaps", "", "kube-system")), Level::Request);
    assert_eq!(level(&to("get", "configmaps", "", "default")), Level::None);
    assert_eq!(level(&to("get", "secrets", "", "default")), Level::Metadata);
    assert_eq!(level(&to("get", "pods", "log", "default")), Level::Metadata);
    assert_eq!(level(&to("update", "nodes", "status", "")), Level::Metadata);
    assert_eq!(level(&to("create", "pods", "exec", "default")), Level::None);
    let pods = policy.find(&somebody, &to("get", "pods", "", "default"));
    assert_eq!(pods.level, Level::RequestResponse);
    assert!(pods.omit_managed_fields && pods.omitted == Stage::RequestReceived.bit());
    let secrets = policy.find(&somebody, &to("get", "secrets", "", "default"));
    assert_eq!(secrets.omitted, Stage::RequestReceived.bit() | Stage::Panic.bit());
    let proxy = User::named("system:kube-proxy", []);
    assert_eq!(
        policy.find(&proxy, &to("watch", "secrets", "", "a")).level,
        Level::None
    );
    assert_eq!(
        policy.find(&proxy, &to("get", "secrets", "", "a")).level,
        Level::Metadata
    );
}

#[test]
fn policies_that_make_no_sense_are_refused() {
    for (rules, why) in [
        ("rules: []", "0 rules"),
        ("rules: [{level: Everything}]", "Unsupported value"),
        (
            "rules: [{level: None, nonResourceURLs: [healthz]}]",
            "must begin with a '/'",
        ),
        (
            "rules: [{level: None, nonResourceURLs: ['/a*b']}]",
            "must be the final character",
        ),
        (
            "rules: [{level: None, nonResourceURLs: [/a], namespaces: [b]}]",
            "cannot apply to both",
        ),
        ("omitStages: [Never]\nrules: [{level: None}]", "allowed stages"),
        ("rules: [{levle: None}]", "levle"),
    ] {
        let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\n{rules}\n");
        let error = Policy::parse(&text).expect_err("refused");
        assert!(format!("{error:#}").contains(why), "{rules}: {error:#}");
    }
}

#[test]
fn events_look_like_upstream_s() {
    let mut headers = HeaderMap::new();
    headers.insert(
        "x-forwarded-for",
        http::HeaderValue::from_static("10.1.1.1, 10.2.2.2"),
    );
    headers.insert("user-agent", http::HeaderValue::from_static("kubectl"));
    let uri = http::Uri::from_static("/api/v1/namespaces/a/secrets?dryRun=All");
    let peer = "127.0.0.1:1".parse().expect("an address");
    let origin = Arc::new(Origin::new("id".into(), &uri, &headers, peer));
    let policy = policy("rules: [{level: Request, omitManagedFields: true}]");
    let user = User::named("jane", ["dev".to_owned()]);
    let attributes = Attributes::resource(
        "create",
        Resource {
            version: "v1",
            resource: "secrets",
            namespace: "a",
            ..Resource::default()
        },
    );
    let mut event = Event::new(origin, policy.find(&user, &attributes), &user, &attributes);
    event.request = Bytes::from_static(br#"{"metadata":{"name":"s","managedFields":[{}]},"kind":"Secret"}"#);
    event.response = Bytes::from_static(b"{\"not\":\"asked for\"}");
    event
        .annotations
        .insert("authorization.k8s.io/decision".into(), "allow".into());
    let json = event.at(Stage::ResponseComplete).json();
    assert_eq!(json["level"], "Request");
    assert_eq!(json["stage"], "ResponseComplete");
    assert_eq!(json["user"]["groups"][0], "dev");
    assert_eq!(
        json["sourceIPs"],
        serde_json::json!(["10.1.1.1", "10.2.2.2", "127.0.0.1"])
    );
    assert_eq!(json["objectRef"]["name"], "s");
    assert_eq!(json["objectRef"]["apiVersion"], "v1");
    assert_eq!(
        json["requestObject"]["metadata"],
        serde_json::json!({"name": "s"})
    );
    assert!(json.get("responseObject").is_none());
    assert_eq!(json["annotations"]["authorization.k8s.io/decision"], "allow");
    let stamp = json["stageTimestamp"].as_str().expect("a time");
    assert!(
        stamp.ends_with('Z') && stamp.len() == "2026-01-01T00:00:00.000000Z".len(),
        "{stamp}"
    );
}

#[test]
fn full_files_are_put_aside_and_old_ones_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    let rotation = Rotation {
        path: path.clone(),
        size: 10,
        age: 0,
        backups: 2,
        compress: false,
    };
    let mut log = Rotating::open(rotation).expect("a log");
    for line in [
        "one two\n",
        "three four five six\n",
        "seven\n",
        "eight\n",
        "nine ten\n",
    ] {
        log.write(line.as_bytes()).expect("written");
    }
    assert_eq!(std::fs::read_to_string(&path).expect("the log"), "nine ten\n");
    let names = std::fs::read_dir(folder.path()).expect("a folder");
    let mut aside: Vec<String> = names
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name != "audit.log")
        .collect();
    aside.sort();
    assert_eq!(aside.len(), 2, "{aside:?}");
    let last = std::fs::read_to_string(folder.path().join(&aside[1])).expect("readable");
    assert_eq!(last, "eight\n");
}

fn some_event() -> Arc<Event> {
    let policy = policy("rules: [{level: Metadata}]\n");
    let user = User::named("somebody", []);
    let attributes = to("get", "pods", "", "default");
    let found = policy.find(&user, &attributes);
    let peer = "127.0.0.1:1".parse().expect("an address");
    let uri = http::Uri::from_static("/");
    let origin = Origin::new("id".into(), &uri, &HeaderMap::new(), peer);
    Arc::new(Event::new(Arc::new(origin), found, &user, &attributes))
}

#[test]
fn a_full_queue_drops_and_counts() {
    let registry = keelson_daemon::metrics::Metrics::new();
    let (queue, inbox) = Queue::new("log", 2, Mode::Batch, Counts::new(&registry));
    for _ in 0..5 {
        queue.send(some_event());
    }
    assert_eq!(inbox.try_iter().count(), 2);
    let shown = registry.encode();
    assert!(
        shown.contains("apiserver_audit_error_total{plugin=\"log\"} 3"),
        "{shown}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_holds_up_who_fills_it_and_nobody_else() {
    let (queue, inbox) = Queue::new("log", 2, Mode::Blocking, Counts::default());
    let filling = tokio::spawn(async move {
        for _ in 0..5 {
            queue.send(some_event());
        }
    });
    // Others are served while one waits.
    tokio::spawn(async {}).await.expect("served");
    let written = tokio::task::spawn_blocking(move || inbox.iter().count());
    filling.await.expect("everything was sent");
    assert_eq!(written.await.expect("counted"), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_log_has_requests_wait_until_they_are_written_down() {
    let registry = keelson_daemon::metrics::Metrics::new();
    let counts = Counts::new(&registry);
    let (queue, inbox) = Queue::new("log", 2, Mode::BlockingStrict, counts.clone());
    let writing = std::thread::spawn(move || {
        // The disk takes the first event, not the second, and then the log is no more.
        for kept in [true, false] {
            inbox.recv().expect("an event").kept(kept);
        }
    });
    let asking = tokio::spawn(async move {
        let answers = [queue.admit(some_event()), queue.admit(some_event())];
        (answers, queue)
    });
    let (answers, queue) = asking.await.expect("answered");
    assert_eq!(answers, [true, false]);
    writing.join().expect("written");
    let last = tokio::spawn(async move { queue.admit(some_event()) });
    assert!(!last.await.expect("answered"));
}
