//! The streaming pass.

use std::collections::HashSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::quantity::Amount;
use crate::schema::{Definition, Shape, Type};

/// Upstream stops collecting after so many complaints.
const MAX_COMPLAINTS: usize = 100;

pub(super) struct Outcome {
    pub(super) complaints: Vec<String>,
    pub(super) needs_rewrite: bool,
}

/// What the pass knows of where it is and what it found.
struct State {
    /// The path with indices, as complaints name it: `spec.containers[0].name`.
    path: String,
    complaints: Vec<String>,
    needs_rewrite: bool,
    /// What stopped the pass; kept here because the JSON reader would add positions to it.
    mismatch: Option<String>,
}

/// Checks JSON text.
pub(super) fn text(definition: &'static Definition, body: &[u8]) -> Result<Outcome, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    run(definition, |root| {
        root.deserialize(&mut json).and_then(|()| json.end())
    })
}

/// Checks a value. It holds no field twice.
pub(super) fn value(definition: &'static Definition, value: &Value) -> Result<Outcome, String> {
    run(definition, |root| root.deserialize(value))
}

fn run(
    definition: &'static Definition,
    pass: impl FnOnce(Seed<'_, '_>) -> serde_json::Result<()>,
) -> Result<Outcome, String> {
    let mut state = State {
        path: String::new(),
        complaints: Vec::new(),
        needs_rewrite: false,
        mismatch: None,
    };
    let outcome = pass(Seed {
        state: &mut state,
        expected: Expected::Definition(definition),
        owner: definition.short_name(),
    });
    match (outcome, state.mismatch) {
        (Ok(()), _) => Ok(Outcome {
            complaints: state.complaints,
            needs_rewrite: state.needs_rewrite,
        }),
        (Err(_), Some(mismatch)) => Err(mismatch),
        (Err(e), None) => Err(format!("json: {e}")),
    }
}

#[derive(Clone, Copy)]
enum Expected<'t> {
    Definition(&'static Definition),
    Type(&'t Type),
}

/// Reads one value of an expected type. `owner` is the struct the value is a field of, for messages.
struct Seed<'s, 't> {
    state: &'s mut State,
    expected: Expected<'t>,
    owner: &'static str,
}

impl State {
    fn complain(&mut self, what: &str, path: &str) {
        if self.complaints.len() < MAX_COMPLAINTS {
            let complaint = format!("{what} field {}", crate::text::quote(path));
            if !self.complaints.contains(&complaint) {
                self.complaints.push(complaint);
            }
        }
    }

    /// Runs `inner` with the path one step longer.
    fn within<T>(&mut self, step: fmt::Arguments<'_>, inner: impl FnOnce(&mut Self) -> T) -> T {
        use fmt::Write as _;
        let length = self.path.len();
        // Writing to a string cannot fail.
        let _ = self.path.write_fmt(step);
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    /// The path without indices, as Go's decoder names it.
    fn plain_path(&self) -> String {
        let mut plain = String::with_capacity(self.path.len());
        let mut inside = false;
        for c in self.path.chars() {
            match c {
                '[' => inside = true,
                ']' => inside = false,
                c if !inside => plain.push(c),
                _ => {}
            }
        }
        plain
    }
}

impl<'t> Seed<'_, 't> {
    fn fail<E: Error>(self, message: String) -> E {
        self.state.mismatch = Some(message);
        E::custom("type mismatch")
    }

    /// What was found where something else must stand.
    fn mismatch<E: Error>(self, found: &str) -> E {
        let wanted = go_type(self.expected);
        let path = self.state.plain_path();
        let message = if path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {}.{path} of type {wanted}",
                self.owner
            )
        };
        self.fail(message)
    }

    fn shape(&self) -> Shape {
        match self.expected {
            Expected::Definition(definition) => definition.shape(),
            Expected::Type(Type::Named(id)) => id.get().shape(),
            Expected::Type(Type::Object) => Shape::Any,
            Expected::Type(_) => Shape::Fields,
        }
    }

    fn number<E: Error>(self, integer: Option<i128>, text: &dyn fmt::Display) -> Result<(), E> {
        let fits = match (self.expected, self.shape()) {
            (_, Shape::Any) => true,
            (_, Shape::Quantity) => {
                // Numbers are fine as quantities, but only strings are stored.
                self.state.needs_rewrite = true;
                true
            }
            (_, Shape::IntOrString) | (Expected::Type(Type::Int32), _) => {
                integer.is_some_and(|n| i32::try_from(n).is_ok())
            }
            (Expected::Type(Type::Int64), _) => integer.is_some_and(|n| i64::try_from(n).is_ok()),
            (Expected::Type(Type::Double), _) => true,
            _ => return Err(self.mismatch("number")),
        };
        if fits {
            Ok(())
        } else {
            Err(self.mismatch(&format!("number {text}")))
        }
    }

    fn string<E: Error>(self, text: &str) -> Result<(), E> {
        match (self.expected, self.shape()) {
            (Expected::Type(Type::String), _) | (_, Shape::IntOrString | Shape::Any) => Ok(()),
            (Expected::Type(Type::Bytes), _) => {
                if let Some(at) = illegal_base64(text) {
                    return Err(self.fail(format!("illegal base64 data at input byte {at}")));
                }
                // All but line breaks and what is left over before padding is spelled one way.
                let breaks = text.bytes().any(|b| matches!(b, b'\r' | b'\n'));
                self.state.needs_rewrite |= breaks || (text.ends_with('=') && BASE64.decode(text).is_err());
                Ok(())
            }
            (_, Shape::Quantity) => match text.trim().parse::<Amount>() {
                Ok(amount) => {
                    self.state.needs_rewrite |= !amount.is_spelled(text);
                    Ok(())
                }
                Err(e) => Err(self.fail(e.to_string())),
            },
            (_, Shape::Time) => match text.parse::<jiff::Timestamp>() {
                Ok(_) => Ok(()),
                Err(_) => {
                    let quoted = crate::text::quote(text);
                    Err(self.fail(format!(
                        "parsing time {quoted} as \"2006-01-02T15:04:05Z07:00\": cannot parse {quoted} as \"2006\""
                    )))
                }
            },
            _ => Err(self.mismatch("string")),
        }
    }
}

