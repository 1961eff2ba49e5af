//! Reading with serde_json and noticing what serde lets pass: fields that no type has, fields that are there twice,
//! quantities that are spelled otherwise than they are stored.
//!
//! A deserializer around serde_json's hands everything on and keeps one flag. It is the only one objects are read
//! with, so that the program has the code of reading them once.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;
use smallvec::SmallVec;

use crate::quantity::Amount;

/// Names of one map that are compared one by one; a map with more is not plain.
const NAMES: usize = 64;

/// Reads a whole text.
pub(super) fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> serde_json::Result<T> {
    // Nothing more can be noticed, so nothing is looked for.
    watched(json, &Cell::new(true))
}

/// Reads a whole text, if nothing would be passed over.
pub(super) fn plain<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Option<T> {
    let odd = Cell::new(false);
    let value = watched(json, &odd).ok()?;
    (!odd.get()).then_some(value)
}

fn watched<'de, T: Deserialize<'de>>(json: &'de [u8], odd: &Cell<bool>) -> serde_json::Result<T> {
    // Looked at as a whole, that is quicker than string by string.
    let text = std::str::from_utf8(json).map_err(|_| not_text(json))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Watched {
        inner: &mut reader,
        watch: Watch::new(odd),
    })?;
    reader.end()?;
    Ok(value)
}

/// Why what is not UTF-8 cannot be read, and where.
fn not_text(json: &[u8]) -> serde_json::Error {
    match serde_json::from_slice::<Value>(json) {
        Err(error) => error,
        Ok(_) => Error::custom("invalid unicode code point"),
    }
}

/// What is known of the place.
#[derive(Clone, Copy)]
struct Watch<'w> {
    odd: &'w Cell<bool>,
    /// Whether the value is a quantity.
    quantity: bool,
}

impl<'w> Watch<'w> {
    fn new(odd: &'w Cell<bool>) -> Self {
        Self { odd, quantity: false }
    }

    fn inside(self) -> Self {
        Self::new(self.odd)
    }

    fn note(self) {
        self.odd.set(true);
    }

    /// Whether anything is to be noticed yet.
    fn looks(self) -> bool {
        !self.odd.get()
    }

    fn number(self) {
        if self.quantity {
            self.note();
        }
    }

    fn text(self, text: &str) {
        if self.quantity
            && self.looks()
            && !text.parse::<Amount>().is_ok_and(|amount| amount.is_spelled(text))
        {
            self.note();
        }
    }
}

/// A deserializer, a visitor, a seed or a list or map, watched.
struct Watched<'w, T> {
    inner: T,
    watch: Watch<'w>,
}

