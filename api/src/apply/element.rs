//! One step of a path: `f:NAME` a field, `k:{...}` an element by its keys, `v:VALUE` an element by its value, `i:N` by
//! its place.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

use super::tree::{Ref, Sort};
use crate::text::quote;

/// The step to a field or to an entry of a map.
pub fn field(name: &str) -> String {
    let mut step = String::with_capacity(2 + name.len());
    step.push_str("f:");
    step.push_str(name);
    step
}

/// The name of the field a step leads to.
pub fn field_name(step: &str) -> Option<&str> {
    step.strip_prefix("f:")
}

/// The step to an element of a set.
pub(super) fn of_value(value: Ref<'_>) -> String {
    let mut step = String::from("v:");
    write_scalar(&mut step, value);
    step
}

/// The step to an element that is told apart by these fields, which come in order.
pub(super) fn of_keys<'t>(keys: impl Iterator<Item = (&'t str, Key<'t>)>) -> String {
    let mut step = String::with_capacity(48);
    step.push_str("k:{");
    for (i, (name, key)) in keys.enumerate() {
        if i > 0 {
            step.push(',');
        }
        write_text(&mut step, name);
        step.push(':');
        match key {
            Key::Given(value) => write_scalar(&mut step, value),
            Key::Default(json) => step.push_str(&json),
        }
    }
    step.push('}');
    step
}

/// The value of a key.
pub(super) enum Key<'t> {
    /// As the element has it.
    Given(Ref<'t>),
    /// JSON of what holds when the element has none.
    Default(Cow<'t, str>),
}

fn write_text(out: &mut String, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&Value::from(text).to_string());
    }
}

fn write_scalar(out: &mut String, value: Ref<'_>) {
    match (value.sort(), value.text()) {
        (_, Some(text)) => write_text(out, text),
        (Sort::Scalar, None) => {
            let _ = match (value.boolean(), value.number()) {
                (Some(boolean), _) => write!(out, "{boolean}"),
                (None, Some(number)) => write!(out, "{}", plain_number(&number)),
                (None, None) => write!(out, "null"),
            };
        }
        _ => out.push_str("null"),
    }
}

/// A number in its shortest form: `1.0` is `1`.
fn plain_number(number: &Number) -> Number {
    match number.as_f64() {
        Some(float) if !number.is_i64() && float.fract() == 0.0 && float.abs() < 9e15 => {
            Number::from(float as i64)
        }
        _ => number.clone(),
    }
}

/// A step in the form in which equal steps have equal texts. `None` for steps of a kind that is not known.
pub(super) fn canonical(step: &str) -> Result<Option<String>, String> {
    let mut letters = step.chars();
    let (Some(kind), Some(separator)) = (letters.next(), letters.next()) else {
        return Err("key must be 2 characters long:".to_owned());
    };
    if separator != ':' {
        return Err(format!("missing colon: {step}"));
    }
    let rest = letters.as_str();
    let parse = |text: &str| serde_json::from_str::<Value>(text).map_err(|e| e.to_string());
    Ok(match kind {
        'f' => Some(step.to_owned()),
        'v' => Some(format!("v:{}", plain(parse(rest)?))),
        'k' => match parse(rest)? {
            Value::Object(keys) => {
                let mut keys: Vec<(String, Value)> = keys.into_iter().map(|(k, v)| (k, plain(v))).collect();
                keys.sort_by(|a, b| a.0.cmp(&b.0));
                Some(format!("k:{}", Value::Object(Map::from_iter(keys))))
            }
            _ => return Err(format!("the keys of an element must be an object: {step}")),
        },
        'i' => match rest.parse::<i64>() {
            Ok(index) => Some(format!("i:{index}")),
            Err(_) => return Err(format!("strconv.Atoi: parsing {}: invalid syntax", quote(rest))),
        },
        _ => None,
    })
}

fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::Number(plain_number(&number)),
        other => other,
    }
}

/// A step as messages show it: `.spec`, `[name="a"]`, `[="x"]`, `[3]`.
pub fn show(step: &str, out: &mut String) {
    let (kind, rest) = step.split_at_checked(2).unwrap_or((step, ""));
    match kind {
        "f:" => {
            out.push('.');
            out.push_str(rest);
        }
        "k:" => {
            out.push('[');
            let keys = serde_json::from_str::<Map<String, Value>>(rest).unwrap_or_default();
            for (i, (name, value)) in keys.iter().enumerate() {
                let comma = if i > 0 { "," } else { "" };
                let _ = write!(out, "{comma}{name}={}", spell(value));
            }
            out.push(']');
        }
        "v:" => {
            let value = serde_json::from_str::<Value>(rest).unwrap_or_default();
            let _ = write!(out, "[={}]", spell(&value));
        }
        _ => {
            let _ = write!(out, "[{rest}]");
        }
    }
}

fn spell(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(step: &str) -> String {
        let mut out = String::new();
        show(step, &mut out);
        out
    }

    #[test]
    fn steps_have_one_form_and_a_readable_one() {
        let step = canonical(r#"k:{ "protocol":"TCP", "containerPort":80.0}"#).expect("a step");
        assert_eq!(
            step.as_deref(),
            Some(r#"k:{"containerPort":80,"protocol":"TCP"}"#)
        );
        assert_eq!(
            shown(step.as_deref().unwrap_or_default()),
            r#"[containerPort=80,protocol="TCP"]"#
        );
        assert_eq!(shown("f:spec"), ".spec");
        assert_eq!(shown(r#"v:"a\"b""#), r#"[="a\"b"]"#);
        assert_eq!(shown("i:3"), "[3]");
        assert_eq!(canonical("z:new"), Ok(None));
        assert!(canonical("f").is_err() && canonical("fx").is_err() && canonical("k:[]").is_err());
        assert!(canonical("i:x").is_err() && canonical("v:{").is_err());
    }
}
