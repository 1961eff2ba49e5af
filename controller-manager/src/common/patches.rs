//! Parts of merge patches.

use serde::Serialize;
use serde_json::Value;

/// A list as a merge patch should set it: an empty one is taken away, not left behind empty.
#[must_use]
pub fn list<T: Serialize>(items: &[T]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    // Owner references and strings always encode.
    serde_json::to_value(items).unwrap_or_default()
}
