//! From JSON to messages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::Writer;
use crate::schema::{Definition, Shape, Type};

/// Writes an object's fields.
pub(super) fn message(definition: &'static Definition, object: &Map<String, Value>, out: &mut Writer) {
    // Fields of embedded messages, by the way to these: few objects have any.
    let mut embedded: Vec<(Vec<u32>, Writer)> = Vec::new();
    for (name, value) in object {
        if value.is_null() {
            continue;
        }
        let Some(field) = definition.field(name) else {
            continue;
        };
        let tags: Vec<u32> = field.tags().collect();
        match tags.split_last() {
            None => {}
            Some((&tag, [])) => self::field(tag, field.ty(), field.wrapped(), value, out),
            Some((&tag, way)) => {
                let index = embedded
                    .iter()
                    .position(|(other, _)| other == way)
                    .unwrap_or_else(|| {
                        embedded.push((way.to_vec(), Writer::default()));
                        embedded.len() - 1
                    });
                self::field(tag, field.ty(), field.wrapped(), value, &mut embedded[index].1);
            }
        }
    }
    for (way, mut inner) in embedded {
        for &tag in way.iter().skip(1).rev() {
            let mut outer = Writer::with_capacity(inner.len() + 8);
            outer.message(tag, &inner);
            inner = outer;
        }
        if let Some(&tag) = way.first() {
            out.message(tag, &inner);
        }
    }
}

fn field(tag: u32, ty: &'static Type, wrapped: bool, value: &Value, out: &mut Writer) {
    match (ty, value) {
        (Type::List(element), Value::Array(items)) if wrapped => {
            let mut inner = Writer::default();
            items.iter().for_each(|item| single(1, element, item, &mut inner));
            out.message(tag, &inner);
        }
        (Type::List(element), Value::Array(items)) => {
            items.iter().for_each(|item| single(tag, element, item, out))
        }
        (Type::Map(element), Value::Object(map)) => {
            for (key, value) in map {
                let mut entry = Writer::default();
                entry.string(1, key);
                // A map's value that is a list is a message of its own.
                field(2, element, true, value, &mut entry);
                out.message(tag, &entry);
            }
        }
        _ => single(tag, ty, value, out),
    }
}

fn single(tag: u32, ty: &'static Type, value: &Value, out: &mut Writer) {
    match ty {
        Type::String => out.string(tag, value.as_str().unwrap_or_default()),
        Type::Int32 | Type::Int64 => out.int(tag, value.as_i64().unwrap_or_default()),
        Type::Bool => out.bool(tag, value.as_bool().unwrap_or_default()),
        Type::Double => out.double(tag, value.as_f64().unwrap_or_default()),
        Type::Bytes => out.bytes(
            tag,
            &STANDARD
                .decode(value.as_str().unwrap_or_default())
                .unwrap_or_default(),
        ),
        Type::Object => {}
        Type::List(_) | Type::Map(_) => field(tag, ty, true, value, out),
        Type::Named(id) => {
            let mut inner = Writer::default();
            named(id.get(), value, &mut inner);
            out.message(tag, &inner);
        }
    }
}

fn named(definition: &'static Definition, value: &Value, out: &mut Writer) {
    match definition.shape() {
        Shape::Fields => {
            if let Value::Object(object) = value {
                message(definition, object, out);
            }
        }
        Shape::Quantity => match value {
            Value::String(text) => out.string(1, text),
            number => out.string(1, &number.to_string()),
        },
        Shape::Time => {
            let at: Option<Timestamp> = value.as_str().and_then(|text| text.parse().ok());
            if let Some(at) = at {
                // Nanoseconds count up from the second, before 1970 too.
                let nanos = at.as_nanosecond();
                out.int(
                    1,
                    i64::try_from(nanos.div_euclid(1_000_000_000)).unwrap_or_default(),
                );
                out.int(
                    2,
                    i64::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or_default(),
                );
            }
        }
        Shape::IntOrString => match value {
            Value::String(text) => {
                out.int(1, 1);
                out.int(2, 0);
                out.string(3, text);
            }
            number => {
                out.int(1, 0);
                out.int(2, number.as_i64().unwrap_or_default());
                out.string(3, "");
            }
        },
        Shape::Any => any(definition, value, out),
    }
}

/// Embedded JSON: as its bytes, or as one of the choices that JSON schemas have.
fn any(definition: &'static Definition, value: &Value, out: &mut Writer) {
    let schema = |tag: u32, value: &Value, out: &mut Writer| {
        if let Some(definition) = super::decode::json_schema() {
            let mut inner = Writer::default();
            named(definition, value, &mut inner);
            out.message(tag, &inner);
        }
    };
    match (definition.short_name(), value) {
        ("JSONSchemaPropsOrArray", Value::Array(items)) => items.iter().for_each(|item| schema(2, item, out)),
        ("JSONSchemaPropsOrArray", value) => schema(1, value, out),
        ("JSONSchemaPropsOrBool", Value::Bool(allows)) => out.bool(1, *allows),
        ("JSONSchemaPropsOrBool", value) => {
            out.bool(1, true);
            schema(2, value, out);
        }
        ("JSONSchemaPropsOrStringArray", Value::Array(items)) => {
            items
                .iter()
                .filter_map(Value::as_str)
                .for_each(|item| out.string(2, item));
        }
        ("JSONSchemaPropsOrStringArray", value) => schema(1, value, out),
        (_, value) => out.string(1, &value.to_string()),
    }
}
