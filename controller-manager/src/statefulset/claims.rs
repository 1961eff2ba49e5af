//! The claims of a stateful set's pods: there before the pod, and gone when the set says so.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use keelson_api::object::{Object as _, ObjectKey};
use keelson_client::{EventKind, Patch, ReconcileError};
use serde_json::json;

use super::{Controller, identity};
use crate::common::answers::{namespace_is_terminating, unless_gone};
use crate::common::{patches, reasons};

impl Controller {
    /// Creates the claims of an ordinal that are not there.
    pub(super) async fn create_claims(&self, set: &StatefulSet, ordinal: i32) -> Result<(), ReconcileError> {
        for claim in identity::claims(set, ordinal).into_values() {
            if unless_gone(self.claim_client.get(claim.namespace(), claim.name()).await)?.is_some() {
                continue;
            }
            match self.claim_client.create(&claim).await {
                Ok(_) => {
                    let message = format!(
                        "create Claim {} in StatefulSet {} success",
                        claim.name(),
                        set.name()
                    );
                    self.events
                        .event(set, EventKind::Normal, reasons::SUCCESSFUL_CREATE, message);
                }
                Err(error) if error.is_already_exists() || namespace_is_terminating(&error) => {}
                Err(error) => {
                    let message = format!(
                        "create Claim {} in StatefulSet {} failed error: {error}",
                        claim.name(),
                        set.name()
                    );
                    self.events
                        .event(set, EventKind::Warning, reasons::FAILED_CREATE, message);
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Lets claims go with the set, or with a pod that is scaled away, where the retention policy says so: they become
    /// dependents of it.
    pub(super) async fn keep_claims(
        &self,
        set: &StatefulSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), ReconcileError> {
        let Some(spec) = &set.spec else { return Ok(()) };
        let Some(policy) = &spec.persistent_volume_claim_retention_policy else {
            return Ok(());
        };
        let deletes = |when: Option<&str>| when == Some("Delete");
        let with_set = deletes(policy.when_deleted.as_deref());
        let with_scale = deletes(policy.when_scaled.as_deref());
        if !with_set && !with_scale {
            return Ok(());
        }
        let end = identity::first(set) + spec.replicas.unwrap_or(1);
        for pod in pods {
            let Some(ordinal) = identity::ordinal(set, pod) else {
                continue;
            };
            let owner = if with_scale && ordinal >= end {
                Some(reference("v1", "Pod", pod.name(), pod.uid()))
            } else if with_set {
                Some(reference("apps/v1", "StatefulSet", set.name(), set.uid()))
            } else {
                None
            };
            for claim in identity::claims(set, ordinal).into_values() {
                self.set_owner(&claim.key(), set, pod, owner.as_ref()).await?;
            }
        }
        Ok(())
    }

    async fn set_owner(
        &self,
        key: &ObjectKey,
        set: &StatefulSet,
        pod: &Pod,
        owner: Option<&OwnerReference>,
    ) -> Result<(), ReconcileError> {
        let Some(claim) = unless_gone(self.claim_client.get(&key.namespace, &key.name).await)? else {
            return Ok(());
        };
        let owners = wanted_owners(&claim, &[set.uid(), pod.uid()], owner);
        if owners == claim.metadata.owner_references.clone().unwrap_or_default() {
            return Ok(());
        }
        let patch = json!({"metadata": {
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
            "ownerReferences": patches::list(&owners),
        }});
        unless_gone(self.claim_client.patch(key, Patch::Merge(patch)).await)?;
        Ok(())
    }
}

fn wanted_owners(
    claim: &PersistentVolumeClaim,
    managed: &[&str],
    owner: Option<&OwnerReference>,
) -> Vec<OwnerReference> {
    let mut owners = claim.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|own| {
        !managed.contains(&own.uid.as_str()) || owner.is_some_and(|owner| owner.uid == own.uid)
    });
    if let Some(owner) = owner
        && !owners.iter().any(|own| own.uid == owner.uid)
    {
        owners.push(owner.clone());
    }
    owners
}

fn reference(api_version: &str, kind: &str, name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }
}
