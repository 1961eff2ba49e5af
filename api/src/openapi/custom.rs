//! Types that definitions bring: custom resources in the documents.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::definitions::Notation;
use super::operations::META;
use super::{Name, Resource};
use crate::names::Gvk;

/// The type of a custom resource.
#[derive(Clone)]
pub struct Custom {
    /// The kind of lists.
    pub list_kind: Name,
    /// Changes when the schema does.
    pub tag: String,
    /// The schema as the definition has it. It is asked for only when a document is made.
    pub schema: Arc<dyn Fn() -> Value + Send + Sync>,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.list_kind, self.tag)
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.list_kind == other.list_kind && self.tag == other.tag
    }
}

impl Eq for Custom {}

/// `stable.example.com` as the beginning of type names: `com.example.stable`.
fn reversed(group: &str) -> String {
    group.split('.').rev().collect::<Vec<_>>().join(".")
}

impl Custom {
    pub(super) fn type_name(&self, gvk: &Gvk) -> String {
        format!("{}.{}.{}", reversed(&gvk.group), gvk.version, gvk.kind)
    }

    pub(super) fn list_type_name(&self, gvk: &Gvk) -> String {
        format!("{}.{}.{}", reversed(&gvk.group), gvk.version, self.list_kind)
    }
}

/// Types that those of custom resources refer to.
pub(super) fn referred(resources: &[&Resource]) -> Vec<String> {
    if resources.iter().all(|resource| resource.custom.is_none()) {
        return Vec::new();
    }
    ["ObjectMeta", "ListMeta", "Status", "DeleteOptions", "Patch"]
        .iter()
        .map(|name| format!("{META}{name}"))
        .collect()
}

/// Adds the types of custom resources and of their lists.
pub(super) fn add(schemas: &mut Map<String, Value>, resources: &[&Resource], notation: Notation) {
    for resource in resources {
        let Some(custom) = &resource.custom else { continue };
        let gvk = resource.gvk();
        let name = custom.type_name(&gvk);
        let list = list(custom, &gvk, &name, notation);
        schemas.insert(custom.list_type_name(&gvk), list);
        let mut schema = (custom.schema)();
        if notation == Notation::V2 {
            schema = for_v2(&schema, true);
        } else {
            embedded(&mut schema, notation);
        }
        if !schema.is_object() {
            schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        }
        type_and_meta(&mut schema, notation);
        schema["x-kubernetes-group-version-kind"] = json!([kind(&gvk, &gvk.kind)]);
        schemas.insert(name, schema);
    }
}

fn kind(gvk: &Gvk, kind: &str) -> Value {
    json!({"group": gvk.group, "kind": kind, "version": gvk.version})
}

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer \
    this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const OBJECT_META: &str = "Standard object's metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_META: &str = "Standard list metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

fn meta(name: &str, description: &str, notation: Notation) -> Value {
    let reference = notation.reference(&format!("{META}{name}"));
    match notation {
        Notation::V2 => json!({"description": description, "$ref": reference}),
        Notation::V3 => json!({"description": description, "allOf": [{"$ref": reference}]}),
    }
}

/// What every object has, whether its schema says so or not.
fn type_and_meta(schema: &mut Value, notation: Notation) {
    if schema.get("properties").is_none_or(Value::is_null) {
        schema["properties"] = json!({});
    }
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
    properties["kind"] = json!({"description": KIND, "type": "string"});
    properties["metadata"] = meta("ObjectMeta", OBJECT_META, notation);
}

/// Objects inside of objects have the same.
fn embedded(schema: &mut Value, notation: Notation) {
    let Value::Object(map) = schema else { return };
    for part in ["items", "additionalProperties"] {
        if let Some(inner) = map.get_mut(part) {
            embedded(inner, notation);
        }
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties
            .values_mut()
            .for_each(|inner| embedded(inner, notation));
    }
    if map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
        type_and_meta(schema, notation);
    }
}

fn list(custom: &Custom, gvk: &Gvk, of: &str, notation: Notation) -> Value {
    json!({
        "description": format!("{} is a list of {}", custom.list_kind, gvk.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": API_VERSION, "type": "string"},
            "kind": {"description": KIND, "type": "string"},
            "metadata": meta("ListMeta", LIST_META, notation),
            "items": {
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", gvk.kind.to_lowercase() + "s"),
                "type": "array",
                "items": {"$ref": notation.reference(of)},
            },
        },
        "x-kubernetes-group-version-kind": [kind(gvk, &custom.list_kind)],
    })
}

/// OpenAPI v2 knows less: what older clients would take for mistakes is left out.
fn for_v2(schema: &Value, root: bool) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    const KEPT: &[&str] = &[
        "description",
        "type",
        "format",
        "enum",
        "required",
        "title",
        "maximum",
        "minimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "multipleOf",
        "maxProperties",
        "minProperties",
        "exclusiveMaximum",
        "exclusiveMinimum",
    ];
    let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
    let mut out: Map<String, Value> = map
        .iter()
        .filter(|(name, _)| KEPT.contains(&name.as_str()) || name.starts_with("x-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    let free = flag("x-kubernetes-preserve-unknown-fields");
    if flag("nullable") || (free && !root) {
        // Clients that validate would refuse null, or a value of another type.
        out.remove("type");
        out.remove("required");
        out.remove("enum");
        return out.into();
    }
    if let Some(items) = map.get("items") {
        out.insert("items".into(), for_v2(items, false));
    }
    if let Some(additional @ Value::Object(_)) = map.get("additionalProperties") {
        out.insert("additionalProperties".into(), for_v2(additional, false));
    }
    if let Some(Value::Object(properties)) = map.get("properties") {
        let properties: Map<String, Value> = properties
            .iter()
            .map(|(name, inner)| (name.clone(), for_v2(inner, false)))
            .collect();
        out.insert("properties".into(), properties.into());
    }
    let mut out = Value::Object(out);
    if flag("x-kubernetes-embedded-resource") {
        type_and_meta(&mut out, Notation::V2);
    }
    out
}
