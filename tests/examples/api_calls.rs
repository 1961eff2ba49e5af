//! What calls of the API cost, in CPU of kube-store and of kube-apiserver each: `api_calls [PODS]`, 5,000 unless told.
//!
//! The callers go through TLS and HTTP as everybody does, with many calls on their way at a time. Nothing else works with
//! the objects.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Pod;
use keelson_tests::control_plane::ControlPlane;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, ResourceExt as _};
use serde_json::json;

/// How many calls are on their way at a time.
const AT_A_TIME: usize = 32;
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
        let file = Kubeconfig::from_yaml(&plane.kubeconfig("admin"))?;
        let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Bench {
            pods: Api::default_namespaced(Client::try_from(config)?),
            count,
            plane: &plane,
        }
        .run()
        .await
    })?;
    plane.end()
}

struct Bench<'p> {
    plane: &'p ControlPlane,
    pods: Api<Pod>,
    count: usize,
}

impl Bench<'_> {
    async fn run(&self) -> Result<()> {
        let Self { pods, count, .. } = self;
        let everyone = || (0..*count).map(name);
        self.cost("create a pod", *count, async {
            let create = |name| async {
                pods.create(&PostParams::default(), &pod(name)?)
                    .await
                    .map_err(Into::into)
            };
            all(everyone().map(create), AT_A_TIME).await
        })
        .await?;
        self.cost("get a pod", *count, async {
            let get = |name: String| async move { anyhow::Ok(pods.get(&name).await?) };
            all(everyone().map(get), AT_A_TIME).await
        })
        .await?;
        self.cost("patch a pod (merge patch)", *count, async {
            let patch = |name| self.annotate(name, "patched");
            all(everyone().map(patch), AT_A_TIME).await
        })
        .await?;
        self.cost("list all pods", 10, async {
            let everything = ListParams::default();
            let list = |_| async { anyhow::Ok(pods.list(&everything).await?) };
            all((0..10).map(list), LISTS_AT_A_TIME).await
        })
        .await?;
        self.cost("list 500 pods", 50, async {
            let some = ListParams::default().limit(500);
            let list = |_| async { anyhow::Ok(pods.list(&some).await?) };
            all((0..50).map(list), LISTS_AT_A_TIME).await
        })
        .await?;
        let changes = count / 10;
        self.cost(
            "one event to one watcher, patches included",
            changes * WATCHERS,
            self.watch(changes),
        )
        .await?;
        self.cost("delete a pod", *count, async {
            let now = DeleteParams::default().grace_period(0);
            let delete = |name: String| {
                let now = &now;
                async move { anyhow::Ok(pods.delete(&name, now).await?) }
            };
            all(everyone().map(delete), AT_A_TIME).await
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
        println!(
            "{what:<44} kube-store {:>8.1} us  kube-apiserver {:>8.1} us",
            each(0),
            each(1)
        );
        Ok(())
    }

    async fn annotate(&self, name: String, value: &str) -> Result<Pod> {
        let change = Patch::Merge(json!({"metadata": {"annotations": {"example.com/changed": value}}}));
        Ok(self.pods.patch(&name, &PatchParams::default(), &change).await?)
    }

    /// Changes so many pods while some watch.
    async fn watch(&self, changes: usize) -> Result<()> {
        let version = self.pods.list(&ListParams::default().limit(1)).await?;
        let version = version.metadata.resource_version.unwrap_or_default();
        let seen = |_| async {
            let watching = pin!(self.pods.watch(&WatchParams::default(), &version).await?);
            modifications(watching)
                .take(changes)
                .try_collect::<Vec<_>>()
                .await
        };
        let changing = all(
            (0..changes).map(|number| self.annotate(name(number), "watched")),
            AT_A_TIME,
        );
        tokio::try_join!(all((0..WATCHERS).map(seen), WATCHERS), changing)?;
        Ok(())
    }
}

fn modifications(
    events: impl Stream<Item = kube::Result<WatchEvent<Pod>>>,
) -> impl Stream<Item = Result<String>> {
    events.map_err(anyhow::Error::from).try_filter_map(async |event| {
        Ok(match event {
            WatchEvent::Modified(pod) => Some(pod.name_any()),
            _ => None,
        })
    })
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

fn name(number: usize) -> String {
    format!("pod-{number:06}")
}

/// A pod as a controller would make it, of some 5 KiB.
fn pod(name: String) -> Result<Pod> {
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
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": "application", "tier": "backend", "release": "stable"},
            "annotations": {"example.com/owner": "team"}},
        "spec": {"containers": [container("main", 8080), container("side", 8081)], "volumes": [
            {"name": "settings", "configMap": {"name": "settings"}}, {"name": "cache", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 30, "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "dedicated", "operator": "Exists"}]}}))?)
}
