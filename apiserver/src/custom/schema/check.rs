//! Finds what breaks a schema. The words are those of upstream's validator.
//!
//! On an update, what was stored already and has not changed is not held against the caller: a schema may become
//! stricter without locking everybody out (KEP-4008).

use std::collections::HashSet;

use keelson_api::field::{Error, Errors, Path};
use keelson_api::validation;
use serde_json::{Map, Value};

use super::{ListType, Rules, Schema, Type, formats};

/// Errors collected at most: a large list of mistakes must not become a larger answer.
const MAX_ERRORS: usize = 1000;

/// Where the checker is: what upstream calls the value's name.
#[derive(Clone, Copy)]
struct At<'a> {
    path: &'a Path,
    /// The root has no name.
    root: bool,
}

impl At<'_> {
    fn name(self) -> String {
        if self.root {
            String::new()
        } else {
            self.path.to_string()
        }
    }

    fn child(self, name: &str) -> Path {
        if self.root {
            Path::new(name.to_owned())
        } else {
            self.path.child(name.to_owned())
        }
    }

    fn invalid(self, value: impl Into<Value>, text: &str) -> Error {
        let name = self.name();
        Error::invalid(self.path, value, format!("{name} in body {text}"))
    }
}

/// Checks a whole object; `old` is what it was before an update.
pub fn object(value: &Value, old: Option<&Value>, schema: &Schema) -> Errors {
    let mut errors = Errors::new();
    let path = Path::root();
    check(
        value,
        old,
        schema,
        At {
            path: &path,
            root: true,
        },
        &mut errors,
    );
    if schema.has_unique_lists {
        lists(value, old, schema, &path, true, &mut errors);
    }
    errors.truncate(MAX_ERRORS);
    errors
}

/// Checks a value at a path: a default inside a definition.
pub fn value(value: &Value, schema: &Schema, path: &Path) -> Errors {
    let mut errors = Errors::new();
    check(value, None, schema, At { path, root: false }, &mut errors);
    if schema.has_unique_lists {
        lists(value, None, schema, path, false, &mut errors);
    }
    errors.truncate(MAX_ERRORS);
    errors
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn fits(value: &Value, ty: Type) -> bool {
    match (ty, value) {
        (Type::Object, Value::Object(_))
        | (Type::Array, Value::Array(_))
        | (Type::String, Value::String(_))
        | (Type::Boolean, Value::Bool(_))
        | (Type::Number, Value::Number(_)) => true,
        (Type::Integer, Value::Number(number)) => {
            number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
        }
        _ => false,
    }
}

fn check(value: &Value, old: Option<&Value>, schema: &Schema, at: At<'_>, errors: &mut Errors) {
    if errors.len() >= MAX_ERRORS || old == Some(value) {
        return;
    }
    if value.is_null() && schema.nullable {
        return;
    }
    let wanted = if schema.int_or_string {
        (!matches!(value, Value::String(_)) && !fits(value, Type::Integer)).then_some("integer,string")
    } else {
        schema.ty.filter(|ty| !fits(value, *ty)).map(Type::as_str)
    };
    if let Some(wanted) = wanted {
        let found = type_name(value);
        let text = format!("{} in body must be of type {wanted}: \"{found}\"", at.name());
        errors.push(Error::type_invalid(at.path, found, text));
    }
    if let Some(rules) = &schema.rules {
        combined(value, rules, at, errors);
        match value {
            Value::String(text) => string(text, rules, at, errors),
            Value::Number(_) => number(value, rules, at, errors),
            Value::Array(list) => length(list.len(), rules, at, errors),
            _ => {}
        }
        if let Some(choices) = &rules.choices
            && !choices.iter().any(|choice| same(choice, value))
        {
            let texts: Vec<String> = choices
                .iter()
                .map(|choice| match choice {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                })
                .collect();
            errors.push(Error::not_supported(at.path, value.clone(), &texts));
        }
    }
    match value {
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                for (index, element) in list.iter().enumerate() {
                    let path = at.path.index(index);
                    let before = old.and_then(|old| counterpart(old, element, schema));
                    let at = At {
                        path: &path,
                        root: false,
                    };
                    check(element, before, items, at, errors);
                }
            }
        }
        Value::Object(map) => fields(map, old, schema, at, errors),
        _ => {}
    }
}

/// The element of an old list that is the same as this one: lists without keys have none.
pub(crate) fn counterpart<'v>(old: &'v Value, element: &Value, schema: &Schema) -> Option<&'v Value> {
    if schema.list != ListType::Map {
        return None;
    }
    let keys = keys_of(element, schema);
    old.as_array()?.iter().find(|one| keys_of(one, schema) == keys)
}

