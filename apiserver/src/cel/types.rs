//! What expressions can be, and how large.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use keelson_api::schema::{self, Definition, Shape};

use super::value::escape;
use crate::custom::schema::{Additional, Schema, Type as JsonType};

/// Bytes of a request at most: nothing in it is larger.
pub const REQUEST: u64 = 3 << 20;

/// A type and how large its values can be.
#[derive(Debug, Clone)]
pub struct Decl {
    /// The type.
    pub ty: Type,
    /// Elements, entries or bytes at most.
    pub max: u64,
    /// Bytes of JSON a value takes at least.
    pub least: u64,
}

/// A type.
#[derive(Debug, Clone)]
pub enum Type {
    /// Anything: what it is is seen when it is there.
    Dyn,
    /// `null`
    Null,
    /// `bool`
    Bool,
    /// `int`
    Int,
    /// `uint`
    Uint,
    /// `double`
    Double,
    /// `string`
    String,
    /// `bytes`
    Bytes,
    /// A moment.
    Timestamp,
    /// A span.
    Duration,
    /// A list of these.
    List(Arc<Decl>),
    /// A map from one to the other.
    Map(Arc<Decl>, Arc<Decl>),
    /// An object with these fields.
    Object(Arc<Fields>),
    /// One of these, or none.
    Optional(Arc<Decl>),
    /// A type.
    Type,
    /// A type of a library: `kubernetes.URL`.
    Opaque(&'static str),
}

/// The fields of an object type.
#[derive(Debug)]
pub struct Fields {
    /// As messages name it.
    pub name: String,
    /// By name, as expressions write it.
    pub fields: BTreeMap<String, Arc<Decl>>,
}

impl Decl {
    /// A type whose values are small.
    pub fn small(ty: Type) -> Self {
        Self { ty, max: 1, least: 1 }
    }

    /// A type whose values are at most so large.
    pub fn sized(ty: Type, max: u64) -> Self {
        Self { ty, max, least: 2 }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("google.protobuf.Timestamp"),
            Type::Duration => f.write_str("google.protobuf.Duration"),
            Type::List(of) => write!(f, "list({})", of.ty),
            Type::Map(key, value) => write!(f, "map({}, {})", key.ty, value.ty),
            Type::Object(fields) => f.write_str(&fields.name),
            Type::Optional(of) => write!(f, "optional_type({})", of.ty),
            Type::Type => f.write_str("type"),
            Type::Opaque(name) => f.write_str(name),
        }
    }
}

impl Type {
    /// Whether values of the two can be compared.
    pub fn fits(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::Dyn, _) | (_, Type::Dyn) => true,
            (
                Type::Null,
                Type::Object(_) | Type::Null | Type::Optional(_) | Type::Timestamp | Type::Duration,
            )
            | (Type::Object(_) | Type::Optional(_) | Type::Timestamp | Type::Duration, Type::Null) => true,
            (Type::Bool, Type::Bool)
            | (Type::Int, Type::Int)
            | (Type::Uint, Type::Uint)
            | (Type::Double, Type::Double)
            | (Type::String, Type::String)
            | (Type::Bytes, Type::Bytes)
            | (Type::Timestamp, Type::Timestamp)
            | (Type::Duration, Type::Duration)
            | (Type::Type, Type::Type) => true,
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => a.ty.fits(&b.ty),
            (Type::Map(a, b), Type::Map(c, d)) => a.ty.fits(&c.ty) && b.ty.fits(&d.ty),
            (Type::Object(a), Type::Object(b)) => a.name == b.name,
            (Type::Opaque(a), Type::Opaque(b)) => a == b,
            _ => false,
        }
    }

    /// Whether it is a number.
    pub fn is_number(&self) -> bool {
        matches!(self, Type::Int | Type::Uint | Type::Double | Type::Dyn)
    }
}

fn more(least: u64, by: u64) -> u64 {
    least.saturating_add(by).min(REQUEST)
}

/// The type of values a schema describes; `None` where expressions cannot look at them. `name` is what messages call it.
pub fn of_schema(schema: &Schema, root: bool, name: &str) -> Option<Arc<Decl>> {
    if schema.int_or_string {
        return Some(Arc::new(Decl {
            ty: Type::Dyn,
            max: REQUEST - 2,
            least: 1,
        }));
    }
    let rules = schema.rules.as_deref();
    let limit = |count: Option<usize>| count.map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    let decl = match schema.ty? {
        JsonType::Boolean => Decl {
            least: 4,
            ..Decl::small(Type::Bool)
        },
        JsonType::Integer => Decl::small(Type::Int),
        JsonType::Number => Decl::small(Type::Double),
        JsonType::String => {
            let longest = rules.and_then(|rules| rules.choices.as_ref()).map(|choices| {
                let lengths = choices.iter().map(|choice| choice.as_str().map_or(0, str::len));
                u64::try_from(lengths.max().unwrap_or_default()).unwrap_or(REQUEST)
            });
            let given = rules.and_then(|rules| limit(rules.max_length));
            match rules.and_then(|rules| rules.format.as_deref()) {
                Some("byte") => Decl::sized(Type::Bytes, given.unwrap_or(REQUEST - 2)),
                Some("duration") => Decl {
                    least: 4,
                    ..Decl::small(Type::Duration)
                },
                Some("date") => Decl {
                    least: 12,
                    ..Decl::small(Type::Timestamp)
                },
                Some("date-time") => Decl {
                    least: 22,
                    ..Decl::small(Type::Timestamp)
                },
                // A character takes up to four bytes.
                _ => Decl::sized(
                    Type::String,
                    given
                        .map(|given| given.saturating_mul(4))
                        .or(longest)
                        .unwrap_or(REQUEST - 2),
                ),
            }
        }
        JsonType::Array => {
            let items = of_schema(schema.items.as_deref()?, false, &format!("{name}.@idx"))?;
            let max = rules
                .and_then(|rules| limit(rules.max_items))
                .unwrap_or((REQUEST - 2) / more(items.least, 1));
            Decl::sized(Type::List(items), max)
        }
        JsonType::Object => match &schema.additional {
            Additional::Schema(values) => {
                let values = of_schema(values, false, &format!("{name}.@elem"))?;
                let max = rules
                    .and_then(|rules| limit(rules.max_properties))
                    .unwrap_or((REQUEST - 2) / more(values.least, 6));
                let keys = Arc::new(Decl::sized(Type::String, REQUEST - 2));
                Decl::sized(Type::Map(keys, values), max)
            }
            _ => object(schema, root, name),
        },
    };
    Some(Arc::new(decl))
}

