//! Who manages the number of replicas, when it is written through the `scale` subresource: of everything an object's
//! managers have, a Scale shows this one field.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use keelson_api::apply::{
    self, Application, Converter, Deduced, Entry, FieldSet, Managed, Manager, Operation, Schema, View,
};
use keelson_api::object::Kind;
use keelson_api::schema;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use crate::handlers;
use crate::registry::strategy::RequestContext;

const SUBRESOURCE: &str = "scale";
/// The field, in a Scale and in every kind that has one.
const REPLICAS: &[&str] = &["spec", "replicas"];

/// Who wants to apply, and how.
pub(super) struct Wish {
    manager: String,
    force: bool,
    now: Timestamp,
}

impl Wish {
    pub(super) fn of(ctx: &RequestContext<'_>) -> Self {
        Self {
            manager: ctx.manager.to_owned(),
            force: ctx.force,
            now: ctx.now,
        }
    }
}

fn manager<K: Kind>(name: &str, operation: Operation) -> Manager {
    Manager {
        name: name.to_owned(),
        operation,
        version: K::API_VERSION.to_owned(),
        subresource: SUBRESOURCE.to_owned(),
    }
}

/// Notes in an object who gave it another number of replicas than it had before.
pub(super) fn scaled<K: Kind>(before: &K, object: &mut K, name: &str, now: Timestamp) -> ApiResult<()> {
    let mut managed = handlers::managers::stored(&before.metadata().managed_fields);
    let place: &dyn Schema = match schema::by_gvk(&K::type_gvk()) {
        Some(definition) => definition,
        None => &Deduced,
    };
    let view = View {
        schema: place,
        old: Some(before.tree()?),
        new: object.tree()?,
        reset: &FieldSet::default(),
    };
    // In every version the kind is served in, the field has the same place.
    let mut other = |_: &str| {
        let view = || -> ApiResult<View<'_>> {
            Ok(View {
                schema: place,
                old: Some(before.tree()?),
                new: object.tree()?,
                reset: view.reset,
            })
        };
        Some(view().map_err(|e| e.message().to_owned()))
    };
    let by = manager::<K>(name, Operation::Update);
    apply::update(&mut managed, by, now, &view, &mut other).map_err(ApiError::internal)?;
    object.metadata_mut().managed_fields = managed.into_entries();
    Ok(())
}

/// Applies a configuration of a Scale: the Scale as it is to be, and who manages the object then.
pub(super) fn apply<K: Kind>(
    object: &K,
    scale: &Scale,
    config: &Value,
    wish: &Wish,
) -> ApiResult<(Scale, Option<Vec<ManagedFieldsEntry>>)> {
    let parent = handlers::managers::stored(&object.metadata().managed_fields);
    let managed = shown(&parent);
    let mut live = serde_json::to_value(scale).map_err(ApiError::internal)?;
    if let Some(meta) = live.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("resourceVersion");
    }
    let mut application = Application {
        config,
        live: &live,
        exists: true,
        manager: manager::<K>(&wish.manager, Operation::Apply),
        force: wish.force,
        reset: &FieldSet::of_fields(&[&["status"]]),
        now: wish.now,
    };
    let about = || {
        let meta = object.metadata();
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        format!(
            "{}/{}; autoscaling/v1, Kind=Scale",
            text(&meta.namespace),
            text(&meta.name)
        )
    };
    let (changed, managed) = handlers::apply::run(&mut application, &managed, &Scales, about)?;
    let scale = super::decode(&changed.unwrap_or(live))?;
    Ok((scale, merged(parent, managed).into_entries()))
}

/// Those of an object's managers that manage its replicas.
fn shown(parent: &Managed) -> Managed {
    let replicas = FieldSet::of_fields(&[REPLICAS]);
    parent
        .entries()
        .iter()
        .filter(|entry| !entry.fields.intersection(&replicas).is_empty())
        .map(|entry| Entry {
            fields: replicas.clone(),
            ..entry.clone()
        })
        .collect()
}

/// The object's managers after those of its Scale have changed.
fn merged(parent: Managed, scale: Managed) -> Managed {
    let replicas = FieldSet::of_fields(&[REPLICAS]);
    let mut left: Vec<Entry> = scale
        .entries()
        .iter()
        .filter(|entry| !entry.fields.intersection(&replicas).is_empty())
        .cloned()
        .collect();
    let mut all = Vec::new();
    for entry in parent.entries() {
        let mut entry = entry.clone();
        if !entry.fields.intersection(&replicas).is_empty() {
            match left.iter().position(|one| one.manager.is(&entry.manager)) {
                Some(kept) => {
                    left.remove(kept);
                }
                None => entry.fields.subtract(&replicas),
            }
        }
        if !entry.fields.is_empty() {
            all.push(entry);
        }
    }
    all.extend(left.into_iter().map(|entry| Entry {
        fields: replicas.clone(),
        ..entry
    }));
    all.into_iter().collect()
}

/// A Scale looks the same to everybody.
struct Scales;

impl Converter for Scales {
    fn schema(&self, _: &str) -> Option<&dyn Schema> {
        schema::by_kind("autoscaling", "v1", "Scale").map(|definition| definition as &dyn Schema)
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Option<Result<Value, String>> {
        Some(Ok(object.clone()))
    }
}
