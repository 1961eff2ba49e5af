//! What an expression came to, as JSON.

use base64::Engine as _;
use serde_json::{Map, Number, Value as Json};

use super::value::{Key, Value};

/// The value as JSON. Objects written out must have the names that their places give them: what stands in the field
/// `spec` of an `Object` is an `Object.spec`.
pub fn of(value: &Value<'_>) -> Result<Json, String> {
    within(value, None)
}

fn within(value: &Value<'_>, expected: Option<&str>) -> Result<Json, String> {
    Ok(match value {
        Value::Null | Value::Optional(None) => Json::Null,
        Value::Bool(b) => Json::Bool(*b),
        Value::Int(n) => (*n).into(),
        Value::Uint(n) => (*n).into(),
        Value::Double(n) => whole(*n),
        Value::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
        Value::Timestamp(moment) => moment.to_string().into(),
        Value::Duration(nanoseconds) => {
            // As protobuf's JSON writes spans.
            format!(
                "{}s",
                jiff::SignedDuration::from_nanos(*nanoseconds).as_secs_f64()
            )
            .into()
        }
        Value::Optional(Some(inner)) => within(inner, expected)?,
        Value::Object(object) => {
            if let Some(expected) = expected.filter(|expected| **expected != *object.name) {
                return Err(format!(
                    "unexpected type name {:?}, expected {expected:?}, which matches field name path from root Object type",
                    object.name
                ));
            }
            let mut map = Map::new();
            for (name, value) in &object.fields {
                let below = format!("{}.{name}", object.name);
                map.insert(name.to_string(), within(value, Some(&below))?);
            }
            Json::Object(map)
        }
        Value::JsonList(list, _) => Json::Array(list.to_vec()),
        Value::JsonMap(map, _) => Json::Object(Map::clone(map)),
        Value::List(list) => {
            let list: Result<Vec<Json>, String> = list.iter().map(|one| within(one, expected)).collect();
            Json::Array(list?)
        }
        Value::Map(entries) => {
            let mut map = Map::new();
            for (key, value) in entries.iter() {
                let key = match key {
                    Key::Bool(b) => b.to_string(),
                    Key::Int(n) => n.to_string(),
                    Key::String(text) => text.to_string(),
                };
                map.insert(key, within(value, None)?);
            }
            Json::Object(map)
        }
        other => match other.as_str() {
            Some(text) => text.into(),
            None => return Err(format!("a {} has no form in JSON", other.type_name())),
        },
    })
}

/// A number; without a fraction when it has none, as fields of the API want it.
fn whole(number: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() < EXACT {
        return (number as i64).into();
    }
    Number::from_f64(number).map_or(Json::Null, Json::Number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::Program;
    use crate::cel::eval::Budget;

    fn made(text: &str) -> Result<Json, String> {
        let program = Program::parse(text)?;
        let object = json!({"l": [1, {"a": "b"}]});
        let names = vec![("object", Value::json(&object, None))];
        let value = program.run(names, &mut Budget::new(100_000));
        of(&value.map_err(|failure| format!("{failure:?}"))?)
    }

    #[test]
    fn objects_are_written_out() {
        assert_eq!(
            made(
                "Object{spec: Object.spec{replicas: 1 + 2, list: object.l, ?gone: optional.none(), m: {'k': 'v'}}}"
            ),
            Ok(json!({"spec": {"replicas": 3, "list": [1, {"a": "b"}], "m": {"k": "v"}}}))
        );
        assert_eq!(
            made("[JSONPatch{op: 'add', path: '/m/' + jsonpatch.escapeKey('a/b~c'), value: 1.5}]"),
            Ok(json!([{"op": "add", "path": "/m/a~1b~0c", "value": 1.5}]))
        );
        let wrong =
            made("Object{spec: Object.spec{selector: Object.spec.wrong{}}}").expect_err("another type");
        assert_eq!(
            wrong,
            "unexpected type name \"Object.spec.wrong\", expected \"Object.spec.selector\", which matches field name \
             path from root Object type"
        );
        assert!(made("Object{spec: Object.spec{list: [Object.spec.list{a: 1}]}}").is_ok());
    }
}
