//! From the schema table to JSON schemas, in the notation of either version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::operations::{Body, Content, META, Paths};
use crate::schema::{self, Definition, Field, ListKind, Shape, Type};

/// Which version of OpenAPI to write.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Notation {
    V2,
    V3,
}

impl Notation {
    pub(super) fn reference(self, name: &str) -> String {
        match self {
            Self::V2 => format!("#/definitions/{name}"),
            Self::V3 => format!("#/components/schemas/{name}"),
        }
    }
}

/// The types that operations name, and those these are made of.
pub(super) fn reachable(paths: &Paths<'_>, more: &[String]) -> BTreeMap<String, &'static Definition> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<&'static Definition> = more.iter().filter_map(|name| schema::by_name(name)).collect();
    for operation in paths.values().flatten() {
        let mut name = |name: &str| todo.extend(schema::by_name(name));
        if let Content::Type(answer) = &operation.answer {
            name(answer);
        }
        match &operation.body {
            Some(Body::Object(object)) => name(object),
            Some(Body::Options) => name(&format!("{META}DeleteOptions")),
            Some(Body::Patch) => name(&format!("{META}Patch")),
            None => {}
        }
    }
    while let Some(definition) = todo.pop() {
        if found.insert(definition.full_name(), definition).is_none() {
            for field in definition.fields() {
                let mut ty = field.ty();
                while let Some(element) = ty.element() {
                    ty = element;
                }
                todo.extend(ty.named());
            }
        }
    }
    found
}

/// The schemas of types, by full name.
pub(super) fn schemas(
    types: &BTreeMap<String, &'static Definition>,
    versions: &BTreeSet<(String, String)>,
    notation: Notation,
) -> Map<String, Value> {
    let descriptions = Descriptions::of(types.keys());
    types
        .iter()
        .map(|(name, definition)| {
            (
                name.clone(),
                schema_of(name, definition, versions, &descriptions, notation),
            )
        })
        .collect()
}

fn schema_of(
    name: &str,
    definition: &'static Definition,
    versions: &BTreeSet<(String, String)>,
    descriptions: &Descriptions,
    notation: Notation,
) -> Value {
    let mut out = Map::new();
    if let Some(text) = descriptions.of_type(name) {
        out.insert("description".into(), text.into());
    }
    match definition.shape() {
        Shape::Quantity if notation == Notation::V3 => {
            out.insert("oneOf".into(), json!([{"type": "string"}, {"type": "number"}]));
        }
        Shape::Quantity => {
            out.insert("type".into(), "string".into());
        }
        Shape::IntOrString if notation == Notation::V3 => {
            out.insert("format".into(), "int-or-string".into());
            out.insert("oneOf".into(), json!([{"type": "integer"}, {"type": "string"}]));
        }
        Shape::IntOrString => {
            out.insert("type".into(), "string".into());
            out.insert("format".into(), "int-or-string".into());
        }
        Shape::Time => {
            out.insert("type".into(), "string".into());
            out.insert("format".into(), "date-time".into());
        }
        // Embedded JSON of JSON schemas may be anything, not only an object.
        Shape::Any if name.contains("apiextensions") => {}
        Shape::Any | Shape::Fields => {
            out.insert("type".into(), "object".into());
        }
    }
    let mut properties = Map::new();
    let mut required = Vec::new();
    for field in definition.fields() {
        if field.required() {
            required.push(Value::from(field.name()));
        }
        let text = descriptions.of_field(name, field.name());
        properties.insert(field.name().to_owned(), property(field, text, notation));
    }
    if !properties.is_empty() {
        out.insert("properties".into(), properties.into());
    }
    if !required.is_empty() {
        out.insert("required".into(), required.into());
    }
    let kind = |(group, version, kind): (&str, &str, &str)| json!({"group": group, "kind": kind, "version": version});
    let kinds: Vec<Value> = if definition.in_every_group() {
        versions
            .iter()
            .map(|(group, version)| kind((group, version, definition.short_name())))
            .collect()
    } else {
        definition.kinds().map(kind).collect()
    };
    if !kinds.is_empty() {
        out.insert("x-kubernetes-group-version-kind".into(), kinds.into());
    }
    if definition.atomic() {
        out.insert("x-kubernetes-map-type".into(), "atomic".into());
    }
    if let Some((discriminator, members)) = definition.union() {
        let mut union = Map::new();
        if !discriminator.is_empty() {
            union.insert("discriminator".into(), discriminator.into());
        }
        let members: Map<String, Value> = members
            .into_iter()
            .map(|(field, value)| (field.to_owned(), value.into()))
            .collect();
        union.insert("fields-to-discriminateBy".into(), members.into());
        out.insert("x-kubernetes-unions".into(), json!([union]));
    }
    out.into()
}

