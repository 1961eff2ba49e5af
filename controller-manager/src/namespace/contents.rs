//! Deleting everything in a namespace, whatever kinds the server knows.

use std::collections::HashSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::names::Gvr;
use keelson_api::object::{Object as _, Unstructured};
use keelson_api::status::ApiError;
use keelson_client::{ApiResource, Client, ListParams};

use super::conditions::Outcome;

/// Objects held by a finalizer are looked at again after about this long, in seconds.
const FINALIZER_ESTIMATE: u64 = 15;

/// One attempt to delete everything. Pods go first, and alone: what they use must outlive them.
pub async fn delete_all(client: &Client, namespace: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let served = match client.discover().await {
        Ok(served) => served,
        Err(error) => {
            outcome.discovery = Some(error.to_string());
            return outcome;
        }
    };
    let unknown = incomplete(&served.stale);
    delete_known(client, deletable(served.resources), namespace, &mut outcome).await;
    // What others serve may be there as well, and cannot be seen.
    outcome.discovery = unknown;
    outcome
}

/// What is said when not every server tells what it serves.
fn incomplete(stale: &[String]) -> Option<String> {
    if stale.is_empty() {
        return None;
    }
    let each: Vec<String> = stale
        .iter()
        .map(|version| format!("{version}: stale GroupVersion discovery: {version}"))
        .collect();
    Some(format!(
        "Discovery failed for some groups, {} failing: unable to retrieve the complete list of server APIs: {}",
        each.len(),
        each.join(", ")
    ))
}

async fn delete_known(client: &Client, resources: Vec<ApiResource>, namespace: &str, outcome: &mut Outcome) {
    let (pods, others): (Vec<_>, Vec<_>) = resources
        .into_iter()
        .partition(|resource| resource.group.is_empty() && resource.plural == "pods");
    for resource in pods {
        delete_resource(client, &resource, namespace, outcome).await;
    }
    if !outcome.is_empty() {
        return;
    }
    for resource in others {
        delete_resource(client, &resource, namespace, outcome).await;
    }
}

/// Resources that live in namespaces and can be deleted, each in one version.
fn deletable(resources: Vec<ApiResource>) -> Vec<ApiResource> {
    let mut seen = HashSet::new();
    resources
        .into_iter()
        .filter(|resource| resource.namespaced && !resource.plural.contains('/'))
        .filter(|resource| {
            let can = |verb: &str| resource.verbs.iter().any(|own| own == verb);
            can("list") && (can("delete") || can("deletecollection"))
        })
        .filter(|resource| seen.insert((resource.group.clone(), resource.plural.clone())))
        .collect()
}

async fn delete_resource(client: &Client, resource: &ApiResource, namespace: &str, outcome: &mut Outcome) {
    if let Err(error) = try_delete(client, resource, namespace, outcome).await {
        // The resource may have been withdrawn since discovery: then there is nothing of it left.
        if !error.is_not_found() {
            outcome
                .failures
                .push(format!("{}.{}: {error}", resource.plural, resource.group));
        }
    }
}

async fn try_delete(
    client: &Client,
    resource: &ApiResource,
    namespace: &str,
    outcome: &mut Outcome,
) -> Result<(), ApiError> {
    let gvr = Gvr::new(
        resource.group.clone(),
        resource.version.clone(),
        resource.plural.clone(),
    );
    let collection = client.dynamic(&gvr);
    // Most resources have nothing in most namespaces: one item tells.
    let probe = ListParams {
        limit: 1,
        ..ListParams::default()
    };
    if collection.list(namespace, &probe).await?.items.is_empty() {
        return Ok(());
    }
    let options = DeleteOptions {
        propagation_policy: Some("Background".into()),
        ..DeleteOptions::default()
    };
    if resource.verbs.iter().any(|verb| verb == "deletecollection") {
        collection
            .delete_collection(namespace, &ListParams::default(), &options)
            .await?;
    } else {
        for object in collection.list(namespace, &ListParams::default()).await?.items {
            match collection.delete(&object.key(), &options).await {
                Err(error) if !error.is_not_found() => return Err(error),
                _ => {}
            }
        }
    }
    let left = collection.list(namespace, &ListParams::default()).await?.items;
    if !left.is_empty() {
        note_remaining(resource, &left, outcome);
    }
    Ok(())
}

fn note_remaining(resource: &ApiResource, left: &[Unstructured], outcome: &mut Outcome) {
    outcome
        .remaining
        .insert(format!("{}.{}", resource.plural, resource.group), left.len());
    for object in left {
        let finalizers = object.meta().finalizers.as_deref().unwrap_or_default();
        for finalizer in finalizers {
            *outcome.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
        let grace = object.meta().deletion_grace_period_seconds.unwrap_or_default();
        let grace = u64::try_from(grace).unwrap_or_default();
        outcome.estimate = outcome.estimate.max(if finalizers.is_empty() {
            grace
        } else {
            FINALIZER_ESTIMATE
        });
    }
}
