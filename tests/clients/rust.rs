//! Rust's `kube` library.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, AttachParams, DeleteParams, DynamicObject, EvictParams, GroupVersionKind, ListParams,
    LogParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::PartialObjectMeta;
use kube::discovery::Discovery;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Client, Error, ResourceExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use keelson_tests::cluster::{ECHO, TOOLBOX};

use crate::{Stage, Story};

const PATIENCE: Duration = Duration::from_secs(120);

/// What a story is about, with a client and its own namespace.
struct Room {
    client: Client,
    namespace: String,
}

impl Room {
    async fn enter(stage: &Stage) -> Result<Self> {
        let file = Kubeconfig::read_from(&stage.kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            namespace: stage.namespace.clone(),
        })
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates a pod and waits until it runs.
    async fn run(&self, name: &str, image: &str, command: &[&str]) -> Result<()> {
        let pods = self.api::<Pod>();
        let pod = object(
            json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": image, "command": command}]}}),
        )?;
        pods.create(&PostParams::default(), &pod).await?;
        within(await_condition(pods, name, conditions::is_pod_running())).await?;
        Ok(())
    }
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> Result<K> {
    Ok(serde_json::from_value(value)?)
}

/// The answer, unless it takes too long.
async fn within<T, E: Into<anyhow::Error>>(work: impl Future<Output = Result<T, E>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .with_context(|| format!("waited {PATIENCE:?}"))?
        .map_err(Into::into)
}

fn refused<T>(result: Result<T, Error>, code: u16) -> Result<String> {
    match result {
        Err(Error::Api(status)) if status.code == code => Ok(status.message),
        Err(other) => bail!("not refused with {code}: {other:?}"),
        Ok(_) => bail!("not refused with {code}"),
    }
}

pub fn stories() -> Vec<Story> {
    macro_rules! story {
        ($name:ident) => {
            (
                concat!("rust::", stringify!($name)).to_owned(),
                Box::new(|stage: &Stage| -> Result<()> {
                    let runtime = tokio::runtime::Runtime::new()?;
                    runtime.block_on(async { $name(&Room::enter(stage).await?).await })
                }) as Box<dyn Fn(&Stage) -> Result<()> + Send>,
            )
        };
    }
    vec![
        story!(pods),
        story!(tunnels),
        story!(deployments),
        story!(watches),
        story!(caches),
        story!(applying),
        story!(custom),
        story!(discovery),
        story!(leases),
    ]
}

async fn pods(room: &Room) -> Result<()> {
    let pods = room.api::<Pod>();
    room.run(
        "talker",
        TOOLBOX,
        &["sh", "-c", "echo one; echo two; exec sleep 600"],
    )
    .await?;
    let listed = pods.list(&ListParams::default().labels("app=talker")).await?;
    ensure!(
        listed.items.len() == 1 && listed.metadata.resource_version.is_some(),
        "{listed:?}"
    );
    let log = pods.logs("talker", &LogParams::default()).await?;
    ensure!(log == "one\ntwo\n", "{log:?}");
    let follow = LogParams {
        follow: true,
        tail_lines: Some(1),
        ..LogParams::default()
    };
    let mut lines = pods.log_stream("talker", &follow).await?.lines();
    ensure!(
        within(async { lines.try_next().await }).await?.as_deref() == Some("two"),
        "a followed log"
    );
    let twice = object(
        json!({"metadata": {"name": "talker"}, "spec": {"containers": [{"name": "c", "image": ECHO}]}}),
    )?;
    refused(pods.create(&PostParams::default(), &twice).await, 409)?;
    let label = json!({"metadata": {"labels": {"tier": "front"}}});
    let labelled = pods
        .patch("talker", &PatchParams::default(), &Patch::Merge(&label))
        .await?;
    ensure!(labelled.labels().len() == 2, "{labelled:?}");
    let names: Vec<String> = pods
        .list_metadata(&ListParams::default().labels("tier in (front)"))
        .await?
        .into_iter()
        .map(|partial: PartialObjectMeta<Pod>| partial.name_any())
        .collect();
    ensure!(names == ["talker"], "{names:?}");
    let uid = labelled.uid().context("uid")?;
    pods.evict("talker", &EvictParams::default()).await?;
    within(await_condition(
        pods.clone(),
        "talker",
        conditions::is_deleted::<Pod>(&uid),
    ))
    .await?;
    ensure!(pods.get_opt("talker").await?.is_none(), "it is still there");
    let wrong = object(json!({"metadata": {"name": "p"}, "spec": {"containers": []}}))?;
    let message = refused(pods.create(&PostParams::default(), &wrong).await, 422)?;
    ensure!(message.contains("spec.containers: Required value"), "{message}");
    Ok(())
}

async fn tunnels(room: &Room) -> Result<()> {
    let pods = room.api::<Pod>();
    room.run("shell", TOOLBOX, &["sleep", "600"]).await?;
    room.run("web", TOOLBOX, &["keelson-echo"]).await?;
    let params = AttachParams::default().stdin(true).stdout(true).stderr(true);
    let script = ["sh", "-c", "read line; echo got $line; echo but >&2; exit 3"];
    let mut process = pods.exec("shell", script, &params).await?;
    let status = process.take_status().context("a status")?;
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (
        process.stdout().context("stdout")?,
        process.stderr().context("stderr")?,
    );
    let mut stdin = process.stdin().context("stdin")?;
    stdin.write_all(b"fed\n").await?;
    let read = async { tokio::try_join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err)) };
    within(read).await?;
    ensure!(out == "got fed\n" && err == "but\n", "{out:?} {err:?}");
    let status = status.await.context("no status came")?;
    let causes = status.details.context("details")?.causes.unwrap_or_default();
    ensure!(
        causes.iter().any(|cause| cause.message.as_deref() == Some("3")),
        "{causes:?}"
    );

    let mut forward = pods.portforward("web", &[8080]).await?;
    let mut stream = forward.take_stream(8080).context("a stream")?;
    let ask = async {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = within(ask).await?;
    ensure!(
        answer.starts_with("HTTP/1.1 200") && answer.contains("web"),
        "{answer}"
    );
    forward.abort();
    Ok(())
}

