//! Paths into an object, and what may be wrong there.
//!
//! The texts are those of upstream's field errors: scripts and people match on them.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use serde_json::Value;

use crate::text::quote;

/// Where in an object something is: `spec.containers[0].ports[1].name`.
///
/// Children share their parents, so that building paths while validating costs one small allocation a step.
#[derive(Clone, Debug, Default)]
pub struct Path(Option<Arc<Node>>);

#[derive(Debug)]
struct Node {
    parent: Option<Arc<Node>>,
    segment: Segment,
}

#[derive(Debug)]
enum Segment {
    Name(Cow<'static, str>),
    Index(usize),
    Key(String),
}

impl Path {
    /// A path of one name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(None).child(name)
    }

    /// The path of the object itself, shown as `<nil>`.
    pub const fn root() -> Self {
        Self(None)
    }

    /// A field of what this path names.
    pub fn child(&self, name: impl Into<Cow<'static, str>>) -> Self {
        self.push(Segment::Name(name.into()))
    }

    /// An element of the list this path names.
    pub fn index(&self, index: usize) -> Self {
        self.push(Segment::Index(index))
    }

    /// An entry of the map this path names.
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.push(Segment::Key(key.into()))
    }

    fn push(&self, segment: Segment) -> Self {
        Self(Some(Arc::new(Node {
            parent: self.0.clone(),
            segment,
        })))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn walk(node: &Node, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            if let Some(parent) = &node.parent {
                walk(parent, f)?;
            }
            match &node.segment {
                Segment::Name(name) => {
                    if node.parent.is_some() {
                        f.write_str(".")?;
                    }
                    f.write_str(name)
                }
                Segment::Index(index) => write!(f, "[{index}]"),
                Segment::Key(key) => write!(f, "[{key}]"),
            }
        }
        match &self.0 {
            Some(node) => walk(node, f),
            None => f.write_str("<nil>"),
        }
    }
}

/// What kind of thing is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// What the field names does not exist.
    NotFound,
    /// The field must have a value and has none.
    Required,
    /// The value must be unique and is not.
    Duplicate,
    /// The value breaks a rule.
    Invalid,
    /// The value is not one of a fixed set.
    NotSupported,
    /// The value would be well formed but may not be given here.
    Forbidden,
    /// The value is too long.
    TooLong,
    /// The list has too many elements.
    TooMany,
    /// The server could not tell.
    Internal,
    /// The value is of a wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The machine-readable reason in a Status cause.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
        }
    }
}

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    /// What kind of mistake it is.
    pub kind: ErrorType,
    /// The field, as a dotted path.
    pub field: String,
    /// The value found there, where showing it helps.
    pub value: Option<Value>,
    /// What would be right.
    pub detail: Cow<'static, str>,
}

/// Everything wrong with an object.
pub type Errors = Vec<Error>;

/// A human-readable explanation: most are fixed texts.
pub type Detail = Cow<'static, str>;

impl Error {
    fn make(kind: ErrorType, path: &Path, value: Option<Value>, detail: impl Into<Detail>) -> Self {
        Self {
            kind,
            field: path.to_string(),
            value,
            detail: detail.into(),
        }
    }

    /// The field must have a value. The detail may be empty.
    pub fn required(path: &Path, detail: impl Into<Detail>) -> Self {
        Self::make(ErrorType::Required, path, None, detail)
    }

    /// The value breaks the rule that `detail` tells.
    pub fn invalid(path: &Path, value: impl Into<Value>, detail: impl Into<Detail>) -> Self {
        Self::make(ErrorType::Invalid, path, Some(value.into()), detail)
    }

    /// The value is of a wrong type.
    pub fn type_invalid(path: &Path, value: impl Into<Value>, detail: impl Into<Detail>) -> Self {
        Self::make(ErrorType::TypeInvalid, path, Some(value.into()), detail)
    }

    /// The value is none of `supported`, which is shown in the order given.
    pub fn not_supported<S: AsRef<str>>(path: &Path, value: impl Into<Value>, supported: &[S]) -> Self {
        let mut detail = String::new();
        for (i, one) in supported.iter().enumerate() {
            detail.push_str(if i == 0 { "supported values: " } else { ", " });
            detail.push_str(&quote(one.as_ref()));
        }
        Self::make(ErrorType::NotSupported, path, Some(value.into()), detail)
    }

