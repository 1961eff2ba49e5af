//! How many pods the controllers of a budget's pods want: what percentages are shares of.

use std::collections::HashMap;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api::names::{Gvr, split_api_version};
use keelson_api::object::{Kind, Object as _, ObjectKey};
use keelson_api::owners::{controller_ref, refers_to};
use keelson_api::status::ApiError;
use keelson_client::{Client, Informer};

use crate::common::answers::unless_gone;
use crate::context::Context;

/// Looks up controllers.
pub struct Scales {
    client: Client,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
}

/// Why the size is not known.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// The apiserver refused or could not be reached.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// No controller that says how many pods it wants.
    #[error("found no controllers for pod \"{0}\"")]
    NoController(String),
    /// A controller that does not say how many pods it wants.
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
}

impl Scales {
    /// Over the context's informers.
    pub async fn new(context: &Context) -> Self {
        let scales = Self {
            client: context.client().clone(),
            deployments: context.deployments(),
            replica_sets: context.replica_sets(),
            stateful_sets: context.stateful_sets(),
            replication_controllers: context.replication_controllers(),
        };
        scales.deployments.synced().await;
        scales.replica_sets.synced().await;
        scales.stateful_sets.synced().await;
        scales.replication_controllers.synced().await;
        scales
    }

    /// The sum of what the pods' controllers want, and the pods that have none.
    ///
    /// # Errors
    /// When a controller is gone or does not say how many pods it wants.
    pub async fn of(&self, pods: &[&Pod]) -> Result<(i32, Vec<String>), ScaleError> {
        let mut sizes: HashMap<String, i32> = HashMap::new();
        let mut asked: HashMap<&str, ()> = HashMap::new();
        let mut alone = Vec::new();
        for pod in pods {
            let Some(owner) = controller_ref(&pod.metadata) else {
                alone.push(pod.name().to_owned());
                continue;
            };
            if asked.insert(&owner.uid, ()).is_some() {
                continue;
            }
            match self.size(pod.namespace(), owner).await? {
                Some((uid, size)) => {
                    sizes.insert(uid, size);
                }
                None => return Err(ScaleError::NoController(pod.name().to_owned())),
            }
        }
        Ok((
            sizes.values().fold(0, |sum: i32, size| sum.saturating_add(*size)),
            alone,
        ))
    }

    /// The uid of the controller that decides and what it wants; `None` if it is gone.
    async fn size(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, ScaleError> {
        if refers_to(owner, "apps", "ReplicaSet") {
            let Some(set) = found(&self.replica_sets, namespace, owner) else {
                return Ok(None);
            };
            if let Some(deployment) =
                controller_ref(&set.metadata).filter(|above| refers_to(above, "apps", "Deployment"))
            {
                return Ok(found(&self.deployments, namespace, deployment).map(|deployment| {
                    (
                        deployment.uid().to_owned(),
                        replicas(deployment.spec.as_ref().and_then(|spec| spec.replicas)),
                    )
                }));
            }
            let wanted = replicas(set.spec.as_ref().and_then(|spec| spec.replicas));
            return Ok(Some((owner.uid.clone(), wanted)));
        }
        if refers_to(owner, "apps", "StatefulSet") {
            return Ok(found(&self.stateful_sets, namespace, owner).map(|set| {
                (
                    owner.uid.clone(),
                    replicas(set.spec.as_ref().and_then(|spec| spec.replicas)),
                )
            }));
        }
        if refers_to(owner, "", "ReplicationController") {
            return Ok(
                found(&self.replication_controllers, namespace, owner).map(|controller| {
                    (
                        owner.uid.clone(),
                        replicas(controller.spec.as_ref().and_then(|spec| spec.replicas)),
                    )
                }),
            );
        }
        self.custom(namespace, owner).await
    }

    /// Asks the `scale` subresource of any other kind.
    async fn custom(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Option<(String, i32)>, ScaleError> {
        let (group, version) = split_api_version(&owner.api_version);
        let served = self.client.discover().await?.resources;
        let no_scale = || ScaleError::NoScale(format!("{}/{}", owner.api_version, owner.kind));
        let resource = served
            .iter()
            .find(|one| one.group == group && one.version == version && one.kind == owner.kind)
            .ok_or_else(no_scale)?;
        let client = self.client.dynamic(&Gvr::new(
            group.to_owned(),
            version.to_owned(),
            resource.plural.clone(),
        ));
        let key = ObjectKey::new(namespace, &owner.name);
        let scale: Option<Scale> = unless_gone(client.get_subresource(&key, "scale").await)?;
        let Some(scale) = scale.filter(|scale| scale.metadata.uid.as_deref() == Some(&*owner.uid)) else {
            return Ok(None);
        };
        let wanted = scale.spec.and_then(|spec| spec.replicas).unwrap_or_default();
        Ok(Some((owner.uid.clone(), wanted)))
    }
}

fn replicas(given: Option<i32>) -> i32 {
    given.unwrap_or(1)
}

fn found<K: Kind>(
    informer: &Informer<K>,
    namespace: &str,
    owner: &OwnerReference,
) -> Option<std::sync::Arc<K>> {
    let object = informer.store().get(&ObjectKey::new(namespace, &owner.name))?;
    (object.uid() == owner.uid).then_some(object)
}
