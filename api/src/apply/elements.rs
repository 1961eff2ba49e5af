//! How the elements of a list are told apart.

use smallvec::SmallVec;

use super::element::{self, Key};
use super::schema::{Lists, Schema};
use super::tree::{Ref, Sort};
use crate::text::quote;

/// An element and the step that leads to it.
pub(super) struct Keyed<'t> {
    pub(super) step: String,
    pub(super) value: Ref<'t>,
}

/// The elements of a list that is owned by elements, in their order.
pub(super) fn keyed<'t>(
    schema: &dyn Schema,
    kind: &Lists<'_>,
    list: Ref<'t>,
) -> Result<Vec<Keyed<'t>>, String> {
    let mut elements = Vec::with_capacity(list.len());
    for (i, value) in list.items().enumerate() {
        let step = step(schema, kind, value).map_err(|problem| format!("element {i}: {problem}"))?;
        elements.push(Keyed { step, value });
    }
    Ok(elements)
}

/// The step that leads to an element, or why none does.
pub(super) fn step(schema: &dyn Schema, kind: &Lists<'_>, element: Ref<'_>) -> Result<String, String> {
    match kind {
        Lists::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        Lists::Set => match element.sort() {
            Sort::Scalar => Ok(element::of_value(element)),
            Sort::Map => Err("associative list without keys has an element that's a map type".to_owned()),
            Sort::List => Err("not supported: associative list with lists as elements".to_owned()),
            Sort::Null => {
                Err("associative list without keys has an element that's an explicit null".to_owned())
            }
        },
        Lists::Map(keys) => {
            match element.sort() {
                Sort::Map => {}
                Sort::Null => return Err("associative list with keys may not have a null element".to_owned()),
                _ => return Err("associative list with keys may not have non-map elements".to_owned()),
            }
            let mut found: SmallVec<[_; 4]> = SmallVec::new();
            for name in keys.iter() {
                let key = match element.get(name) {
                    Some(value) => Key::Given(value),
                    None => Key::Default(schema.key_default(name).ok_or_else(|| {
                        format!(
                            "associative list with keys has an element that omits key field {} (and doesn't have default value)",
                            quote(name)
                        )
                    })?),
                };
                found.push((*name, key));
            }
            found.sort_by_key(|(name, _)| *name);
            Ok(element::of_keys(found.into_iter()))
        }
    }
}