/// The values of an element's keys, with defaults where the element has none.
fn keys_of<'v>(element: &'v Value, schema: &'v Schema) -> Vec<Option<&'v Value>> {
    schema
        .map_keys
        .iter()
        .map(|key| {
            element.get(&**key).or_else(|| {
                let items = schema.items.as_deref()?;
                items.properties.get(key)?.default.as_ref()
            })
        })
        .collect()
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left == right || left.as_f64() == right.as_f64(),
        _ => left == right,
    }
}

fn fields(map: &Map<String, Value>, old: Option<&Value>, schema: &Schema, at: At<'_>, errors: &mut Errors) {
    if let Some(rules) = &schema.rules {
        for name in &rules.required {
            if !map.contains_key(&**name) {
                errors.push(Error::required(&at.child(name), ""));
            }
        }
        if let Some(min) = rules.min_properties
            && map.len() < min
        {
            errors.push(at.invalid("", &format!("should have at least {min} properties")));
        }
        if let Some(max) = rules.max_properties
            && map.len() > max
        {
            errors.push(Error::too_many(at.path, map.len(), max));
        }
    }
    if schema.embedded {
        embedded(map, at, errors);
    }
    for (name, inner) in map {
        let Some(known) = schema.field(name) else { continue };
        let path = at.child(name);
        let before = old.and_then(|old| old.get(name));
        let at = At {
            path: &path,
            root: false,
        };
        check(inner, before, known, at, errors);
    }
}

/// An object inside of an object has a kind and valid metadata.
fn embedded(map: &Map<String, Value>, at: At<'_>, errors: &mut Errors) {
    for name in ["apiVersion", "kind"] {
        if map.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
            errors.push(Error::required(&at.child(name), "must not be empty"));
        }
    }
    let Some(metadata) = map.get("metadata") else {
        return;
    };
    let path = at.child("metadata");
    match serde_json::from_value::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>(
        metadata.clone(),
    ) {
        Ok(meta) => {
            if let Some(labels) = &meta.labels {
                errors.extend(validation::labels(&path.child("labels"), labels));
            }
            if let Some(annotations) = &meta.annotations {
                errors.extend(validation::annotations(&path.child("annotations"), annotations));
            }
        }
        Err(error) => errors.push(Error::invalid(&path, metadata.clone(), error.to_string())),
    }
}

