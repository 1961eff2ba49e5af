//! JSON patch (RFC 6902).

use serde::Deserialize;
use serde_json::Value;

use super::{MAX_OPERATIONS, PatchError};

/// The most bytes that copy operations may add: 3 MiB.
const MAX_COPY_BYTES: usize = 3 << 20;
/// The most memory that copies may take: short values take much more of it than their text. Ordinary objects, with the
/// half dozen fields a level has, come to their text's limit first.
const MAX_COPY_MEMORY: usize = 32 << 20;
/// Maps are trees whose nodes have room for eleven fields and are half empty at worst.
const FIELDS_OF_A_NODE: usize = 6;
const NODE: usize = 11 * size_of::<(String, Value)>() + 16;

/// One step of a patch.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Puts a value somewhere.
    Add {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Takes a value away.
    Remove {
        /// Where.
        path: String,
    },
    /// Puts a value where one is.
    Replace {
        /// Where.
        path: String,
        /// What.
        value: Value,
    },
    /// Takes a value from one place to another.
    Move {
        /// From where.
        from: String,
        /// To where.
        path: String,
    },
    /// Puts a copy of a value somewhere else.
    Copy {
        /// From where.
        from: String,
        /// To where.
        path: String,
    },
    /// Fails unless a value is there.
    Test {
        /// Where.
        path: String,
        /// What; an absent value counts as null.
        #[serde(default)]
        value: Value,
    },
}

/// Reads a patch.
pub fn parse(bytes: &[u8]) -> Result<Vec<Operation>, PatchError> {
    let operations: Vec<Operation> = serde_json::from_slice(bytes)
        .map_err(|e| PatchError::Malformed(format!("error decoding patch: {e}")))?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    Ok(operations)
}

/// Applies a patch, one operation after the other.
pub fn apply(document: &mut Value, operations: &[Operation]) -> Result<(), PatchError> {
    let mut copied = Copied::default();
    for operation in operations {
        step(document, operation, &mut copied)?;
    }
    Ok(())
}

fn step(document: &mut Value, operation: &Operation, copied: &mut Copied) -> Result<(), PatchError> {
    match operation {
        Operation::Add { path, value } => add(document, path, value.clone(), "add"),
        Operation::Remove { path } => remove(document, path, "remove").map(|_| ()),
        Operation::Replace { path, value } => {
            let missing = || missing("replace", path);
            *document.pointer_mut(path).ok_or_else(missing)? = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            if path
                .strip_prefix(from.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
            {
                return Err(PatchError::DoesNotApply(format!(
                    "error in move for path: '{path}': cannot move a value into itself"
                )));
            }
            let value = remove(document, from, "move")?;
            add(document, path, value, "move")
        }
        Operation::Copy { from, path } => {
            let value = document.pointer(from).ok_or_else(|| missing("copy", from))?;
            // Before there are two of it.
            copied.add(value)?;
            let value = value.clone();
            add(document, path, value, "copy")
        }
        Operation::Test { path, value } => {
            if document.pointer(path).unwrap_or(&Value::Null) == value {
                return Ok(());
            }
            Err(PatchError::DoesNotApply(format!(
                "testing value {path} failed: test failed"
            )))
        }
    }
}

fn missing(operation: &str, path: &str) -> PatchError {
    PatchError::DoesNotApply(format!(
        "{operation} operation does not apply: doc is missing path: {path}: missing value"
    ))
}

/// What copy operations have added.
#[derive(Default)]
struct Copied {
    text: usize,
    memory: usize,
}

impl Copied {
    fn add(&mut self, value: &Value) -> Result<(), PatchError> {
        self.text += weight(value);
        self.memory += memory(value);
        for (size, limit) in [(self.text, MAX_COPY_BYTES), (self.memory, MAX_COPY_MEMORY)] {
            if size > limit {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {size}, exceeding the \
                     limit {limit}"
                )));
            }
        }
        Ok(())
    }
}

/// About how many bytes a value takes where it is worked on.
fn memory(value: &Value) -> usize {
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(memory).sum(),
        Value::Object(map) => {
            let nodes = NODE * map.len().div_ceil(FIELDS_OF_A_NODE);
            let fields = map.iter().map(|(key, value)| key.len() + memory(value));
            nodes + fields.sum::<usize>()
        }
        _ => 0,
    };
    size_of::<Value>() + inside
}

/// About how many bytes a value takes as text.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(|item| weight(item) + 1).sum::<usize>(),
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(key, value)| key.len() + weight(value) + 4)
                .sum::<usize>()
        }
        _ => 5,
    }
}

/// Splits a pointer into its parent's and the last step, unescaped.
fn split(path: &str) -> Option<(&str, String)> {
    let (parent, last) = path.rsplit_once('/')?;
    Some((parent, last.replace("~1", "/").replace("~0", "~")))
}

fn index(step: &str, length: usize) -> Option<usize> {
    let leading_zero = step.len() > 1 && step.starts_with('0');
    if leading_zero || !step.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    step.parse().ok().filter(|&index| index <= length)
}

