//! Whether a configuration fits its schema.

use super::element;
use super::elements;
use super::schema::{Lists, Scalar, Schema};
use super::tree::{Ref, Sort};
use crate::text::quote;

/// The most mistakes that are told of one configuration.
const MAX_ERRORS: usize = 64;

/// Everything that does not fit, with upstream's texts. Elements of one key are mistakes in a configuration.
pub(super) fn validate(schema: &dyn Schema, config: Ref<'_>) -> Result<(), String> {
    let mut state = State {
        path: String::new(),
        errors: Vec::new(),
    };
    state.walk(schema, config);
    match state.errors.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        several => Err(format!("errors:\n  {}", several.join("\n  "))),
    }
}

struct State {
    path: String,
    errors: Vec<String>,
}

impl State {
    fn complain(&mut self, problem: &str) {
        if self.errors.len() < MAX_ERRORS {
            let colon = if self.path.is_empty() { "" } else { ": " };
            self.errors.push(format!("{}{colon}{problem}", self.path));
        }
    }

    fn within(&mut self, step: &str, f: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        element::show(step, &mut self.path);
        f(self);
        self.path.truncate(length);
    }

    fn walk(&mut self, schema: &dyn Schema, value: Ref<'_>) {
        let sort = value.sort();
        if !schema.accepts(sort) {
            let problem = match (schema.scalar(), schema.accepts(Sort::Map)) {
                (_, true) => format!("expected map, got {}", go_value(value)),
                (Some(scalar), _) => mismatch(scalar, value),
                (None, _) => format!("expected list, got {}", go_value(value)),
            };
            return self.complain(&problem);
        }
        match sort {
            Sort::Null => {}
            Sort::Scalar => {
                let scalar = schema.scalar().unwrap_or(Scalar::Any);
                let fits = match scalar {
                    Scalar::Any => true,
                    Scalar::Text => value.text().is_some(),
                    Scalar::Number => value.number().is_some(),
                    Scalar::Boolean => value.boolean().is_some(),
                };
                if !fits {
                    self.complain(&mismatch(scalar, value));
                }
            }
            Sort::Map => {
                for (name, inner) in value.entries() {
                    let child = schema.field(name);
                    self.within(&element::field(name), |state| match child {
                        Some(child) => state.walk(child.schema, inner),
                        None => state.complain("field not declared in schema"),
                    });
                }
            }
            Sort::List => self.list(schema, value),
        }
    }

    fn list(&mut self, schema: &dyn Schema, list: Ref<'_>) {
        let Some(items) = schema.items() else { return };
        let kind = schema.list();
        let mut seen = std::collections::HashSet::new();
        for (i, item) in list.items().enumerate() {
            let step = match kind {
                Lists::Atomic => format!("i:{i}"),
                _ => match elements::step(schema, &kind, item) {
                    Ok(step) => step,
                    Err(problem) => return self.complain(&format!("element {i}: {problem}")),
                },
            };
            if kind != Lists::Atomic && !seen.insert(step.clone()) {
                let mut shown = String::new();
                element::show(&step, &mut shown);
                self.complain(&format!("duplicate entries for key {shown}"));
            }
            self.within(&step, |state| state.walk(items, item));
        }
    }
}

fn mismatch(scalar: Scalar, value: Ref<'_>) -> String {
    match scalar {
        Scalar::Text => format!(
            "expected string, got &value.valueUnstructured{{Value:{}}}",
            go_syntax(value)
        ),
        Scalar::Number => format!("expected numeric (int or float), got {}", go_type(value)),
        Scalar::Boolean => format!("expected boolean, got {}", go_value(value)),
        Scalar::Any => format!("expected any scalar, got {}", go_value(value)),
    }
}

fn go_type(value: Ref<'_>) -> &'static str {
    match value.sort() {
        Sort::Null => "<nil>",
        Sort::List => "[]interface {}",
        Sort::Map => "map[string]interface {}",
        Sort::Scalar if value.text().is_some() => "string",
        Sort::Scalar if value.boolean().is_some() => "bool",
        Sort::Scalar => match value.number() {
            Some(number) if number.is_i64() => "int64",
            _ => "float64",
        },
    }
}

/// A value as Go's `%#v` shows it.
fn go_syntax(value: Ref<'_>) -> String {
    match value.sort() {
        Sort::Null => "interface {}(nil)".to_owned(),
        Sort::Scalar => scalar(value),
        Sort::List => {
            let items: Vec<_> = value.items().map(go_syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Sort::Map => {
            let entries: Vec<_> = value
                .entries()
                .map(|(name, inner)| format!("{}:{}", quote(name), go_syntax(inner)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", entries.join(", "))
        }
    }
}

/// A value of unstructured form as Go's `%v` shows it.
fn go_value(value: Ref<'_>) -> String {
    fn inner(value: Ref<'_>) -> String {
        match value.sort() {
            Sort::Null => "<nil>".to_owned(),
            Sort::Scalar => value.text().map_or_else(|| scalar(value), str::to_owned),
            Sort::List => {
                let items: Vec<_> = value.items().map(inner).collect();
                format!("[{}]", items.join(" "))
            }
            Sort::Map => {
                let entries: Vec<_> = value
                    .entries()
                    .map(|(name, value)| format!("{name}:{}", inner(value)))
                    .collect();
                format!("map[{}]", entries.join(" "))
            }
        }
    }
    format!("&{{{}}}", inner(value))
}

fn scalar(value: Ref<'_>) -> String {
    match (value.text(), value.boolean(), value.number()) {
        (Some(text), _, _) => quote(text),
        (_, Some(boolean), _) => boolean.to_string(),
        (_, _, Some(number)) => number.to_string(),
        _ => "<nil>".to_owned(),
    }
}
