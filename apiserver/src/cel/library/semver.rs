//! `semver('1.2.3-rc.1')`: versions as <https://semver.org> has them.

use std::cmp::Ordering;
use std::sync::Arc;

use super::super::eval::Failure;
use super::super::value::Value;
use super::Outcome;

/// A version.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
}

impl Version {
    fn parse(text: &str, normalize: bool) -> Option<Self> {
        let text = if normalize {
            text.trim().trim_start_matches('v')
        } else {
            text
        };
        let (text, build) = match text.split_once('+') {
            Some((text, build)) => (text, Some(build)),
            None => (text, None),
        };
        let word =
            |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
        if build.is_some_and(|build| !build.split('.').all(word)) {
            return None;
        }
        let (core, pre) = match text.split_once('-') {
            Some((core, pre)) => (core, pre.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        let leading =
            |part: &str| part.len() > 1 && part.starts_with('0') && part.bytes().all(|b| b.is_ascii_digit());
        if !pre.iter().all(|part: &String| word(part) && !leading(part)) {
            return None;
        }
        let mut parts: Vec<&str> = core.split('.').collect();
        if normalize {
            while parts.len() < 3 {
                parts.push("0");
            }
        }
        let [major, minor, patch] = parts.as_slice() else {
            return None;
        };
        let number = |part: &str| {
            let part = if normalize && part.len() > 1 {
                part.trim_start_matches('0')
            } else {
                part
            };
            let part = if part.is_empty() { "0" } else { part };
            (!leading(part) && part.bytes().all(|b| b.is_ascii_digit())).then(|| part.parse().ok())?
        };
        Some(Self {
            numbers: [number(major)?, number(minor)?, number(patch)?],
            pre,
        })
    }

    /// Which is newer.
    pub fn compare(&self, other: &Self) -> Ordering {
        self.numbers
            .cmp(&other.numbers)
            .then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Greater,
                (false, true) => Ordering::Less,
                (false, false) => {
                    let words = self.pre.iter().zip(&other.pre).map(|(a, b)| {
                        match (a.parse::<u64>(), b.parse::<u64>()) {
                            (Ok(a), Ok(b)) => a.cmp(&b),
                            (Ok(_), Err(_)) => Ordering::Less,
                            (Err(_), Ok(_)) => Ordering::Greater,
                            (Err(_), Err(_)) => a.cmp(b),
                        }
                    });
                    words
                        .fold(Ordering::Equal, Ordering::then)
                        .then_with(|| self.pre.len().cmp(&other.pre.len()))
                }
            })
    }
}

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    if !matches!(name, "semver" | "isSemver") {
        return None;
    }
    let (text, normalize) = match args {
        [text] => (text.as_str()?, false),
        [text, Value::Bool(normalize)] => (text.as_str()?, *normalize),
        _ => return None,
    };
    let parsed = Version::parse(text, normalize);
    Some(match name {
        "isSemver" => Ok(Value::Bool(parsed.is_some())),
        _ => parsed
            .map(|version| Value::Semver(Arc::new(version)))
            .ok_or_else(|| Failure::error(format!("invalid semantic version: {text:?}"))),
    })
}

/// Methods of versions.
pub fn method<'v>(name: &str, own: &Version, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    let number = |index: usize| Value::Int(i64::try_from(own.numbers[index]).unwrap_or(i64::MAX));
    Some(Ok(match (name, args) {
        ("major", []) => number(0),
        ("minor", []) => number(1),
        ("patch", []) => number(2),
        ("isGreaterThan", [Value::Semver(other)]) => Value::Bool(own.compare(other).is_gt()),
        ("isLessThan", [Value::Semver(other)]) => Value::Bool(own.compare(other).is_lt()),
        ("compareTo", [Value::Semver(other)]) => Value::Int(match own.compare(other) {
            Ordering::Less => -1,
            Ordering::Equal => 0,
            Ordering::Greater => 1,
        }),
        _ => return None,
    }))
}
