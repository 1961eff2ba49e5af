//! Text and regular expressions.

use std::sync::Arc;

use super::super::eval::{Budget, Failure};
use super::super::value::Value;
use super::{Outcome, count, walk_cost};
use crate::custom::schema::pattern_of;

/// Functions without a receiver.
pub fn function<'v>(name: &str, args: &[Value<'v>]) -> Option<Outcome<'v>> {
    match (name, args) {
        ("strings.quote", [value]) => {
            let text = value.as_str()?;
            Some(Ok(Value::text(keelson_api::text::quote(text))))
        }
        ("jsonpatch.escapeKey", [value]) => {
            let text = value.as_str()?;
            Some(Ok(Value::text(text.replace('~', "~0").replace('/', "~1"))))
        }
        _ => None,
    }
}

/// Methods of texts.
pub fn method<'v>(
    name: &str,
    target: &Value<'v>,
    args: &[Value<'v>],
    budget: &mut Budget,
) -> Option<Outcome<'v>> {
    let own = target.as_str()?;
    let text = |index: usize| args.get(index).and_then(Value::as_str);
    let number = |index: usize| match args.get(index) {
        Some(Value::Int(n)) => Some(*n),
        _ => None,
    };
    if let Err(failure) = budget.spend(walk_cost(own.len())) {
        return Some(Err(failure));
    }
    let length = args.len();
    Some(Ok(match (name, length) {
        ("contains", 1) => {
            if let Err(failure) = budget.spend(walk_cost(own.len()) * walk_cost(text(0)?.len())) {
                return Some(Err(failure));
            }
            Value::Bool(own.contains(text(0)?))
        }
        ("startsWith", 1) => Value::Bool(own.starts_with(text(0)?)),
        ("endsWith", 1) => Value::Bool(own.ends_with(text(0)?)),
        ("size", 0) => count(own.chars().count()),
        ("lowerAscii", 0) => Value::text(own.to_ascii_lowercase()),
        ("upperAscii", 0) => Value::text(own.to_ascii_uppercase()),
        ("trim", 0) => Value::text(own.trim()),
        ("reverse", 0) => Value::text(own.chars().rev().collect::<String>()),
        ("charAt", 1) => return Some(char_at(own, number(0)?)),
        ("indexOf", 1 | 2) => return Some(index_of(own, text(0)?, if length == 2 { number(1)? } else { 0 })),
        ("lastIndexOf", 1) => last_index(own, text(0)?, None),
        ("lastIndexOf", 2) => last_index(own, text(0)?, Some(number(1)?)),
        ("replace", 2) => Value::text(own.replace(text(0)?, text(1)?)),
        ("replace", 3) => {
            let limit = usize::try_from(number(2)?).unwrap_or(usize::MAX);
            Value::text(own.replacen(text(0)?, text(1)?, limit))
        }
        ("split", 1 | 2) => {
            let limit = if length == 2 { number(1)? } else { -1 };
            let parts: Vec<Value<'v>> = split(own, text(0)?, limit).into_iter().map(Value::text).collect();
            Value::List(Arc::new(parts))
        }
        ("substring", 1 | 2) => {
            let end = if length == 2 { Some(number(1)?) } else { None };
            return Some(substring(own, number(0)?, end));
        }
        ("matches", 1) => return Some(matches(own, text(0)?, budget)),
        ("find", 1) => return Some(find(own, text(0)?, budget)),
        ("findAll", 1 | 2) => {
            let limit = if length == 2 { number(1)? } else { -1 };
            return Some(find_all(own, text(0)?, limit, budget));
        }
        ("format", 1) => return Some(formatted(own, args.first()?.elements()?)),
        _ => return None,
    }))
}

fn char_at<'v>(own: &str, index: i64) -> Outcome<'v> {
    let size = own.chars().count();
    let place = usize::try_from(index).ok().filter(|place| *place <= size);
    match place {
        Some(place) => Ok(Value::text(
            own.chars().nth(place).map(String::from).unwrap_or_default(),
        )),
        None => Err(Failure::error(format!("index out of range: {index}"))),
    }
}

fn index_of<'v>(own: &str, wanted: &str, from: i64) -> Outcome<'v> {
    let from = usize::try_from(from)
        .ok()
        .filter(|from| *from <= own.chars().count())
        .ok_or_else(|| Failure::error(format!("index out of range: {from}")))?;
    let begin = own.char_indices().nth(from).map_or(own.len(), |(at, _)| at);
    Ok(match own[begin..].find(wanted) {
        Some(at) => count(own[..begin + at].chars().count()),
        None => Value::Int(-1),
    })
}

fn last_index<'v>(own: &str, wanted: &str, to: Option<i64>) -> Value<'v> {
    let limit = to.map_or(usize::MAX, |to| usize::try_from(to).unwrap_or(0));
    let end = own
        .char_indices()
        .nth(limit.saturating_add(wanted.chars().count()))
        .map_or(own.len(), |(at, _)| at);
    own[..end]
        .rfind(wanted)
        .map_or(Value::Int(-1), |at| count(own[..at].chars().count()))
}

