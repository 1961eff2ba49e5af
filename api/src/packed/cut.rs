//! Cutting the managed fields out of an object's JSON.

use crate::text::string_end;

/// JSON without `metadata.managedFields`, and the value that was there. `None` when there is none, or when the text is
/// not plainly an object with one of them: then it is read as a whole, and what is wrong with it is found there.
pub(super) fn managed_fields(json: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut scan = Scan { json, at: 0 };
    scan.find("metadata")?;
    let before = scan.find("managedFields")?;
    let start = scan.at;
    scan.value()?;
    let end = scan.at;
    // A second one, and fields that are not what they should be: somebody else's to judge.
    if scan.rest_of_object_has("managedFields")? {
        return None;
    }
    let mut rest = Vec::with_capacity(json.len() - (end - before));
    rest.extend_from_slice(&json[..before]);
    let mut after = Scan { json, at: end };
    after.blank();
    let mut tail = after.at;
    // One of the commas around it goes, too.
    if json.get(tail) == Some(&b',') {
        tail += 1;
    } else if let Some(comma) = rest.iter().rposition(|b| !b.is_ascii_whitespace())
        && rest[comma] == b','
    {
        rest.truncate(comma);
    }
    rest.extend_from_slice(&json[tail..]);
    Some((rest, &json[start..end]))
}

struct Scan<'j> {
    json: &'j [u8],
    at: usize,
}

impl<'j> Scan<'j> {
    fn blank(&mut self) {
        while self.json.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
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
    fn value(&mut self) -> Option<()> {
        self.blank();
        let mut depth = 0_usize;
        loop {
            match *self.json.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                // The end of what the value is in.
                b'}' | b']' | b',' if depth == 0 => return Some(()),
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                _ => self.at += 1,
            }
            if depth == 0 && matches!(self.json.get(self.at - 1), Some(b'"' | b'}' | b']')) {
                return Some(());
            }
        }
    }

    /// Before an object: enters it and goes to the field. Answers where its key begins; stands before its value then.
    fn find(&mut self, wanted: &str) -> Option<usize> {
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
    fn rest_of_object_has(&mut self, unwanted: &str) -> Option<bool> {
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

    fn cut(json: &str) -> Option<(String, String)> {
        let (rest, managed) = managed_fields(json.as_bytes())?;
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Some((text(&rest), text(managed)))
    }

    #[test]
    fn cuts_out_what_is_there_wherever_it_is() {
        for (json, rest) in [
            (
                r#"{"metadata":{"managedFields":[{"a":"]}"}],"name":"x"},"s":1}"#,
                r#"{"metadata":{"name":"x"},"s":1}"#,
            ),
            (
                r#"{"a":{"metadata":1},"metadata":{"name":"x","managedFields":[{"a":"]}"}]}}"#,
                r#"{"a":{"metadata":1},"metadata":{"name":"x"}}"#,
            ),
            (
                r#"{"metadata":{"managedFields":[{"a":"]}"}]}}"#,
                r#"{"metadata":{}}"#,
            ),
            (
                r#"{"n":-1.5,"metadata":{"a":"\"\\","managedFields":[{"a":"]}"}],"z":true}}"#,
                r#"{"n":-1.5,"metadata":{"a":"\"\\","z":true}}"#,
            ),
        ] {
            assert_eq!(
                cut(json),
                Some((rest.to_owned(), r#"[{"a":"]}"}]"#.to_owned())),
                "{json}"
            );
        }
        let (rest, managed) =
            cut("{ \"metadata\" : { \"name\" : 1 ,\n \"managedFields\" : [ ] } }").expect("cut");
        assert_eq!(
            (rest.as_str(), managed.as_str()),
            ("{ \"metadata\" : { \"name\" : 1 } }", "[ ]")
        );
    }

    #[test]
    fn leaves_alone_what_is_not_plain() {
        for json in [
            "",
            "[]",
            "{",
            r#"{"metadata":{"name":"x"}}"#,
            r#"{"metadata":[1],"x":2}"#,
            r#"{"spec":{"managedFields":[]}}"#,
            r#"{"metadata":{"managedFields":[],"managedFields":[]}}"#,
            r#"{"metadata":{"managedFields":["#,
            r#"{"metadata":{"managedFields":[]"#,
            r#"{"metadata":{"managedFields":"a\"#,
        ] {
            assert_eq!(cut(json), None, "{json}");
        }
    }
}
