//! Values of expressions. JSON stays where it is: lists and objects are looked at in place.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use ipnet::IpNet;
use jiff::Timestamp;
use serde_json::{Map, Value as Json};

use super::library::authz::{Check, Decision};
use super::library::{quantity::Quantity, semver::Version, url::Url};
use crate::custom::schema::{ListType, Schema, Type as JsonType, formats};

/// A value. It may borrow from the object an expression looks at.
#[derive(Debug, Clone)]
pub enum Value<'v> {
    /// `null`
    Null,
    /// `true`
    Bool(bool),
    /// `1`
    Int(i64),
    /// `1u`
    Uint(u64),
    /// `1.0`
    Double(f64),
    /// `'a'`
    String(Arc<str>),
    /// Text of the object.
    Text(&'v str),
    /// `b'a'`
    Bytes(Arc<[u8]>),
    /// A list that was computed.
    List(Arc<Vec<Value<'v>>>),
    /// A map that was computed.
    Map(Arc<BTreeMap<Key, Value<'v>>>),
    /// A list of the object, and what its elements look like.
    JsonList(&'v [Json], Option<&'v Schema>),
    /// An object or map of the object.
    JsonMap(&'v Map<String, Json>, Option<&'v Schema>),
    /// A moment.
    Timestamp(Timestamp),
    /// Nanoseconds.
    Duration(i64),
    /// A value or none.
    Optional(Option<Box<Value<'v>>>),
    /// A type.
    Type(Arc<str>),
    /// `quantity('1Gi')`
    Quantity(Quantity),
    /// `ip('::1')`
    Ip(IpAddr),
    /// `cidr('10.0.0.0/8')`
    Cidr(IpNet),
    /// `url('https://x')`
    Url(Arc<Url>),
    /// `semver('1.2.3')`
    Semver(Arc<Version>),
    /// `format.dns1123Label()`
    Format(&'static str),
    /// `authorizer`
    Check(Arc<Check>),
    /// `authorizer.path('/x').check('get')`
    Decision(Arc<Decision>),
    /// `Object.spec{replicas: 3}`
    Object(Arc<Object<'v>>),
}

/// An object written out with the name of its type.
#[derive(Debug)]
pub struct Object<'v> {
    /// `Object.spec`, `JSONPatch`
    pub name: Box<str>,
    /// Its fields.
    pub fields: BTreeMap<Box<str>, Value<'v>>,
}

/// The key of a computed map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// `true`
    Bool(bool),
    /// `1`, `1u`
    Int(i128),
    /// `'a'`
    String(Arc<str>),
}

impl<'v> Value<'v> {
    /// JSON of an object as an expression sees it; the schema says what its texts mean.
    pub fn json(json: &'v Json, schema: Option<&'v Schema>) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(b) => Value::Bool(*b),
            Json::Number(number) => {
                let wants_double = schema.is_some_and(|schema| schema.ty == Some(JsonType::Number));
                match (number.as_i64(), number.as_u64(), number.as_f64()) {
                    (Some(int), ..) if !wants_double => Value::Int(int),
                    (None, Some(uint), _) if !wants_double => Value::Uint(uint),
                    (.., Some(double)) => {
                        let wants_int = schema.is_some_and(|schema| schema.ty == Some(JsonType::Integer));
                        if wants_int && double.fract() == 0.0 {
                            Value::Int(double as i64)
                        } else {
                            Value::Double(double)
                        }
                    }
                    _ => Value::Null,
                }
            }
            Json::String(text) => text_of(text, schema),
            Json::Array(list) => Value::JsonList(list, schema),
            Json::Object(map) => Value::JsonMap(map, schema),
        }
    }

    /// Text.
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Value::String(text.into())
    }

    /// The text of a text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) | Value::Text(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::List(_) | Value::JsonList(..) => "list",
            Value::Map(_) | Value::JsonMap(..) => "map",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::Optional(_) => "optional_type",
            Value::Type(_) => "type",
            Value::Quantity(_) => "kubernetes.Quantity",
            Value::Ip(_) => "net.IP",
            Value::Cidr(_) => "net.CIDR",
            Value::Url(_) => "kubernetes.URL",
            Value::Semver(_) => "kubernetes.Semver",
            Value::Format(_) => "kubernetes.NamedFormat",
            Value::Check(own) => own.type_name(),
            Value::Decision(_) => super::library::authz::DECISION,
            Value::Object(object) => &object.name,
        }
    }

    /// How many elements, entries or characters there are.
    pub fn size(&self) -> Option<usize> {
        Some(match self {
            Value::String(text) => text.chars().count(),
            Value::Text(text) => text.chars().count(),
            Value::Bytes(bytes) => bytes.len(),
            Value::List(list) => list.len(),
            Value::Map(map) => map.len(),
            Value::JsonList(list, _) => list.len(),
            Value::JsonMap(map, _) => map.len(),
            _ => return None,
        })
    }

    /// The elements of a list.
    pub fn elements(&self) -> Option<Vec<Value<'v>>> {
        match self {
            Value::List(list) => Some(list.as_ref().clone()),
            Value::JsonList(list, schema) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                Some(list.iter().map(|json| Value::json(json, items)).collect())
            }
            _ => None,
        }
    }

    /// One element of a list.
    pub fn element(&self, index: usize) -> Option<Value<'v>> {
        match self {
            Value::List(list) => list.get(index).cloned(),
            Value::JsonList(list, schema) => {
                let items = schema.and_then(|schema| schema.items.as_deref());
                list.get(index).map(|json| Value::json(json, items))
            }
            _ => None,
        }
    }

    /// The entries of a map.
    pub fn entries(&self) -> Option<Vec<(Value<'v>, Value<'v>)>> {
        match self {
            Value::Map(map) => Some(
                map.iter()
                    .map(|(key, value)| (key.value(), value.clone()))
                    .collect(),
            ),
            Value::JsonMap(map, schema) => Some(
                map.iter()
                    .map(|(name, json)| (Value::Text(name), Value::json(json, field_schema(*schema, name))))
                    .collect(),
            ),
            _ => None,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &Value<'_>) -> Option<Value<'v>> {
        match self {
            Value::Map(map) => map.get(&Key::of(key)?).cloned(),
            Value::JsonMap(map, schema) => {
                let name = key.as_str()?;
                map.get(name)
                    .map(|json| Value::json(json, field_schema(*schema, name)))
            }
            _ => None,
        }
    }

    /// The value of a field; names that are none in CEL are written with escapes.
    pub fn field(&self, name: &str) -> Option<Value<'v>> {
        match self {
            Value::JsonMap(map, schema) => {
                let plain = unescape(name);
                let found = map.get_key_value(plain.as_ref())?;
                // A property without a value is not there; entries of a map may be null.
                let property = schema.is_some_and(|schema| schema.properties.contains_key(plain.as_ref()));
                if property && found.1.is_null() {
                    return None;
                }
                Some(Value::json(found.1, field_schema(*schema, found.0)))
            }
            Value::Check(own) if name == "requestResource" => {
                own.request_resource().map(|own| Value::Check(Arc::new(own)))
            }
            Value::Object(object) => object.fields.get(name).cloned(),
            other => other.get(&Value::text(name)),
        }
    }

    /// Whether the value is its type's emptiest.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(b) => !b,
            Value::Int(n) | Value::Duration(n) => *n == 0,
            Value::Uint(n) => *n == 0,
            Value::Double(n) => *n == 0.0,
            Value::Optional(inner) => inner.is_none(),
            other => other.size() == Some(0),
        }
    }

    /// Whether two values are the same. Values of different types are not, but numbers compare as numbers.
    pub fn equals(&self, other: &Value<'_>) -> bool {
        if let (Some(left), Some(right)) = (self.as_str(), other.as_str()) {
            return left == right;
        }
        if let Some(order) = numbers(self, other) {
            return order == Some(Ordering::Equal);
        }
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::Type(a), Value::Type(b)) => a == b,
            (Value::Quantity(a), Value::Quantity(b)) => a.compare(b).is_eq(),
            (Value::Ip(a), Value::Ip(b)) => a == b,
            (Value::Cidr(a), Value::Cidr(b)) => a == b,
            (Value::Url(a), Value::Url(b)) => a == b,
            (Value::Semver(a), Value::Semver(b)) => a.compare(b).is_eq(),
            (Value::Format(a), Value::Format(b)) => a == b,
            (Value::Object(a), Value::Object(b)) => {
                a.name == b.name
                    && a.fields.len() == b.fields.len()
                    && a.fields
                        .iter()
                        .all(|(name, value)| b.fields.get(name).is_some_and(|other| value.equals(other)))
            }
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Value::JsonList(a, Some(schema)), Value::JsonList(b, Some(_)))
                if schema.list != ListType::Atomic =>
            {
                // Sets and maps have no order.
                a.len() == b.len() && a.iter().all(|one| b.contains(one))
            }
            _ => match (self.elements(), other.elements()) {
                (Some(a), Some(b)) => a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| a.equals(b)),
                _ => match (self.entries(), other.entries()) {
                    (Some(a), Some(b)) => {
                        a.len() == b.len()
                            && a.iter()
                                .all(|(key, value)| other.get(key).is_some_and(|other| value.equals(&other)))
                    }
                    _ => false,
                },
            },
        }
    }

    /// Which of two values comes first; `None` when they cannot be compared.
    pub fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        if let (Some(left), Some(right)) = (self.as_str(), other.as_str()) {
            return Some(left.cmp(right));
        }
        if let Some(order) = numbers(self, other) {
            return order;
        }
        match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
            (Value::Bytes(a), Value::Bytes(b)) => Some(a.cmp(b)),
            (Value::Timestamp(a), Value::Timestamp(b)) => Some(a.cmp(b)),
            (Value::Duration(a), Value::Duration(b)) => Some(a.cmp(b)),
            _ => None,
        }
    }
}

