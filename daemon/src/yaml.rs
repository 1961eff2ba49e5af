//! YAML of one document, of which a few bytes cannot make much.
//!
//! Anchors say once what aliases repeat, and a few lines of aliases of aliases say more than there is memory for. What
//! aliases may repeat grows with the text; so does what comes out of it. Time does not grow faster than the text does.
//!
//! <https://yaml.org/spec/1.2.2/#alias-nodes>

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_saphyr::Error;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::DuplicateKeyPolicy;

/// Deeper documents are refused: each level takes room on the stack, of which threads have 2 MiB.
const DEPTH: usize = 64;
/// Values in a document. No object that the store takes has as many.
const NODES: usize = 500_000;
/// What aliases repeat for each byte of the text: events, of which a mapping or list has two and a scalar one.
const REPEATED_PER_BYTE: usize = 8;
/// Short documents may repeat that much all the same.
const REPEATED_LEAST: usize = 2_000;
/// And no document more than that.
const REPEATED_MOST: usize = 200_000;
/// Text in all scalars, those repeated among them. A request is half of that at most.
const TEXT: usize = 6 << 20;
/// Complaints quote what they are about, which may be long.
const COMPLAINT: usize = 512;

/// Why a document was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// A mapping has a key twice.
    #[error("yaml: unmarshal errors:\n  line {line}: key {key:?} already set in map")]
    Duplicate {
        /// The key.
        key: String,
        /// Where it is there again.
        line: u64,
    },
    /// It is no YAML, not what was wanted, or too much.
    #[error("{0}")]
    Malformed(String),
}

/// What counts of several keys that are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Twice {
    /// None: the document is refused.
    Refused,
    /// The last.
    Last,
}

/// Reads a document in which no mapping has a key twice.
///
/// # Errors
/// When it cannot be read.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, Unread> {
    read(text, Twice::Refused)
}

/// Reads a document. Numbers, booleans and merges are read as kubectl reads them.
///
/// # Errors
/// When it cannot be read.
pub fn read<T: DeserializeOwned>(text: &str, twice: Twice) -> Result<T, Unread> {
    let repeated = (text.len().saturating_mul(REPEATED_PER_BYTE)).clamp(REPEATED_LEAST, REPEATED_MOST);
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH,
            max_nodes: NODES,
            max_total_scalar_bytes: TEXT,
            // One anchor may be used often, as long as it is short.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: repeated,
        },
        duplicate_keys: match twice {
            Twice::Refused => DuplicateKeyPolicy::Error,
            Twice::Last => DuplicateKeyPolicy::LastWins,
        },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| unread(&error))
}

/// Writes a document. Text that older readers take for something else, as `on` and dates, is in quotes (YAML 1.1, types
/// `bool`, `timestamp` and others).
///
/// # Errors
/// When the value has no form in YAML.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, String> {
    let options = serde_saphyr::ser_options! {
        // Lines are as long as the text is.
        folded_wrap_chars: usize::MAX,
    };
    serde_saphyr::to_string_with_options(value, options).map_err(|error| error.to_string())
}

