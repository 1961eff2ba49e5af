//! Fills in what is missing, after nulls where there may be none are gone.

use serde_json::Value;

use super::Schema;

/// Removes nulls that are no values, then fills in defaults.
pub fn apply(value: &mut Value, schema: &Schema) {
    drop_nulls(value, schema);
    if schema.has_defaults {
        fill(value, schema);
    }
}

fn drop_nulls(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => map.retain(|name, inner| match schema.field(name) {
            Some(known) if inner.is_null() => known.nullable || known.default.is_some(),
            Some(known) => {
                drop_nulls(inner, known);
                true
            }
            None => true,
        }),
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|element| drop_nulls(element, items));
            }
        }
        _ => {}
    }
}

fn fill(value: &mut Value, schema: &Schema) {
    match value {
        Value::Object(map) => {
            for (name, property) in &schema.properties {
                let Some(default) = &property.default else {
                    continue;
                };
                let missing = match map.get(&**name) {
                    None => true,
                    Some(found) => found.is_null() && !property.nullable,
                };
                if missing {
                    map.insert(name.to_string(), default.clone());
                }
            }
            for (name, inner) in map.iter_mut() {
                let Some(known) = schema.field(name) else { continue };
                fill_one(inner, known);
            }
        }
        Value::Array(list) => {
            if let Some(items) = &schema.items {
                list.iter_mut().for_each(|element| fill_one(element, items));
            }
        }
        _ => {}
    }
}

fn fill_one(value: &mut Value, schema: &Schema) {
    if !schema.has_defaults {
        return;
    }
    if value.is_null()
        && !schema.nullable
        && let Some(default) = &schema.default
    {
        *value = default.clone();
    }
    fill(value, schema);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn defaulted(schema: Value, mut value: Value) -> Value {
        apply(&mut value, &Schema::compile(&schema));
        value
    }

    #[test]
    fn defaults_go_where_something_is_missing() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "default": "A"},
            "b": {"type": "object", "default": {}, "properties": {"c": {"type": "integer", "default": 5}}},
            "n": {"type": "string", "nullable": true, "default": "N"},
            "m": {"type": "string", "nullable": true},
            "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "boolean", "default": true}}}}
        }});
        assert_eq!(
            defaulted(schema.clone(), json!({})),
            json!({"a": "A", "b": {"c": 5}, "n": "N"})
        );
        assert_eq!(
            defaulted(
                schema,
                json!({"a": null, "n": null, "m": null, "list": [{}, {"x": false}], "b": {"c": null}})
            ),
            json!({"a": "A", "n": null, "m": null, "list": [{"x": true}, {"x": false}], "b": {"c": 5}})
        );
    }

    #[test]
    fn nulls_without_defaults_go() {
        let schema = json!({"type": "object", "properties": {"a": {"type": "string"}, "l": {"type": "array",
            "items": {"type": "string"}}}});
        assert_eq!(
            defaulted(schema, json!({"a": null, "l": [null], "unknown": null})),
            json!({"l": [null], "unknown": null})
        );
    }
}
