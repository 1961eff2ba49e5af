//! Many objects at once.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta};
use keelson_api::object::ObjectKey;
use keelson_client::{Client, ListParams, Patch, WatchEvent, WatchParams, Write};

use crate::Stage;
use crate::load::admin;

const PODS: usize = 10_000;
const BATCH: usize = 200;
const NAMESPACE: &str = "crowd";

pub fn ten_thousand_pods_are_listed_while_watched(stage: &Stage) -> Result<()> {
    stage.kubectl.run(&format!("create namespace {NAMESPACE}"))?;
    stage
        .kubectl
        .until(&format!("get serviceaccounts -n {NAMESPACE} -o name"), |names| {
            names.contains("default")
        })?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let client = admin(&stage.cluster.kubeconfig())?;
        let pods = client.resource::<Pod>();
        let start = pods.list(NAMESPACE, &ListParams::default()).await?;
        let watch = tokio::spawn(watch(client.clone(), start.resource_version));
        let lists = tokio::spawn(list(client.clone()));
        for first in (0..PODS).step_by(BATCH) {
            let batch = (first..first + BATCH)
                .map(|number| Write::Create(pod(number)))
                .collect();
            for result in pods.batch(batch).await? {
                result?;
            }
        }
        let seen = tokio::time::timeout(Duration::from_secs(180), watch)
            .await
            .context("the watch ends")???;
        ensure!(seen == PODS, "the watch saw {seen} pods");
        lists.await??;
        pods.delete_collection(NAMESPACE, &ListParams::default(), &DeleteOptions::default())
            .await?;
        let left = pods.list(NAMESPACE, &ListParams::default()).await?;
        ensure!(left.items.is_empty(), "{} pods are left", left.items.len());
        Ok(())
    })?;
    stage
        .kubectl
        .run(&format!("delete namespace {NAMESPACE} --timeout=120s"))?;
    Ok(())
}

pub fn a_hundred_patches_of_one_object_all_count(stage: &Stage) -> Result<()> {
    const PATCHES: usize = 100;
    stage.kubectl.run("create configmap contended")?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let client = admin(&stage.cluster.kubeconfig())?;
        let maps = client.resource::<ConfigMap>();
        let key = ObjectKey::new("default", "contended");
        let patches = (0..PATCHES).map(|number| {
            let patch = Patch::Merge(serde_json::json!({"data": {format!("key-{number}"): "x"}}));
            maps.patch(&key, patch)
        });
        for result in futures::future::join_all(patches).await {
            result?;
        }
        let data = maps.get("default", "contended").await?.data.unwrap_or_default();
        ensure!(data.len() == PATCHES, "{} patches are left", data.len());
        anyhow::Ok(())
    })?;
    stage.kubectl.run("delete configmap contended").map(drop)
}

/// No node has the label that these pods ask for.
fn pod(number: usize) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(format!("p-{number}")),
            namespace: Some(NAMESPACE.into()),
            ..Default::default()
        },
        spec: Some(PodSpec {
            automount_service_account_token: Some(false),
            termination_grace_period_seconds: Some(0),
            node_selector: Some(BTreeMap::from([("no-such-label".to_owned(), "x".to_owned())])),
            containers: vec![Container {
                name: "main".into(),
                image: Some("keelson.local/echo:1".into()),
                ..Default::default()
            }],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Counts additions until all pods were seen; none may come twice.
async fn watch(client: Client, resource_version: String) -> Result<usize> {
    let params = WatchParams {
        resource_version,
        ..Default::default()
    };
    let mut events = Box::pin(client.resource::<Pod>().watch(NAMESPACE, &params).await?);
    let mut seen = HashSet::new();
    while seen.len() < PODS {
        match events.next().await.context("the watch ended early")?? {
            WatchEvent::Added(pod) => {
                let name = pod.metadata.name.unwrap_or_default();
                ensure!(seen.insert(name.clone()), "{name} was added twice");
            }
            WatchEvent::Deleted(pod) => anyhow::bail!("{:?} was deleted", pod.metadata.name),
            WatchEvent::Modified(_) | WatchEvent::Bookmark { .. } => {}
        }
    }
    Ok(seen.len())
}

/// Lists over and over: a list never shows less than the one before, and a later resource version.
async fn list(client: Client) -> Result<()> {
    let (mut count, mut version) = (0, 0);
    while count < PODS {
        let list = client
            .resource::<Pod>()
            .list(NAMESPACE, &ListParams::default())
            .await?;
        let now: u64 = list.resource_version.parse()?;
        ensure!(
            list.items.len() >= count && now >= version,
            "{} items at {now} after {count} at {version}",
            list.items.len()
        );
        (count, version) = (list.items.len(), now);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}
