//! From client-side apply to server-side apply.
//!
//! An object that `kubectl apply` has managed so far says in an annotation what was applied. When the same program
//! applies on the server, conflicts over fields that still have the value of the annotation are none; and the annotation
//! follows what is applied, so that one can go back.

use serde_json::Value;

use super::compare::{compare, mentioned};
use super::schema::Schema;
use super::set::FieldSet;
use super::tree::Tree;
use super::update::Conflict;

/// The annotation.
pub const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The one manager whose applications concern the annotation.
pub const MANAGER: &str = "kubectl";

/// The annotation of an object, if it says anything.
pub fn annotation(object: &Value) -> Option<&str> {
    object
        .get("metadata")?
        .get("annotations")?
        .get(ANNOTATION)?
        .as_str()
        .filter(|text| !text.is_empty())
}

/// The conflicts that remain, when the annotation of the live object speaks for the manager. `None` when it does not.
pub fn remaining(
    conflicts: &[Conflict],
    live: &Value,
    version: &str,
    schema: &dyn Schema,
) -> Option<Vec<Conflict>> {
    let allowed = unchanged_since(live, version, schema).ok()?;
    let left = conflicts
        .iter()
        .filter(|conflict| !allowed.contains(&conflict.path));
    Some(left.cloned().collect())
}

/// The fields of the annotation that the live object still has as they were applied.
fn unchanged_since(live: &Value, version: &str, schema: &dyn Schema) -> Result<FieldSet, String> {
    let text = annotation(live).ok_or("no last applied annotation")?;
    let applied: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    if applied.get("apiVersion").and_then(Value::as_str) != Some(version) {
        return Err("the last applied object is of another version".to_owned());
    }
    let (applied, live) = (Tree::of(&applied)?, Tree::of(live)?);
    super::validate::validate(schema, applied.root())?;
    let comparison = compare(schema, Some(applied.root()), live.root())?;
    let mut fields = mentioned(schema, applied.root())?;
    fields.subtract(&comparison.modified);
    fields.subtract(&comparison.added);
    fields.subtract(&comparison.removed);
    Ok(fields)
}

/// Writes into the annotation of an object, if it has one, what has been applied.
pub fn follow(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = config.clone();
    if let Some(annotations) = config
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
    // The form in which Go's encoder leaves an object: a line of its own.
    let text = format!("{config}\n");
    if text.len() <= MAX_ANNOTATION {
        object["metadata"]["annotations"][ANNOTATION] = text.into();
    } else if let Some(annotations) = object
        .pointer_mut("/metadata/annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(ANNOTATION);
    }
}

/// Bytes all annotations of an object may have; a configuration that is larger than that is not noted.
const MAX_ANNOTATION: usize = 256 << 10;
