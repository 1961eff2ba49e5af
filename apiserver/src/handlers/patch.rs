//! PATCH: JSON patch, merge patch, strategic merge patch; applications have a module of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::object::Object;
use keelson_api::patch::{json, merge, strategic};
use keelson_api::schema::{self, Definition};
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict;
use serde_json::{Value, json};

use super::managers::Tracking;
use super::update::{Base, Extent, update_with};
use super::{Call, Outcome, body};
use crate::registry::info::SubresourceForm;

/// How a patch is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902: a list of operations.
    Json,
    /// RFC 7386: an object laid over the old one.
    Merge,
    /// As merge, but lists are merged by their keys.
    Strategic,
    /// What a manager wants, laid over the old one.
    Apply,
}

impl PatchType {
    /// Media types of patches, as refusals list them.
    pub const MEDIA_TYPES: &'static [&'static str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
    ];

    /// Those of them that change what has no merge rules: custom resources.
    const WITHOUT_RULES: &'static [&'static str] = &[
        "application/json-patch+json",
        "application/merge-patch+json",
        "application/apply-patch+yaml",
    ];

    /// From a media type without parameters.
    pub fn parse(media_type: &str) -> ApiResult<Self> {
        Ok(match media_type {
            "application/json-patch+json" => PatchType::Json,
            "application/merge-patch+json" => PatchType::Merge,
            "application/strategic-merge-patch+json" => PatchType::Strategic,
            "application/apply-patch+yaml" => PatchType::Apply,
            _ => return Err(ApiError::unsupported_media_type(Self::MEDIA_TYPES)),
        })
    }

    /// Whose such a patch is: an application says itself who manages what.
    pub fn tracking(self) -> Tracking {
        match self {
            PatchType::Apply => Tracking::AsGiven,
            _ => Tracking::Manager,
        }
    }
}

/// Changes an object as the patch says.
pub async fn patch(call: &Call<'_>, kind: PatchType, patch: &[u8]) -> ApiResult<Outcome> {
    if kind == PatchType::Apply {
        return super::apply::apply(call, patch).await;
    }
    if let Some(patch) = of_metadata(call, kind, patch) {
        return update_with(call, Base::Present, Extent::Metadata, |old| {
            laid_over_metadata(call, kind, old, patch.clone())
        })
        .await;
    }
    update_with(call, Base::Present, Extent::Whole, |old| {
        if may_see_managers(kind, patch) {
            let mut value = old.to_value()?;
            call.served.from_storage(&mut value);
            apply(call, kind, &mut value, patch)?;
            return body::from_value(call, value);
        }
        let mut value = old.to_unmanaged_value()?;
        call.served.from_storage(&mut value);
        apply(call, kind, &mut value, patch)?;
        let mut new = match kind {
            PatchType::Merge | PatchType::Strategic => body::from_patched(call, value, patch)?,
            _ => body::from_value(call, value)?,
        };
        new.meta_mut()
            .managed_fields
            .clone_from(&old.meta().managed_fields);
        Ok(new)
    })
    .await
}

/// Whether a patch may look at the managed fields or change them. Few do, and these fields are half of an object.
fn may_see_managers(kind: PatchType, patch: &[u8]) -> bool {
    let mentions = |text: &[u8]| memchr::memmem::find(patch, text).is_some();
    // Escapes may spell anything; operations of a JSON patch may be on all of the metadata, or on all of the object.
    mentions(b"managedFields")
        || mentions(b"\\u")
        || (kind == PatchType::Json && (mentions(b"/metadata\"") || mentions(b"\"\"")))
}

/// A patch that is laid over nothing but the metadata, as most are that clients send, and of which nothing would have to
/// be said. The rest of the object then need not be looked at.
fn of_metadata(call: &Call<'_>, kind: PatchType, patch: &[u8]) -> Option<Value> {
    let laid_over = matches!(kind, PatchType::Merge | PatchType::Strategic);
    if !laid_over || !call.subresource.is_empty() || may_see_managers(kind, patch) {
        return None;
    }
    let value: Value = serde_json::from_slice(patch).ok()?;
    let members = value.as_object()?;
    (members.len() == 1 && members.get("metadata")?.is_object() && body::is_plain(call, patch))
        .then_some(value)
}

fn laid_over_metadata(
    call: &Call<'_>,
    kind: PatchType,
    old: &dyn Object,
    patch: Value,
) -> ApiResult<Box<dyn Object>> {
    let mut value = json!({"metadata": old.unmanaged_metadata()?});
    lay_over(call, kind, &mut value, patch)?;
    let meta: ObjectMeta = serde_json::from_value(value["metadata"].take()).map_err(|error| {
        strict::cannot_be_handled(call.info().kind, call.served.version(), &error.to_string())
    })?;
    let mut new = old.clone_box();
    *new.meta_mut() = ObjectMeta {
        managed_fields: old.meta().managed_fields.clone(),
        ..meta
    };
    Ok(new)
}

/// Patches a value in the version asked for.
pub fn apply(call: &Call<'_>, kind: PatchType, value: &mut Value, patch: &[u8]) -> ApiResult<()> {
    if kind == PatchType::Json {
        return Ok(json::apply(value, &json::parse(patch)?)?);
    }
    let patch: Value = serde_json::from_slice(patch)
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    lay_over(call, kind, value, patch)
}

fn lay_over(call: &Call<'_>, kind: PatchType, value: &mut Value, patch: Value) -> ApiResult<()> {
    match definition(call).filter(|_| kind == PatchType::Strategic) {
        Some(definition) => Ok(strategic::apply(value, patch, definition)?),
        None if kind == PatchType::Strategic => {
            Err(ApiError::unsupported_media_type(PatchType::WITHOUT_RULES))
        }
        None => Ok(merge::apply(value, patch)?),
    }
}

/// The type whose merge rules hold: the resource's in the version asked for, or that of a subresource of its own.
fn definition(call: &Call<'_>) -> Option<&'static Definition> {
    let info = call.info();
    match info
        .subresource(call.subresource)
        .filter(|s| s.form == SubresourceForm::Handler)
    {
        Some(own) => schema::by_kind(own.group, own.version, own.kind),
        None => schema::by_kind(call.served.group(), call.served.version(), info.kind)
            .or_else(|| schema::by_kind(info.group, info.version, info.kind)),
    }
}
