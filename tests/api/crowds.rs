//! Many clients, many objects, and clients that do not read: what that costs the server in memory.
//!
//! What is stored is there once, however many clients it is on its way to. A list is made while it is read; a watcher that
//! reads nothing has only so much room for what happens, and is ended when it is full.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, bail, ensure};
use hyper::Response;
use hyper::body::Incoming;
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::{Events, Wire};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const CLIENTS: usize = 200;
/// Requests of one client under way at the same time.
const AT_ONCE: usize = 50;
/// What one client may cost, whatever it asks for: what is on its way to it, and no more.
const PER_CLIENT_KIB: u64 = 512;
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
const INDENTED: &str = "/api/v1/namespaces/default/configmaps?pretty=true";
/// A debug build is slow to write what people read.
const FEW: usize = 10;
/// Every form of the list: what it is called, its path, what is accepted, and how many ask for it; few first, before
/// others leave the server with memory to use again.
const FORMS: [(&str, &str, &str, usize); 6] = [
    ("YAML", MAPS, YAML, FEW),
    ("indented lists", INDENTED, "application/json", FEW),
    ("lists", MAPS, "application/json", CLIENTS),
    ("tables", MAPS, TABLE, CLIENTS),
    ("metadata", MAPS, METADATA, CLIENTS),
    ("protobuf", MAPS, PROTOBUF, CLIENTS),
];
/// Bytes of an object: in its metadata, which every form of it has.
const BULK: usize = 4096;
/// So much is written while nobody reads: more than a watcher has room for.
const WRITES: usize = 400;
const WRITTEN: usize = 64 << 10;

/// Does something for all clients at the same time.
async fn all<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    clients: &[Wire],
    each: impl Fn(Wire) -> F,
) -> Result<Vec<T>> {
    let mut under_way = JoinSet::new();
    for client in clients {
        under_way.spawn(each(client.clone()));
    }
    let mut done = Vec::new();
    while let Some(one) = under_way.join_next().await {
        done.push(one??);
    }
    Ok(done)
}

fn object(kind: &str, number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": kind, "metadata": {
        "name": format!("one-{number}"), "annotations": {"example.com/bulk": "x".repeat(BULK)}}})
}

async fn fill(admin: &Wire, objects: usize) -> Result<()> {
    let writers = vec![admin.clone(); AT_ONCE];
    let number = AtomicUsize::new(0);
    for _ in 0..objects / AT_ONCE {
        all(&writers, |admin| {
            let number = number.fetch_add(1, Ordering::Relaxed);
            async move { admin.create(MAPS, &object("ConfigMap", number)).await }
        })
        .await?;
    }
    Ok(())
}

/// Lists that have begun and that nobody reads.
async fn unread(clients: &[Wire], path: &'static str, form: &'static str) -> Result<Vec<Response<Incoming>>> {
    let lists = all(clients, |client| async move {
        client.begin_with("GET", path, &[("accept", form)], None).await
    })
    .await?;
    if let Some(refused) = lists.iter().find(|list| list.status() != 200) {
        bail!("{path} as {form}: {refused:?}");
    }
    Ok(lists)
}

async fn until_bookmark(events: &mut Events) -> Result<usize> {
    let mut count = 0;
    while events.one().await?["type"] != "BOOKMARK" {
        count += 1;
    }
    Ok(count)
}

async fn crowd(objects: usize) -> Result<()> {
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let server = plane.apiserver()?;
    let admin = Wire::connect(&plane, "admin").await?;
    fill(&admin, objects).await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Wire::connect(&plane, "admin").await?);
    }
    // Once for each form: what is kept for all is no client's.
    for (_, path, form, _) in FORMS {
        let list = admin.begin_with("GET", path, &[("accept", form)], None).await?;
        ensure!(list.status() == 200);
    }
    let (idle, _) = server.memory()?;
    println!("{objects} objects, {CLIENTS} connections: {idle} KiB");
    let cost = |what: &str, clients: usize| -> Result<()> {
        let (_, peak) = server.memory()?;
        let more = peak.saturating_sub(idle);
        println!("{what}: {more} KiB more at most");
        ensure!(
            more < clients as u64 * PER_CLIENT_KIB,
            "{what}: {peak} KiB, before that {idle}"
        );
        server.forget_peak()
    };
    server.forget_peak()?;

    for (name, path, form, count) in FORMS {
        drop(unread(&clients[..count], path, form).await?);
        cost(&format!("{name} that nobody reads"), count)?;
    }
    let within = |what: &str| cost(what, CLIENTS);

    let counts = all(&clients, |client| async move {
        let list = client.get(MAPS).await?.json()?;
        Ok(list["items"].as_array().map_or(0, Vec::len))
    });
    ensure!(counts.await?.iter().all(|count| *count >= objects));
    within("lists that are read")?;

    let path = format!(
        "{MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let watches = all(&clients, |client| {
        let path = path.clone();
        async move { client.watch(&path).await }
    })
    .await?;
    within("watches whose beginning nobody reads")?;
    for mut events in watches {
        let count = until_bookmark(&mut events).await?;
        ensure!(count >= objects, "{count}");
    }
    within("watches that begin with everything")?;
    slow_watchers(&admin, &clients).await?;
    within("watches that nobody reads")
}

/// Of many watchers one reads: it misses nothing, and the others are told to start again.
async fn slow_watchers(admin: &Wire, clients: &[Wire]) -> Result<()> {
    let list = admin.get(SECRETS).await?.json()?;
    let now = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let path = format!("{SECRETS}?watch=true&resourceVersion={now}");
    let slow = all(clients, |client| {
        let path = path.clone();
        async move { client.watch(&path).await }
    })
    .await?;
    let mut quick = admin.watch(&path).await?;
    let reader = tokio::spawn(async move {
        for number in 0..WRITES {
            let event = quick.one().await?;
            ensure!(event["object"]["metadata"]["name"] == format!("large-{number}"));
        }
        Ok(())
    });
    for number in 0..WRITES {
        let secret = json!({"metadata": {"name": format!("large-{number}")},
            "stringData": {"bulk": "x".repeat(WRITTEN)}});
        admin.create(SECRETS, &secret).await?;
    }
    reader.await??;
    for mut events in slow {
        let mut count = 0;
        while events.next().await?.is_some() {
            count += 1;
        }
        ensure!(
            count < WRITES,
            "{count} events waited for a watcher that did not read"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_clients_cost_what_is_on_its_way_to_them() -> Result<()> {
    crowd(1_000).await
}

/// The size that is promised: run it with binaries of a release build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long with binaries of a debug build"]
async fn two_hundred_clients_and_ten_thousand_objects() -> Result<()> {
    crowd(10_000).await
}
