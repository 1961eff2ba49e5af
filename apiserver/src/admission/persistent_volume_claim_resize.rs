//! PersistentVolumeClaimResize: a claim grows only where its class says that volumes can.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use keelson_api::quantity::Amount;
use keelson_api::status::ApiResult;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct PersistentVolumeClaimResize;

#[async_trait]
impl Admission for PersistentVolumeClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        let claims = info.group.is_empty() && info.plural == "persistentvolumeclaims";
        operation == Operation::Update && claims && subresource.is_empty()
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let claims = attributes.object::<PersistentVolumeClaim>().zip(attributes.old());
        let Some((new, old)) = claims.filter(|(new, old)| size(new) > size(old)) else {
            return Ok(());
        };
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            let why = "only bound persistent volume claims can be expanded";
            return Err(forbidden(attributes, why));
        }
        let class = new
            .spec
            .as_ref()
            .and_then(|s| s.storage_class_name.as_deref())
            .unwrap_or("");
        let class = attributes.ctx.server.cached::<StorageClass>("", class);
        if class.is_none_or(|class| class.allow_volume_expansion != Some(true)) {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc \
                       must support resize";
            return Err(forbidden(attributes, why));
        }
        Ok(())
    }
}

fn size(claim: &PersistentVolumeClaim) -> Amount {
    let requests = claim
        .spec
        .as_ref()
        .and_then(|s| s.resources.as_ref()?.requests.as_ref());
    requests
        .and_then(|requests| requests.get("storage"))
        .map(Amount::of)
        .unwrap_or_default()
}