fn split(own: &str, separator: &str, limit: i64) -> Vec<String> {
    let parts: Vec<String> = if separator.is_empty() {
        own.chars().map(String::from).collect()
    } else {
        own.split(separator).map(str::to_owned).collect()
    };
    match usize::try_from(limit) {
        Err(_) => parts,
        Ok(limit) if parts.len() <= limit => parts,
        Ok(0) => Vec::new(),
        Ok(limit) => {
            let rest = parts[limit - 1..].join(separator);
            let mut parts: Vec<String> = parts.into_iter().take(limit - 1).collect();
            parts.push(rest);
            parts
        }
    }
}

fn substring<'v>(own: &str, from: i64, to: Option<i64>) -> Outcome<'v> {
    let size = i64::try_from(own.chars().count()).unwrap_or(i64::MAX);
    let to = to.unwrap_or(size);
    if from < 0 || from > size || to > size || to < from {
        return Err(Failure::error(format!(
            "invalid substring range. start: {from}, end: {to}"
        )));
    }
    let (skip, take) = (
        usize::try_from(from).unwrap_or_default(),
        usize::try_from(to - from).unwrap_or_default(),
    );
    Ok(Value::text(own.chars().skip(skip).take(take).collect::<String>()))
}

fn compiled(pattern: &str, text: &str, budget: &mut Budget) -> Result<regex::Regex, Failure> {
    // A text is walked once for about every fourth character of the pattern.
    let pattern_cost = u64::try_from(pattern.len()).unwrap_or(u64::MAX).div_ceil(4);
    budget.spend(walk_cost(text.len() + 1).saturating_mul(pattern_cost))?;
    pattern_of(pattern).map_err(|error| Failure::error(format!("error parsing regexp: {error}")))
}

/// Whether a text matches a pattern somewhere.
pub fn matches<'v>(text: &str, pattern: &str, budget: &mut Budget) -> Outcome<'v> {
    Ok(Value::Bool(compiled(pattern, text, budget)?.is_match(text)))
}

fn find<'v>(text: &str, pattern: &str, budget: &mut Budget) -> Outcome<'v> {
    let found = compiled(pattern, text, budget)?
        .find(text)
        .map(|found| found.as_str().to_owned());
    Ok(Value::text(found.unwrap_or_default()))
}

fn find_all<'v>(text: &str, pattern: &str, limit: i64, budget: &mut Budget) -> Outcome<'v> {
    let regex = compiled(pattern, text, budget)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let found: Vec<Value<'v>> = regex
        .find_iter(text)
        .take(limit)
        .map(|found| Value::text(found.as_str()))
        .collect();
    Ok(Value::List(Arc::new(found)))
}

/// `"%s is %d".format([a, b])`
fn formatted<'v>(pattern: &str, args: Vec<Value<'v>>) -> Outcome<'v> {
    let mut args = args.into_iter();
    let (mut out, mut chars) = (String::new(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut precision = None;
        if chars.peek() == Some(&'.') {
            chars.next();
            let mut digits = String::new();
            while let Some(digit) = chars.peek().filter(|c| c.is_ascii_digit()) {
                digits.push(*digit);
                chars.next();
            }
            precision = digits.parse::<usize>().ok().map(|digits| digits.min(100));
        }
        let verb = chars.next();
        if verb == Some('%') {
            out.push('%');
            continue;
        }
        let value = args
            .next()
            .ok_or_else(|| Failure::error("index out of range: not enough arguments to format"))?;
        let bad = || {
            Failure::error(format!(
                "formatting clause cannot be applied to {}",
                value.type_name()
            ))
        };
        match (verb, &value) {
            (Some('s'), value) => out.push_str(&spelled(value)),
            (Some('d'), Value::Int(_) | Value::Uint(_)) => out.push_str(&super::show(&value)),
            (Some('f'), Value::Double(n)) => out.push_str(&format!("{n:.*}", precision.unwrap_or(6))),
            (Some('f'), Value::Int(n)) => out.push_str(&format!("{:.*}", precision.unwrap_or(6), *n as f64)),
            (Some('e'), Value::Double(n)) => out.push_str(&format!("{n:.*e}", precision.unwrap_or(6))),
            (Some('b'), Value::Int(n)) => out.push_str(&format!("{n:b}")),
            (Some('b'), Value::Bool(b)) => out.push_str(if *b { "1" } else { "0" }),
            (Some('x'), Value::Int(n)) => out.push_str(&format!("{n:x}")),
            (Some('X'), Value::Int(n)) => out.push_str(&format!("{n:X}")),
            (Some('o'), Value::Int(n)) => out.push_str(&format!("{n:o}")),
            (Some('x' | 'X'), value) => {
                let text = value.as_str().ok_or_else(bad)?;
                let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
                out.push_str(&if verb == Some('X') {
                    hex.to_uppercase()
                } else {
                    hex
                });
            }
            _ => return Err(bad()),
        }
    }
    Ok(Value::text(out))
}

fn spelled(value: &Value<'_>) -> String {
    if let Some(elements) = value.elements() {
        let parts: Vec<String> = elements.iter().map(spelled).collect();
        return format!("[{}]", parts.join(", "));
    }
    if let Some(entries) = value.entries() {
        let parts: Vec<String> = entries
            .iter()
            .map(|(key, value)| format!("{}: {}", spelled(key), spelled(value)))
            .collect();
        return format!("{{{}}}", parts.join(", "));
    }
    match value {
        Value::Null => "null".into(),
        Value::Timestamp(at) => at.to_string(),
        Value::Duration(n) => super::times::show_duration(*n),
        Value::Type(name) => name.to_string(),
        other => super::show(other),
    }
}