fn field_schema<'v>(schema: Option<&'v Schema>, name: &str) -> Option<&'v Schema> {
    schema.and_then(|schema| schema.field(name))
}

fn text_of<'v>(text: &'v str, schema: Option<&'v Schema>) -> Value<'v> {
    let format = schema
        .and_then(|schema| schema.rules.as_ref())
        .and_then(|rules| rules.format.as_deref());
    match format {
        Some("date-time") => text.parse().map_or_else(|_| Value::Text(text), Value::Timestamp),
        Some("date") => format!("{text}T00:00:00Z")
            .parse()
            .map_or_else(|_| Value::Text(text), Value::Timestamp),
        Some("duration") => formats::go_duration(text).map_or_else(|| Value::Text(text), Value::Duration),
        Some("byte") => base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_or_else(|_| Value::Text(text), |bytes| Value::Bytes(bytes.into())),
        _ => Value::Text(text),
    }
}

/// How two numbers compare; the outer `None` says that they are not both numbers.
fn numbers(left: &Value<'_>, right: &Value<'_>) -> Option<Option<Ordering>> {
    fn int(value: &Value<'_>) -> Option<i128> {
        match value {
            Value::Int(n) => Some(i128::from(*n)),
            Value::Uint(n) => Some(i128::from(*n)),
            _ => None,
        }
    }
    fn double(value: &Value<'_>) -> Option<f64> {
        match value {
            Value::Double(n) => Some(*n),
            other => int(other).map(|n| n as f64),
        }
    }
    match (int(left), int(right)) {
        (Some(left), Some(right)) => Some(Some(left.cmp(&right))),
        _ => Some(double(left)?.partial_cmp(&double(right)?)),
    }
}