fn unread(error: &Error) -> Unread {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => unread(error),
        Error::DuplicateMappingKey { key, location } => Unread::Duplicate {
            key: key.clone().unwrap_or_default(),
            line: location.line(),
        },
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::Budget {
            breach: BudgetBreach::Aliases { .. },
            ..
        } => Unread::Malformed("yaml: document contains excessive aliasing".to_owned()),
        Error::Budget {
            breach: BudgetBreach::Depth { .. },
            ..
        } => Unread::Malformed(format!("yaml: exceeded max depth of {DEPTH}")),
        other => {
            let mut why = other.to_string();
            let end = why.floor_char_boundary(COMPLAINT);
            if end < why.len() {
                why.truncate(end);
                why.push_str(" ...");
            }
            Unread::Malformed(why)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The longest request.
    const LONG: usize = 3 << 20;

    fn refusal(text: &str) -> String {
        match from_str::<Value>(text) {
            Ok(value) => format!("read as {} bytes", value.to_string().len()),
            Err(why) => why.to_string(),
        }
    }

    /// Lists of nine aliases of the list before, so deep.
    fn bomb(levels: usize) -> String {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..levels {
            let inner = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", vec![inner; 9].join(", "));
        }
        text
    }

    #[test]
    fn what_is_written_is_read_as_it_was() {
        let texts = [
            "", " ", "\n", "\n\n", " a\n b", "a\n", "a\n\n", "a \nb", "\ta", "a\tb", "a\r\nb", "# c", "a #c",
            "a: b", "- a", "? a", "'q'", "\"q\"", "\\", "\u{e9}", "\u{7}", "\u{85}", "\u{2028}", "\u{feff}",
            "a ", "{a}", "[a]", "&a", "*a", "!a", "|", ">", "%a", "@a", "`a", "---", "...", "=", "<<", "~",
            "null", "1e3", ".5", "0o7", ".inf",
        ];
        let long = "word ".repeat(100);
        for text in texts.into_iter().chain([&*long]) {
            for value in [
                json!(text),
                json!({text: text}),
                json!([[text], {"a": {text: [text]}}]),
            ] {
                let written = to_string(&value).expect("YAML");
                assert_eq!(from_str(&written), Ok(value), "{written}");
            }
        }
    }

    #[test]
    fn text_is_text_for_older_readers() {
        for text in [
            "on",
            "Off",
            "yes",
            "NO",
            "y",
            "n",
            "true",
            "~",
            "0123",
            "0x1f",
            "1_000",
            "1:20",
            "2026-01-01",
            "2026-01-01T00:00:00Z",
            "1e3",
            ".inf",
            "<<",
            "=",
        ] {
            let written = to_string(&json!({"a": text, text: "b"})).expect("YAML");
            assert_eq!(written.matches(['"', '\'']).count(), 4, "{written}");
        }
    }

    #[test]
    fn aliases_repeat_what_anchors_say() {
        let text = "one: &one {a: 1, b: [x]}\ntwo: *one\nthree: {<<: *one, a: 2}\n";
        let one = json!({"a": 1, "b": ["x"]});
        let wanted = json!({"one": one, "two": one, "three": {"a": 2, "b": ["x"]}});
        assert_eq!(from_str(text), Ok(wanted));
    }

    #[test]
    fn a_few_aliases_of_aliases_are_too_many() {
        assert!(from_str::<Value>(&bomb(3)).is_ok());
        for text in [bomb(5), bomb(12), bomb(12).replace(['[', ']'], "\n")] {
            let why = refusal(&text);
            assert!(!why.starts_with("read"), "{why}");
        }
        assert_eq!(refusal(&bomb(12)), "yaml: document contains excessive aliasing");
    }

    #[test]
    fn a_long_text_is_not_repeated_without_end() {
        let text = format!("a: &a {}\n{}", "x".repeat(1 << 20), "- *a\n".repeat(3));
        assert!(refusal(&text).len() < 2 * COMPLAINT);
        let mut text = format!("a: &a {}\n", "x".repeat(1 << 20));
        (0..16).for_each(|number| text += &format!("b{number}: *a\n"));
        assert!(!refusal(&text).starts_with("read"), "{}", refusal(&text));
    }

    #[test]
    fn what_is_too_deep_is_refused_at_once() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert!(from_str::<Value>(&nested(DEPTH)).is_ok());
        assert_eq!(refusal(&nested(DEPTH + 1)), "yaml: exceeded max depth of 64");
        assert!(!refusal(&"[".repeat(LONG)).starts_with("read"));
        assert!(!refusal(&"- ".repeat(LONG / 2)).starts_with("read"));
    }

    #[test]
    fn complaints_are_short() {
        let why = refusal(&"9".repeat(LONG));
        assert!(why.len() < 2 * COMPLAINT, "{} bytes", why.len());
        assert_eq!(
            refusal("a: 1\nb: 2\na: 3\n"),
            "yaml: unmarshal errors:\n  line 3: key \"a\" already set in map"
        );
        assert_eq!(read("a: 1\na: 3\n", Twice::Last), Ok(json!({"a": 3})));
    }
}
