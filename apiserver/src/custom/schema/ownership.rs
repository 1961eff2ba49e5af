//! Who may manage what in custom resources: what apply asks of a structural schema.

use std::borrow::Cow;

use keelson_api::apply::schema::{Child, Lists, Scalar};
use keelson_api::apply::tree::Sort;
use keelson_api::apply::{self, Deduced};

use super::{Additional, ListType, Schema, Type};
use crate::custom::strategy::CustomStrategy;

/// Fields that every object of the API has.
fn of_every_object(name: &str) -> Option<Child<'static>> {
    match name {
        "apiVersion" | "kind" => Some(Child::declared(&Deduced)),
        "metadata" => keelson_api::schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
            .map(|meta| Child::declared(meta)),
        _ => None,
    }
}

impl apply::Schema for Schema {
    fn atomic_map(&self) -> bool {
        self.atomic_map
    }

    fn list(&self) -> Lists<'_> {
        match self.list {
            ListType::Atomic => Lists::Atomic,
            ListType::Set => Lists::Set,
            ListType::Map => Lists::Map(self.map_keys.iter().map(AsRef::as_ref).collect()),
        }
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        if self.embedded
            && let Some(child) = of_every_object(name)
        {
            return Some(child);
        }
        if let Some(schema) = self.properties.get(name) {
            return Some(Child::declared(schema));
        }
        let undescribed =
            self.preserve || self.ty.is_none() || matches!(self.additional, Additional::Allowed(true));
        match self.additional.schema() {
            Some(schema) => Some(Child::entry(schema)),
            None if undescribed => Some(Child::entry(&Deduced)),
            None => None,
        }
    }

    fn items(&self) -> Option<&dyn apply::Schema> {
        match &self.items {
            Some(items) => Some(items.as_ref()),
            None => Some(&Deduced),
        }
    }

    fn key_default(&self, key: &str) -> Option<Cow<'_, str>> {
        let default = self.items.as_ref()?.properties.get(key)?.default.as_ref()?;
        Some(Cow::Owned(default.to_string()))
    }

    fn scalar(&self) -> Option<Scalar> {
        Some(match self.ty {
            _ if self.int_or_string => Scalar::Any,
            Some(Type::String) => Scalar::Text,
            Some(Type::Integer | Type::Number) => Scalar::Number,
            Some(Type::Boolean) => Scalar::Boolean,
            Some(Type::Object | Type::Array) => return None,
            None => Scalar::Any,
        })
    }

    fn accepts(&self, sort: Sort) -> bool {
        match self.ty {
            _ if sort == Sort::Null => true,
            _ if self.int_or_string => sort == Sort::Scalar,
            None => true,
            Some(Type::Object) => sort == Sort::Map,
            Some(Type::Array) => sort == Sort::List,
            Some(_) => sort == Sort::Scalar,
        }
    }
}

/// What a field of the object itself is: its metadata is that of every object, whatever the definition says of it.
fn field_of_object<'s>(schema: &'s Schema, name: &str) -> Option<Child<'s>> {
    of_every_object(name).or_else(|| apply::Schema::field(schema, name))
}

impl apply::Schema for CustomStrategy {
    fn atomic_map(&self) -> bool {
        false
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        field_of_object(self.schema(), name)
    }

    fn items(&self) -> Option<&dyn apply::Schema> {
        None
    }
}

/// The schema of objects in another version than the one asked for.
pub struct Root(pub Schema);

impl apply::Schema for Root {
    fn atomic_map(&self) -> bool {
        false
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        field_of_object(&self.0, name)
    }

    fn items(&self) -> Option<&dyn apply::Schema> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_api::apply::{FieldSet, Tree, compare};
    use serde_json::json;

    #[test]
    fn lists_and_maps_are_owned_as_the_definition_says() {
        let schema = Schema::compile(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
                "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                    "items": {"type": "object", "properties": {
                        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
                "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "args": {"type": "array", "items": {"type": "string"}},
                "ref": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            }}}}),
        );
        let object = json!({"spec": {"ports": [{"port": 80}], "tags": ["x"], "args": ["y"], "ref": {"a": "b"},
            "labels": {"l": "v"}}});
        let tree = Tree::of(&object).expect("a tree");
        let comparison = compare(&schema, None, tree.root()).expect("a comparison");
        let expected = json!({"f:spec": {".": {}, "f:args": {}, "f:labels": {".": {}, "f:l": {}}, "f:ref": {},
            "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
            "f:tags": {".": {}, "v:\"x\"": {}}}});
        assert_eq!(comparison.added, FieldSet::read(&expected).expect("a set"));
        let spec = apply::Schema::field(&schema, "spec").expect("a spec");
        assert!(spec.schema.field("other").is_none() && of_every_object("metadata").is_some());
    }
}
