//! How plugins say no.

use keelson_api::status::ApiError;

use super::Attributes;

/// A refusal of the request as a whole: 403 with the name of what is refused.
pub fn forbidden(attributes: &Attributes<'_>, why: impl std::fmt::Display) -> ApiError {
    ApiError::forbidden(&attributes.ctx.info.group_resource(), &name(attributes), why)
}

/// The name of what the request is about; what it will begin with while it is still to be made up.
fn name(attributes: &Attributes<'_>) -> String {
    if !attributes.ctx.name.is_empty() {
        return attributes.ctx.name.to_owned();
    }
    let meta = attributes.object.as_deref().map(|object| object.meta());
    let given = meta.and_then(|m| m.name.clone()).filter(|name| !name.is_empty());
    given
        .or_else(|| meta.and_then(|m| m.generate_name.clone()))
        .unwrap_or_else(|| "Unknown".to_owned())
}
