//! Namespaces that are being deleted: their contents go, then they do.
//!
//! ```text
//! contents.rs    deletes everything there is in a namespace
//! conditions.rs  what the namespace says about it meanwhile
//! ```

mod conditions;
mod contents;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use keelson_api::deletion::NAMESPACE_FINALIZER;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{Client, Event, Informer, ReconcileError, ResourceClient, WorkQueue, run_workers};

use crate::common::answers::unless_gone;
use crate::context::Context;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let controller = Arc::new(Controller {
        namespaces: context.namespaces(),
        pods: context.pods(),
        client: context.client().clone(),
        namespace_client: context.client().resource(),
    });
    let queue: WorkQueue<String> = WorkQueue::new("namespace");
    let to = queue.clone();
    controller.namespaces.subscribe(move |event| match event {
        Event::Added(namespace) => enqueue_terminating(&to, namespace),
        Event::Updated { old, new } => {
            if old.metadata.deletion_timestamp.is_none() || old.uid() != new.uid() {
                enqueue_terminating(&to, new);
            }
        }
        Event::Deleted(_) => {}
    });
    let (to, namespaces) = (queue.clone(), controller.namespaces.clone());
    let pods = controller.pods.clone();
    // The last pod to go is what most deletions wait for.
    controller.pods.subscribe(move |event| {
        if let Event::Deleted(pod) = event
            && let Some(namespace) = namespaces.store().get(&ObjectKey::cluster(pod.namespace()))
            && namespace.metadata.deletion_timestamp.is_some()
            && pods.store().namespace(pod.namespace()).is_empty()
        {
            to.add(pod.namespace().to_owned());
        }
    });
    controller.namespaces.synced().await;
    let workers = context.config().concurrent_namespace_syncs;
    run_workers(queue, workers, context.shutdown().clone(), move |name| {
        let controller = controller.clone();
        async move { controller.sync(&name).await }
    })
    .await;
}

fn enqueue_terminating(queue: &WorkQueue<String>, namespace: &Namespace) {
    if namespace.metadata.deletion_timestamp.is_some() {
        queue.add(namespace.name().to_owned());
    }
}

struct Controller {
    namespaces: Informer<Namespace>,
    pods: Informer<Pod>,
    client: Client,
    namespace_client: ResourceClient<Namespace>,
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<(), ReconcileError> {
        if self.namespaces.store().get(&ObjectKey::cluster(name)).is_none() {
            return Ok(());
        }
        // What follows cannot be undone: it is decided on the namespace as it is, not as it is cached.
        let Some(mut namespace) = unless_gone(self.namespace_client.get("", name).await)? else {
            return Ok(());
        };
        if namespace.metadata.deletion_timestamp.is_none() {
            return Ok(());
        }
        if namespace.status.get_or_insert_default().phase.as_deref() != Some("Terminating") {
            namespace.status.get_or_insert_default().phase = Some("Terminating".into());
            namespace = self.namespace_client.update_status(&namespace).await?;
        }
        if finalizers(&namespace).is_empty() {
            // The server removes it, or somebody else's metadata finalizers hold it.
            return Ok(());
        }
        let outcome = contents::delete_all(&self.client, name).await;
        let status = namespace.status.get_or_insert_default();
        if conditions::update(status, &outcome, &keelson_api::time::now()) {
            match unless_gone(self.namespace_client.update_status(&namespace).await)? {
                Some(updated) => namespace = updated,
                None => return Ok(()),
            }
        }
        if outcome.is_empty() {
            return self.finalize(namespace).await;
        }
        if let Some(problem) = outcome.discovery.or_else(|| outcome.failures.first().cloned()) {
            return Err(ReconcileError::other(format!(
                "emptying namespace {name}: {problem}"
            )));
        }
        Err(ReconcileError::RequeueAfter(Duration::from_secs(
            outcome.estimate / 2 + 1,
        )))
    }

    async fn finalize(&self, mut namespace: Namespace) -> Result<(), ReconcileError> {
        if let Some(finalizers) = namespace.spec.as_mut().and_then(|spec| spec.finalizers.as_mut()) {
            finalizers.retain(|finalizer| finalizer != NAMESPACE_FINALIZER);
        }
        let key = namespace.key();
        let answer = self
            .namespace_client
            .update_subresource::<_, serde_json::Value>(&key, "finalize", &namespace)
            .await;
        unless_gone(answer)?;
        tracing::info!(namespace = %key, "emptied");
        Ok(())
    }
}

fn finalizers(namespace: &Namespace) -> &[String] {
    namespace
        .spec
        .as_ref()
        .and_then(|spec| spec.finalizers.as_deref())
        .unwrap_or_default()
}
