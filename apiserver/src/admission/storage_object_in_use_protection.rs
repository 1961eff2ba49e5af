//! StorageObjectInUseProtection: volumes and claims are born with a finalizer that holds them while they are in use.

use async_trait::async_trait;
use keelson_api::deletion::{PV_PROTECTION_FINALIZER, PVC_PROTECTION_FINALIZER, add_finalizer};
use keelson_api::status::ApiResult;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct StorageObjectInUseProtection;

fn finalizer(info: &ResourceInfo) -> Option<&'static str> {
    match (info.group, info.plural) {
        ("", "persistentvolumes") => Some(PV_PROTECTION_FINALIZER),
        ("", "persistentvolumeclaims") => Some(PVC_PROTECTION_FINALIZER),
        _ => None,
    }
}

#[async_trait]
impl Admission for StorageObjectInUseProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create && subresource.is_empty() && finalizer(info).is_some()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        if let (Some(name), Some(object)) = (finalizer(attributes.ctx.info), attributes.object.as_deref_mut())
        {
            add_finalizer(object.meta_mut(), name);
        }
        Ok(())
    }
}