macro_rules! as_they_are {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.inner.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Watched<'_, D> {
    type Error = D::Error;

    as_they_are! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_u8 deserialize_u16
        deserialize_u32 deserialize_u64 deserialize_f32 deserialize_f64 deserialize_char deserialize_str
        deserialize_string deserialize_bytes deserialize_byte_buf deserialize_unit deserialize_identifier
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let watch = self.watch;
        self.inner.deserialize_any(Watched {
            inner: visitor,
            watch,
        })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.watch.note();
        self.inner.deserialize_ignored_any(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let watch = self.watch;
        self.inner.deserialize_option(Watched {
            inner: visitor,
            watch,
        })
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit_struct(name, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let watch = Watch {
            quantity: name == "Quantity",
            ..self.watch
        };
        self.inner.deserialize_newtype_struct(
            name,
            Watched {
                inner: visitor,
                watch,
            },
        )
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let watch = self.watch.inside();
        self.inner.deserialize_seq(Watched {
            inner: visitor,
            watch,
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        let watch = self.watch.inside();
        self.inner.deserialize_tuple(
            len,
            Watched {
                inner: visitor,
                watch,
            },
        )
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let watch = self.watch.inside();
        self.inner.deserialize_tuple_struct(
            name,
            len,
            Watched {
                inner: visitor,
                watch,
            },
        )
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let watch = self.watch.inside();
        self.inner.deserialize_map(Watched {
            inner: visitor,
            watch,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        let watch = self.watch.inside();
        self.inner.deserialize_struct(
            name,
            fields,
            Watched {
                inner: visitor,
                watch,
            },
        )
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        // No type of the API is one: what is in it is not watched.
        self.watch.note();
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Watched<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<V::Value, E> {
        self.inner.visit_bool(value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<V::Value, E> {
        self.watch.number();
        self.inner.visit_i64(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<V::Value, E> {
        self.watch.number();
        self.inner.visit_u64(value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<V::Value, E> {
        self.watch.number();
        self.inner.visit_f64(value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<V::Value, E> {
        self.watch.text(value);
        self.inner.visit_str(value)
    }

    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<V::Value, E> {
        self.watch.text(value);
        self.inner.visit_borrowed_str(value)
    }

    fn visit_string<E: Error>(self, value: String) -> Result<V::Value, E> {
        self.watch.text(&value);
        self.inner.visit_string(value)
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let watch = self.watch;
        self.inner.visit_some(Watched { inner, watch })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let watch = self.watch;
        self.inner.visit_newtype_struct(Watched { inner, watch })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let watch = self.watch.inside();
        self.inner.visit_seq(Watched { inner, watch })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let watch = self.watch.inside();
        self.inner.visit_map(Map {
            inner,
            watch,
            names: SmallVec::new(),
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(inner)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Watched<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let watch = self.watch;
        self.inner.deserialize(Watched { inner, watch })
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Watched<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<Option<S::Value>, A::Error> {
        let watch = self.watch;
        self.inner.next_element_seed(Watched { inner, watch })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// The fields of a struct or map.
struct Map<'de, 'w, A> {
    inner: A,
    watch: Watch<'w>,
    names: Names<'de>,
}

type Names<'de> = SmallVec<[&'de str; 16]>;

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Map<'de, '_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<Option<S::Value>, A::Error> {
        let (watch, names) = (self.watch, &mut self.names);
        self.inner.next_key_seed(Name { inner, watch, names })
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, inner: S) -> Result<S::Value, A::Error> {
        let watch = self.watch;
        self.inner.next_value_seed(Watched { inner, watch })
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

/// A field's name on its way from the deserializer to the visitor.
struct Name<'n, 'de, 'w, T> {
    inner: T,
    watch: Watch<'w>,
    names: &'n mut Names<'de>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Name<'_, 'de, '_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let Self { watch, names, .. } = self;
        self.inner.deserialize(Name { inner, watch, names })
    }
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Name<'_, 'de, '_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, inner: V) -> Result<V::Value, D::Error> {
        let Self { watch, names, .. } = self;
        self.inner.deserialize_str(Name { inner, watch, names })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Name<'_, 'de, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_borrowed_str<E: Error>(self, name: &'de str) -> Result<V::Value, E> {
        if self.names.len() == NAMES || self.names.contains(&name) {
            self.watch.note();
        } else if self.watch.looks() {
            self.names.push(name);
        }
        self.inner.visit_borrowed_str(name)
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<V::Value, E> {
        // It had to be put together: of escapes.
        self.watch.note();
        self.inner.visit_str(name)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};

    use super::*;

    fn is_plain<T: serde::de::DeserializeOwned>(json: &str) -> bool {
        plain::<T>(json.as_bytes()).is_some()
    }

    fn container(inside: &str) -> String {
        format!(r#"{{"apiVersion":"v1","kind":"Pod","spec":{{"containers":[{{"name":"c",{inside}}}]}}}}"#)
    }

    #[test]
    fn what_every_type_knows_is_plain() {
        for inside in [
            r#""image":"i","ports":[{"containerPort":80}],"args":null"#,
            r#""resources":{"limits":{"cpu":"500m","memory":"1Gi"}}"#,
            r#""livenessProbe":{"httpGet":{"port":"http"},"periodSeconds":3}"#,
        ] {
            assert!(is_plain::<Pod>(&container(inside)), "{inside}");
        }
        assert!(is_plain::<ConfigMap>(
            r#"{"data":{"a":"\"x\n\"","b":""},"immutable":true}"#
        ));
        assert!(is_plain::<Secret>(r#"{"data":{"a":"AP8K"}}"#));
    }

    #[test]
    fn what_has_to_be_looked_at_is_not() {
        for inside in [
            r#""image":"i","image":"j""#,
            r#""images":"i""#,
            r#""ima\u0067e":"i""#,
            r#""resources":{"limits":{"cpu":"0.5"}}"#,
            r#""resources":{"limits":{"cpu":1}}"#,
            r#""resources":{"limits":{"cpu":"x"}}"#,
            r#""resources":{"limits":{"cpu":"1","cpu":"2"}}"#,
            r#""livenessProbe":{"httpGet":{"port":80,"part":1}}"#,
        ] {
            let json = container(inside);
            assert!(read::<Pod>(json.as_bytes()).is_ok(), "{inside}");
            assert!(!is_plain::<Pod>(&json), "{inside}");
        }
        assert!(!is_plain::<ConfigMap>(r#"{"data":{"a":"","a":""}}"#));
        let many: Vec<String> = (0..=NAMES).map(|n| format!(r#""n{n}":"""#)).collect();
        assert!(!is_plain::<ConfigMap>(&format!(
            r#"{{"data":{{{}}}}}"#,
            many.join(",")
        )));
    }

    #[test]
    fn errors_are_those_of_reading_without_watching() {
        for json in [
            "",
            "{",
            "[]",
            r#"{"kind":"Node"}"#,
            r#"{"spec":{"containers":[{"name":1}]}}"#,
            "{} x",
        ] {
            let ours = read::<Pod>(json.as_bytes()).err().map(|error| error.to_string());
            let theirs = serde_json::from_str::<Pod>(json)
                .err()
                .map(|error| error.to_string());
            assert_eq!(ours, theirs, "{json}");
            assert!(ours.is_some());
        }
        for json in [&b"{\"kind\":\"\xff\"}"[..], b"\xff", b"{\"spec\":{}}\xff"] {
            let ours = read::<Pod>(json).err().map(|error| error.to_string());
            let theirs = serde_json::from_slice::<Value>(json)
                .err()
                .map(|error| error.to_string());
            assert_eq!(ours, theirs, "{json:?}");
            assert!(ours.is_some());
        }
    }
}
