//! The service account `default`, in every namespace.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use crate::common::answers::namespace_is_terminating;
use crate::context::Context;

const NAME: &str = "default";

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        namespaces: context.namespaces(),
        accounts: context.default_service_accounts(),
        client: context.client().resource(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("serviceaccount");
    let to = queue.clone();
    controller.namespaces.subscribe(move |event| match event {
        Event::Added(namespace) | Event::Updated { new: namespace, .. } => {
            to.add(namespace.name().to_owned())
        }
        Event::Deleted(_) => {}
    });
    let to = queue.clone();
    controller.accounts.subscribe(move |event| {
        if let Event::Deleted(account) = event {
            to.add(account.namespace().to_owned());
        }
    });
    controller.namespaces.synced().await;
    controller.accounts.synced().await;
    let workers = context.config().concurrent_serviceaccount_token_syncs;
    run_workers(queue, workers, context.shutdown().clone(), move |namespace| {
        let controller = controller.clone();
        async move { controller.sync(&namespace).await }
    })
    .await;
}

struct Controller {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    client: ResourceClient<ServiceAccount>,
}

impl Controller {
    async fn sync(&self, namespace: &str) -> Result<(), ReconcileError> {
        let Some(object) = self.namespaces.store().get(&ObjectKey::cluster(namespace)) else {
            return Ok(());
        };
        if object.metadata.deletion_timestamp.is_some()
            || self
                .accounts
                .store()
                .get(&ObjectKey::new(namespace, NAME))
                .is_some()
        {
            return Ok(());
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(NAME.into()),
                namespace: Some(namespace.into()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        match self.client.create(&account).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_already_exists() || error.is_not_found() => Ok(()),
            Err(error) if namespace_is_terminating(&error) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
