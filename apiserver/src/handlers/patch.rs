//! PATCH: JSON patch, merge patch, strategic merge patch; applications have a module of their own.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::object::Object;
use keelson_api::patch::{json, merge, strategic};
use keelson_api::schema::{self, Definition};
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict;
use serde_json::{Map, Value};

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

/// What a patch says.
#[derive(Clone)]
enum Changes {
    /// Operations, one after the other.
    Steps(Vec<json::Operation>),
    /// What is laid over the old object.
    Layer(Value),
}

/// A patch, read once however often it has to be tried. One that cannot be read is refused when there is something to
/// be patched, not before.
pub struct Patch {
    kind: PatchType,
    changes: ApiResult<Changes>,
}

impl Patch {
    /// Reads a patch that is no application.
    pub fn read(kind: PatchType, text: &[u8]) -> Self {
        let changes = match kind {
            PatchType::Json => json::parse(text).map(Changes::Steps).map_err(ApiError::from),
            _ => serde_json::from_slice(text)
                .map(Changes::Layer)
                .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}"))),
        };
        Self { kind, changes }
    }

    /// Patches a value in the version asked for.
    ///
    /// # Errors
    /// When the patch cannot be read, or does not fit.
    pub fn apply(&self, call: &Call<'_>, value: &mut Value) -> ApiResult<()> {
        match self.changes.clone()? {
            Changes::Steps(steps) => Ok(json::apply(value, &steps)?),
            Changes::Layer(layer) => match definition(call).filter(|_| self.kind == PatchType::Strategic) {
                Some(definition) => Ok(strategic::apply(value, layer, definition)?),
                None if self.kind == PatchType::Strategic => {
                    Err(ApiError::unsupported_media_type(PatchType::WITHOUT_RULES))
                }
                None => Ok(merge::apply(value, layer)?),
            },
        }
    }

    /// Whether it is laid over nothing but the metadata, as most are that clients send.
    fn is_of_metadata(&self) -> bool {
        let Ok(Changes::Layer(Value::Object(members))) = &self.changes else {
            return false;
        };
        members.len() == 1 && members.get("metadata").is_some_and(Value::is_object)
    }
}

/// Changes an object as the patch says.
pub async fn patch(call: &Call<'_>, kind: PatchType, text: &[u8]) -> ApiResult<Outcome> {
    if kind == PatchType::Apply {
        return super::apply::apply(call, text).await;
    }
    let patch = Patch::read(kind, text);
    if may_see_managers(kind, text) {
        return update_with(call, Base::Present, Extent::Whole, |old| {
            let mut value = old.to_value()?;
            call.served.from_storage(&mut value);
            patch.apply(call, &mut value)?;
            body::from_value(call, value)
        })
        .await;
    }
    let plain = kind != PatchType::Json && body::is_plain(call, text);
    // The rest of the object then need not be looked at.
    let of_metadata = patch.is_of_metadata() && !call.strategy().metadata_has_defaults();
    if plain && call.subresource.is_empty() && of_metadata {
        return update_with(call, Base::Present, Extent::Metadata, |old| {
            to_metadata(call, &patch, old)
        })
        .await;
    }
    update_with(call, Base::Present, Extent::Whole, |old| {
        let mut value = old.to_unmanaged_value()?;
        call.served.from_storage(&mut value);
        patch.apply(call, &mut value)?;
        let mut new = match plain {
            true => body::from_plain(call, value)?,
            false => body::from_value(call, value)?,
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

fn to_metadata(call: &Call<'_>, patch: &Patch, old: &dyn Object) -> ApiResult<Box<dyn Object>> {
    let metadata = ("metadata".to_owned(), old.unmanaged_metadata()?);
    let mut value = Value::Object(Map::from_iter([metadata]));
    patch.apply(call, &mut value)?;
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

/// The type whose merge rules hold: the resource's in the version asked for, or that of a subresource of its own.
fn definition(call: &Call<'_>) -> Option<&'static Definition> {
    let info = call.info();
    match info
        .subresource(call.subresource)
        .filter(|s| s.form == SubresourceForm::Handler)
    {
        Some(own) => schema::by_kind(own.group, own.version, own.kind),
        None => schema::by_kind(call.served.group(), call.served.version(), info.kind)
            .or_else(|| call.served.definition()),
    }
}
