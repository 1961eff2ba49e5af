//! The rules of schemas: what OpenAPI allows and a definition may use.

use keelson_api::field::{Error, Errors, Path};
use serde_json::Value;

use super::structural_rules;
use crate::custom::schema::{Schema, check, pattern_of, prune, rules};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] = [
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// What the rest of the version says that its schema depends on.
pub struct Context {
    /// `status` is a subresource.
    pub has_status: bool,
    /// The schema has been accepted before: what its rules cost is not counted anew.
    pub unchanged: bool,
}

/// Checks `openAPIV3Schema`.
pub fn check(schema: &Value, path: &Path, context: &Context) -> Errors {
    let mut errors = Errors::new();
    if context.has_status {
        only_at_root(schema, path, &mut errors);
    }
    if schema["nullable"] == true {
        errors.push(Error::forbidden(
            &path.child("openAPIV3Schema.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let compiled = Schema::compile(schema);
    let mut structural = structural_rules::check(schema, path);
    if structural.is_empty() {
        defaults(schema, &compiled, path, true, &mut structural);
    }
    errors.extend(structural);
    let walk = Walk {
        in_meta: false,
        no_defaults: None,
    };
    walk.node(schema, path, true, &mut errors);
    // Types of expressions follow from the schema: what is wrong with it would be told twice.
    if errors.is_empty() {
        errors.extend(rules::check(&compiled, path, context.unchanged));
    }
    errors
}

/// Fields that a schema's root may have beside a status of its own: what they say of the rest still holds without it.
fn only_at_root(schema: &Value, path: &Path, errors: &mut Errors) {
    const ALLOWED: &[&str] = &[
        "$schema",
        "description",
        "type",
        "format",
        "title",
        "maximum",
        "exclusiveMaximum",
        "minimum",
        "exclusiveMinimum",
        "maxLength",
        "minLength",
        "pattern",
        "maxItems",
        "minItems",
        "uniqueItems",
        "multipleOf",
        "required",
        "items",
        "properties",
        "externalDocs",
        "example",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    let Some(map) = schema.as_object() else { return };
    if let Some(ty) = map.get("type").and_then(Value::as_str)
        && ty != "object"
    {
        errors.push(Error::invalid(
            &path.child("type"),
            ty,
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled",
        ));
    }
    if let Some(name) = map.keys().find(|name| !ALLOWED.contains(&name.as_str())) {
        errors.push(Error::invalid(
            path,
            name.as_str(),
            format!(
                "only {} fields are allowed at the root of the schema if the status subresource is enabled",
                ALLOWED.join(" ")
            ),
        ));
    }
}

#[derive(Clone, Copy)]
struct Walk {
    in_meta: bool,
    /// Why there may be no defaults here.
    no_defaults: Option<&'static str>,
}

impl Walk {
    fn node(self, schema: &Value, path: &Path, root: bool, errors: &mut Errors) {
        let Some(map) = schema.as_object() else { return };
        self.standard(schema, path, errors);
        if map.get("uniqueItems") == Some(&Value::Bool(true)) {
            errors.push(Error::forbidden(
                &path.child("uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ));
        }
        let properties = map.get("properties").and_then(Value::as_object);
        if let Some(additional) = map.get("additionalProperties") {
            let at = path.child("additionalProperties");
            if properties.is_some_and(|p| !p.is_empty()) && *additional != true {
                errors.push(Error::forbidden(
                    &at,
                    "additionalProperties and properties are mutual exclusive",
                ));
            }
            let inner = Walk {
                no_defaults: if self.in_meta {
                    Some(" inside additionalProperties applying to object metadata")
                } else {
                    self.no_defaults
                },
                ..self
            };
            inner.node(additional, &at, false, errors);
        }
        let embedded = map.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
        for (name, property) in properties.into_iter().flatten() {
            let mut inner = self;
            if (root || embedded) && matches!(name.as_str(), "metadata" | "kind" | "apiVersion") {
                inner.in_meta = true;
                if root {
                    inner.no_defaults = Some(match name.as_str() {
                        "metadata" => " in top-level metadata",
                        "kind" => " in top-level kind",
                        _ => " in top-level apiVersion",
                    });
                }
            }
            inner.node(
                property,
                &path.child("properties").key(name.as_str()),
                false,
                errors,
            );
        }
        if let Some(not) = map.get("not") {
            self.node(not, &path.child("not"), false, errors);
        }
        for part in ["allOf", "oneOf", "anyOf"] {
            for (index, one) in map
                .get(part)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .enumerate()
            {
                self.node(one, &path.child(part).index(index), false, errors);
            }
        }
        if let Some(items) = map.get("items") {
            self.node(items, &path.child("items"), false, errors);
        }
        extensions(schema, path, errors);
        validations(schema, path, errors);
    }

    fn standard(self, schema: &Value, path: &Path, errors: &mut Errors) {
        let present = |name: &str| schema.get(name).is_some();
        match schema["type"].as_str() {
            Some("") | None => {}
            Some("null") => {
                errors.push(Error::forbidden(
                    &path.child("type"),
                    "type cannot be set to null, use nullable as an alternative",
                ));
            }
            Some(ty) if !TYPES.contains(&ty) => {
                errors.push(Error::not_supported(&path.child("type"), ty, &TYPES));
            }
            _ => {}
        }
        if let Some(why) = self.no_defaults.filter(|_| present("default")) {
            errors.push(Error::forbidden(
                &path.child("default"),
                format!("must not be set{why}"),
            ));
        }
        for (name, text) in [
            ("id", "id is not supported"),
            ("additionalItems", "additionalItems is not supported"),
            ("patternProperties", "patternProperties is not supported"),
            ("definitions", "definitions is not supported"),
            ("dependencies", "dependencies is not supported"),
            ("$ref", "$ref is not supported"),
        ] {
            if present(name) {
                errors.push(Error::forbidden(&path.child(name), text));
            }
        }
        if schema["items"].is_array() {
            errors.push(Error::forbidden(
                &path.child("items"),
                "items must be a schema object and not an array",
            ));
        }
        if self.in_meta && schema["x-kubernetes-embedded-resource"] == true {
            errors.push(Error::forbidden(
                &path.child("x-kubernetes-embedded-resource"),
                "must not be used inside of resource meta",
            ));
        }
        if let Some(pattern) = schema["pattern"].as_str()
            && let Err(error) = pattern_of(pattern)
        {
            errors.push(Error::invalid(
                &path.child("pattern"),
                pattern,
                format!("must be a valid regular expression, but isn't: {error}"),
            ));
        }
    }
}

fn extensions(schema: &Value, path: &Path, errors: &mut Errors) {
    let ty = schema["type"].as_str().unwrap_or_default();
    if schema["x-kubernetes-preserve-unknown-fields"] == false {
        errors.push(Error::invalid(
            &path.child("x-kubernetes-preserve-unknown-fields"),
            false,
            "must be true or undefined",
        ));
    }
    let mut typed = |wanted: &str, extension: &str| {
        let detail = format!("must be {wanted} if {extension} is specified");
        match ty {
            "" => errors.push(Error::required(&path.child("type"), detail)),
            ty if ty != wanted => errors.push(Error::invalid(&path.child("type"), ty, detail)),
            _ => {}
        }
    };
    let map_type = schema["x-kubernetes-map-type"].as_str();
    let list_type = schema["x-kubernetes-list-type"].as_str();
    if map_type.is_some() {
        typed("object", "x-kubernetes-map-type");
    }
    if list_type.is_some() {
        typed("array", "x-kubernetes-list-type");
    }
    if let Some(kind) = map_type.filter(|kind| !matches!(*kind, "atomic" | "granular")) {
        let path = path.child("x-kubernetes-map-type");
        errors.push(Error::not_supported(&path, kind, &["atomic", "granular"]));
    }
    let at = path.child("x-kubernetes-list-type");
    if let Some(kind) = list_type.filter(|kind| !matches!(*kind, "atomic" | "set" | "map")) {
        errors.push(Error::not_supported(&at, kind, &["atomic", "set", "map"]));
    }
    let items = &schema["items"];
    let inside = path.child("items");
    if list_type == Some("set") && ty == "array" {
        const ATOMIC: &str = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let item_list = items["x-kubernetes-list-type"].as_str().unwrap_or("atomic");
        let item_map = items["x-kubernetes-map-type"].as_str().unwrap_or_default();
        match items["type"].as_str() {
            Some("array") if item_list != "atomic" => {
                errors.push(Error::invalid(
                    &inside.child("x-kubernetes-list-type"),
                    item_list,
                    ATOMIC,
                ));
            }
            Some("object") if item_map != "atomic" => {
                errors.push(Error::invalid(
                    &inside.child("x-kubernetes-map-type"),
                    item_map,
                    ATOMIC,
                ));
            }
            _ => {}
        }
    }
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .map(|keys| keys.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    if !keys.is_empty() {
        const MAP: &str = "must be map if x-kubernetes-list-map-keys is non-empty";
        match list_type {
            None => errors.push(Error::required(&at, MAP)),
            Some("map") => {}
            Some(other) => errors.push(Error::invalid(&at, other, MAP)),
        }
    }
    if matches!(list_type, Some("set" | "map")) && items["nullable"] == true {
        let kind = list_type.unwrap_or_default();
        errors.push(Error::forbidden(
            &inside.child("nullable"),
            format!("cannot be nullable when x-kubernetes-list-type is {kind}"),
        ));
    }
    if list_type == Some("map") {
        map_list(schema, &keys, path, errors);
    }
}

fn map_list(schema: &Value, keys: &[&str], path: &Path, errors: &mut Errors) {
    let at = path.child("x-kubernetes-list-map-keys");
    let (items, inside) = (&schema["items"], path.child("items"));
    if keys.is_empty() {
        errors.push(Error::required(
            &at,
            "must not be empty if x-kubernetes-list-type is map",
        ));
    }
    if items.is_null() {
        return errors.push(Error::required(
            &inside,
            "must have a schema if x-kubernetes-list-type is map",
        ));
    }
    if items["type"] != "object" {
        return errors.push(Error::invalid(
            &inside.child("type"),
            items["type"].as_str().unwrap_or_default(),
            "must be object if parent array's x-kubernetes-list-type is map",
        ));
    }
    let required: Vec<&str> = items["required"]
        .as_array()
        .map(|names| names.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default();
    for (index, key) in keys.iter().enumerate() {
        let shown = || keys.iter().map(|key| Value::from(*key)).collect::<Value>();
        let one = inside.child("properties").key(*key);
        match items["properties"].get(*key) {
            None => errors.push(Error::invalid(
                &at,
                shown(),
                "entries must all be names of item properties",
            )),
            Some(property) => {
                if matches!(property["type"].as_str(), Some("array" | "object")) {
                    errors.push(Error::invalid(
                        &one.child("type"),
                        items["type"].clone(),
                        "must be a scalar type if parent array's x-kubernetes-list-type is map",
                    ));
                }
                if !required.contains(key) && property.get("default").is_none() {
                    errors.push(Error::required(
                        &one.child("default"),
                        "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required \
                         property",
                    ));
                }
                if property["nullable"] == true {
                    errors.push(Error::forbidden(
                        &one.child("nullable"),
                        "this property is in x-kubernetes-list-map-keys, so it cannot be nullable",
                    ));
                }
            }
        }
        if keys[..index].contains(key) {
            errors.push(Error::invalid(&at, shown(), "must not contain duplicate entries"));
        }
    }
}

/// The shape of `x-kubernetes-validations`; what the rules mean is looked at when everything else is right.
fn validations(schema: &Value, path: &Path, errors: &mut Errors) {
    let rules = schema["x-kubernetes-validations"].as_array();
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        let path = path.child("x-kubernetes-validations").index(index);
        let text = |name: &str| rule[name].as_str().unwrap_or_default();
        let lines = |text: &str| text.contains(['\n', '\r']);
        let (expression, message) = (text("rule").trim(), text("message").trim());
        if expression.is_empty() {
            errors.push(Error::required(&path.child("rule"), "rule is not specified"));
        } else if !text("message").is_empty() && message.is_empty() {
            errors.push(Error::invalid(
                &path.child("message"),
                text("message"),
                "must be non-empty if specified",
            ));
        } else if lines(message) {
            errors.push(Error::invalid(
                &path.child("message"),
                text("message"),
                "must not contain line breaks",
            ));
        } else if lines(expression) && message.is_empty() {
            errors.push(Error::required(
                &path.child("message"),
                "message must be specified if rule contains line breaks",
            ));
        }
        if !text("messageExpression").is_empty() && text("messageExpression").trim().is_empty() {
            errors.push(Error::required(
                &path.child("messageExpression"),
                "messageExpression must be non-empty if specified",
            ));
        }
        if let Some(reason) = rule["reason"].as_str().filter(|reason| !REASONS.contains(reason)) {
            errors.push(Error::not_supported(&path.child("reason"), reason, &REASONS));
        }
        let field = text("fieldPath");
        if !field.is_empty() && field.trim().is_empty() {
            errors.push(Error::invalid(
                &path.child("fieldPath"),
                field,
                "must be non-empty if specified",
            ));
        }
        if lines(field) {
            errors.push(Error::invalid(
                &path.child("fieldPath"),
                field,
                "must not contain line breaks",
            ));
        }
        if !field.is_empty() && !names_a_field(schema, field) {
            errors.push(Error::invalid(
                &path.child("fieldPath"),
                field,
                "must be a valid path",
            ));
        }
    }
}

/// Whether a path names a field below a schema.
fn names_a_field(schema: &Value, text: &str) -> bool {
    let Ok(path) = keelson_api::jsonpath::JsonPath::parse(text) else {
        return false;
    };
    let Some(fields) = path.fields().filter(|_| text.starts_with(['.', '['])) else {
        return false;
    };
    fields
        .iter()
        .try_fold(schema, |schema, name| {
            schema["properties"]
                .get(*name)
                .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()))
        })
        .is_some()
}

/// Defaults fit their schema and have nothing to prune.
fn defaults(source: &Value, schema: &Schema, path: &Path, root: bool, errors: &mut Errors) {
    if let Some(default) = &schema.default {
        let path = path.child("default");
        let mut pruned = default.clone();
        let mut removed = Vec::new();
        prune::plain(&mut pruned, schema, &mut removed);
        if !removed.is_empty() {
            let detail = "must not have unknown fields".to_owned();
            errors.push(Error::invalid(&path, default.clone(), detail));
        } else {
            let mut filled = default.clone();
            crate::custom::schema::defaults::apply(&mut filled, schema);
            errors.extend(check::value(&filled, schema, &path));
        }
    }
    for (name, inner) in &schema.properties {
        if root && matches!(&**name, "apiVersion" | "kind" | "metadata") {
            continue;
        }
        let source = &source["properties"][&**name];
        let path = path.child("properties").key(&**name);
        defaults(source, inner, &path, false, errors);
    }
    if let Some(items) = &schema.items {
        defaults(&source["items"], items, &path.child("items"), false, errors);
    }
    if let Some(additional) = schema.additional.schema() {
        let path = path.child("additionalProperties");
        defaults(&source["additionalProperties"], additional, &path, false, errors);
    }
}