fn add(document: &mut Value, path: &str, value: Value, operation: &str) -> Result<(), PatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let missing = || missing(operation, path);
    let (parent, step) = split(path).ok_or_else(missing)?;
    match document.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => {
            map.insert(step, value);
        }
        Value::Array(items) if step == "-" => items.push(value),
        Value::Array(items) => {
            let at = index(&step, items.len()).ok_or_else(|| {
                PatchError::DoesNotApply(format!(
                    "{operation} operation does not apply: doc is missing path: \"{path}\": invalid array index"
                ))
            })?;
            items.insert(at, value);
        }
        _ => return Err(missing()),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, operation: &str) -> Result<Value, PatchError> {
    let missing = || missing(operation, path);
    let (parent, step) = split(path).ok_or_else(missing)?;
    match document.pointer_mut(parent).ok_or_else(missing)? {
        Value::Object(map) => map.remove(&step).ok_or_else(missing),
        Value::Array(items) => match index(&step, items.len()) {
            Some(at) if at < items.len() => Ok(items.remove(at)),
            _ => Err(missing()),
        },
        _ => Err(missing()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn patched(document: Value, patch: Value) -> Result<Value, PatchError> {
        let operations = parse(patch.to_string().as_bytes())?;
        let mut document = document;
        apply(&mut document, &operations)?;
        Ok(document)
    }

    #[test]
    fn copies_are_bounded_in_text_and_in_memory() {
        let copies = |document: &Value, times: usize| {
            let copy = json!({"op": "copy", "from": "/a", "path": "/b/-"});
            patched(document.clone(), vec![copy; times].into()).map(drop)
        };
        let refused = |result: Result<(), PatchError>, limit: usize| match result {
            Err(PatchError::DoesNotApply(why)) => assert!(why.ends_with(&format!("limit {limit}")), "{why}"),
            other => panic!("{other:?}"),
        };
        let text = json!({"a": "x".repeat(1 << 20), "b": []});
        assert_eq!(copies(&text, 2), Ok(()));
        refused(copies(&text, 3), MAX_COPY_BYTES);
        // Few bytes each, and a hundred times that in memory.
        let maps = json!({"a": vec![json!({"": 0}); 15_000], "b": []});
        assert_eq!(copies(&maps, 2), Ok(()));
        refused(copies(&maps, 4), MAX_COPY_MEMORY);
    }

    #[test]
    fn the_rfc_s_examples() {
        for (document, patch, wanted) in [
            (
                json!({"foo": "bar"}),
                json!([{"op": "add", "path": "/baz", "value": "qux"}]),
                json!({"baz": "qux", "foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "baz"]}),
                json!([{"op": "add", "path": "/foo/1", "value": "qux"}]),
                json!({"foo": ["bar", "qux", "baz"]}),
            ),
            (
                json!({"baz": "qux", "foo": "bar"}),
                json!([{"op": "remove", "path": "/baz"}]),
                json!({"foo": "bar"}),
            ),
            (
                json!({"foo": ["bar", "qux", "baz"]}),
                json!([{"op": "remove", "path": "/foo/1"}]),
                json!({"foo": ["bar", "baz"]}),
            ),
            (
                json!({"baz": "qux"}),
                json!([{"op": "replace", "path": "/baz", "value": "boo"}]),
                json!({"baz": "boo"}),
            ),
            (
                json!({"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}}),
                json!([{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}]),
                json!({"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}}),
            ),
            (
                json!({"a": ["b"]}),
                json!([{"op": "test", "path": "/a/0", "value": "b"}, {"op": "add", "path": "/a/-", "value": ["c"]}]),
                json!({"a": ["b", ["c"]]}),
            ),
            (
                json!({"/": 9, "~1": 10}),
                json!([{"op": "test", "path": "/~01", "value": 10}, {"op": "copy", "from": "/~1", "path": "/x"}]),
                json!({"/": 9, "~1": 10, "x": 9}),
            ),
            (
                json!({"a": 1}),
                json!([{"op": "test", "path": "/b", "value": null}]),
                json!({"a": 1}),
            ),
        ] {
            assert_eq!(patched(document, patch.clone()).as_ref(), Ok(&wanted), "{patch}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        for patch in [
            json!([{"op": "remove", "path": "/b"}]),
            json!([{"op": "replace", "path": "/b", "value": 1}]),
            json!([{"op": "add", "path": "/b/c", "value": 1}]),
            json!([{"op": "add", "path": "/a/5", "value": 1}]),
            json!([{"op": "add", "path": "/a/01", "value": 1}]),
            json!([{"op": "test", "path": "/a", "value": 1}]),
            json!([{"op": "move", "from": "/a", "path": "/a/b"}]),
        ] {
            let got = patched(json!({"a": [1, 2]}), patch.clone());
            assert!(
                matches!(got, Err(PatchError::DoesNotApply(_))),
                "{patch}: {got:?}"
            );
        }
        for patch in [
            json!({}),
            json!([{"op": "frob", "path": "/a"}]),
            json!([{"op": "add", "path": "/a"}]),
        ] {
            assert!(matches!(patched(json!({}), patch), Err(PatchError::Malformed(_))));
        }
        let error =
            ApiError::from(patched(json!({}), json!([{"op": "remove", "path": "/b"}])).expect_err("missing"));
        assert_eq!((error.code(), error.reason()), (422, "Invalid"));
    }

    use crate::status::ApiError;

    #[test]
    fn copies_stop_before_the_memory_does() {
        let mut operations = vec![Operation::Add {
            path: "/a".into(),
            value: json!(["x".repeat(1000)]),
        }];
        for _ in 0..64 {
            operations.push(Operation::Copy {
                from: "/a".into(),
                path: "/a/-".into(),
            });
        }
        assert!(matches!(
            apply(&mut json!({}), &operations),
            Err(PatchError::DoesNotApply(_))
        ));
    }
}
