//! Fields that appear twice in JSON of no known type.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Complaints collected at most.
const MAX: usize = 100;

struct State {
    path: String,
    found: Vec<String>,
}

struct Seed<'s>(&'s mut State);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut index = 0_usize;
        loop {
            self.0.path.push_str(&format!("[{index}]"));
            let more = list.next_element_seed(Seed(self.0))?;
            self.0.path.truncate(length);
            if more.is_none() {
                return Ok(());
            }
            index += 1;
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let length = self.0.path.len();
        let mut seen = HashSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&name);
            if !seen.insert(name) && self.0.found.len() < MAX {
                let complaint = format!("duplicate field \"{}\"", self.0.path);
                self.0.found.push(complaint);
            }
            map.next_value_seed(Seed(self.0))?;
            self.0.path.truncate(length);
        }
        Ok(())
    }
}

/// The fields that appear twice: `duplicate field "spec.x"`. The error is what is wrong with the JSON.
pub fn duplicates(json: &[u8]) -> Result<Vec<String>, String> {
    let mut state = State {
        path: String::new(),
        found: Vec::new(),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Seed(&mut state)
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| error.to_string())?;
    Ok(state.found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_named_with_its_path() {
        let found = duplicates(br#"{"a":{"b":1,"b":2},"l":[{"x":1},{"x":1,"x":1}],"a":null}"#);
        assert_eq!(
            found.expect("JSON"),
            [
                "duplicate field \"a.b\"",
                "duplicate field \"l[1].x\"",
                "duplicate field \"a\""
            ]
        );
        assert!(duplicates(b"{").is_err());
        assert!(duplicates("[".repeat(1000).as_bytes()).is_err());
    }
}
