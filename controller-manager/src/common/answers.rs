//! What the apiserver's refusals mean to a controller.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions};
use keelson_api::status::ApiError;

/// What a write to an object gave, `None` if the object is gone.
///
/// # Errors
/// Every other refusal.
pub fn unless_gone<T>(result: Result<T, ApiError>) -> Result<Option<T>, ApiError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a creation was refused because its namespace is being deleted: there is nothing to retry.
#[must_use]
pub fn namespace_is_terminating(error: &ApiError) -> bool {
    error
        .causes()
        .iter()
        .any(|cause| cause.reason.as_deref() == Some("NamespaceTerminating"))
}

/// Deletes exactly the object with this uid, not a new one of the same name.
#[must_use]
pub fn only(uid: &str) -> DeleteOptions {
    DeleteOptions {
        preconditions: Some(Preconditions {
            uid: Some(uid.to_owned()),
            resource_version: None,
        }),
        ..DeleteOptions::default()
    }
}
