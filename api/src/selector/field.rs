//! Field selectors: `metadata.name=x,status.phase!=Running`.

use std::fmt;
use std::str::FromStr;

use super::SelectorError;

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// The field, as a dotted path.
    pub field: String,
    /// The value it is compared with.
    pub value: String,
    /// Whether it must differ.
    pub negated: bool,
}

/// Which objects are meant, by their fields: all requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector(Vec<FieldRequirement>);

impl FieldSelector {
    /// Every object.
    pub const fn everything() -> Self {
        Self(Vec::new())
    }

    /// Objects that meet all requirements.
    pub const fn of(requirements: Vec<FieldRequirement>) -> Self {
        Self(requirements)
    }

    /// Objects with this value in this field.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self(vec![FieldRequirement {
            field: field.into(),
            value: value.into(),
            negated: false,
        }])
    }

    /// The requirements.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether every object is meant.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object is meant whose fields are looked up by a function. A field that is not there is empty.
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0
            .iter()
            .all(|one| (lookup(&one.field).unwrap_or_default() == one.value) != one.negated)
    }

    /// The one value that a field must have, if there is one.
    pub fn exact_value(&self, field: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|one| one.field == field && !one.negated)
            .map(|one| one.value.as_str())
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, one) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let operator = if one.negated { "!=" } else { "=" };
            write!(f, "{comma}{}{operator}{}", one.field, escape(&one.value))?;
        }
        Ok(())
    }
}

fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '\\' | ',' | '=') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('\\' | ',' | '=')) => out.push(escaped),
                Some(other) => {
                    return Err(SelectorError(format!(
                        "invalid field selector: invalid escape sequence: \\{other}"
                    )));
                }
                None => {
                    return Err(SelectorError(
                        "invalid field selector: invalid escape sequence: \\".to_owned(),
                    ));
                }
            },
            ',' | '=' => {
                return Err(SelectorError(format!(
                    "invalid field selector: unescaped character in value: {}",
                    c as u32
                )));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// Splits at commas that are not escaped.
fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, b) in text.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

impl FromStr for FieldSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in terms(text) {
            if term.is_empty() {
                continue;
            }
            // The first operator counts, the longest first.
            let split = term.char_indices().find_map(|(i, _)| {
                [("!=", true), ("==", false), ("=", false)]
                    .into_iter()
                    .find_map(|(operator, negated)| {
                        Some((&term[..i], negated, term[i..].strip_prefix(operator)?))
                    })
            });
            let Some((field, negated, value)) = split else {
                return Err(SelectorError(format!(
                    "invalid selector: '{text}'; can't understand '{term}'"
                )));
            };
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                value: unescape(value)?,
                negated,
            });
        }
        requirements.sort_by(|a: &FieldRequirement, b| a.field.cmp(&b.field));
        Ok(Self(requirements))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_matches_and_writes() {
        let selector: FieldSelector = "status.phase!=Running,metadata.name==a\\,b"
            .parse()
            .expect("a selector");
        assert_eq!(selector.to_string(), "metadata.name=a\\,b,status.phase!=Running");
        assert_eq!(selector.exact_value("metadata.name"), Some("a,b"));
        let fields = |phase: &'static str| {
            move |field: &str| match field {
                "metadata.name" => Some("a,b"),
                _ => Some(phase),
            }
        };
        assert!(selector.matches_with(fields("Pending")));
        assert!(!selector.matches_with(fields("Running")));
        assert!("".parse::<FieldSelector>().expect("empty").is_everything());
    }

    #[test]
    fn refuses_with_upstreams_texts() {
        let error = |text: &str| text.parse::<FieldSelector>().expect_err(text).to_string();
        assert_eq!(error("a"), "invalid selector: 'a'; can't understand 'a'");
        assert_eq!(
            error("a=\\x"),
            "invalid field selector: invalid escape sequence: \\x"
        );
        assert_eq!(
            error("a=b=c"),
            "invalid field selector: unescaped character in value: 61"
        );
    }
}