async fn deployments(room: &Room) -> Result<()> {
    let deployments = room.api::<Deployment>();
    let labels = json!({"app": "web"});
    let web: Deployment = object(
        json!({"metadata": {"name": "web", "labels": labels}, "spec": {"replicas": 1,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "main", "image": ECHO}]}}}}),
    )?;
    deployments.create(&PostParams::default(), &web).await?;
    let complete = || {
        within(await_condition(
            deployments.clone(),
            "web",
            conditions::is_deployment_completed(),
        ))
    };
    complete().await?;
    let scale = json!({"spec": {"replicas": 2}});
    deployments
        .patch_scale("web", &PatchParams::default(), &Patch::Merge(&scale))
        .await?;
    let observed = |replicas: i32| {
        let done = move |found: Option<&Deployment>| {
            found.is_some_and(|found| {
                let status = found.status.clone().unwrap_or_default();
                status.observed_generation == found.metadata.generation
                    && status.available_replicas == Some(replicas)
                    && status.updated_replicas == Some(replicas)
                    && status.replicas == Some(replicas)
            })
        };
        within(await_condition(deployments.clone(), "web", done))
    };
    observed(2).await?;
    ensure!(
        deployments
            .get_scale("web")
            .await?
            .spec
            .and_then(|spec| spec.replicas)
            == Some(2),
        "its scale"
    );
    let change = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "env": [{"name": "A", "value": "1"}]}]}}}});
    let changed = deployments
        .patch("web", &PatchParams::default(), &Patch::Strategic(&change))
        .await?;
    let image = changed
        .spec
        .and_then(|spec| spec.template.spec?.containers.first()?.image.clone());
    ensure!(image.as_deref() == Some(ECHO), "{image:?}");
    observed(2).await?;
    let sets = room
        .api::<ReplicaSet>()
        .list(&ListParams::default().labels("app=web"))
        .await?;
    ensure!(sets.items.len() == 2, "{} replica sets", sets.items.len());
    // An entry is changed as it was read, or not at all.
    let mut current = deployments.get("web").await?;
    if let Some(spec) = &mut current.spec {
        spec.replicas = Some(1);
    }
    deployments
        .replace("web", &PostParams::default(), &current)
        .await?;
    let message = refused(
        deployments.replace("web", &PostParams::default(), &current).await,
        409,
    )?;
    ensure!(message.contains("the object has been modified"), "{message}");
    let uid = current.uid().context("uid")?;
    deployments.delete("web", &DeleteParams::foreground()).await?;
    within(await_condition(
        deployments,
        "web",
        conditions::is_deleted::<Deployment>(&uid),
    ))
    .await?;
    let pods = room
        .api::<Pod>()
        .list(&ListParams::default().labels("app=web"))
        .await?;
    ensure!(pods.items.is_empty(), "pods outlived their owner");
    Ok(())
}

fn map(name: &str, value: &str) -> Result<ConfigMap> {
    object(json!({"metadata": {"name": name, "labels": {"of": "us"}}, "data": {"a": value}}))
}

