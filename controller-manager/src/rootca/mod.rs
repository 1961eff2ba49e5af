//! The cluster's root certificate, as a config map in every namespace, for pods to check the apiserver by.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use crate::common::answers::{namespace_is_terminating, unless_gone};
use crate::context::Context;

/// The config map's name.
pub const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

/// Runs the controller until shutdown, if there is a certificate to publish.
pub async fn run(context: Context) {
    let Some(file) = context.config().root_ca_file.clone() else {
        return;
    };
    let controller = Arc::new(Controller {
        file,
        namespaces: context.namespaces(),
        config_maps: context.root_ca_config_maps(),
        client: context.client().resource(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("rootca");
    let to = queue.clone();
    controller.namespaces.subscribe(move |event| match event {
        Event::Added(namespace) | Event::Updated { new: namespace, .. } => {
            to.add(namespace.name().to_owned())
        }
        Event::Deleted(_) => {}
    });
    let to = queue.clone();
    controller.config_maps.subscribe(move |event| match event {
        Event::Added(_) => {}
        Event::Updated { new: map, .. } | Event::Deleted(map) => to.add(map.namespace().to_owned()),
    });
    controller.namespaces.synced().await;
    controller.config_maps.synced().await;
    run_workers(queue, 1, context.shutdown().clone(), move |namespace| {
        let controller = controller.clone();
        async move { controller.sync(&namespace).await }
    })
    .await;
}

struct Controller {
    file: PathBuf,
    namespaces: Informer<Namespace>,
    config_maps: Informer<ConfigMap>,
    client: ResourceClient<ConfigMap>,
}

impl Controller {
    async fn sync(&self, namespace: &str) -> Result<(), ReconcileError> {
        let Some(object) = self.namespaces.store().get(&ObjectKey::cluster(namespace)) else {
            return Ok(());
        };
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        // Read each time: the file changes when the certificate is renewed.
        let certificate = tokio::fs::read_to_string(&self.file)
            .await
            .map_err(|error| ReconcileError::other(format!("reading {}: {error}", self.file.display())))?;
        let data = BTreeMap::from([(KEY.to_owned(), certificate)]);
        let written = match self.config_maps.store().get(&ObjectKey::new(namespace, NAME)) {
            Some(map) if map.data.as_ref() == Some(&data) && has_description(&map) => return Ok(()),
            Some(map) => {
                let mut map = (*map).clone();
                map.data = Some(data);
                describe(&mut map.metadata);
                unless_gone(self.client.update(&map).await).map(|_| ())
            }
            None => {
                let mut metadata = ObjectMeta {
                    name: Some(NAME.into()),
                    namespace: Some(namespace.into()),
                    ..ObjectMeta::default()
                };
                describe(&mut metadata);
                let map = ConfigMap {
                    metadata,
                    data: Some(data),
                    ..ConfigMap::default()
                };
                self.client.create(&map).await.map(|_| ())
            }
        };
        match written {
            Err(error)
                if !error.is_already_exists()
                    && !error.is_not_found()
                    && !namespace_is_terminating(&error) =>
            {
                Err(error.into())
            }
            _ => Ok(()),
        }
    }
}

fn has_description(map: &ConfigMap) -> bool {
    map.annotations().get(DESCRIPTION.0).map(String::as_str) == Some(DESCRIPTION.1)
}

fn describe(metadata: &mut ObjectMeta) {
    metadata
        .annotations
        .get_or_insert_default()
        .insert(DESCRIPTION.0.into(), DESCRIPTION.1.into());
}