fn property(field: &'static Field, description: Option<&str>, notation: Notation) -> Value {
    let default = field
        .default()
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut out = match (notation, field.ty()) {
        (Notation::V3, Type::Named(id)) => {
            // Beside a bare reference nothing else would count.
            Map::from_iter([(
                "allOf".to_owned(),
                json!([{"$ref": notation.reference(&id.get().full_name())}]),
            )])
        }
        (_, ty) => type_schema(ty, notation),
    };
    if let (Notation::V3, Some(default)) = (notation, default) {
        out.insert("default".into(), default);
    }
    if let Some(text) = description {
        out.insert("description".into(), text.into());
    }
    if let Some(kind) = field.list_kind() {
        let name = match kind {
            ListKind::Atomic => "atomic",
            ListKind::Set => "set",
            ListKind::Map(_) => "map",
        };
        out.insert("x-kubernetes-list-type".into(), name.into());
        if let ListKind::Map(keys) = kind {
            out.insert("x-kubernetes-list-map-keys".into(), keys.to_vec().into());
        }
    }
    if let Some(kind) = field.map_kind() {
        out.insert("x-kubernetes-map-type".into(), kind.as_str().into());
    }
    if let Some(patch) = field.patch() {
        let strategies: Vec<&str> = [
            ("merge", patch.merge),
            ("replace", patch.replace),
            ("retainKeys", patch.retain_keys),
        ]
        .into_iter()
        .filter(|one| one.1)
        .map(|one| one.0)
        .collect();
        if !strategies.is_empty() {
            out.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
        }
        if !patch.key.is_empty() {
            out.insert("x-kubernetes-patch-merge-key".into(), patch.key.into());
        }
    }
    out.into()
}

fn type_schema(ty: &'static Type, notation: Notation) -> Map<String, Value> {
    let plain = |ty: &str, format: &str| {
        let mut out = Map::from_iter([("type".to_owned(), Value::from(ty))]);
        if !format.is_empty() {
            out.insert("format".into(), format.into());
        }
        out
    };
    match ty {
        Type::String => plain("string", ""),
        Type::Int32 => plain("integer", "int32"),
        Type::Int64 => plain("integer", "int64"),
        Type::Bool => plain("boolean", ""),
        Type::Double => plain("number", "double"),
        Type::Bytes => plain("string", "byte"),
        Type::Object => plain("object", ""),
        Type::List(element) => {
            let mut out = plain("array", "");
            out.insert("items".into(), element_schema(element, notation).into());
            out
        }
        Type::Map(element) => {
            let mut out = plain("object", "");
            out.insert(
                "additionalProperties".into(),
                element_schema(element, notation).into(),
            );
            out
        }
        Type::Named(id) => Map::from_iter([(
            "$ref".to_owned(),
            notation.reference(&id.get().full_name()).into(),
        )]),
    }
}

/// The schema of a list's or map's elements: in v3 with the zero value as default.
fn element_schema(ty: &'static Type, notation: Notation) -> Map<String, Value> {
    let mut out = type_schema(ty, notation);
    if notation == Notation::V2 {
        return out;
    }
    let zero = match ty {
        Type::String => json!(""),
        Type::Int32 | Type::Int64 | Type::Double => json!(0),
        Type::Bool => json!(false),
        Type::Named(id) if id.get().shape() == Shape::Fields => {
            let reference = out.remove("$ref").unwrap_or_default();
            out.insert("allOf".into(), json!([{"$ref": reference}]));
            json!({})
        }
        _ => return out,
    };
    out.insert("default".into(), zero);
    out
}
