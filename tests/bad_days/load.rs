//! Writes that go on while something breaks, and the proof that none that was acknowledged got lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_client::{Client, ClientConfig, ListParams};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The cluster's API as its administrator.
pub fn admin(kubeconfig: &Path) -> Result<Client> {
    Ok(Client::new(ClientConfig::from_kubeconfig(kubeconfig)?)?)
}

/// Config maps written without a pause by several writers.
pub struct Load {
    stop: CancellationToken,
    writers: JoinSet<BTreeSet<String>>,
}

impl Load {
    /// Starts writing into a namespace.
    pub fn start(client: &Client, namespace: &str, writers: usize) -> Self {
        let stop = CancellationToken::new();
        let mut set = JoinSet::new();
        for writer in 0..writers {
            set.spawn(write(client.clone(), namespace.to_owned(), writer, stop.clone()));
        }
        Self { stop, writers: set }
    }

    /// Stops writing; the names of all config maps whose creation was acknowledged.
    pub async fn stop(mut self) -> Result<BTreeSet<String>> {
        self.stop.cancel();
        let mut acknowledged = BTreeSet::new();
        while let Some(names) = self.writers.join_next().await {
            acknowledged.extend(names.context("a writer")?);
        }
        Ok(acknowledged)
    }
}

async fn write(
    client: Client,
    namespace: String,
    writer: usize,
    stop: CancellationToken,
) -> BTreeSet<String> {
    let config_maps = client.resource::<ConfigMap>();
    let mut acknowledged = BTreeSet::new();
    for number in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let name = format!("w{writer}-{number}");
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                ..Default::default()
            },
            data: Some(BTreeMap::from([("number".to_owned(), number.to_string())])),
            ..Default::default()
        };
        match tokio::time::timeout(Duration::from_secs(5), config_maps.create(&object)).await {
            Ok(Ok(_)) => {
                acknowledged.insert(name);
            }
            // Down, or going down: whether this one was written is unknown.
            Ok(Err(_)) | Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
    acknowledged
}

/// Fails unless every acknowledged config map is there.
pub async fn all_present(client: &Client, namespace: &str, acknowledged: &BTreeSet<String>) -> Result<()> {
    let list = client
        .resource::<ConfigMap>()
        .list(namespace, &ListParams::default())
        .await?;
    let present: BTreeSet<String> = list
        .items
        .into_iter()
        .filter_map(|object| object.metadata.name)
        .collect();
    let lost: Vec<_> = acknowledged.difference(&present).collect();
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged writes are lost: {lost:?}",
        lost.len(),
        acknowledged.len()
    );
    Ok(())
}
