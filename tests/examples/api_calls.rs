//! What calls of the API cost, in CPU of kube-store and of kube-apiserver each: `api_calls [PODS]`, 5,000 unless told.
//!
//! The callers go through TLS and HTTP/2 as Go's clients do, with many calls on their way at a time. Nothing else works
//! with the objects.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::wire::{Answer, Events, Wire};
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const CONNECTIONS: usize = 8;
/// How many calls are on their way at a time.
const AT_A_TIME: usize = 64;
/// How many lists are.
const LISTS_AT_A_TIME: usize = 4;
const WATCHERS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let count = match std::env::args().nth(1) {
        Some(word) => word.parse()?,
        None => 5000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let plane = ControlPlane::up(|_, _| Ok(vec!["--authorization-mode=RBAC".to_owned()]))?;
    let account = json!({"metadata": {"name": "default"}});
    plane.create("/api/v1/namespaces/default/serviceaccounts", &account)?;
    runtime.block_on(async {
        let mut wires = Vec::new();
        for _ in 0..CONNECTIONS {
            wires.push(Wire::connect(&plane, "admin").await?);
        }
        let plane = &plane;
        Bench { plane, wires, count }.run().await
    })?;
    plane.end()
}

struct Bench<'p> {
    plane: &'p ControlPlane,
    wires: Vec<Wire>,
    count: usize,
}

impl Bench<'_> {
    async fn run(&self) -> Result<()> {
        let pods = 0..self.count;
        self.cost("create a pod", self.count, async {
            all(pods.clone().map(|number| self.create(number)), AT_A_TIME).await
        })
        .await?;
        self.cost("get a pod", self.count, async {
            let get = |number| self.ask(number, "GET", path(number), None);
            all(pods.clone().map(get), AT_A_TIME).await
        })
        .await?;
        self.cost("patch a pod (merge patch)", self.count, async {
            let patch = |number| self.annotate(number, "patched");
            all(pods.clone().map(patch), AT_A_TIME).await
        })
        .await?;
        for (what, query, count) in [("list all pods", "", 10), ("list 500 pods", "?limit=500", 50)] {
            self.cost(what, count, async {
                let list = |number| self.ask(number, "GET", format!("{PODS}{query}"), None);
                all((0..count).map(list), LISTS_AT_A_TIME).await
            })
            .await?;
        }
        let changes = self.count / 10;
        self.cost(
            "one event to one watcher, patches included",
            changes * WATCHERS,
            self.watch(changes),
        )
        .await?;
        self.cost("delete a pod", self.count, async {
            let now = json!({"gracePeriodSeconds": 0});
            let delete = |number| self.ask(number, "DELETE", path(number), Some(&now));
            all(pods.clone().map(delete), AT_A_TIME).await
        })
        .await
    }

    /// Says what both servers spent on some calls, in one of them.
    async fn cost(&self, what: &str, calls: usize, work: impl Future<Output = Result<()>>) -> Result<()> {
        let spent = || anyhow::Ok([self.plane.store().cpu()?, self.plane.apiserver()?.cpu()?]);
        let before = spent()?;
        tokio::time::timeout(PATIENCE, work)
            .await
            .with_context(|| format!("{what}: waited {PATIENCE:?}"))??;
        let after = spent()?;
        let each = |server: usize| (after[server] - before[server]) * 1e6 / calls as f64;
        let (store, apiserver) = (each(0), each(1));
        println!("{what:<44} kube-store {store:>8.1} us  kube-apiserver {apiserver:>8.1} us");
        Ok(())
    }

    /// A call on one of the connections, in turns.
    async fn ask(&self, number: usize, method: &str, path: String, body: Option<&Value>) -> Result<Answer> {
        let wire = &self.wires[number % CONNECTIONS];
        let headers: &[_] = match method {
            "PATCH" => &[("content-type", "application/merge-patch+json")],
            _ => &[],
        };
        let answer = wire.ask_with(method, &path, headers, body).await?;
        ensure!(answer.code < 300, "{answer:?}");
        Ok(answer)
    }

    async fn create(&self, number: usize) -> Result<Answer> {
        self.ask(number, "POST", PODS.to_owned(), Some(&pod(&name(number))))
            .await
    }

    async fn annotate(&self, number: usize, value: &str) -> Result<Answer> {
        let change = json!({"metadata": {"annotations": {"example.com/changed": value}}});
        self.ask(number, "PATCH", path(number), Some(&change)).await
    }

    /// Changes so many pods while some watch.
    async fn watch(&self, changes: usize) -> Result<()> {
        let list = self
            .ask(0, "GET", format!("{PODS}?limit=1"), None)
            .await?
            .json()?;
        let version = list["metadata"]["resourceVersion"].as_str();
        let version = version.context("a list without a version")?;
        let watch = format!("{PODS}?watch=1&resourceVersion={version}");
        let mut watchers = Vec::new();
        for number in 0..WATCHERS {
            watchers.push(self.wires[number % CONNECTIONS].watch(&watch).await?);
        }
        let changing = all(
            (0..changes).map(|number| self.annotate(number, "watched")),
            AT_A_TIME,
        );
        let watching = all(watchers.into_iter().map(|events| see(events, changes)), WATCHERS);
        tokio::try_join!(watching, changing)?;
        Ok(())
    }
}

/// Reads so many events.
async fn see(mut events: Events, count: usize) -> Result<()> {
    for _ in 0..count {
        events.next().await?.context("the watch has ended")?;
    }
    Ok(())
}

/// Awaits all of these calls, so many at a time.
async fn all<T>(
    calls: impl Iterator<Item = impl Future<Output = Result<T>>>,
    at_a_time: usize,
) -> Result<()> {
    stream::iter(calls)
        .buffer_unordered(at_a_time)
        .try_for_each(async |_| Ok(()))
        .await
}

fn path(number: usize) -> String {
    format!("{PODS}/{}", name(number))
}

fn name(number: usize) -> String {
    format!("pod-{number:06}")
}

/// A pod as a controller would make it, of some 5 KiB.
fn pod(name: &str) -> Value {
    let probe =
        json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 2});
    let env: Vec<_> = (0..24)
        .map(|number| json!({"name": format!("SETTING_{number}"), "value": format!("value of setting {number}")}))
        .collect();
    let container = |name: &str, port: u16| {
        json!({"name": name, "image": "example.com/team/application:1.0.0", "env": env,
            "args": ["--verbose", "--listen=0.0.0.0"], "ports": [{"name": "http", "containerPort": port}],
            "livenessProbe": probe, "readinessProbe": probe, "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings", "readOnly": true}, {"name": "cache", "mountPath": "/cache"}],
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}}})
    };
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "application", "tier": "backend", "release": "stable"},
            "annotations": {"example.com/owner": "team"}},
        "spec": {"containers": [container("main", 8080), container("side", 8081)], "volumes": [
            {"name": "settings", "configMap": {"name": "settings"}}, {"name": "cache", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 30, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}]}})
}
