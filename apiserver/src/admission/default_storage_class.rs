//! DefaultStorageClass: a claim that names no class gets the default one.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use keelson_api::object::Object;
use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;
use crate::registry::storage::storage_class::is_default;

const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plugin.
pub struct DefaultStorageClass;

#[async_trait]
impl Admission for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        let claims = info.group.is_empty() && info.plural == "persistentvolumeclaims";
        operation == Operation::Create && claims && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let server = attributes.ctx.server;
        let Some(claim) = attributes.object_mut::<PersistentVolumeClaim>() else {
            return Ok(());
        };
        let annotated = claim
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|a| a.contains_key(OLD_CLASS));
        let spec = claim.spec.get_or_insert_default();
        // An empty name is a name: such a claim wants a volume without a class.
        if annotated || spec.storage_class_name.is_some() {
            return Ok(());
        }
        // Of several defaults the newest counts, then the first by name.
        let mut defaults = server.cached_list::<StorageClass>("");
        defaults.retain(|class| is_default(class));
        defaults.sort_by(|a, b| {
            let born = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|t| t.0);
            born(b).cmp(&born(a)).then_with(|| a.name().cmp(b.name()))
        });
        spec.storage_class_name = defaults.first().map(|class| class.name().to_owned());
        Ok(())
    }
}
