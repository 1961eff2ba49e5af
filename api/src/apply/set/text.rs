//! Reading and writing sets of fields as the text they are stored in.
//!
//! The text is compact JSON of nothing but objects, whose keys are steps in the order of their bytes. Only this module
//! writes it, so reading it need not check what writing ensures; a text that is none of ours reads as if it ended early.

use std::cmp::Ordering;

use crate::scan::brackets;
use crate::text::string_end;

/// What marks a node that has steps below as a member, too. No step sorts before it.
pub(super) const ITSELF: &str = ".";

/// A step as it is written: escaped as JSON escapes strings, without the quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Written<'t>(pub(super) &'t str);

impl Written<'_> {
    /// Order of what is written, not of how it is escaped.
    pub(super) fn order(self, other: Written<'_>) -> Ordering {
        let escaped = |text: &str| text.contains('\\');
        if escaped(self.0) || escaped(other.0) {
            unescaped(self.0).cmp(unescaped(other.0))
        } else {
            self.0.cmp(other.0)
        }
    }

    /// The step itself.
    pub(super) fn plain(self) -> String {
        String::from_utf8_lossy(&unescaped(self.0).collect::<Vec<u8>>()).into_owned()
    }
}

/// The bytes of a string that was written by [`write_step`]: of escapes with numbers there are only those of control
/// characters.
fn unescaped(text: &str) -> impl Iterator<Item = u8> {
    let mut bytes = text.bytes();
    std::iter::from_fn(move || {
        let byte = bytes.next()?;
        if byte != b'\\' {
            return Some(byte);
        }
        Some(match bytes.next()? {
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let digits: Vec<u8> = bytes.by_ref().take(4).collect();
                let digits = std::str::from_utf8(&digits).unwrap_or_default();
                u8::from_str_radix(digits, 16).unwrap_or(b'?')
            }
            other => other,
        })
    })
}

/// Appends a step, escaped.
pub(super) fn write_step(out: &mut String, step: &str) {
    let plain = |byte: &u8| !matches!(byte, 0..0x20 | b'"' | b'\\');
    // Hardly any step has to be escaped.
    if step.as_bytes().iter().all(plain) {
        out.push_str(step);
        return;
    }
    let mut clean = 0;
    for (at, byte) in step.bytes().enumerate() {
        let short = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            0x0c => "\\f",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&step[clean..at]);
        if short.is_empty() {
            out.push_str(&format!("\\u{byte:04x}"));
        } else {
            out.push_str(short);
        }
        clean = at + 1;
    }
    out.push_str(&step[clean..]);
}

/// Walks a set node by node. It stands inside a node, before one of its steps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'t> {
    rest: &'t str,
}

impl<'t> Reader<'t> {
    /// Stands inside the root of a set written as members, without the braces around them.
    pub(super) fn new(members: &'t str) -> Self {
        Self { rest: members }
    }

    /// Whether the node it has just entered is a member. Moves past what says so.
    pub(super) fn member(&mut self) -> bool {
        if self.at_end() {
            return true;
        }
        match self.rest.strip_prefix("\".\":{}") {
            Some(rest) => {
                self.rest = rest.strip_prefix(',').unwrap_or(rest);
                true
            }
            None => false,
        }
    }

    fn at_end(&self) -> bool {
        self.rest.is_empty() || self.rest.starts_with('}')
    }

    /// The next step; the reader stands inside its node then. At the end of the node it stands in, `None`, and it stands
    /// after that node.
    pub(super) fn step(&mut self) -> Option<Written<'t>> {
        if self.at_end() {
            self.leave();
            return None;
        }
        let opened = self.rest.strip_prefix('"')?;
        let end = string_end(opened.as_bytes(), 0)?;
        self.rest = opened.get(end..)?.strip_prefix("\":{")?;
        Some(Written(&opened[..end]))
    }

    /// Everything to come; the reader stands in the root, or inside one of its nodes.
    pub(super) fn all(self) -> &'t str {
        self.rest
    }

    /// Leaves the node whose end it has reached.
    fn leave(&mut self) {
        self.rest = self.rest.strip_prefix('}').unwrap_or(self.rest);
        self.rest = self.rest.strip_prefix(',').unwrap_or(self.rest);
    }

    /// Leaves the node it is in, wherever it stands; what was still to come in it.
    pub(super) fn skip(&mut self) -> &'t str {
        let at = match brackets::end(self.rest.as_bytes(), 0) {
            Some(end) => end - 1,
            None => self.rest.len(),
        };
        let (inside, rest) = self.rest.split_at_checked(at).unwrap_or((self.rest, ""));
        self.rest = rest;
        self.leave();
        inside
    }
}

/// Writes a set. Nodes that turn out to be neither members nor on the way to one leave no trace.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: String,
}

/// A node that is being written.
#[must_use]
pub(in crate::apply) struct Opened {
    /// Length of the text before the node.
    before: usize,
    /// Length of the text at the beginning of what is in the node.
    inside: usize,
    member: bool,
}

impl Writer {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            out: String::with_capacity(capacity),
        }
    }

    /// The members of the root, without braces.
    pub(super) fn finish(self) -> String {
        self.out
    }

    fn separate(&mut self) {
        if !self.out.is_empty() && !self.out.ends_with('{') {
            self.out.push(',');
        }
    }

    /// Writes a node up to what is in it.
    fn enter(&mut self, step: Written<'_>) {
        self.separate();
        self.out.push('"');
        self.out.push_str(step.0);
        self.out.push_str("\":{");
    }

    /// A whole node, of which there is something to write.
    pub(super) fn whole(&mut self, step: Written<'_>, inside: &str) {
        self.enter(step);
        self.out.push_str(inside);
        self.out.push('}');
    }

    /// A node and all that follow it in the root.
    pub(super) fn all(&mut self, step: Written<'_>, rest: &str) {
        self.enter(step);
        self.out.push_str(rest);
    }

    /// Begins a node.
    pub(super) fn open(&mut self, step: Written<'_>, member: bool) -> Opened {
        let before = self.out.len();
        self.enter(step);
        let inside = self.out.len();
        if member {
            self.out.push_str("\".\":{}");
        }
        Opened {
            before,
            inside,
            member,
        }
    }

    /// Ends the node that was begun last.
    pub(super) fn close(&mut self, node: Opened) {
        let mark = if node.member { "\".\":{}".len() } else { 0 };
        let empty = self.out.len() == node.inside + mark;
        match (empty, node.member) {
            (true, false) => self.out.truncate(node.before),
            (true, true) => {
                self.out.truncate(node.inside);
                self.out.push('}');
            }
            (false, _) => self.out.push('}'),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_escaped_as_json_and_ordered_as_they_are() {
        for step in ["f:plain", "k:{\"a\":\"x\\y\"}", "f:\u{1}\n\t\r\u{8}\u{c}é"] {
            let mut written = String::new();
            write_step(&mut written, step);
            assert_eq!(
                format!("\"{written}\""),
                serde_json::to_string(step).expect("json")
            );
            assert_eq!(Written(&written).plain(), step);
        }
        // Unescaped, the quote comes before the letter; escaped, it would not.
        assert_eq!(Written("k:X\\\"").order(Written("k:XY")), Ordering::Less);
    }

    #[test]
    fn what_is_not_ours_ends_early() {
        for text in [
            "\"f:a",
            "\"f:a\":",
            "\"f:a\":{\"",
            "}",
            "\"f:a\":[]",
            "\"f:a\\",
            "{",
        ] {
            let mut reader = Reader::new(text);
            while reader.step().is_some() {
                reader.skip();
            }
        }
    }
}
