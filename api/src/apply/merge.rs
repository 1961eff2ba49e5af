//! Laying a configuration over an object, and taking fields out of one.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::element;
use super::elements;
use super::schema::{Lists, Schema};
use super::set::{FieldSet, SetView};
use super::tree::Tree;

/// Lays a configuration over an object: its leaves replace the object's, maps and lists that are owned by elements are
/// merged. Nothing is removed. Lists that the configuration speaks of take its order as far as it goes.
pub(super) fn merge(schema: &dyn Schema, live: Value, config: &Value) -> Result<Value, String> {
    match (live, config) {
        (Value::Object(live), Value::Object(new)) if !schema.atomic_map() => {
            merge_maps(schema, live, new).map(Value::Object)
        }
        (Value::Array(live), Value::Array(new)) if !(live.is_empty() && new.is_empty()) => {
            match schema.list() {
                Lists::Atomic => Ok(config.clone()),
                kind => merge_lists(schema, &kind, live, new).map(Value::Array),
            }
        }
        // A null takes nothing out of what is owned by parts.
        (live @ Value::Object(_), Value::Null) if !schema.atomic_map() && !is_empty(&live) => Ok(live),
        (live @ Value::Array(_), Value::Null) if !schema.list().is_atomic() && !is_empty(&live) => Ok(live),
        _ => Ok(config.clone()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn merge_maps(
    schema: &dyn Schema,
    mut live: Map<String, Value>,
    config: &Map<String, Value>,
) -> Result<Map<String, Value>, String> {
    for (name, new) in config {
        let merged = match (live.remove(name), schema.field(name)) {
            (Some(old), Some(child)) => merge(child.schema, old, new)?,
            _ => new.clone(),
        };
        live.insert(name.clone(), merged);
    }
    Ok(live)
}

/// The steps of a list's elements.
fn steps(schema: &dyn Schema, kind: &Lists<'_>, list: &[Value]) -> Result<Vec<String>, String> {
    let tree = Tree::of(list)?;
    let keyed = elements::keyed(schema, kind, tree.root())?;
    Ok(keyed.into_iter().map(|element| element.step).collect())
}

fn merge_lists(
    schema: &dyn Schema,
    kind: &Lists<'_>,
    live: Vec<Value>,
    config: &[Value],
) -> Result<Vec<Value>, String> {
    let items = schema.items().ok_or("the elements of a list have no type")?;
    let (ours, theirs) = (steps(schema, kind, &live)?, steps(schema, kind, config)?);
    let wanted: HashSet<&str> = theirs.iter().map(String::as_str).collect();
    // Elements that cannot be told apart are not merged with the new one but make way for it.
    let mut old: HashMap<&str, Option<Value>> = HashMap::with_capacity(live.len());
    let mut kept: Vec<Option<Value>> = Vec::with_capacity(live.len());
    for (step, value) in ours.iter().zip(live) {
        if wanted.contains(step.as_str()) {
            old.entry(step)
                .and_modify(|slot| *slot = None)
                .or_insert(Some(value));
            kept.push(None);
        } else {
            kept.push(Some(value));
        }
    }
    let shared: HashSet<&str> = ours
        .iter()
        .map(String::as_str)
        .filter(|s| wanted.contains(s))
        .collect();
    let mut shared_order = theirs
        .iter()
        .map(String::as_str)
        .filter(|step| shared.contains(step));
    let mut next_shared = shared_order.next();

    let mut merged = Vec::with_capacity(ours.len() + theirs.len());
    let mut done: HashSet<&str> = HashSet::new();
    let (mut l, mut r) = (0, 0);
    loop {
        let (left, right) = (ours.get(l).map(String::as_str), theirs.get(r).map(String::as_str));
        if left.is_none() && right.is_none() {
            return Ok(merged);
        }
        if let (Some(left), Some(right)) = (left, right)
            && left != right
            && wanted.contains(left)
            && next_shared.is_some_and(|next| next != left)
        {
            // Shared, but its turn comes later.
            l += 1;
            continue;
        }
        if let Some(left) = left.filter(|_| left != right) {
            if let Some(value) = kept.get_mut(l).and_then(Option::take) {
                merged.push(value);
                l += 1;
                continue;
            }
            if right.is_none() || done.contains(left) {
                l += 1;
            }
        }
        let Some(right) = right else { continue };
        if left == Some(right) {
            l += 1;
        }
        if let Some(new) = config.get(r) {
            merged.push(match old.remove(right).flatten() {
                Some(value) => merge(items, value, new)?,
                None => new.clone(),
            });
        }
        done.insert(right);
        r += 1;
        if next_shared == Some(right) {
            next_shared = shared_order.next();
        }
    }
}

/// Takes fields and elements out of an object.
pub(super) fn remove(schema: &dyn Schema, object: Value, fields: &FieldSet) -> Value {
    remove_below(schema, object, fields.view()).unwrap_or_else(|| Value::Object(Map::new()))
}

fn remove_below(schema: &dyn Schema, value: Value, fields: SetView<'_>) -> Option<Value> {
    if fields.is_empty() {
        return Some(value);
    }
    match value {
        Value::Object(map) => {
            if schema.atomic_map() {
                return None;
            }
            let mut left = Map::new();
            for (name, value) in map {
                let (whole, below) = fields.step(&element::field(&name));
                if whole {
                    continue;
                }
                let value = match schema.field(&name) {
                    Some(child) => remove_below(child.schema, value, below),
                    None => Some(value),
                };
                if let Some(value) = value {
                    left.insert(name, value);
                }
            }
            Some(Value::Object(left))
        }
        Value::Array(list) => {
            let kind = schema.list();
            if kind == Lists::Atomic {
                return None;
            }
            let (Ok(steps), Some(items)) = (steps(schema, &kind, &list), schema.items()) else {
                return Some(Value::Array(list));
            };
            let mut left = Vec::with_capacity(list.len());
            for (step, value) in steps.iter().zip(list) {
                let (whole, below) = fields.step(step);
                if whole {
                    continue;
                }
                left.extend(remove_below(items, value, below));
            }
            Some(Value::Array(left))
        }
        plain => Some(plain),
    }
}
