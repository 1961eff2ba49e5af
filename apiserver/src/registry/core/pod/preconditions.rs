//! What a binding or an eviction says of the pod that it means.

use k8s_openapi::api::core::v1::Pod;
use keelson_api::names::GroupResource;
use keelson_api::object::Object as _;
use keelson_api::status::{ApiError, ApiResult};

/// Whether the pod has this uid and this resource version, as far as they are given.
///
/// # Errors
/// 409 if it has another.
pub fn check(pod: &Pod, uid: &Option<String>, resource_version: &Option<String>) -> ApiResult<()> {
    for (what, wanted, found) in [
        ("UID", uid, &pod.metadata.uid),
        (
            "ResourceVersion",
            resource_version,
            &pod.metadata.resource_version,
        ),
    ] {
        let wanted = wanted.as_deref().unwrap_or_default();
        let found = found.as_deref().unwrap_or_default();
        if !wanted.is_empty() && wanted != found {
            let text = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            return Err(ApiError::conflict(&GroupResource::core("pods"), pod.name(), text));
        }
    }
    Ok(())
}