fn object(schema: &Schema, root: bool, name: &str) -> Decl {
    let mut fields = BTreeMap::new();
    let mut least = 2;
    for (property, inner) in &schema.properties {
        let Some(escaped) = escape(property) else { continue };
        let Some(decl) = of_schema(inner, false, &format!("{name}.{escaped}")) else {
            continue;
        };
        let required = schema
            .rules
            .as_ref()
            .is_some_and(|rules| rules.required.contains(property));
        if required && inner.default.is_none() {
            let length = u64::try_from(property.len()).unwrap_or(REQUEST);
            least = more(least, more(decl.least, length + 4));
        }
        fields.insert(escaped, decl);
    }
    if root || schema.embedded {
        let text = || Arc::new(Decl::sized(Type::String, REQUEST - 2));
        let short = || Arc::new(Decl::sized(Type::String, 253));
        fields.insert("apiVersion".into(), text());
        fields.insert("kind".into(), text());
        let meta = Fields {
            name: format!("{name}.metadata"),
            fields: BTreeMap::from([("name".to_owned(), short()), ("generateName".to_owned(), short())]),
        };
        let meta = Decl::sized(Type::Object(Arc::new(meta)), 2);
        fields.insert("metadata".into(), Arc::new(meta));
    }
    let count = u64::try_from(fields.len()).unwrap_or(REQUEST);
    Decl {
        ty: Type::Object(Arc::new(Fields {
            name: name.to_owned(),
            fields,
        })),
        max: count,
        least,
    }
}

/// The type of a custom resource's objects, with the metadata that every object has.
pub fn of_custom(schema: &Schema, name: &str) -> Option<Arc<Decl>> {
    let decl = of_schema(schema, true, name)?;
    let Type::Object(fields) = &decl.ty else {
        return Some(decl);
    };
    let mut fields = Fields {
        name: fields.name.clone(),
        fields: fields.fields.clone(),
    };
    if let Some(metadata) = schema::by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta") {
        fields.fields.insert("metadata".into(), of_definition(metadata));
    }
    Some(Arc::new(Decl {
        ty: Type::Object(Arc::new(fields)),
        ..Decl::clone(&decl)
    }))
}

/// The type of a built-in type's values.
pub fn of_definition(definition: &'static Definition) -> Arc<Decl> {
    BuiltIn::default().definition(definition)
}

/// Types made so far, by the definition's name; `None` while one is being made.
#[derive(Default)]
struct BuiltIn(std::collections::HashMap<String, Option<Arc<Decl>>>);

impl BuiltIn {
    fn definition(&mut self, definition: &'static Definition) -> Arc<Decl> {
        let large = |ty| Arc::new(Decl::sized(ty, REQUEST - 2));
        match definition.shape() {
            Shape::Fields => {}
            Shape::Any | Shape::IntOrString => return large(Type::Dyn),
            Shape::Quantity => return large(Type::String),
            Shape::Time => return Arc::new(Decl::small(Type::Timestamp)),
        }
        let name = definition.full_name();
        match self.0.get(&name) {
            Some(Some(known)) => return known.clone(),
            // A type within itself: what is below is seen when it is there.
            Some(None) => return large(Type::Dyn),
            None => {}
        }
        self.0.insert(name.clone(), None);
        let fields = definition
            .fields()
            .iter()
            .filter_map(|field| Some((escape(field.name())?, self.ty(field.ty()))))
            .collect();
        let fields = Fields {
            name: name.clone(),
            fields,
        };
        let decl = Arc::new(Decl::small(Type::Object(Arc::new(fields))));
        self.0.insert(name, Some(decl.clone()));
        decl
    }

    fn ty(&mut self, ty: &schema::Type) -> Arc<Decl> {
        let large = |ty| Arc::new(Decl::sized(ty, REQUEST - 2));
        match ty {
            schema::Type::String => large(Type::String),
            schema::Type::Int32 | schema::Type::Int64 => Arc::new(Decl::small(Type::Int)),
            schema::Type::Bool => Arc::new(Decl::small(Type::Bool)),
            schema::Type::Double => Arc::new(Decl::small(Type::Double)),
            schema::Type::Bytes => large(Type::Bytes),
            schema::Type::Object => large(Type::Dyn),
            schema::Type::List(of) => large(Type::List(self.ty(of))),
            schema::Type::Map(of) => large(Type::Map(large(Type::String), self.ty(of))),
            schema::Type::Named(id) => self.definition(id.get()),
        }
    }
}

/// How often a value of at least this size fits into one request.
pub fn times_in_request(least: u64) -> u64 {
    REQUEST / more(least, 1)
}