async fn watches(room: &Room) -> Result<()> {
    let maps = room.api::<ConfigMap>();
    let first = maps.create(&PostParams::default(), &map("m0", "1")?).await?;
    for number in 1..=4 {
        maps.create(&PostParams::default(), &map(&format!("m{number}"), "1")?)
            .await?;
    }
    let mut since = first.resource_version().context("a version")?;
    let mut seen = Vec::new();
    // Broken off and gone on with: nothing is missed, nothing comes twice.
    for _ in 0..2 {
        let events = maps
            .watch(&WatchParams::default().labels("of=us"), &since)
            .await?;
        let mut events = events.boxed().take(2);
        while let Some(event) = within(events.try_next()).await? {
            let WatchEvent::Added(added) = event else {
                bail!("{event:?}")
            };
            since = added.resource_version().context("a version")?;
            seen.push(added.name_any());
        }
    }
    ensure!(seen == ["m1", "m2", "m3", "m4"], "{seen:?}");
    // A version that nobody has is one that is too large; one of long ago has gone.
    let mut pages = Vec::new();
    let mut params = ListParams::default().labels("of=us").limit(2);
    loop {
        let page = maps.list(&params).await?;
        pages.push(page.items.len());
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    ensure!(pages == [2, 2, 1], "{pages:?}");
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("of=us"))
        .await?;
    ensure!(
        maps.list(&ListParams::default().labels("of=us"))
            .await?
            .items
            .is_empty(),
        "some are left"
    );
    Ok(())
}

