//! How long, and how much CPU of each daemon, it takes until the pods of a large Deployment are all bound to the nodes of
//! a large cluster: `many_nodes [NODES] [REPLICAS]`, 500 and 3,000 unless told.
//!
//! The nodes are objects without a machine: what a kubelet would add is not part of it.

use std::collections::HashSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use keelson_tests::control_plane::ControlPlane;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Client, ResourceExt as _};
use nix::sys::signal::Signal;
use serde_json::json;

/// How many requests of the preparation are on their way at a time.
const AT_A_TIME: usize = 16;
const PATIENCE: Duration = Duration::from_secs(300);

fn main() -> Result<()> {
    let mut sizes = std::env::args().skip(1).map(|word| word.parse::<usize>());
    let nodes = sizes.next().transpose()?.unwrap_or(500);
    let replicas = sizes.next().transpose()?.unwrap_or(3000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let plane = ControlPlane::up(|_, _| Ok(vec!["--authorization-mode=RBAC".to_owned()]))?;
    let controllers = plane.daemon("kube-controller-manager", "admin", &[])?;
    let scheduler = plane.daemon("kube-scheduler", "admin", &[])?;
    runtime.block_on(async {
        let client = connect(&plane).await?;
        register(&client, nodes).await?;
        let daemons = || {
            anyhow::Ok([
                ("kube-store", plane.store().cpu()?),
                ("kube-apiserver", plane.apiserver()?.cpu()?),
                ("kube-controller-manager", controllers.cpu()?),
                ("kube-scheduler", scheduler.cpu()?),
            ])
        };
        let before = daemons()?;
        let started = Instant::now();
        deploy(&client, replicas).await?;
        let took = started.elapsed();
        println!(
            "{replicas} pods bound to {nodes} nodes in {:.2} s",
            took.as_secs_f64()
        );
        let mut all = 0.0;
        for ((name, before), (_, after)) in before.into_iter().zip(daemons()?) {
            println!("{name:<24} {:.2} CPU-s", after - before);
            all += after - before;
        }
        println!("{:<24} {all:.2} CPU-s", "all");
        anyhow::Ok(())
    })?;
    controllers.end(Signal::SIGTERM)?;
    scheduler.end(Signal::SIGTERM)?;
    plane.end()
}

async fn connect(plane: &ControlPlane) -> Result<Client> {
    let file = Kubeconfig::from_yaml(&plane.kubeconfig("admin"))?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Creates the nodes and waits until pods may go to all of them.
async fn register(client: &Client, count: usize) -> Result<()> {
    let nodes = Api::<Node>::all(client.clone());
    let resources = json!({"cpu": "16", "memory": "64Gi", "pods": "110", "ephemeral-storage": "100Gi"});
    stream::iter(0..count)
        .map(|number| {
            let node = json!({"metadata": {"name": format!("node-{number:04}")}, "status": {
            "capacity": resources, "allocatable": resources,
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": jiff::Timestamp::now(), "lastTransitionTime": jiff::Timestamp::now()}]}});
            let nodes = nodes.clone();
            async move {
                let node = serde_json::from_value(node)?;
                nodes.create(&PostParams::default(), &node).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(AT_A_TIME)
        .try_collect::<()>()
        .await?;
    let tainted = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some());
    let mut open = HashSet::new();
    let mut changes = pin!(watcher(nodes, watcher::Config::default()).touched_objects());
    while open.len() < count {
        let node = next(&mut changes).await?;
        if tainted(&node) {
            open.remove(&node.name_any());
        } else {
            open.insert(node.name_any());
        }
    }
    Ok(())
}

/// Creates the Deployment and waits until all of its pods have a node.
async fn deploy(client: &Client, replicas: usize) -> Result<()> {
    let pods = Api::<Pod>::default_namespaced(client.clone());
    let deployment: Deployment = serde_json::from_value(json!({"metadata": {"name": "many"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "many"}},
        "template": {"metadata": {"labels": {"app": "many"}}, "spec": {"containers": [{
            "name": "main", "image": "example.com/main:1",
            "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}}}]}}}}))?;
    let deployments = Api::<Deployment>::default_namespaced(client.clone());
    deployments.create(&PostParams::default(), &deployment).await?;
    let mut bound = HashSet::new();
    let mut changes = pin!(watcher(pods, watcher::Config::default()).applied_objects());
    while bound.len() < replicas {
        let pod = next(&mut changes).await?;
        if pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()) {
            bound.insert(pod.name_any());
        }
    }
    ensure!(bound.len() == replicas, "{} pods", bound.len());
    Ok(())
}

async fn next<K>(
    changes: &mut (impl futures::Stream<Item = Result<K, watcher::Error>> + Unpin),
) -> Result<K> {
    let change = tokio::time::timeout(PATIENCE, changes.next()).await;
    Ok(change
        .with_context(|| format!("waited {PATIENCE:?}"))?
        .context("the watch has ended")??)
}
