//! Places in an object: `spec.containers[0].ports[1].name`.
//!
//! A [`Loc`] lives on the stack and points at its parent, so that walking through a valid object costs nothing;
//! the text is made when an error is.

use std::fmt;

use keelson_api::field::{Detail, Error, Path};
use serde_json::Value;

/// One place in the object that is being checked.
#[derive(Clone, Copy)]
pub struct Loc<'a> {
    parent: Option<&'a Loc<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Loc<'a> {
    /// A field of the object itself. Dots may be used: `Loc::new("spec.template")`.
    pub const fn new(name: &'a str) -> Loc<'a> {
        Loc {
            parent: None,
            step: Step::Name(name),
        }
    }

    /// A field of what this place holds; may contain dots.
    pub const fn child<'b>(&'b self, name: &'b str) -> Loc<'b> {
        Loc {
            parent: Some(self),
            step: Step::Name(name),
        }
    }

    /// An element of the list in this place.
    pub const fn index(&self, index: usize) -> Loc<'_> {
        Loc {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    /// An entry of the map in this place.
    pub const fn key<'b>(&'b self, key: &'b str) -> Loc<'b> {
        Loc {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    fn path(&self) -> Path {
        Path::new(self.to_string())
    }

    /// `Required value`; the detail may be empty.
    #[cold]
    pub fn required(&self, detail: impl Into<Detail>) -> Error {
        Error::required(&self.path(), detail)
    }

    /// `Invalid value`.
    #[cold]
    pub fn invalid(&self, value: impl Into<Value>, detail: impl Into<Detail>) -> Error {
        Error::invalid(&self.path(), value, detail)
    }

    /// `Unsupported value`, with the supported ones in the order given.
    #[cold]
    pub fn not_supported(&self, value: impl Into<Value>, supported: &[&str]) -> Error {
        Error::not_supported(&self.path(), value, supported)
    }

    /// `Duplicate value`.
    #[cold]
    pub fn duplicate(&self, value: impl Into<Value>) -> Error {
        Error::duplicate(&self.path(), value)
    }

    /// `Forbidden`.
    #[cold]
    pub fn forbidden(&self, detail: impl Into<Detail>) -> Error {
        Error::forbidden(&self.path(), detail)
    }

    /// `Not found`.
    #[cold]
    pub fn not_found(&self, value: impl Into<Value>) -> Error {
        Error::not_found(&self.path(), value)
    }

    /// `Too long`.
    #[cold]
    pub fn too_long(&self, max: usize) -> Error {
        Error::too_long(&self.path(), max)
    }

    /// `Too many`.
    #[cold]
    pub fn too_many(&self, actual: usize, max: usize) -> Error {
        Error::too_many(&self.path(), actual, max)
    }
}

impl fmt::Display for Loc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Step::Name(name) => f.write_str(name),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Loc;

    #[test]
    fn spells_places_out() {
        let spec = Loc::new("spec");
        let containers = spec.child("containers");
        let first = containers.index(0);
        assert_eq!(
            first.child("securityContext.runAsUser").to_string(),
            "spec.containers[0].securityContext.runAsUser"
        );
        assert_eq!(
            spec.child("nodeSelector").key("a/b").to_string(),
            "spec.nodeSelector[a/b]"
        );
    }
}
