//! Structural schemas: what a definition says about the values of a version, made ready for use.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`prune`] | removes what the schema does not know |
//! | [`embedded`] | keeps the metadata of objects inside of objects to what it may hold |
//! | [`defaults`] | fills in what is missing |
//! | [`check`] | finds what breaks the schema, in upstream's words |
//! | [`rules`] | checks and runs `x-kubernetes-validations` |
//! | [`formats`] | `date-time`, `uuid`, `ipv4` and their like |
//!
//! A schema is compiled when its resource is first used: a thousand definitions nobody asks for cost their bytes alone.
//! Bodies and schemas are no deeper than the JSON parser lets through, which bounds every walk here.

pub mod check;
pub mod defaults;
pub mod embedded;
pub mod formats;
pub mod ownership;
pub mod prune;
pub mod rules;

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// One node of a structural schema.
#[derive(Debug, Default)]
pub struct Schema {
    /// The type, where one is given.
    pub ty: Option<Type>,
    /// Whether null is a value.
    pub nullable: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// Fields by name.
    pub properties: BTreeMap<Box<str>, Schema>,
    /// What all other fields look like.
    pub additional: Additional,
    /// What elements look like.
    pub items: Option<Box<Schema>>,
    /// What an absent value means.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`
    pub list: ListType,
    /// `x-kubernetes-list-map-keys`
    pub map_keys: Vec<Box<str>>,
    /// `x-kubernetes-map-type: atomic`
    pub atomic_map: bool,
    /// Rules for the value itself.
    pub rules: Option<Box<Rules>>,
    /// `x-kubernetes-validations`
    pub validations: Vec<rules::Rule>,
    /// Whether this node or one below it has a default.
    pub has_defaults: bool,
    /// Whether this node or one below it is an object of its own.
    pub has_embedded: bool,
    /// Whether this node or one below it has `x-kubernetes-validations`.
    pub has_validations: bool,
    /// Whether this node or one below it is a list whose elements must differ.
    pub has_unique_lists: bool,
}

/// JSON's types as schemas name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A map.
    Object,
    /// A list.
    Array,
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
}

impl Type {
    /// From the schema's word.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "object" => Self::Object,
            "array" => Self::Array,
            "string" => Self::String,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "boolean" => Self::Boolean,
            _ => return None,
        })
    }

    /// The schema's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Object => "object",
            Self::Array => "array",
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }
}

/// `additionalProperties`
#[derive(Debug, Default)]
pub enum Additional {
    /// Not said.
    #[default]
    None,
    /// Anything goes, or nothing does.
    Allowed(bool),
    /// All look like this.
    Schema(Box<Schema>),
}

impl Additional {
    /// What fields without a schema of their own look like.
    pub fn schema(&self) -> Option<&Schema> {
        match self {
            Self::Schema(schema) => Some(schema),
            _ => None,
        }
    }
}

/// `x-kubernetes-list-type`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// One value as a whole.
    #[default]
    Atomic,
    /// Each element once.
    Set,
    /// Each combination of keys once.
    Map,
}

/// Rules for a value.
#[derive(Debug, Default)]
pub struct Rules {
    /// `format`
    pub format: Option<Box<str>>,
    /// `pattern`, and what it compiles to; a pattern that does not compile matches nothing.
    pub pattern: Option<(Box<str>, Option<Regex>)>,
    /// `minimum`
    pub minimum: Option<f64>,
    /// `exclusiveMinimum`
    pub exclusive_minimum: bool,
    /// `maximum`
    pub maximum: Option<f64>,
    /// `exclusiveMaximum`
    pub exclusive_maximum: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `minLength`
    pub min_length: Option<usize>,
    /// `maxLength`
    pub max_length: Option<usize>,
    /// `minItems`
    pub min_items: Option<usize>,
    /// `maxItems`
    pub max_items: Option<usize>,
    /// `minProperties`
    pub min_properties: Option<usize>,
    /// `maxProperties`
    pub max_properties: Option<usize>,
    /// `required`
    pub required: Vec<Box<str>>,
    /// `enum`
    pub choices: Option<Vec<Value>>,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
}

