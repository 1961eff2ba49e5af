//! Reading past what nobody asks for in JSON that is known to be well-formed, or is read again by somebody who checks.
//!
//! Nothing is built and nothing is checked but the structure around the place: a few instructions a byte.

pub(crate) mod brackets;

use crate::text::string_end;

/// A place in JSON text. Moving on answers `None` where the text is not JSON.
///
/// ```
/// use keelson_api::scan::Scan;
/// let mut phase = None;
/// Scan::new(br#"{"spec":{"a":[1]},"status":{"phase":"Running"}}"#).members(|name, value| match name {
///     b"status" => value.members(|name, value| {
///         if name == b"phase" {
///             phase = Some(value.text()?);
///         }
///         Some(())
///     }),
///     _ => Some(()),
/// });
/// assert_eq!(phase, Some(&br#""Running""#[..]));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Scan<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Scan<'j> {
    /// The beginning of a text.
    pub fn new(json: &'j [u8]) -> Self {
        Self { json, at: 0 }
    }

    /// Bytes before the place.
    pub(crate) fn at(self) -> usize {
        self.at
    }

    /// Past white space.
    pub(crate) fn blank(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Past white space and this byte.
    pub(crate) fn eat(&mut self, byte: u8) -> Option<()> {
        self.blank();
        (*self.json.get(self.at)? == byte).then(|| self.at += 1)
    }

    /// Before a key: the key, escaped as it is. Stands before the value then.
    fn key(&mut self) -> Option<&'j [u8]> {
        self.eat(b'"')?;
        let start = self.at;
        self.string()?;
        let key = &self.json[start..self.at - 1];
        self.eat(b':')?;
        self.blank();
        Some(key)
    }

    /// Inside a string: past its end.
    fn string(&mut self) -> Option<()> {
        self.at = string_end(self.json, self.at)? + 1;
        Some(())
    }

    /// Past one value.
    pub(crate) fn value(&mut self) -> Option<()> {
        self.blank();
        let inside = self.at + 1;
        self.at = match *self.json.get(self.at)? {
            b'"' => string_end(self.json, inside)? + 1,
            b'{' | b'[' => brackets::end(self.json, inside)?,
            _ => {
                let of_scalars = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
                self.at + self.json[self.at..].iter().position(|byte| !of_scalars(byte))?
            }
        };
        Some(())
    }

    /// Past one value: its text.
    pub fn text(&mut self) -> Option<&'j [u8]> {
        self.blank();
        let start = self.at;
        self.value()?;
        self.json.get(start..self.at)
    }

    /// Past `null`, if that is what comes.
    fn null(&mut self) -> bool {
        self.blank();
        let null = self.json[self.at..].starts_with(b"null");
        if null {
            self.at += "null".len();
        }
        null
    }

    /// Past an object, of which each field is shown: its name, as it is written between the quotes, and the place of its
    /// value. What is not moved past there is passed over. `null` has no fields.
    pub fn members(&mut self, mut each: impl FnMut(&'j [u8], &mut Self) -> Option<()>) -> Option<()> {
        self.between(b'{', b'}', |scan| {
            let name = scan.key()?;
            scan.shown(|value| each(name, value))
        })
    }

    /// Past a list, of which the place of each element is shown; otherwise as [`Scan::members`].
    pub fn elements(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.between(b'[', b']', |scan| {
            scan.blank();
            scan.shown(&mut each)
        })
    }

    /// Past what is between two brackets, or `null`; `each` moves past what stands between the commas.
    fn between(&mut self, open: u8, close: u8, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        if self.null() {
            return Some(());
        }
        self.eat(open)?;
        if self.eat(close).is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.eat(b',').is_none() {
                return self.eat(close);
            }
        }
    }

    /// Past a value that somebody is shown, and may have moved past.
    fn shown(&mut self, to: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let before = self.at;
        to(self)?;
        if self.at == before {
            self.value()?;
        }
        Some(())
    }

    /// At the end of the text, or nothing but white space before it.
    pub fn end(&mut self) -> Option<()> {
        self.blank();
        (self.at == self.json.len()).then_some(())
    }

    /// Before an object: enters it and goes to the field. Answers where its key begins; stands before its value then.
    pub(crate) fn find(&mut self, wanted: &str) -> Option<usize> {
        self.eat(b'{')?;
        loop {
            self.blank();
            let before = self.at;
            if self.key()? == wanted.as_bytes() {
                return Some(before);
            }
            self.value()?;
            self.eat(b',')?;
        }
    }

    /// Past a value: whether the field is there once more.
    pub(crate) fn rest_of_object_has(&mut self, unwanted: &str) -> Option<bool> {
        loop {
            if self.eat(b'}').is_some() {
                return Some(false);
            }
            self.eat(b',')?;
            if self.key()? == unwanted.as_bytes() {
                return Some(true);
            }
            self.value()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field, with its value and what comes behind the object.
    fn members(json: &str) -> Option<Vec<(&str, &str)>> {
        let mut found = Vec::new();
        let mut scan = Scan::new(json.as_bytes());
        scan.members(|name, value| {
            let text = |bytes| std::str::from_utf8(bytes).ok();
            found.push((text(name)?, text(value.text()?)?.trim_end()));
            Some(())
        })?;
        scan.end()?;
        Some(found)
    }

    fn elements(json: &str) -> Option<Vec<&str>> {
        let mut found = Vec::new();
        let mut scan = Scan::new(json.as_bytes());
        scan.elements(|value| {
            found.push(std::str::from_utf8(value.text()?).ok()?);
            Some(())
        })?;
        scan.end()?;
        Some(found)
    }

    #[test]
    fn fields_and_elements_come_in_their_order() {
        let json = r#" { "a" : {"b":["}"]} , "c\"" : -1.5e3, "d":"\"," , "e" : null } "#;
        let expected = vec![
            ("a", r#"{"b":["}"]}"#),
            (r#"c\""#, "-1.5e3"),
            ("d", r#""\",""#),
            ("e", "null"),
        ];
        assert_eq!(members(json), Some(expected));
        let expected = vec!["1", r#""]""#, "[2]", r#"{"a":[]}"#];
        assert_eq!(elements(r#"[1, "]", [2], {"a":[]}]"#), Some(expected));
        for nothing in ["null", "{}", " { } "] {
            assert_eq!(members(nothing), Some(Vec::new()), "{nothing}");
        }
    }

    #[test]
    fn what_is_not_asked_for_is_passed_over() {
        let mut found = Vec::new();
        let json = br#"{"a":{"b":1},"c":[{"d":"x"},{"d":"y"}],"e":2}"#;
        let mut scan = Scan::new(json);
        let done = scan.members(|name, value| match name {
            b"c" => value.elements(|element| {
                element.members(|_, value| {
                    found.push(value.text()?);
                    Some(())
                })
            }),
            _ => Some(()),
        });
        assert_eq!(done.and_then(|()| scan.end()), Some(()));
        assert_eq!(found, [b"\"x\"", b"\"y\""]);
    }

    #[test]
    fn what_is_no_json_is_nothing() {
        for json in [
            "",
            "{",
            "[]",
            r#"{"a""#,
            r#"{"a":"#,
            r#"{"a":1"#,
            r#"{"a":1 "b":2}"#,
            r#"{"a":{}"#,
            "x",
            "{} {}",
        ] {
            assert_eq!(members(json), None, "{json}");
        }
        assert_eq!(elements("{}"), None);
    }
}
