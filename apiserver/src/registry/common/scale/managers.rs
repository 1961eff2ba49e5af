//! Who manages the number of replicas, when it is written through the `scale` subresource: of everything an object's
//! managers have, a Scale shows this one field.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
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
/// Where a Scale has its number.
const IN_A_SCALE: &[&str] = &["spec", "replicas"];

/// Where a kind has the number of its replicas.
pub struct Place<'a> {
    /// The version the field is in.
    pub version: &'a str,
    /// The names of the fields that lead to it.
    pub path: Vec<&'a str>,
}

impl Place<'static> {
    /// Where built-in kinds have it.
    pub fn of<K: Kind>() -> Self {
        Self {
            version: K::API_VERSION,
            path: IN_A_SCALE.to_vec(),
        }
    }
}

impl Place<'_> {
    fn field(&self) -> FieldSet {
        FieldSet::of_fields(&[&self.path])
    }

    fn manager(&self, name: &str, operation: Operation) -> Manager {
        Manager {
            name: name.to_owned(),
            operation,
            version: self.version.to_owned(),
            subresource: SUBRESOURCE.to_owned(),
        }
    }
}

/// Who wants to apply, and how.
pub struct Wish {
    manager: String,
    force: bool,
    now: Timestamp,
}

impl Wish {
    /// What the request says.
    pub fn of(ctx: &RequestContext<'_>) -> Self {
        Self {
            manager: ctx.manager.to_owned(),
            force: ctx.force,
            now: ctx.now,
        }
    }
}

/// Notes in an object who gave it another number of replicas than it had before.
pub(super) fn scaled<K: Kind>(before: &K, object: &mut K, name: &str, now: Timestamp) -> ApiResult<()> {
    let mut managed = handlers::managers::stored(&before.metadata().managed_fields);
    let place: &dyn Schema = match schema::by_gvk(&K::type_gvk()) {
        Some(definition) => definition,
        None => &Deduced,
    };
    let nothing = FieldSet::default();
    let view = || -> ApiResult<View<'_>> {
        Ok(View {
            schema: place,
            old: Some(before.tree()?),
            new: object.tree()?,
            reset: &nothing,
            shapes: None,
        })
    };
    // In every version the kind is served in, the field has the same place.
    let mut other = |_: &str| Some(view().map_err(|e| e.message().to_owned()));
    let by = Place::of::<K>().manager(name, Operation::Update);
    apply::update(&mut managed, by, now, &view()?, &mut other).map_err(ApiError::internal)?;
    object.metadata_mut().managed_fields = managed.into_entries();
    Ok(())
}

/// Applies a configuration of a Scale: the Scale as it is to be, and who manages the object then.
pub fn apply(
    meta: &ObjectMeta,
    place: &Place<'_>,
    scale: &Scale,
    config: &Value,
    wish: &Wish,
) -> ApiResult<(Scale, Option<Vec<ManagedFieldsEntry>>)> {
    let parent = handlers::managers::stored(&meta.managed_fields);
    let managed = shown(&parent, place);
    let live = serde_json::to_value(scale).map_err(ApiError::internal)?;
    let mut application = Application {
        config,
        live: &live,
        exists: true,
        manager: place.manager(&wish.manager, Operation::Apply),
        force: wish.force,
        reset: &FieldSet::of_fields(&[&["status"]]),
        now: wish.now,
    };
    let about = || {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        format!(
            "{}/{}; autoscaling/v1, Kind=Scale",
            text(&meta.namespace),
            text(&meta.name)
        )
    };
    let (changed, managed) = handlers::apply::run(&mut application, &managed, &Scales, about)?;
    let scale = super::decode(&changed.unwrap_or(live))?;
    Ok((scale, merged(parent, managed, place).into_entries()))
}

/// Those of an object's managers that manage its replicas.
fn shown(parent: &Managed, place: &Place<'_>) -> Managed {
    let (there, here) = (place.field(), FieldSet::of_fields(&[IN_A_SCALE]));
    parent
        .entries()
        .iter()
        .filter(|entry| !entry.fields.intersection(&there).is_empty())
        .map(|entry| Entry {
            fields: here.clone(),
            ..entry.clone()
        })
        .collect()
}

/// The object's managers after those of its Scale have changed.
fn merged(parent: Managed, scale: Managed, place: &Place<'_>) -> Managed {
    let (there, here) = (place.field(), FieldSet::of_fields(&[IN_A_SCALE]));
    let mut left: Vec<Entry> = scale
        .entries()
        .iter()
        .filter(|entry| !entry.fields.intersection(&here).is_empty())
        .cloned()
        .collect();
    let mut all = Vec::new();
    for entry in parent.entries() {
        let mut entry = entry.clone();
        if !entry.fields.intersection(&there).is_empty() {
            match left.iter().position(|one| one.manager.is(&entry.manager)) {
                Some(kept) => {
                    left.remove(kept);
                }
                None => entry.fields.subtract(&there),
            }
        }
        if !entry.fields.is_empty() {
            all.push(entry);
        }
    }
    all.extend(left.into_iter().map(|entry| Entry {
        fields: there.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_all_managers_a_scale_shows_those_of_its_number() {
        let place = Place {
            version: "example.com/v1",
            path: vec!["spec", "size"],
        };
        let entry = |name: &str, fields: Value| Entry {
            manager: place.manager(name, Operation::Update),
            fields: FieldSet::read(&fields).expect("a set"),
            time: None,
        };
        let parent: Managed = [
            entry("both", json!({"f:spec": {"f:size": {}, "f:other": {}}})),
            entry("other", json!({"f:spec": {"f:other": {}}})),
        ]
        .into_iter()
        .collect();
        let scale = shown(&parent, &place);
        assert_eq!(
            scale.entries(),
            [entry("both", json!({"f:spec": {"f:replicas": {}}}))]
        );
        assert_eq!(merged(parent.clone(), scale, &place), parent);
        let taken: Managed = [entry("new", json!({"f:spec": {"f:replicas": {}}}))]
            .into_iter()
            .collect();
        let after = merged(parent, taken, &place);
        assert_eq!(
            after.entries(),
            [
                entry("both", json!({"f:spec": {"f:other": {}}})),
                entry("other", json!({"f:spec": {"f:other": {}}})),
                entry("new", json!({"f:spec": {"f:size": {}}})),
            ]
        );
    }
}
