//! Server-side apply: who manages which fields of an object, and how a configuration is laid over one.
//!
//! | module | what it knows |
//! | --- | --- |
//! | [`schema`] | how a place is owned: as a whole, field by field, element by element ([`Schema`]) |
//! | [`tree`] | objects in a form that is read and compared quickly |
//! | [`element`] | one step of a path: `f:`, `k:`, `v:`, `i:` |
//! | [`set`] | sets of fields, as `fieldsV1` has them ([`FieldSet`]) |
//! | [`compare`](mod@compare) | what is different between two objects |
//! | [`managers`] | entries of `metadata.managedFields` ([`Managed`]) |
//! | [`shapes`] | the fields of new objects that are like earlier ones ([`Shapes`]) |
//! | [`update`](mod@update) | updates and applications ([`update()`], [`Application`]) |
//! | [`overlay`](mod@overlay) | fields that nobody is to manage ([`overlay()`]) |
//! | [`last_applied`] | objects that client-side apply has managed so far |
//! | [`conflict`] | refusals |
//!
//! Nothing here reads or writes: objects go in, objects and managers come out. Source: KEP-555, structured-merge-diff,
//! apimachinery's `util/managedfields`.

pub mod compare;
pub mod conflict;
pub mod element;
mod elements;
mod fresh;
pub mod last_applied;
pub mod managers;
mod merge;
pub mod overlay;
pub mod schema;
pub mod set;
pub mod shapes;
pub mod tree;
pub mod update;
mod validate;

pub use compare::{Comparison, compare};
pub use managers::{Entry, Managed, Manager, Operation};
pub use overlay::overlay;
pub use schema::{Deduced, Schema};
pub use set::FieldSet;
pub use shapes::Shapes;
pub use tree::Tree;
pub use update::{Application, Conflict, Converter, Failure, View, update};

#[cfg(test)]
mod tests;