/// Where base64 stops being base64. Line breaks are skipped, as Go does.
fn illegal_base64(text: &str) -> Option<usize> {
    let mut count = 0usize;
    let mut padding = 0usize;
    for (at, b) in text.bytes().enumerate() {
        match b {
            b'\r' | b'\n' => continue,
            b'=' => padding += 1,
            _ if padding > 0 || !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')) => return Some(at),
            _ => {}
        }
        count += 1;
    }
    (padding > 2 || !count.is_multiple_of(4)).then_some(text.len())
}

/// The type as Go spells it in messages.
fn go_type(expected: Expected<'_>) -> String {
    fn named(definition: &Definition) -> String {
        match definition.shape() {
            Shape::Quantity => "resource.Quantity".to_owned(),
            Shape::IntOrString => "intstr.IntOrString".to_owned(),
            _ => {
                let mut parts = definition.name.rsplit('.');
                let (name, package) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                format!("{package}.{name}")
            }
        }
    }
    fn of(ty: &Type) -> String {
        match ty {
            Type::String => "string".to_owned(),
            Type::Int32 => "int32".to_owned(),
            Type::Int64 => "int64".to_owned(),
            Type::Bool => "bool".to_owned(),
            Type::Double => "float64".to_owned(),
            Type::Bytes => "[]uint8".to_owned(),
            Type::Object => "map[string]interface {}".to_owned(),
            Type::List(element) => format!("[]{}", of(element)),
            Type::Map(element) => format!("map[string]{}", of(element)),
            Type::Named(id) => named(id.get()),
        }
    }
    match expected {
        Expected::Definition(definition) => named(definition),
        Expected::Type(ty) => of(ty),
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.shape() == Shape::Any && !matches!(self.expected, Expected::Definition(_)) {
            return IgnoredAny::deserialize(deserializer);
        }
        deserializer.deserialize_any(self)
    }
}

/// Reads past a value without looking at it.
trait Skip {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error>;
}

