//! Spelling values the way Kubernetes spells them in messages.

use std::fmt::Write as _;

/// Quotes a string as Go's `%q` does: the form in which every API message shows a value.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if (c as u32) < 0x20 || c as u32 == 0x7f => {
                let _ = write!(out, "\\x{:02x}", c as u32);
            }
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Where the closing quote of a JSON string is that goes on at `from`; `None` if it does not end.
pub fn string_end(json: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match json.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{quote, string_end};

    #[test]
    fn strings_end_where_no_backslash_says_otherwise() {
        assert_eq!(string_end(br#""a\"b\\" rest"#, 1), Some(7));
        assert_eq!(string_end(br#"a\"#, 0), None);
    }

    #[test]
    fn quotes_like_the_api() {
        assert_eq!(quote("a\"b\\c\n\x01é"), "\"a\\\"b\\\\c\\n\\x01é\"");
    }
}
