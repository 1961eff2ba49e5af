//! What makes a schema structural: every value has one type, told apart from the rules about it (KEP-1693).

use keelson_api::field::{Error, Errors, Path};
use serde_json::{Map, Value};

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Checks that a schema is structural.
pub fn check(schema: &Value, path: &Path) -> Errors {
    let mut errors = Errors::new();
    node(schema, Level::Root, path, &mut errors);
    complete(schema, path, &mut errors);
    errors
}

fn flag(map: &Map<String, Value>, name: &str) -> bool {
    map.get(name) == Some(&Value::Bool(true))
}

fn node(schema: &Value, level: Level, path: &Path, errors: &mut Errors) {
    let Some(map) = schema.as_object() else { return };
    let ty = map.get("type").and_then(Value::as_str).unwrap_or_default();
    let items = map.get("items").filter(|items| items.is_object());
    if ty == "array" && items.is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = items {
        node(items, Level::Item, &path.child("items"), errors);
    }
    let properties = map.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        let path = path.child("properties").key(name.as_str());
        node(property, Level::Field, &path, errors);
    }
    let additional = map.get("additionalProperties");
    if let Some(additional) = additional {
        let path = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&path, "must not be used at the root"));
        }
        node(additional, Level::Field, &path, errors);
    }
    let int_or_string = flag(map, "x-kubernetes-int-or-string");
    let preserve = flag(map, "x-kubernetes-preserve-unknown-fields");
    let embedded = flag(map, "x-kubernetes-embedded-resource");
    extensions(ty, int_or_string, preserve, embedded, path, errors);
    values(map, int_or_string, path, errors);

    if embedded && ty != "object" {
        const OBJECT: &str = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match ty {
            "" => Error::required(&path.child("type"), OBJECT),
            ty => Error::invalid(&path.child("type"), ty, OBJECT),
        });
    } else if ty.is_empty() && !int_or_string && !preserve {
        errors.push(Error::required(
            &path.child("type"),
            match level {
                Level::Root => "must not be empty at the root",
                Level::Item => "must not be empty for specified array items",
                Level::Field => "must not be empty for specified object fields",
            },
        ));
    }
    if embedded && additional.is_some() {
        errors.push(Error::forbidden(
            &path.child("additionalProperties"),
            "must not be used if x-kubernetes-embedded-resource is set",
        ));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(Error::invalid(
            &path.child("type"),
            ty,
            "must be object at the root",
        ));
    }
    if level == Level::Root || embedded {
        type_and_meta(properties, path, errors);
    }
    if embedded && !preserve && properties.is_none_or(Map::is_empty) {
        errors.push(Error::required(
            &path.child("properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

fn extensions(
    ty: &str,
    int_or_string: bool,
    preserve: bool,
    embedded: bool,
    path: &Path,
    errors: &mut Errors,
) {
    if !int_or_string {
        return;
    }
    if preserve {
        errors.push(Error::invalid(
            &path.child("x-kubernetes-preserve-unknown-fields"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        ));
    }
    if embedded {
        errors.push(Error::invalid(
            &path.child("x-kubernetes-embedded-resource"),
            true,
            "must be false if x-kubernetes-int-or-string is true",
        ));
    }
    if !ty.is_empty() {
        errors.push(Error::forbidden(
            &path.child("type"),
            "must be empty if x-kubernetes-int-or-string is true",
        ));
    }
}

fn type_and_meta(properties: Option<&Map<String, Value>>, path: &Path, errors: &mut Errors) {
    let Some(properties) = properties else { return };
    for name in ["apiVersion", "kind"] {
        if let Some(found) = properties.get(name)
            && found["type"] != "string"
        {
            let path = path.child("properties").key(name).child("type");
            let ty = found["type"].as_str().unwrap_or_default();
            errors.push(Error::invalid(&path, ty, "must be string"));
        }
    }
    let Some(metadata) = properties.get("metadata") else {
        return;
    };
    let path = path.child("properties").key("metadata");
    let ty = metadata["type"].as_str().unwrap_or_default();
    if ty != "object" {
        errors.push(Error::invalid(&path.child("type"), ty, "must be object"));
    }
    let more = metadata["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .any(|(name, _)| !matches!(name.as_str(), "name" | "generateName"));
    if more || metadata.get("additionalProperties").is_some() {
        errors.push(Error::forbidden(
            &path,
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
}

/// What a value has to be besides its type: `anyOf`, `allOf`, `oneOf` and `not` say nothing about types.
fn values(map: &Map<String, Value>, int_or_string: bool, path: &Path, errors: &mut Errors) {
    let list = |name: &str| map.get(name).and_then(Value::as_array).into_iter().flatten();
    let both = |value: &Value| {
        value["anyOf"].as_array().is_some_and(|either| {
            either.len() == 2 && either[0]["type"] == "integer" && either[1]["type"] == "string"
        })
    };
    // The two ways to spell int-or-string out.
    let skip_any_of = int_or_string && both(&Value::Object(map.clone()));
    let skip_all_of = int_or_string && list("allOf").next().is_some_and(both);
    for (index, one) in list("anyOf").enumerate() {
        if !skip_any_of || index > 1 {
            nested(one, &path.child("anyOf").index(index), errors);
        }
    }
    for (index, one) in list("allOf").enumerate() {
        if !skip_all_of || index > 0 {
            nested(one, &path.child("allOf").index(index), errors);
        }
    }
    for (index, one) in list("oneOf").enumerate() {
        nested(one, &path.child("oneOf").index(index), errors);
    }
    if let Some(not) = map.get("not") {
        nested(not, &path.child("not"), errors);
    }
}

fn nested(schema: &Value, path: &Path, errors: &mut Errors) {
    const FORBIDDEN: &[(&str, &str)] = &[
        ("type", "must be empty to be structural"),
        ("additionalProperties", "must be undefined to be structural"),
        ("default", "must be undefined to be structural"),
        ("title", "must be empty to be structural"),
        ("description", "must be empty to be structural"),
        ("nullable", "must be false to be structural"),
        (
            "x-kubernetes-preserve-unknown-fields",
            "must be false to be structural",
        ),
        ("x-kubernetes-embedded-resource", "must be false to be structural"),
        ("x-kubernetes-int-or-string", "must be false to be structural"),
        ("x-kubernetes-list-map-keys", "must be empty to be structural"),
        ("x-kubernetes-list-type", "must be undefined to be structural"),
        ("x-kubernetes-map-type", "must be undefined to be structural"),
        ("x-kubernetes-validations", "must be empty to be structural"),
    ];
    let Some(map) = schema.as_object() else { return };
    for (name, text) in FORBIDDEN {
        let given = map.get(*name).is_some_and(|value| {
            *value != false && *value != "" && !value.as_array().is_some_and(Vec::is_empty)
        });
        if given {
            errors.push(Error::forbidden(&path.child(*name), *text));
        }
    }
    for (name, property) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let path = path.child("properties").key(name.as_str());
        if name == "metadata" {
            errors.push(Error::forbidden(
                &path,
                "must not be specified in a nested context",
            ));
        }
        nested(property, &path, errors);
    }
    if let Some(items) = map.get("items") {
        nested(items, &path.child("items"), errors);
    }
    values(map, false, path, errors);
}

/// Every field that a nested rule mentions is told of in the structure, too.
fn complete(schema: &Value, path: &Path, errors: &mut Errors) {
    let Some(map) = schema.as_object() else { return };
    for part in ["anyOf", "allOf", "oneOf"] {
        for (index, rule) in map
            .get(part)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            told_of(schema, path, rule, &path.child(part).index(index), errors);
        }
    }
    if let Some(not) = map.get("not") {
        told_of(schema, path, not, &path.child("not"), errors);
    }
    for (name, property) in map
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        complete(property, &path.child("properties").key(name.as_str()), errors);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(inner) = map.get(part) {
            complete(inner, &path.child(part), errors);
        }
    }
}

fn told_of(schema: &Value, path: &Path, rule: &Value, rule_path: &Path, errors: &mut Errors) {
    let missing =
        |at: &Path, rule_at: &Path| Error::required(at, format!("because it is defined in {rule_at}"));
    for (name, inner) in rule["properties"].as_object().into_iter().flatten() {
        let at = path.child("properties").key(name.as_str());
        let rule_at = rule_path.child("properties").key(name.as_str());
        let found = schema["properties"]
            .get(name)
            .or_else(|| schema.get("additionalProperties").filter(|a| a.is_object()));
        match found {
            Some(found) => told_of(found, &at, inner, &rule_at, errors),
            None if schema["additionalProperties"] == true => {}
            None => errors.push(missing(&at, &rule_at)),
        }
    }
    if let Some(inner) = rule.get("items") {
        let (at, rule_at) = (path.child("items"), rule_path.child("items"));
        match schema.get("items") {
            Some(found) => told_of(found, &at, inner, &rule_at, errors),
            None => errors.push(missing(&at, &rule_at)),
        }
    }
    for part in ["anyOf", "allOf", "oneOf"] {
        for (index, inner) in rule[part].as_array().into_iter().flatten().enumerate() {
            told_of(schema, path, inner, &rule_path.child(part).index(index), errors);
        }
    }
    if let Some(inner) = rule.get("not") {
        told_of(schema, path, inner, &rule_path.child("not"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(schema: Value) -> Vec<String> {
        check(&schema, &Path::new("s"))
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn every_value_has_a_type() {
        assert_eq!(
            texts(
                json!({"properties": {"a": {}, "l": {"type": "array", "items": {}}, "m": {"type": "array"}}})
            ),
            [
                "s.properties[a].type: Required value: must not be empty for specified object fields",
                "s.properties[l].items.type: Required value: must not be empty for specified array items",
                "s.properties[m].items: Required value: must be specified",
                "s.type: Required value: must not be empty at the root",
            ]
        );
        assert!(texts(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})).is_empty());
    }

    #[test]
    fn nested_rules_say_nothing_about_types() {
        assert_eq!(
            texts(json!({"type": "object", "properties": {"a": {"type": "string"}},
                "anyOf": [{"properties": {"a": {"type": "string"}, "b": {"minLength": 1}}}]})),
            [
                "s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
                "s.properties[b]: Required value: because it is defined in s.anyOf[0].properties[b]",
            ]
        );
        assert_eq!(
            texts(json!({"type": "object", "not": {"x-kubernetes-validations": []},
                "allOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]})),
            ["s.allOf[0].x-kubernetes-validations: Forbidden: must be empty to be structural"]
        );
        let either =
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        assert!(texts(json!({"type": "object", "properties": {"p": either}})).is_empty());
    }

    #[test]
    fn metadata_is_implied() {
        let schema = |meta: Value| json!({"type": "object", "properties": {"metadata": meta}});
        assert!(texts(schema(json!({"type": "object"}))).is_empty());
        assert!(
            texts(schema(
                json!({"type": "object", "properties": {"labels": {"type": "object"}}})
            ))[0]
                .contains("must not specify anything other than name and generateName")
        );
    }
}