impl Schema {
    /// Compiles `openAPIV3Schema`. What a valid definition cannot contain is left out.
    pub fn compile(source: &Value) -> Self {
        let Value::Object(map) = source else {
            return Self::default();
        };
        let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
        let text = |name: &str| map.get(name).and_then(Value::as_str);
        let properties: BTreeMap<Box<str>, Schema> = object(map, "properties")
            .map(|(name, value)| (name.as_str().into(), Self::compile(value)))
            .collect();
        let additional = match map.get("additionalProperties") {
            Some(Value::Bool(allowed)) => Additional::Allowed(*allowed),
            Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(Self::compile(schema))),
            _ => Additional::None,
        };
        let items = map
            .get("items")
            .filter(|items| items.is_object())
            .map(|items| Box::new(Self::compile(items)));
        let default = map.get("default").filter(|value| !value.is_null()).cloned();
        let list = match text("x-kubernetes-list-type") {
            Some("set") => ListType::Set,
            Some("map") => ListType::Map,
            _ => ListType::Atomic,
        };
        let validations: Vec<rules::Rule> = array(map, "x-kubernetes-validations")
            .map(rules::Rule::read)
            .collect();
        let below = |has: fn(&Schema) -> bool| {
            properties.values().any(has)
                || additional.schema().is_some_and(has)
                || items.as_deref().is_some_and(has)
        };
        Self {
            ty: text("type").and_then(Type::parse),
            nullable: flag("nullable"),
            preserve: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            has_defaults: default.is_some() || below(|s| s.has_defaults),
            has_embedded: flag("x-kubernetes-embedded-resource") || below(|s| s.has_embedded),
            has_validations: !validations.is_empty() || below(|s| s.has_validations),
            has_unique_lists: list != ListType::Atomic || below(|s| s.has_unique_lists),
            list,
            map_keys: array(map, "x-kubernetes-list-map-keys")
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect(),
            atomic_map: text("x-kubernetes-map-type") == Some("atomic"),
            rules: Rules::compile(map),
            validations,
            properties,
            additional,
            items,
            default,
        }
    }

    /// What a field looks like, if the schema says so.
    pub fn field(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or_else(|| self.additional.schema())
    }
}

impl Rules {
    fn compile(map: &Map<String, Value>) -> Option<Box<Self>> {
        let number = |name: &str| map.get(name).and_then(Value::as_f64);
        let count = |name: &str| {
            map.get(name)
                .and_then(Value::as_i64)
                .map(|n| usize::try_from(n).unwrap_or_default())
        };
        let flag = |name: &str| map.get(name) == Some(&Value::Bool(true));
        let schemas = |name: &str| array(map, name).map(Schema::compile).collect::<Vec<_>>();
        const NAMES: &[&str] = &[
            "format",
            "pattern",
            "minimum",
            "maximum",
            "multipleOf",
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "required",
            "enum",
            "allOf",
            "anyOf",
            "oneOf",
            "not",
        ];
        if !NAMES.iter().any(|name| map.contains_key(*name)) {
            return None;
        }
        let pattern = map
            .get("pattern")
            .and_then(Value::as_str)
            .filter(|p| !p.is_empty());
        Some(Box::new(Self {
            format: map.get("format").and_then(Value::as_str).map(Into::into),
            pattern: pattern.map(|pattern| (pattern.into(), pattern_of(pattern).ok())),
            minimum: number("minimum"),
            exclusive_minimum: flag("exclusiveMinimum"),
            maximum: number("maximum"),
            exclusive_maximum: flag("exclusiveMaximum"),
            multiple_of: number("multipleOf"),
            min_length: count("minLength"),
            max_length: count("maxLength"),
            min_items: count("minItems"),
            max_items: count("maxItems"),
            min_properties: count("minProperties"),
            max_properties: count("maxProperties"),
            required: array(map, "required")
                .filter_map(Value::as_str)
                .map(Into::into)
                .collect(),
            choices: map.get("enum").and_then(Value::as_array).cloned(),
            all_of: schemas("allOf"),
            any_of: schemas("anyOf"),
            one_of: schemas("oneOf"),
            not: map
                .get("not")
                .filter(|not| not.is_object())
                .map(|not| Box::new(Schema::compile(not))),
        }))
    }
}

/// Bytes a compiled pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// A pattern in RE2's spelling, which is all but that of the crate.
pub fn pattern_of(pattern: &str) -> Result<Regex, regex::Error> {
    // Go knows `\z` and `\Q..\E`; the crate knows the first, and nobody writes the second.
    regex::RegexBuilder::new(pattern).size_limit(PATTERN_SIZE).build()
}

fn array<'a>(map: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    map.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn object<'a>(map: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    map.get(name).and_then(Value::as_object).into_iter().flatten()
}