    /// The value appears twice.
    pub fn duplicate(path: &Path, value: impl Into<Value>) -> Self {
        Self::make(ErrorType::Duplicate, path, Some(value.into()), "")
    }

    /// The field may not be set, or not changed, here.
    pub fn forbidden(path: &Path, detail: impl Into<Detail>) -> Self {
        Self::make(ErrorType::Forbidden, path, None, detail)
    }

    /// What the value names does not exist.
    pub fn not_found(path: &Path, value: impl Into<Value>) -> Self {
        Self::make(ErrorType::NotFound, path, Some(value.into()), "")
    }

    /// The value is longer than `max` bytes. The value itself is not shown: it is long.
    pub fn too_long(path: &Path, max: usize) -> Self {
        Self::make(
            ErrorType::TooLong,
            path,
            None,
            format!("may not be more than {max} bytes"),
        )
    }

    /// The list has `actual` elements and may have `max`.
    pub fn too_many(path: &Path, actual: usize, max: usize) -> Self {
        let items = if max == 1 { "item" } else { "items" };
        Self::make(
            ErrorType::TooMany,
            path,
            Some(actual.into()),
            format!("must have at most {max} {items}"),
        )
    }

    /// The server could not check the field.
    pub fn internal(path: &Path, detail: impl Into<Detail>) -> Self {
        Self::make(ErrorType::Internal, path, None, detail)
    }

    /// The message without the field's path.
    pub fn body(&self) -> String {
        let mut text = String::from(self.kind.title());
        let shown = match self.kind {
            ErrorType::Required | ErrorType::Forbidden | ErrorType::TooLong | ErrorType::Internal => None,
            _ => self.value.as_ref(),
        };
        if let Some(value) = shown {
            text.push_str(": ");
            match value {
                Value::String(s) => text.push_str(&quote(s)),
                other => text.push_str(&other.to_string()),
            }
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// The entry of `details.causes` in a Status.
    pub fn cause(&self) -> StatusCause {
        StatusCause {
            field: Some(self.field.clone()),
            message: Some(self.body()),
            reason: Some(self.kind.reason().to_owned()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl std::error::Error for Error {}

/// Joins messages as upstream's aggregates do: one as it is, several in brackets, none twice.
pub fn aggregate<T: fmt::Display>(errors: &[T]) -> String {
    let mut seen: Vec<String> = Vec::with_capacity(errors.len());
    for error in errors {
        let text = error.to_string();
        if !seen.contains(&text) {
            seen.push(text);
        }
    }
    if seen.len() == 1 {
        seen.swap_remove(0)
    } else {
        format!("[{}]", seen.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_messages_read_like_upstream() {
        let path = Path::new("spec")
            .child("containers")
            .index(0)
            .child("ports")
            .key("web");
        assert_eq!(path.to_string(), "spec.containers[0].ports[web]");
        assert_eq!(Path::root().to_string(), "<nil>");
        let name = Path::new("spec").child("name");
        assert_eq!(
            Error::required(&name, "").to_string(),
            "spec.name: Required value"
        );
        assert_eq!(
            Error::invalid(&name, "a\"b", "no quotes").to_string(),
            "spec.name: Invalid value: \"a\\\"b\": no quotes"
        );
        assert_eq!(
            Error::invalid(&name, 5, "too big").body(),
            "Invalid value: 5: too big"
        );
        assert_eq!(
            Error::not_supported(&name, "x", &["a", "b"]).body(),
            "Unsupported value: \"x\": supported values: \"a\", \"b\""
        );
        assert_eq!(
            Error::too_long(&name, 63).body(),
            "Too long: may not be more than 63 bytes"
        );
        assert_eq!(
            Error::too_many(&name, 3, 1).body(),
            "Too many: 3: must have at most 1 item"
        );
        assert_eq!(Error::forbidden(&name, "no").body(), "Forbidden: no");
        assert_eq!(Error::duplicate(&name, "a").body(), "Duplicate value: \"a\"");
    }

    #[test]
    fn aggregates_drop_repetitions() {
        assert_eq!(aggregate(&["a"]), "a");
        assert_eq!(aggregate(&["a", "b", "a"]), "[a, b]");
    }
}
