//! From messages to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{Reader, Wire};
use super::{MAGIC, MAX_DEPTH};
use crate::schema::{self, Definition, Field, Shape, Type};

pub(super) fn json_schema() -> Option<&'static Definition> {
    schema::by_name("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
}

/// Reads an object's fields.
pub(super) fn message(
    definition: &'static Definition,
    bytes: &[u8],
    depth: usize,
) -> Result<Map<String, Value>, String> {
    let fields: Vec<(Vec<u32>, &'static Field)> = definition
        .fields()
        .iter()
        .map(|field| (field.tags().collect(), field))
        .collect();
    let mut object = Map::new();
    level(&fields, 0, bytes, depth, &mut object)?;
    object.retain(|name, value| {
        definition
            .field(name)
            .is_some_and(|field| !means_absent(field, value))
    });
    Ok(object)
}

/// Reads the message that lies `way` embeddings deep.
fn level(
    fields: &[(Vec<u32>, &'static Field)],
    way: usize,
    bytes: &[u8],
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err("proto: message nested too deeply".to_owned());
    }
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        let here = |(tags, _): &&(Vec<u32>, &'static Field)| tags.get(way) == Some(&tag);
        let Some((tags, field)) = fields.iter().find(here) else {
            continue;
        };
        if tags.len() == way + 1 {
            add(field, wire, depth, object)?;
        } else {
            // All fields behind this tag lie in the same embedded message.
            let inner: Vec<(Vec<u32>, &'static Field)> = fields.iter().filter(here).cloned().collect();
            level(&inner, way + 1, wire.bytes()?, depth + 1, object)?;
        }
    }
    Ok(())
}

fn add(
    field: &'static Field,
    wire: Wire<'_>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), String> {
    let name = field.name();
    match field.ty() {
        Type::List(element) if field.wrapped() => {
            object.insert(name.to_owned(), items(element, wire, depth)?);
        }
        Type::List(element) => {
            let list = object.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            match (&**element, wire) {
                // Several numbers in one field.
                (Type::Int32 | Type::Int64 | Type::Bool, Wire::Bytes(packed)) => {
                    let mut reader = Reader::new(packed);
                    while !reader.is_empty() {
                        list.push(value(element, Wire::Varint(reader.varint()?), depth)?);
                    }
                }
                _ => list.push(value(element, wire, depth)?),
            }
        }
        Type::Map(element) => {
            let (mut key, mut found) = (String::new(), None);
            let mut reader = Reader::new(wire.bytes()?);
            while let Some((tag, wire)) = reader.next()? {
                match tag {
                    1 => key = wire.text()?,
                    2 => {
                        found = Some(match &**element {
                            Type::List(element) => items(element, wire, depth)?,
                            element => value(element, wire, depth)?,
                        });
                    }
                    _ => {}
                }
            }
            let found = match found {
                Some(found) => found,
                None => value(element, Wire::Bytes(&[]), depth).unwrap_or_default(),
            };
            let map = object.entry(name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, found);
            }
        }
        ty => {
            object.insert(name.to_owned(), value(ty, wire, depth)?);
        }
    }
    Ok(())
}

/// The list inside a message of its own.
fn items(element: &'static Type, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    let mut list = Vec::new();
    let mut reader = Reader::new(wire.bytes()?);
    while let Some((tag, wire)) = reader.next()? {
        if tag == 1 {
            list.push(value(element, wire, depth)?);
        }
    }
    Ok(list.into())
}

fn value(ty: &'static Type, wire: Wire<'_>, depth: usize) -> Result<Value, String> {
    Ok(match ty {
        Type::String => wire.text()?.into(),
        // Negative 32-bit numbers are written as 64-bit ones.
        Type::Int32 => Value::from(wire.int()? as i32),
        Type::Int64 => wire.int()?.into(),
        Type::Bool => (wire.int()? != 0).into(),
        Type::Double => match wire {
            Wire::Fixed64(bits) => f64::from_bits(bits).into(),
            Wire::Fixed32(bits) => f64::from(f32::from_bits(bits)).into(),
            _ => return Err("proto: wrong wireType for a number".to_owned()),
        },
        Type::Bytes => STANDARD.encode(wire.bytes()?).into(),
        Type::Object | Type::List(_) | Type::Map(_) => Value::Null,
        Type::Named(id) => named(id.get(), wire.bytes()?, depth + 1)?,
    })
}

fn named(definition: &'static Definition, bytes: &[u8], depth: usize) -> Result<Value, String> {
    if definition.shape() == Shape::Fields {
        return message(definition, bytes, depth).map(Value::Object);
    }
    if depth > MAX_DEPTH {
        return Err("proto: message nested too deeply".to_owned());
    }
    let mut numbers = [0i64; 3];
    let mut text = String::new();
    let mut list: Vec<Value> = Vec::new();
    let mut schema = Value::Null;
    let (name, shape) = (definition.short_name(), definition.shape());
    let or_list = matches!(name, "JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray");
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        match (shape, tag, wire) {
            (Shape::Any, 2, Wire::Bytes(_)) if name == "JSONSchemaPropsOrStringArray" => {
                list.push(wire.text()?.into());
            }
            (Shape::Any, 1 | 2, Wire::Bytes(bytes)) if name.starts_with("JSONSchemaProps") => {
                let Some(definition) = json_schema() else { continue };
                let value = named(definition, bytes, depth + 1)?;
                if tag == 2 && or_list {
                    list.push(value)
                } else {
                    schema = value
                }
            }
            (Shape::Any, 1, Wire::Bytes(bytes)) => return embedded(bytes),
            (_, 1..=3, Wire::Varint(number)) => numbers[tag as usize - 1] = number.cast_signed(),
            (_, 1 | 3, Wire::Bytes(_)) => text = wire.text()?,
            _ => {}
        }
    }
    Ok(match shape {
        Shape::Quantity => if text.is_empty() { "0".to_owned() } else { text }.into(),
        Shape::IntOrString if numbers[0] == 0 => Value::from(numbers[1] as i32),
        Shape::IntOrString => text.into(),
        Shape::Time if bytes.is_empty() => Value::Null,
        Shape::Time => {
            let nanos = i128::from(numbers[0]) * 1_000_000_000 + i128::from(numbers[1]);
            let at = Timestamp::from_nanosecond(nanos).map_err(|e| e.to_string())?;
            let format = if name == "MicroTime" {
                "%Y-%m-%dT%H:%M:%S%.6fZ"
            } else {
                "%Y-%m-%dT%H:%M:%SZ"
            };
            at.strftime(format).to_string().into()
        }
        _ if !list.is_empty() => list.into(),
        _ if !schema.is_null() => schema,
        _ if name == "JSONSchemaPropsOrBool" => (numbers[0] != 0).into(),
        _ => Value::Null,
    })
}

/// JSON inside a message, or an object that is itself in protobuf.
fn embedded(bytes: &[u8]) -> Result<Value, String> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    if bytes.starts_with(MAGIC) {
        return super::decode_value(bytes);
    }
    serde_json::from_slice(bytes).map_err(|e| format!("json: {e}"))
}

/// Whether a value stands only for the absence of one.
fn means_absent(field: &'static Field, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty() && !field.required() && !field.empty_means_empty(),
        Value::Bool(false) => !field.required() && field.zero_means_absent(),
        Value::Number(number) => {
            number.as_f64() == Some(0.0) && !field.required() && field.zero_means_absent()
        }
        // A struct that Go always writes, even when there is nothing in it.
        Value::Object(map) => map.is_empty() && !field.required() && field.default() == Some("{}"),
        _ => false,
    }
}