impl Key {
    /// The key that a value is; `None` when it cannot be one.
    pub fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Int(i128::from(*n)),
            Value::Uint(n) => Key::Int(i128::from(*n)),
            Value::Double(n) if n.fract() == 0.0 => Key::Int(*n as i128),
            other => Key::String(other.as_str()?.into()),
        })
    }

    fn value<'v>(&self) -> Value<'v> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => {
                i64::try_from(*n).map_or(Value::Uint(u64::try_from(*n).unwrap_or_default()), Value::Int)
            }
            Key::String(text) => Value::String(text.clone()),
        }
    }
}

const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The name a field has in expressions; `None` when it has none.
pub fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("__") {
            out.push_str("__underscores__");
            rest = after;
            continue;
        }
        match c {
            '.' => out.push_str("__dot__"),
            '-' => out.push_str("__dash__"),
            '/' => out.push_str("__slash__"),
            c if c.is_ascii_alphanumeric() || c == '_' => out.push(c),
            _ => return None,
        }
        rest = &rest[c.len_utf8()..];
    }
    Some(out)
}

fn unescape(name: &str) -> std::borrow::Cow<'_, str> {
    if !name.contains("__") {
        return name.into();
    }
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && RESERVED.contains(&word)
    {
        return word.to_owned().into();
    }
    name.replace("__dot__", ".")
        .replace("__dash__", "-")
        .replace("__slash__", "/")
        .replace("__underscores__", "__")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_and_back() {
        for (name, escaped) in [
            ("a", "a"),
            ("namespace", "__namespace__"),
            ("a.b/c-d", "a__dot__b__slash__c__dash__d"),
            ("x__y", "x__underscores__y"),
        ] {
            assert_eq!(escape(name).as_deref(), Some(escaped));
            assert_eq!(unescape(escaped), name);
        }
        assert_eq!(escape("1a"), None);
        assert_eq!(escape("é"), None);
    }
}
