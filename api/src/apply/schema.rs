//! What has to be known of a place in an object to say who owns what there.
//!
//! Built-in kinds answer from the table in [`crate::schema`]; custom resources from the schema of their definition; an
//! object nobody has described is [`Deduced`]: its maps are owned entry by entry, its lists as a whole.

use std::borrow::Cow;

use crate::schema::{Definition, Field, ListKind, MapKind, Shape, Type};

/// A place in objects of some kind.
pub trait Schema: Sync {
    /// A name, if that says all that is to be known of the place: equal names, equal schemas, always.
    fn name(&self) -> Option<&'static str> {
        None
    }

    /// Whether a map here is owned as a whole.
    fn atomic_map(&self) -> bool;

    /// How a list here is owned.
    fn list(&self) -> Lists<'_>;

    /// The place a field or an entry of a map here has; `None` if there may be none of that name.
    fn field(&self, name: &str) -> Option<Child<'_>>;

    /// The place of the elements of a list here.
    fn items(&self) -> Option<&dyn Schema>;

    /// JSON of what a key field of an element of a list here is when the element has none.
    fn key_default(&self, key: &str) -> Option<Cow<'_, str>> {
        let _ = key;
        None
    }

    /// What scalars here have to be, if that is known.
    fn scalar(&self) -> Option<Scalar> {
        Some(Scalar::Any)
    }

    /// Whether a value of this sort may be here.
    fn accepts(&self, sort: super::tree::Sort) -> bool {
        let _ = sort;
        true
    }
}

/// How a list is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lists<'a> {
    /// As a whole.
    Atomic,
    /// Value by value.
    Set,
    /// Element by element; these fields tell elements apart.
    Map(Cow<'a, [&'a str]>),
}

impl Lists<'_> {
    /// Whether such a list is owned as a whole.
    pub fn is_atomic(&self) -> bool {
        *self == Lists::Atomic
    }
}

/// A field or an entry.
#[derive(Clone, Copy)]
pub struct Child<'a> {
    /// What is there.
    pub schema: &'a dyn Schema,
    /// Whether it is a field of a struct, rather than an entry of a map.
    pub declared: bool,
    /// Whether an object that is there has this field even where it is not written: structs in structs, fields without
    /// which the type is never written. What is set there later is not the field itself.
    pub always_there: bool,
}

impl<'a> Child<'a> {
    /// A field that is there where it is written.
    pub fn declared(schema: &'a dyn Schema) -> Self {
        Self {
            schema,
            declared: true,
            always_there: false,
        }
    }

    /// An entry of a map, or a field of an object nobody has described.
    pub fn entry(schema: &'a dyn Schema) -> Self {
        Self {
            schema,
            declared: false,
            always_there: false,
        }
    }
}

/// What a scalar may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text,
    /// A number.
    Number,
    /// A boolean.
    Boolean,
    /// Any of them.
    Any,
}

/// An object whose kind nobody has described.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deduced;

impl Schema for Deduced {
    fn atomic_map(&self) -> bool {
        false
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, _: &str) -> Option<Child<'_>> {
        Some(Child::entry(self))
    }

    fn items(&self) -> Option<&dyn Schema> {
        Some(self)
    }
}

/// A value that is owned as a whole, whatever it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole;

impl Schema for Whole {
    fn atomic_map(&self) -> bool {
        true
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, _: &str) -> Option<Child<'_>> {
        Some(Child::entry(self))
    }

    fn items(&self) -> Option<&dyn Schema> {
        Some(self)
    }
}

impl Schema for Definition {
    fn name(&self) -> Option<&'static str> {
        Some(self.name)
    }

    fn atomic_map(&self) -> bool {
        self.shape() != Shape::Fields || self.atomic()
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        match self.shape() {
            Shape::Fields => Definition::field(self, name).map(|field| Child {
                always_there: field.always_there(),
                ..Child::declared(field)
            }),
            _ => Some(Child::entry(&Whole)),
        }
    }

    fn items(&self) -> Option<&dyn Schema> {
        Some(&Whole)
    }

    fn scalar(&self) -> Option<Scalar> {
        match self.shape() {
            Shape::Fields => None,
            _ => Some(Scalar::Any),
        }
    }

    fn accepts(&self, sort: super::tree::Sort) -> bool {
        use super::tree::Sort;
        match self.shape() {
            Shape::Fields => matches!(sort, Sort::Map | Sort::Null),
            Shape::Any => true,
            Shape::Quantity | Shape::Time | Shape::IntOrString => matches!(sort, Sort::Scalar | Sort::Null),
        }
    }
}

impl Schema for Field {
    fn atomic_map(&self) -> bool {
        match self.map_kind() {
            Some(kind) => kind == MapKind::Atomic,
            None => self.ty().atomic_map(),
        }
    }

    fn list(&self) -> Lists<'_> {
        match self.list_kind() {
            Some(ListKind::Set) => Lists::Set,
            Some(ListKind::Map(keys)) => Lists::Map(Cow::Borrowed(keys)),
            _ => Lists::Atomic,
        }
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        self.ty().field(name)
    }

    fn items(&self) -> Option<&dyn Schema> {
        self.ty().items()
    }

    fn key_default(&self, key: &str) -> Option<Cow<'_, str>> {
        self.ty()
            .element()?
            .named()?
            .field(key)?
            .default()
            .map(Cow::Borrowed)
    }

    fn scalar(&self) -> Option<Scalar> {
        self.ty().scalar()
    }

    fn accepts(&self, sort: super::tree::Sort) -> bool {
        self.ty().accepts(sort)
    }
}

impl Schema for Type {
    fn atomic_map(&self) -> bool {
        match self {
            Type::Named(id) => id.get().atomic_map(),
            _ => false,
        }
    }

    fn list(&self) -> Lists<'_> {
        Lists::Atomic
    }

    fn field(&self, name: &str) -> Option<Child<'_>> {
        match self {
            Type::Named(id) => Schema::field(id.get(), name),
            Type::Map(element) => Some(Child::entry(element.as_ref())),
            Type::Object => Some(Child::entry(&Deduced)),
            _ => None,
        }
    }

    fn items(&self) -> Option<&dyn Schema> {
        match self {
            Type::List(element) => Some(element.as_ref()),
            Type::Named(id) => id.get().items(),
            Type::Object => Some(&Deduced),
            _ => None,
        }
    }

    fn scalar(&self) -> Option<Scalar> {
        match self {
            Type::String | Type::Bytes => Some(Scalar::Text),
            Type::Int32 | Type::Int64 | Type::Double => Some(Scalar::Number),
            Type::Bool => Some(Scalar::Boolean),
            Type::Named(id) => id.get().scalar(),
            Type::Object => Some(Scalar::Any),
            Type::List(_) | Type::Map(_) => None,
        }
    }

    fn accepts(&self, sort: super::tree::Sort) -> bool {
        use super::tree::Sort;
        match self {
            _ if sort == Sort::Null => true,
            Type::List(_) => sort == Sort::List,
            Type::Map(_) => sort == Sort::Map,
            Type::Object => true,
            Type::Named(id) => id.get().accepts(sort),
            _ => sort == Sort::Scalar,
        }
    }
}