fn combined(value: &Value, rules: &Rules, at: At<'_>, errors: &mut Errors) {
    let tried = |schema: &Schema| {
        let mut found = Errors::new();
        check(value, None, schema, at, &mut found);
        found
    };
    let whole = |text: String| Error::invalid(&Path::root(), "", text);
    let name = at.name();
    if !rules.any_of.is_empty() {
        let mut best: Option<Errors> = None;
        let mut held = false;
        for schema in &rules.any_of {
            let found = tried(schema);
            if found.is_empty() {
                held = true;
                break;
            }
            if best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        if !held {
            errors.push(whole(format!(
                "\"{name}\" must validate at least one schema (anyOf)"
            )));
            errors.extend(best.into_iter().flatten());
        }
    }
    if !rules.one_of.is_empty() {
        let mut best: Option<Errors> = None;
        let mut held = 0;
        for schema in &rules.one_of {
            let found = tried(schema);
            if found.is_empty() {
                held += 1;
                best = None;
            } else if held == 0 && best.as_ref().is_none_or(|best| found.len() < best.len()) {
                best = Some(found);
            }
        }
        if held != 1 {
            let more = match held {
                0 => "Found none valid".to_owned(),
                held => format!("Found {held} valid alternatives"),
            };
            errors.push(whole(format!(
                "\"{name}\" must validate one and only one schema (oneOf). {more}"
            )));
            errors.extend(best.into_iter().flatten());
        }
    }
    if !rules.all_of.is_empty() {
        let (mut held, mut wrong) = (0, Errors::new());
        for schema in &rules.all_of {
            let found = tried(schema);
            if found.is_empty() {
                held += 1;
            }
            wrong.extend(found);
        }
        let more = match held {
            _ if held == rules.all_of.len() => None,
            0 => Some(". None validated"),
            _ => Some(""),
        };
        errors.extend(wrong);
        if let Some(more) = more {
            errors.push(whole(format!(
                "\"{name}\" must validate all the schemas (allOf){more}"
            )));
        }
    }
    if let Some(not) = &rules.not
        && tried(not).is_empty()
    {
        errors.push(whole(format!("\"{name}\" must not validate the schema (not)")));
    }
}

fn string(text: &str, rules: &Rules, at: At<'_>, errors: &mut Errors) {
    let length = (rules.max_length.is_some() || rules.min_length.is_some()).then(|| text.chars().count());
    if let (Some(max), Some(length)) = (rules.max_length, length)
        && length > max
    {
        errors.push(Error::too_long(at.path, max));
    }
    if let (Some(min), Some(length)) = (rules.min_length, length)
        && length < min
    {
        errors.push(at.invalid(text, &format!("should be at least {min} chars long")));
    }
    if let Some((pattern, compiled)) = &rules.pattern
        && !compiled.as_ref().is_some_and(|compiled| compiled.is_match(text))
    {
        errors.push(at.invalid(text, &format!("should match '{pattern}'")));
    }
    if let Some(format) = &rules.format
        && !formats::holds(format, text)
    {
        let shown = keelson_api::text::quote(text);
        let detail = format!("{} in body must be of type {format}: {shown}", at.name());
        errors.push(Error::type_invalid(at.path, text, detail));
    }
}

fn number(value: &Value, rules: &Rules, at: At<'_>, errors: &mut Errors) {
    let Some(number) = value.as_f64() else { return };
    if let Some(factor) = rules.multiple_of
        && factor > 0.0
    {
        let quotient = number / factor;
        if (quotient - quotient.round()).abs() > 1e-9 * quotient.abs().max(1.0) {
            errors.push(at.invalid(value.clone(), &format!("should be a multiple of {factor}")));
        }
    }
    if let Some(max) = rules.maximum {
        if rules.exclusive_maximum && number >= max {
            errors.push(at.invalid(value.clone(), &format!("should be less than {max}")));
        } else if !rules.exclusive_maximum && number > max {
            errors.push(at.invalid(value.clone(), &format!("should be less than or equal to {max}")));
        }
    }
    if let Some(min) = rules.minimum {
        if rules.exclusive_minimum && number <= min {
            errors.push(at.invalid(value.clone(), &format!("should be greater than {min}")));
        } else if !rules.exclusive_minimum && number < min {
            errors.push(at.invalid(
                value.clone(),
                &format!("should be greater than or equal to {min}"),
            ));
        }
    }
}

fn length(length: usize, rules: &Rules, at: At<'_>, errors: &mut Errors) {
    if let Some(min) = rules.min_items
        && length < min
    {
        errors.push(at.invalid(length, &format!("should have at least {min} items")));
    }
    if let Some(max) = rules.max_items
        && length > max
    {
        errors.push(Error::too_many(at.path, length, max));
    }
}

/// Elements of sets and maps appear once.
fn lists(value: &Value, old: Option<&Value>, schema: &Schema, path: &Path, root: bool, errors: &mut Errors) {
    if old == Some(value) || errors.len() >= MAX_ERRORS {
        return;
    }
    match value {
        Value::Array(list) => {
            let mut seen: HashSet<String> = HashSet::new();
            for (index, element) in list.iter().enumerate() {
                let shown = match schema.list {
                    ListType::Atomic => break,
                    ListType::Set => element.clone(),
                    ListType::Map => schema
                        .map_keys
                        .iter()
                        .zip(keys_of(element, schema))
                        .filter_map(|(name, value)| Some((name.to_string(), value?.clone())))
                        .collect::<Map<_, _>>()
                        .into(),
                };
                if !seen.insert(shown.to_string()) {
                    errors.push(Error::duplicate(&path.index(index), shown));
                }
            }
            if let Some(items) = schema.items.as_deref().filter(|items| items.has_unique_lists) {
                for (index, element) in list.iter().enumerate() {
                    let before = old.and_then(|old| counterpart(old, element, schema));
                    lists(element, before, items, &path.index(index), false, errors);
                }
            }
        }
        Value::Object(map) => {
            for (name, inner) in map {
                let Some(known) = schema.field(name).filter(|known| known.has_unique_lists) else {
                    continue;
                };
                let path = At { path, root }.child(name);
                lists(
                    inner,
                    old.and_then(|old| old.get(name)),
                    known,
                    &path,
                    false,
                    errors,
                );
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors(schema: Value, value: Value) -> Vec<String> {
        texts(object(&value, None, &Schema::compile(&schema)))
    }

    fn texts(errors: Errors) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    fn spec(schema: Value) -> Value {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"x": schema}}}})
    }

    fn one(schema: Value, value: Value) -> String {
        let found = errors(spec(schema), json!({"spec": {"x": value}}));
        found.join("\n")
    }

    #[test]
    fn types() {
        assert_eq!(
            one(json!({"type": "integer"}), json!("a")),
            "spec.x: Invalid value: \"string\": spec.x in body must be of type integer: \"string\""
        );
        assert_eq!(
            one(json!({"type": "string"}), json!(null)),
            "spec.x: Invalid value: \"null\": spec.x in body must be of type string: \"null\""
        );
        assert_eq!(
            one(json!({"x-kubernetes-int-or-string": true}), json!(true)),
            "spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\""
        );
        assert_eq!(one(json!({"type": "string", "nullable": true}), json!(null)), "");
        assert_eq!(one(json!({"type": "integer"}), json!(3.0)), "");
        assert_eq!(one(json!({"type": "number"}), json!(3)), "");
    }

    #[test]
    fn limits() {
        for (schema, value, text) in [
            (
                json!({"type": "integer", "minimum": 1}),
                json!(0),
                "Invalid value: 0: spec.x in body should be greater than or equal to 1",
            ),
            (
                json!({"type": "integer", "maximum": 10}),
                json!(11),
                "Invalid value: 11: spec.x in body should be less than or equal to 10",
            ),
            (
                json!({"type": "integer", "maximum": 10, "exclusiveMaximum": true}),
                json!(10),
                "Invalid value: 10: spec.x in body should be less than 10",
            ),
            (
                json!({"type": "number", "multipleOf": 0.1}),
                json!(0.25),
                "Invalid value: 0.25: spec.x in body should be a multiple of 0.1",
            ),
            (
                json!({"type": "string", "minLength": 3}),
                json!("é"),
                "Invalid value: \"é\": spec.x in body should be at least 3 chars long",
            ),
            (
                json!({"type": "string", "maxLength": 2}),
                json!("abc"),
                "Too long: may not be more than 2 bytes",
            ),
            (
                json!({"type": "string", "pattern": "^a+$"}),
                json!("b"),
                "Invalid value: \"b\": spec.x in body should match '^a+$'",
            ),
            (
                json!({"type": "string", "enum": ["a", "b"]}),
                json!("c"),
                "Unsupported value: \"c\": supported values: \"a\", \"b\"",
            ),
            (
                json!({"type": "string", "format": "ipv4"}),
                json!("x"),
                "Invalid value: \"x\": spec.x in body must be of type ipv4: \"x\"",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
                json!(["a", "b"]),
                "Too many: 2: must have at most 1 item",
            ),
            (
                json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
                json!([]),
                "Invalid value: 0: spec.x in body should have at least 1 items",
            ),
        ] {
            assert_eq!(one(schema, value), format!("spec.x: {text}"));
        }
        assert_eq!(one(json!({"type": "number", "multipleOf": 0.1}), json!(0.3)), "");
        assert_eq!(
            errors(json!({"type": "object", "required": ["spec"]}), json!({})),
            ["spec: Required value"]
        );
    }

    #[test]
    fn combinations() {
        let two = json!([{"required": ["a"]}, {"required": ["b"]}]);
        assert_eq!(
            one(json!({"type": "object", "oneOf": two}), json!({"a": 1, "b": 1})),
            "<nil>: Invalid value: \"\": \"spec.x\" must validate one and only one schema (oneOf). Found 2 valid \
             alternatives"
        );
        assert_eq!(
            one(json!({"type": "object", "anyOf": two}), json!({})),
            "<nil>: Invalid value: \"\": \"spec.x\" must validate at least one schema (anyOf)\nspec.x.a: Required value"
        );
        assert_eq!(
            one(
                json!({"type": "object", "not": {"required": ["a"]}}),
                json!({"a": 1})
            ),
            "<nil>: Invalid value: \"\": \"spec.x\" must not validate the schema (not)"
        );
        assert_eq!(
            one(json!({"type": "object", "allOf": two}), json!({"a": 1, "b": 1})),
            ""
        );
        assert!(one(json!({"type": "object", "allOf": two}), json!({"a": 1})).contains("(allOf)"));
    }

    #[test]
    fn sets_and_maps_hold_each_once() {
        let set = json!({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}});
        assert_eq!(
            one(set, json!(["a", "b", "a"])),
            "spec.x[2]: Duplicate value: \"a\""
        );
        let map = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "p"],
            "items": {"type": "object", "properties": {"port": {"type": "integer"},
            "p": {"type": "string", "default": "TCP"}}}});
        assert_eq!(
            one(map.clone(), json!([{"port": 1, "p": "TCP"}, {"port": 1}])),
            "spec.x[1]: Duplicate value: {\"p\":\"TCP\",\"port\":1}"
        );
        assert_eq!(one(map, json!([{"port": 1, "p": "UDP"}, {"port": 1}])), "");
    }

    #[test]
    fn what_has_not_changed_is_not_held_against_anybody() {
        let schema = Schema::compile(&spec(json!({"type": "string", "maxLength": 2})));
        let (old, new) = (
            json!({"spec": {"x": "long", "y": 1}}),
            json!({"spec": {"x": "long", "y": 2}}),
        );
        assert!(object(&new, Some(&old), &schema).is_empty());
        let changed = json!({"spec": {"x": "longer", "y": 2}});
        assert_eq!(object(&changed, Some(&old), &schema).len(), 1);
    }
}