/// The library's watcher and store, with lists in pages and with lists that come over the watch.
async fn caches(room: &Room) -> Result<()> {
    let maps = room.api::<ConfigMap>();
    for (number, config) in [
        watcher::Config::default().labels("of=us").page_size(1),
        watcher::Config::default().labels("of=us").streaming_lists(),
    ]
    .into_iter()
    .enumerate()
    {
        let name = |map: &str| format!("{map}-{number}");
        for map_name in ["a", "b"] {
            maps.create(&PostParams::default(), &map(&name(map_name), "1")?)
                .await?;
        }
        let (store, writer) = reflector::store();
        let stream = watcher(maps.clone(), config)
            .default_backoff()
            .reflect(writer)
            .touched_objects();
        let running = tokio::spawn(stream.for_each(|_| std::future::ready(())));
        within(store.wait_until_ready()).await?;
        let holds = async |wanted: &[(String, &str)]| -> Result<()> {
            let wanted: BTreeSet<(String, String)> = wanted
                .iter()
                .map(|(name, value)| (name.clone(), (*value).to_owned()))
                .collect();
            let mut held = BTreeSet::new();
            for _ in 0..200 {
                held = store
                    .state()
                    .iter()
                    .map(|map| {
                        (
                            map.name_any(),
                            map.data
                                .as_ref()
                                .and_then(|d| d.get("a").cloned())
                                .unwrap_or_default(),
                        )
                    })
                    .collect();
                if held == wanted {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bail!("{held:?}, not {wanted:?}")
        };
        holds(&[(name("a"), "1"), (name("b"), "1")]).await?;
        let change = json!({"data": {"a": "2"}});
        maps.patch(&name("a"), &PatchParams::default(), &Patch::Merge(&change))
            .await?;
        maps.delete(&name("b"), &DeleteParams::default()).await?;
        maps.create(&PostParams::default(), &map(&name("c"), "1")?)
            .await?;
        holds(&[(name("a"), "2"), (name("c"), "1")]).await?;
        running.abort();
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("of=us"))
            .await?;
    }
    Ok(())
}

async fn applying(room: &Room) -> Result<()> {
    let maps = room.api::<ConfigMap>();
    let apply = async |manager: &str, data: Value, force: bool| {
        let body =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shared"}, "data": data});
        let params = PatchParams::apply(manager);
        let params = if force { params.force() } else { params };
        maps.patch("shared", &params, &Patch::Apply(&body)).await
    };
    let data = |map: ConfigMap| json!(map.data);
    apply("one", json!({"a": "1", "b": "1"}), false).await?;
    let both = apply("two", json!({"c": "2"}), false).await?;
    ensure!(
        data(both) == json!({"a": "1", "b": "1", "c": "2"}),
        "applied by two"
    );
    let conflict = refused(apply("two", json!({"a": "2", "c": "2"}), false).await, 409)?;
    ensure!(conflict.contains("conflict with \"one\""), "{conflict}");
    let forced = apply("two", json!({"a": "2", "c": "2"}), true).await?;
    ensure!(data(forced) == json!({"a": "2", "b": "1", "c": "2"}), "forced");
    let left = apply("one", json!({"a": "2"}), false).await?;
    ensure!(data(left) == json!({"a": "2", "c": "2"}), "what was left out");
    Ok(())
}

async fn custom(room: &Room) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(room.client.clone());
    let group = format!("{}.example.test", room.namespace);
    let name = format!("rafts.{group}");
    let definition = object(
        json!({"metadata": {"name": name}, "spec": {"group": group, "scope": "Namespaced",
        "names": {"plural": "rafts", "singular": "raft", "kind": "Raft"},
        "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"logs": {"type": "integer", "default": 4}}},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}}),
    )?;
    definitions.create(&PostParams::default(), &definition).await?;
    let told = within(use_rafts(room, &definitions, &name, &group)).await;
    definitions.delete(&name, &DeleteParams::default()).await?;
    told
}

async fn use_rafts(
    room: &Room,
    definitions: &Api<CustomResourceDefinition>,
    name: &str,
    group: &str,
) -> Result<()> {
    await_condition(definitions.clone(), name, conditions::is_crd_established()).await?;
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", "Raft"));
    ensure!(kind.plural == "rafts", "{kind:?}");
    let rafts: Api<DynamicObject> = Api::namespaced_with(room.client.clone(), &room.namespace, &kind);
    let mut raft = DynamicObject::new("one", &kind);
    raft.data = json!({"spec": {"sails": 1}});
    let made = rafts.create(&PostParams::default(), &raft).await?;
    ensure!(made.data["spec"] == json!({"logs": 4}), "{made:?}");
    let status = json!({"status": {"floats": true}});
    rafts
        .patch_status("one", &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    let found = rafts.get("one").await?;
    ensure!(found.data["status"]["floats"] == true, "{found:?}");
    // With a finalizer it only goes when that is done.
    let hold = json!({"metadata": {"finalizers": ["example.test/held"]}});
    rafts
        .patch("one", &PatchParams::default(), &Patch::Merge(&hold))
        .await?;
    rafts.delete("one", &DeleteParams::default()).await?;
    ensure!(
        rafts.get("one").await?.metadata.deletion_timestamp.is_some(),
        "not being deleted"
    );
    let free = json!({"metadata": {"finalizers": null}});
    rafts
        .patch("one", &PatchParams::default(), &Patch::Merge(&free))
        .await?;
    ensure!(rafts.get_opt("one").await?.is_none(), "it is still there");
    Ok(())
}

/// What there is. The library first asks for the groups, then for each of them, and fails where one has gone in between:
/// kinds of other stories come and go.
async fn discovered(room: &Room, aggregated: bool) -> Result<Discovery> {
    const ATTEMPTS: usize = 20;
    for _ in 0..ATTEMPTS {
        let discovery = Discovery::new(room.client.clone());
        let found = match aggregated {
            true => discovery.run_aggregated().await,
            false => discovery.run().await,
        };
        match found {
            Err(Error::Api(status)) if status.code == 404 => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            done => return Ok(done?),
        }
    }
    bail!("a group is gone whenever its resources are asked for")
}

async fn discovery(room: &Room) -> Result<()> {
    for aggregated in [false, true] {
        let discovered = discovered(room, aggregated).await?;
        for (group, version, kind, plural) in [
            ("", "v1", "Pod", "pods"),
            ("apps", "v1", "Deployment", "deployments"),
            ("coordination.k8s.io", "v1", "Lease", "leases"),
        ] {
            let (found, capabilities) = discovered
                .resolve_gvk(&GroupVersionKind::gvk(group, version, kind))
                .with_context(|| format!("no {kind}"))?;
            ensure!(
                found.plural == plural && capabilities.supports_operation("watch"),
                "{found:?}"
            );
        }
    }
    let version = room.client.apiserver_version().await?;
    ensure!(version.minor == "36", "{version:?}");
    Ok(())
}

async fn leases(room: &Room) -> Result<()> {
    let leases = room.api::<Lease>();
    let held: Lease = object(
        json!({"metadata": {"name": "held"}, "spec": {"holderIdentity": "me",
        "leaseDurationSeconds": 15, "renewTime": "2030-01-02T03:04:05.123456Z"}}),
    )?;
    let theirs = leases.create(&PostParams::default(), &held).await?;
    ensure!(
        json!(theirs.spec)["renewTime"] == "2030-01-02T03:04:05.123456Z",
        "{theirs:?}"
    );
    let take = |lease: &Lease, who: &str| {
        let mut lease = lease.clone();
        lease.spec.get_or_insert_default().holder_identity = Some(who.to_owned());
        lease
    };
    leases
        .replace("held", &PostParams::default(), &take(&theirs, "first"))
        .await?;
    refused(
        leases
            .replace("held", &PostParams::default(), &take(&theirs, "second"))
            .await,
        409,
    )?;
    let holder = leases
        .get("held")
        .await?
        .spec
        .and_then(|spec| spec.holder_identity);
    ensure!(holder.as_deref() == Some("first"), "{holder:?}");
    Ok(())
}
