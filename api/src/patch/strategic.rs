//! Strategic merge patch: lists merge by the keys their types declare.
//!
//! | in a patch | means |
//! | --- | --- |
//! | `$patch: replace` in an object | take the patch's object instead |
//! | `$patch: delete` in an object | empty the object, or in a merged list drop the element of this key |
//! | `$patch: replace` in a list's element | take the patch's other elements instead |
//! | `$retainKeys: [..]` | drop all fields of the object but these |
//! | `$setElementOrder/list: [..]` | the order of the merged list |
//! | `$deleteFromPrimitiveList/list: [..]` | drop these values from a list of plain values |
//! | `null` | drop the field |

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Definition, PatchRule, Type};

mod order;

use order::{Items, in_order, partition};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// What the schema knows of the object being patched: nothing, the fields of a type, or one type for all entries.
#[derive(Clone, Copy)]
enum Guide {
    Unknown,
    Fields(&'static Definition),
    Entries(&'static Type),
}

/// Lists of fields without a declared strategy are replaced, objects merged.
const UNDECLARED: PatchRule = PatchRule {
    merge: false,
    replace: false,
    retain_keys: false,
    key: "",
};

impl Guide {
    /// The guide for the value of a field, and how the field's list merges.
    fn field(self, name: &str) -> (Self, PatchRule) {
        match self {
            Self::Unknown => (Self::Unknown, UNDECLARED),
            Self::Entries(ty) => (Self::of(ty), UNDECLARED),
            Self::Fields(definition) => match definition.field(name) {
                Some(field) => (Self::of(field.ty()), field.patch().unwrap_or(UNDECLARED)),
                None => (Self::Unknown, UNDECLARED),
            },
        }
    }

    /// The guide for values of a type; for a list that of its elements.
    fn of(ty: &'static Type) -> Self {
        match ty {
            Type::Named(id) => Self::Fields(id.get()),
            Type::List(element) => Self::of(element),
            Type::Map(element) => Self::Entries(element),
            _ => Self::Unknown,
        }
    }
}

/// Applies a patch to an object of a type.
pub fn apply(document: &mut Value, patch: Value, definition: &'static Definition) -> Result<(), PatchError> {
    let Value::Object(patch) = patch else {
        return Err(malformed(
            "a strategic merge patch of an object must be a JSON object",
        ));
    };
    let original = match document.take() {
        Value::Object(map) => map,
        Value::Null => Object::new(),
        _ => return Err(malformed("invalid JSON document")),
    };
    *document = Value::Object(merge_object(original, patch, Guide::Fields(definition))?);
    Ok(())
}

fn malformed(message: impl Into<String>) -> PatchError {
    PatchError::Malformed(message.into())
}

fn does_not_apply(message: impl Into<String>) -> PatchError {
    PatchError::DoesNotApply(message.into())
}

fn bad_directive(directive: &Value, object: &Object) -> PatchError {
    let shown = Value::Object(object.clone());
    does_not_apply(format!("unknown patch type: {directive} in map: {shown}"))
}

fn no_merge_key(object: &Object, key: &str) -> PatchError {
    let shown = Value::Object(object.clone());
    does_not_apply(format!("map: {shown} does not contain declared merge key: {key}"))
}

fn merge_object(mut original: Object, mut patch: Object, guide: Guide) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_directive(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    set_orders(&mut original, &mut patch, guide)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut original, list, value)?;
            continue;
        }
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let (inner, rule) = guide.field(&name);
        let merged = match (original.remove(&name), value) {
            (Some(Value::Object(_)), new @ Value::Object(_)) if rule.replace => new,
            (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_object(old, new, inner)?),
            (Some(Value::Array(old)), Value::Array(new)) if rule.merge => {
                Value::Array(merge_list(old, new, inner, rule.key)?)
            }
            (Some(Value::Array(_)), new @ Value::Array(_)) => new,
            (Some(_) | None, new) => without_directives(new)?,
        };
        original.insert(name, merged);
    }
    Ok(original)
}

/// A value that goes into the document as it is: without directives and nulls, which mean something only beside
/// an older value.
fn without_directives(value: Value) -> Result<Value, PatchError> {
    Ok(match value {
        Value::Object(mut map) => {
            match map.remove(DIRECTIVE) {
                None => {}
                Some(directive) => match directive.as_str() {
                    Some("replace" | "merge") => {}
                    Some("delete") => return Ok(Value::Object(Object::new())),
                    _ => return Err(bad_directive(&directive, &map)),
                },
            }
            let mut kept = Object::new();
            for (name, value) in map {
                let directive =
                    name == RETAIN_KEYS || name.starts_with(SET_ORDER) || name.starts_with(DELETE_FROM_LIST);
                if !directive && !value.is_null() {
                    kept.insert(name, without_directives(value)?);
                }
            }
            Value::Object(kept)
        }
        Value::Array(items) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                match &item {
                    Value::Object(map) if map.contains_key(DIRECTIVE) => {
                        // An element that only says what to do with elements that are not there.
                        let deletes = map
                            .get(DIRECTIVE)
                            .is_some_and(|d| d == "delete" || d == "replace");
                        if !deletes {
                            kept.push(without_directives(item)?);
                        }
                    }
                    _ => kept.push(without_directives(item)?),
                }
            }
            Value::Array(kept)
        }
        plain => plain,
    })
}

fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let Value::Array(keys) = keys else {
        return Err(malformed("invalid patch format of retainKeys"));
    };
    let listed = |name: &str| keys.iter().any(|key| key == name);
    for (name, value) in &*patch {
        let directive = name.starts_with(DELETE_FROM_LIST) || name.starts_with(SET_ORDER);
        if !value.is_null() && !directive && !listed(name) {
            return Err(malformed("invalid patch format of retainKeys"));
        }
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

fn delete_from_list(original: &mut Object, name: &str, values: Value) -> Result<(), PatchError> {
    let Value::Array(values) = values else {
        return Err(malformed("invalid patch format of primitive list"));
    };
    if let Some(Value::Array(list)) = original.get_mut(name) {
        list.retain(|item| !values.contains(item));
    }
    Ok(())
}

/// Merges the lists that the patch gives an order for.
fn set_orders(original: &mut Object, patch: &mut Object, guide: Guide) -> Result<(), PatchError> {
    let directives: Vec<String> = patch
        .keys()
        .filter(|name| name.starts_with(SET_ORDER))
        .cloned()
        .collect();
    for directive in directives {
        let name = &directive[SET_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(malformed("invalid patch format of setElementOrder list"));
        };
        let (inner, rule) = guide.field(name);
        let list = |value: Option<Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(_) => Err(malformed("invalid patch format of setElementOrder list")),
        };
        let new = match patch.get(name) {
            // The field is to be dropped: nothing to order.
            Some(Value::Null) => continue,
            _ => list(patch.remove(name))?,
        };
        let items = Items::of(rule.key);
        if let Some(new) = &new {
            check_order(new, &order, items)?;
        }
        let old = list(original.remove(name))?;
        let server_order = old.clone().unwrap_or_default();
        let merged = match (old, new) {
            (None, None) => continue,
            (Some(old), None) => old,
            (None, Some(new)) => match without_directives(Value::Array(new))? {
                Value::Array(items) => items,
                _ => Vec::new(),
            },
            (Some(old), Some(new)) if rule.merge => merge_list(old, new, inner, rule.key)?,
            (Some(_), Some(new)) => new,
        };
        let (patched, rest) = partition(merged, &order, items);
        original.insert(
            name.to_owned(),
            Value::Array(in_order(patched, rest, &order, &server_order, items)),
        );
    }
    Ok(())
}

/// The patch's elements must stand in the order that the patch gives.
fn check_order(patch: &[Value], order: &[Value], items: Items<'_>) -> Result<(), PatchError> {
    let mut expected = order.iter();
    for item in patch {
        if item.get(DIRECTIVE).is_some() {
            continue;
        }
        if !expected.any(|one| items.same(one, item)) {
            return Err(malformed(format!(
                "The order in patch list:\n{}\n doesn't match {SET_ORDER} list:\n{}\n",
                Value::from(patch.to_vec()),
                Value::from(order.to_vec())
            )));
        }
    }
    Ok(())
}

fn merge_list(old: Vec<Value>, patch: Vec<Value>, guide: Guide, key: &str) -> Result<Vec<Value>, PatchError> {
    if old.is_empty() && patch.is_empty() {
        return Ok(old);
    }
    if old.iter().chain(&patch).any(Value::is_array) {
        return Err(does_not_apply("lists of lists are not supported"));
    }
    let objects = old.iter().chain(&patch).filter(|item| item.is_object()).count();
    if objects != 0 && objects != old.len() + patch.len() {
        return Err(malformed("list element types are not identical"));
    }
    if objects == 0 {
        let mut merged: Vec<Value> = Vec::with_capacity(old.len() + patch.len());
        for item in old.iter().chain(&patch) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        let items = Items::plain();
        let (patched, rest) = partition(merged, &patch, items);
        return Ok(in_order(patched, rest, &patch, &old, items));
    }
    if key.is_empty() {
        return Err(malformed("cannot merge lists without merge key"));
    }
    merge_objects(old, patch, guide, key)
}

fn merge_objects(
    mut old: Vec<Value>,
    patch: Vec<Value>,
    guide: Guide,
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    let mut plain: Vec<Value> = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Value::Object(map) = &item else { continue };
        match map
            .get(DIRECTIVE)
            .map(|directive| (directive, directive.as_str()))
        {
            None => plain.push(item),
            Some((_, Some("delete"))) => {
                let value = map.get(key).ok_or_else(|| no_merge_key(map, key))?;
                old.retain(|one| one.get(key) != Some(value));
            }
            Some((_, Some("replace"))) => replace = true,
            Some((_, Some("merge"))) => {
                return Err(does_not_apply(
                    "merging lists cannot yet be specified in the patch",
                ));
            }
            Some((directive, _)) => return Err(bad_directive(directive, map)),
        }
    }
    if replace {
        return Ok(plain);
    }
    let server_order = old.clone();
    let mut order = Vec::with_capacity(plain.len());
    let mut merged = old;
    for item in plain {
        let Value::Object(map) = item else { continue };
        let value = map.get(key).ok_or_else(|| no_merge_key(&map, key))?.clone();
        order.push(Value::Object(Object::from_iter([(
            key.to_owned(),
            value.clone(),
        )])));
        match merged.iter_mut().find(|one| one.get(key) == Some(&value)) {
            Some(slot) => {
                let Value::Object(old) = slot.take() else { continue };
                *slot = Value::Object(merge_object(old, map, guide)?);
            }
            None => merged.push(without_directives(Value::Object(map))?),
        }
    }
    let items = Items::keyed(key);
    let (patched, rest) = partition(merged, &order, items);
    Ok(in_order(patched, rest, &order, &server_order, items))
}

#[cfg(test)]
#[path = "strategic/tests.rs"]
mod tests;
