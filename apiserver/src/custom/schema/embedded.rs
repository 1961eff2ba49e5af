//! Objects inside of objects (`x-kubernetes-embedded-resource`): their metadata holds what metadata may hold and
//! nothing else, as that of the object around them does.
//!
//! Source: upstream's package `apiserver/schema/objectmeta`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::field::{Error, Path};
use keelson_api::{schema as definitions, strict};
use serde_json::{Map, Value};

use super::Schema;

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// What becomes of fields of wrong types.
#[derive(Clone, Copy)]
enum Malformed {
    /// What a client sends is refused.
    Refused,
    /// What is stored was valid once: it is read without them.
    Dropped,
}

/// Removes what is unknown in the metadata of embedded objects. `noted` gets the paths of what was removed, like
/// `spec.template.metadata.typo`.
///
/// # Errors
/// What is of a wrong type, and where.
pub fn read(value: &mut Value, schema: &Schema, noted: &mut Vec<String>) -> Result<(), Error> {
    walk(value, schema, &Path::root(), Malformed::Refused, noted)
}

/// The same for what was stored: what cannot be read goes, too.
pub fn repair(value: &mut Value, schema: &Schema) {
    // Nothing is refused here.
    let _ = walk(value, schema, &Path::root(), Malformed::Dropped, &mut Vec::new());
}

fn walk(
    value: &mut Value,
    schema: &Schema,
    at: &Path,
    malformed: Malformed,
    noted: &mut Vec<String>,
) -> Result<(), Error> {
    if !schema.has_embedded {
        return Ok(());
    }
    match value {
        Value::Object(map) => {
            if schema.embedded {
                types(map, at, malformed)?;
                metadata(map, at, malformed, noted)?;
            }
            for (name, inner) in map.iter_mut() {
                if let Some(property) = schema.properties.get(name.as_str()) {
                    walk(inner, property, &at.child(name.clone()), malformed, noted)?;
                } else if let Some(additional) = schema.additional.schema() {
                    walk(inner, additional, &at.key(name.clone()), malformed, noted)?;
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            for (index, element) in list.iter_mut().enumerate() {
                walk(element, items, &at.index(index), malformed, noted)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn types(map: &mut Map<String, Value>, at: &Path, malformed: Malformed) -> Result<(), Error> {
    for name in ["apiVersion", "kind"] {
        let Some(wrong) = map.get(name).filter(|found| !found.is_string()) else {
            continue;
        };
        match malformed {
            Malformed::Refused => {
                return Err(Error::invalid(&at.child(name), wrong.clone(), "must be a string"));
            }
            Malformed::Dropped => drop(map.remove(name)),
        }
    }
    Ok(())
}

fn metadata(
    map: &mut Map<String, Value>,
    at: &Path,
    malformed: Malformed,
    noted: &mut Vec<String>,
) -> Result<(), Error> {
    let Some(found) = map.get_mut("metadata") else {
        return Ok(());
    };
    let path = at.child("metadata");
    match (known(found), malformed) {
        (Ok((known, unknown)), _) => {
            *found = known;
            noted.extend(unknown.iter().map(|field| format!("{path}.{field}")));
        }
        (Err(why), Malformed::Refused) => return Err(Error::invalid(&path, found.clone(), why)),
        (Err(_), Malformed::Dropped) => {
            let Value::Object(fields) = found else {
                return Ok(());
            };
            fields.retain(|name, field| {
                let alone = Map::from_iter([(name.clone(), field.clone())]);
                known(&Value::Object(alone)).is_ok()
            });
            if let Ok((known, _)) = known(found) {
                *found = known;
            }
        }
    }
    Ok(())
}

/// Metadata without what is unknown in it, and the paths of that.
fn known(metadata: &Value) -> Result<(Value, Vec<String>), String> {
    if metadata.is_null() {
        return Ok((Value::Object(Map::new()), Vec::new()));
    }
    let definition = definitions::by_name(OBJECT_META).ok_or("the API knows no metadata")?;
    let text = metadata.to_string();
    let checked = strict::check(definition, text.as_bytes())?;
    let typed: ObjectMeta = serde_json::from_slice(&checked.json).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    let unknown = checked.complaints.iter().filter_map(|complaint| {
        let path = complaint.strip_prefix("unknown field \"")?;
        path.strip_suffix('"').map(str::to_owned)
    });
    Ok((known, unknown.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Schema {
        let whole = json!({"type": "object", "x-kubernetes-embedded-resource": true,
            "x-kubernetes-preserve-unknown-fields": true});
        Schema::compile(&json!({"type": "object", "properties": {
            "one": whole,
            "list": {"type": "array", "items": whole},
            "map": {"type": "object", "additionalProperties": whole},
            "plain": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        }}))
    }

    #[test]
    fn unknown_metadata_goes() {
        let whole =
            |metadata: Value| json!({"apiVersion": "v1", "kind": "K", "metadata": metadata, "typo": 1});
        let given = |metadata: Value| {
            json!({"one": whole(metadata.clone()), "list": [whole(metadata.clone())],
                "map": {"k": whole(metadata.clone())}, "plain": whole(metadata)})
        };
        let mut value = given(json!({"name": "n", "typo": 1, "creationTimestamp": null,
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "u", "odd": 1}]}));
        let plain = value["plain"].clone();
        let mut noted = Vec::new();
        read(&mut value, &schema(), &mut noted).expect("nothing of a wrong type");
        let mut left = given(json!({"name": "n",
            "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "u"}]}));
        left["plain"] = plain;
        assert_eq!(value, left);
        noted.sort();
        assert_eq!(
            noted,
            [
                "list[0].metadata.ownerReferences[0].odd",
                "list[0].metadata.typo",
                "map[k].metadata.ownerReferences[0].odd",
                "map[k].metadata.typo",
                "one.metadata.ownerReferences[0].odd",
                "one.metadata.typo",
            ]
        );
    }

    #[test]
    fn wrong_types_are_refused_or_dropped() {
        let wrong =
            json!({"one": {"apiVersion": "v1", "kind": "K", "metadata": {"name": "n", "labels": {"a": 1}}}});
        let refused = read(&mut wrong.clone(), &schema(), &mut Vec::new()).expect_err("a label is text");
        assert!(
            refused.to_string().starts_with("one.metadata: Invalid value: "),
            "{refused}"
        );
        let mut repaired = wrong;
        repair(&mut repaired, &schema());
        assert_eq!(repaired["one"]["metadata"], json!({"name": "n"}));

        let wrong = json!({"list": [{"apiVersion": 1, "kind": "K"}]});
        let refused = read(&mut wrong.clone(), &schema(), &mut Vec::new()).expect_err("a version is text");
        assert_eq!(
            refused.to_string(),
            "list[0].apiVersion: Invalid value: 1: must be a string"
        );
        let mut repaired = wrong;
        repair(&mut repaired, &schema());
        assert_eq!(repaired, json!({"list": [{"kind": "K"}]}));
    }
}