impl Skip for IgnoredAny {
    fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_ignored_any(IgnoredAny).map(|_| ())
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&go_type(self.expected))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        // null leaves the zero value, whatever the type.
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        match (self.expected, self.shape()) {
            (Expected::Type(Type::Bool), _) | (_, Shape::Any) => Ok(()),
            _ => Err(self.mismatch("bool")),
        }
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.number(Some(number.into()), &number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.number(Some(number.into()), &number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.number(None, &number)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.string(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let element = match self.expected {
            Expected::Type(Type::List(element)) => element,
            _ if self.shape() == Shape::Any => {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(());
            }
            _ => return Err(self.mismatch("array")),
        };
        let (state, owner) = (self.state, self.owner);
        for index in 0.. {
            let more = state.within(format_args!("[{index}]"), |state| {
                items.next_element_seed(Element(Seed {
                    state,
                    expected: Expected::Type(element),
                    owner,
                }))
            })?;
            if more.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let definition = match self.expected {
            Expected::Definition(definition) => definition,
            Expected::Type(Type::Named(id)) => id.get(),
            Expected::Type(Type::Map(element)) => return entries(self.state, element, self.owner, map),
            _ => return Err(self.mismatch("object")),
        };
        match definition.shape() {
            Shape::Fields => fields(self.state, definition, map),
            Shape::Any => skip_entries(map),
            _ => Err(self.mismatch("object")),
        }
    }
}

/// An element of a list, or a moment that must be there. A null has no typed form then, so it asks for a rewrite.
struct Element<'s, 't>(Seed<'s, 't>);

impl<'de> DeserializeSeed<'de> for Element<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        self.0.state.needs_rewrite = true;
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        self.0.deserialize(deserializer)
    }
}

fn skip_entries<'de, A: MapAccess<'de>>(mut map: A) -> Result<(), A::Error> {
    while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(())
}

fn fields<'de, A: MapAccess<'de>>(
    state: &mut State,
    definition: &'static Definition,
    mut map: A,
) -> Result<(), A::Error> {
    // No type has more than 64 fields; if one did, its later fields would only lose the check for duplicates.
    let mut seen = 0u64;
    let mut moment = definition.moment.is_none();
    let dot = if state.path.is_empty() { "" } else { "." };
    while let Some(key) = map.next_key_seed(FieldName(definition))? {
        match key {
            Key::Known(index) => {
                let field = &definition.fields[index];
                let bit = u32::try_from(index)
                    .ok()
                    .and_then(|index| 1u64.checked_shl(index))
                    .unwrap_or(0);
                state.within(format_args!("{dot}{}", field.name), |state| {
                    if seen & bit != 0 {
                        let path = state.path.clone();
                        state.complain("duplicate", &path);
                    }
                    let seed = Seed {
                        state,
                        expected: Expected::Type(&field.ty),
                        owner: definition.short_name(),
                    };
                    if definition.moment == Some(index) {
                        moment = true;
                        map.next_value_seed(Element(seed))
                    } else {
                        map.next_value_seed(seed)
                    }
                })?;
                seen |= bit;
            }
            Key::Unknown(name) => {
                let path = format!("{}{dot}{name}", state.path);
                state.complain("unknown", &path);
                map.next_value::<IgnoredAny>()?;
            }
        }
    }
    state.needs_rewrite |= !moment;
    Ok(())
}

fn entries<'de, A: MapAccess<'de>>(
    state: &mut State,
    element: &Type,
    owner: &'static str,
    mut map: A,
) -> Result<(), A::Error> {
    let mut seen: HashSet<String> = HashSet::new();
    while let Some(key) = map.next_key::<String>()? {
        state.within(format_args!(".{key}"), |state| {
            if seen.contains(&key) {
                let path = state.path.clone();
                state.complain("duplicate", &path);
            }
            map.next_value_seed(Element(Seed {
                state,
                expected: Expected::Type(element),
                owner,
            }))
        })?;
        seen.insert(key);
    }
    Ok(())
}

enum Key {
    Known(usize),
    Unknown(String),
}

struct FieldName(&'static Definition);

impl<'de> DeserializeSeed<'de> for FieldName {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for FieldName {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        Ok(match self.0.field_index(name) {
            Some(index) => Key::Known(index),
            None => Key::Unknown(name.to_owned()),
        })
    }
}
