//! Custom resources in the OpenAPI documents.

use std::sync::Arc;

use keelson_api::openapi::Custom;

use super::strategy::CustomStrategy;

/// The type of a version.
pub fn described(version: &Arc<CustomStrategy>) -> Custom {
    let of = version.clone();
    Custom {
        list_kind: version.form().list_kind.into(),
        tag: version.schema_tag().to_owned(),
        schema: Arc::new(move || of.raw_schema()),
    }
}
