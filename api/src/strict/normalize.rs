//! Rewrites what the API accepts into the one form that is stored.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD as BASE64};
use serde_json::Value;

use crate::quantity::Amount;
use crate::schema::{Definition, Shape, Type};
use crate::time;

/// Base64 as Go reads it: bits that are left over before padding may be anything.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Brings an object of this type into its canonical spelling.
pub(super) fn object(definition: &'static Definition, value: &mut Value) {
    match definition.shape() {
        Shape::Fields => {
            let Some(object) = value.as_object_mut() else {
                return;
            };
            for (name, value) in object.iter_mut() {
                if let Some(field) = definition.field(name) {
                    of_type(&field.ty, value);
                }
            }
            if let Some(moment) = definition.moment {
                let given = object
                    .entry(definition.fields[moment].name)
                    .or_insert(Value::Null);
                if given.is_null() {
                    *given = time::ZERO.into();
                }
            }
        }
        Shape::Quantity => {
            let text = match value {
                Value::String(text) => text.trim().to_owned(),
                Value::Number(number) => number.to_string(),
                _ => return,
            };
            if let Ok(amount) = text.parse::<Amount>() {
                *value = Value::String(amount.to_string());
            }
        }
        Shape::Any | Shape::Time | Shape::IntOrString => {}
    }
}

fn of_type(ty: &Type, value: &mut Value) {
    match ty {
        Type::Named(id) => object(id.get(), value),
        Type::List(element) => {
            for value in value.as_array_mut().into_iter().flatten() {
                of_element(element, value);
            }
        }
        Type::Map(element) => {
            for (_, value) in value.as_object_mut().into_iter().flatten() {
                of_element(element, value);
            }
        }
        Type::Bytes => {
            if let Value::String(text) = value {
                text.retain(|c| !matches!(c, '\r' | '\n'));
                if let Ok(bytes) = LENIENT.decode(&*text) {
                    *text = BASE64.encode(bytes);
                }
            }
        }
        _ => {}
    }
}

/// A null element is the zero value of its type.
fn of_element(ty: &Type, value: &mut Value) {
    if value.is_null() {
        *value = match ty {
            Type::String | Type::Bytes => Value::String(String::new()),
            Type::Int32 | Type::Int64 | Type::Double => 0.into(),
            Type::Bool => false.into(),
            Type::List(_) => Value::Array(Vec::new()),
            Type::Object | Type::Map(_) => Value::Object(Default::default()),
            Type::Named(id) => match id.get().shape() {
                Shape::Fields => Value::Object(Default::default()),
                Shape::Quantity => Value::String("0".to_owned()),
                Shape::IntOrString => 0.into(),
                Shape::Any | Shape::Time => Value::Null,
            },
        };
    }
    of_type(ty, value);
}
