//! Removes the fields a schema does not know.

use serde_json::Value;

use super::{Additional, Schema};

/// Fields of every object that no schema has to name.
const TYPE_AND_META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Paths noted at most.
const MAX_NOTED: usize = 100;

/// Prunes the fields of an object. `noted` gets the paths of what was removed, like `spec.list[0].typo`.
pub fn object(value: &mut Value, schema: &Schema, noted: &mut Vec<String>) {
    prune(value, schema, true, &mut String::new(), noted);
}

/// Prunes a value that is no object of its own: a default.
pub fn plain(value: &mut Value, schema: &Schema, noted: &mut Vec<String>) {
    prune(value, schema, schema.embedded, &mut String::new(), noted);
}

fn prune(value: &mut Value, schema: &Schema, root: bool, path: &mut String, noted: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => map.retain(|name, inner| {
            if root && TYPE_AND_META.contains(&name.as_str()) {
                return true;
            }
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(name);
            let keep = match (schema.field(name), &schema.additional) {
                (Some(known), _) => {
                    prune(inner, known, known.embedded, path, noted);
                    true
                }
                (None, Additional::Allowed(true)) => true,
                _ => schema.preserve,
            };
            if !keep && noted.len() < MAX_NOTED {
                noted.push(path.clone());
            }
            path.truncate(length);
            keep
        }),
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, element) in list.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                prune(element, items, items.embedded, path, noted);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pruned(schema: Value, mut value: Value) -> (Value, Vec<String>) {
        let mut noted = Vec::new();
        object(&mut value, &Schema::compile(&schema), &mut noted);
        (value, noted)
    }

    #[test]
    fn unknown_fields_go() {
        let schema = json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "a": {"type": "integer"},
                "list": {"type": "array", "items": {"type": "object", "properties": {"x": {"type": "string"}}}},
                "map": {"type": "object", "additionalProperties": {"type": "object", "properties": {"y": {}}}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                         "properties": {"strict": {"type": "object", "properties": {"z": {}}}}},
                "whole": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"data": {"type": "object",
                         "x-kubernetes-preserve-unknown-fields": true}}}
            }}
        }});
        let (value, noted) = pruned(
            schema,
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"}, "other": 1,
                "spec": {
                    "a": 1, "b": 2,
                    "list": [{"x": "1", "typo": true}],
                    "map": {"k": {"y": 1, "n": 2}},
                    "free": {"anything": 1, "strict": {"z": 1, "no": 1}},
                    "whole": {"apiVersion": "v1", "kind": "C", "metadata": {"name": "x"}, "data": {"k": "v"}, "gone": 1}
                }
            }),
        );
        assert_eq!(
            value,
            json!({
                "apiVersion": "a/v1", "kind": "K", "metadata": {"name": "n"},
                "spec": {
                    "a": 1, "list": [{"x": "1"}], "map": {"k": {"y": 1}},
                    "free": {"anything": 1, "strict": {"z": 1}},
                    "whole": {"apiVersion": "v1", "kind": "C", "metadata": {"name": "x"}, "data": {"k": "v"}}
                }
            })
        );
        assert_eq!(
            noted,
            [
                "other",
                "spec.b",
                "spec.free.strict.no",
                "spec.list[0].typo",
                "spec.map.k.n",
                "spec.whole.gone"
            ]
        );
    }
}
