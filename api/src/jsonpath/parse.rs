//! From text to steps.

use serde_json::Value;

use super::{Comparison, Filter, MAX_STEPS, Operand, Step};

/// Reads the steps of a path without braces.
pub(super) fn steps(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.trim();
    if let Some(after) = rest.strip_prefix(['$', '@']) {
        rest = after;
    }
    while !rest.is_empty() {
        if steps.len() >= MAX_STEPS {
            return Err(format!("a path has at most {MAX_STEPS} steps"));
        }
        if let Some(after) = rest.strip_prefix("..") {
            steps.push(Step::Descend);
            // What follows the dots is a field, unless it opens a bracket.
            rest = if after.starts_with('[') || after.is_empty() {
                after
            } else {
                named(after, &mut steps)?
            };
        } else if let Some(after) = rest.strip_prefix('.') {
            if after.is_empty() && steps.is_empty() {
                break;
            }
            rest = if after.starts_with('[') {
                after
            } else {
                named(after, &mut steps)?
            };
        } else if rest.starts_with('[') {
            let end = bracket_end(rest)?;
            steps.push(bracket(rest[1..end].trim())?);
            rest = &rest[end + 1..];
        } else if steps.is_empty() {
            rest = named(rest, &mut steps)?;
        } else {
            return Err(format!("unexpected {rest:?}"));
        }
    }
    Ok(steps)
}

/// A field name up to the next dot or bracket; `\.` is a dot of the name.
fn named<'t>(text: &'t str, steps: &mut Vec<Step>) -> Result<&'t str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, escaped)) => name.push(escaped),
                None => return Err("a backslash at the end".into()),
            },
            '.' | '[' => {
                end = at;
                break;
            }
            c if c.is_whitespace() => return Err(format!("unexpected space after {name:?}")),
            c => name.push(c),
        }
    }
    if name.is_empty() {
        return Err("a field without a name".into());
    }
    steps.push(if name == "*" {
        Step::Wildcard
    } else {
        Step::Field(name)
    });
    Ok(&text[end..])
}

/// Where the bracket that opens `text` closes; brackets in quotes and inside of it do not count.
fn bracket_end(text: &str) -> Result<usize, String> {
    let (mut depth, mut quote, mut escaped) = (0_usize, None, false);
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None => match c {
                '\'' | '"' => quote = Some(c),
                '[' => depth += 1,
                ']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Ok(at);
                    }
                }
                _ => {}
            },
        }
    }
    Err("unterminated array".into())
}

fn bracket(inside: &str) -> Result<Step, String> {
    if inside == "*" {
        return Ok(Step::Wildcard);
    }
    if let Some(filter) = inside.strip_prefix('?') {
        let filter = filter
            .trim()
            .strip_prefix('(')
            .and_then(|rest| rest.strip_suffix(')'))
            .ok_or("unterminated filter")?;
        return filter_of(filter).map(|filter| Step::Filter(Box::new(filter)));
    }
    let parts = split(inside, ',');
    if parts.len() > 1 {
        return parts
            .into_iter()
            .map(element)
            .collect::<Result<_, _>>()
            .map(Step::Union);
    }
    element(inside)
}

fn element(text: &str) -> Result<Step, String> {
    let text = text.trim();
    if let Some(name) = quoted(text) {
        // `['metadata.name']` goes down two fields, `['a\.b']` one.
        let mut steps = Vec::new();
        let mut rest = name.as_str();
        while !rest.is_empty() {
            rest = named(rest.strip_prefix('.').unwrap_or(rest), &mut steps)?;
        }
        return match steps.len() {
            1 => Ok(steps.remove(0)),
            _ => Ok(Step::Chain(steps)),
        };
    }
    let number = |text: &str| -> Result<Option<i64>, String> {
        match text.trim() {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| format!("invalid array index {text}")),
        }
    };
    let parts: Vec<&str> = text.split(':').collect();
    match parts.as_slice() {
        [one] => number(one)?.map(Step::Index).ok_or("an empty index".into()),
        [from, to] => Ok(Step::Slice(number(from)?, number(to)?, 1)),
        [from, to, step] => {
            let step = number(step)?.unwrap_or(1);
            if step <= 0 {
                return Err("step must be > 0".into());
            }
            Ok(Step::Slice(number(from)?, number(to)?, step))
        }
        _ => Err(format!("invalid array index {text}")),
    }
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inside = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inside.to_owned())
}

/// Cuts at a separator that is not inside quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut begin, mut quote) = (Vec::new(), 0, None);
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None if c == separator => {
                parts.push(&text[begin..at]);
                begin = at + c.len_utf8();
            }
            None => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn filter_of(text: &str) -> Result<Filter, String> {
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Comparison::Equal),
        ("!=", Comparison::NotEqual),
        ("<=", Comparison::LessOrEqual),
        (">=", Comparison::GreaterOrEqual),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
    ];
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if matches!(c, '\'' | '"') => quote = Some(c),
            None => {
                if let Some((operator, comparison)) = OPERATORS
                    .iter()
                    .find(|(operator, _)| text[at..].starts_with(operator))
                {
                    return Ok(Filter {
                        left: operand(&text[..at])?,
                        right: Some((*comparison, operand(&text[at + operator.len()..])?)),
                    });
                }
            }
        }
    }
    Ok(Filter {
        left: operand(text)?,
        right: None,
    })
}

fn operand(text: &str) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['@', '.', '$']) {
        return steps(text).map(Operand::Path);
    }
    if let Some(text) = quoted(text) {
        return Ok(Operand::Literal(Value::String(text)));
    }
    match serde_json::from_str(text) {
        Ok(value @ (Value::Number(_) | Value::Bool(_))) => Ok(Operand::Literal(value)),
        _ => Err(format!("invalid operand {text:?} in a filter")),
    }
}
