//! The fields of an object that is new.
//!
//! What comparing it with nothing would find, written down in one pass.

use super::compare::indexed;
use super::schema::{Lists, Schema};
use super::set::{FieldSet, SetWriter, Step};
use super::tree::{Ref, Sort};

/// Whether a value was there, unwritten, before anybody wrote one: as the structs that every object of a kind has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Absent,
    Unwritten,
}

/// Every field that a new object says more of than an object of its kind that says nothing.
pub(super) fn fields(schema: &dyn Schema, object: Ref<'_>) -> Result<FieldSet, String> {
    let mut out = SetWriter::default();
    if !is_whole(schema, object) {
        inside(schema, Before::Unwritten, object, &mut out)?;
    }
    Ok(out.finish())
}

/// Whether nothing inside the value is owned by itself.
fn is_whole(schema: &dyn Schema, value: Ref<'_>) -> bool {
    match value.sort() {
        Sort::Null | Sort::Scalar => true,
        Sort::Map => schema.atomic_map() || value.is_empty(),
        Sort::List => value.is_empty() || schema.list() == Lists::Atomic,
    }
}

fn place(
    schema: &dyn Schema,
    before: Before,
    value: Ref<'_>,
    step: Step<'_>,
    out: &mut SetWriter,
) -> Result<(), String> {
    let new = before == Before::Absent;
    if is_whole(schema, value) {
        if new || !value.is_zero() {
            out.leaf(step);
        }
        return Ok(());
    }
    let node = out.open(step, new);
    inside(schema, before, value, out)?;
    out.close(node);
    Ok(())
}

fn inside(schema: &dyn Schema, before: Before, value: Ref<'_>, out: &mut SetWriter) -> Result<(), String> {
    if value.sort() == Sort::Map {
        for (name, inner) in value.entries() {
            // A field the schema does not know was stored before it was forgotten.
            let Some(child) = schema.field(name) else { continue };
            let there = before == Before::Unwritten && child.always_there;
            let before = if there { Before::Unwritten } else { Before::Absent };
            place(child.schema, before, inner, Step::Field(name), out)?;
        }
        return Ok(());
    }
    let items = schema.items().ok_or("the elements of a list have no type")?;
    let elements = indexed(schema, &schema.list(), value)?;
    for group in elements.chunk_by(|a, b| a.step == b.step) {
        match group {
            [only] => place(items, Before::Absent, only.value, Step::Element(&only.step), out)?,
            // Elements that cannot be told apart are owned together.
            [first, ..] => out.leaf(Step::Element(&first.step)),
            [] => {}
        }
    }
    Ok(())
}
