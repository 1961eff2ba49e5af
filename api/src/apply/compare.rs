//! What is different between two objects, as sets of fields.

use super::elements::{self, Keyed};
use super::fresh;
use super::schema::{Child, Lists, Schema};
use super::set::{Branch, FieldSet, Step};
use super::tree::{Ref, Sort};

/// What one object has and the other has not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// In the new object alone.
    pub added: FieldSet,
    /// In both, and different.
    pub modified: FieldSet,
    /// In the old object alone.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether the objects are equal.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// Forgets these fields and what lies below them.
    pub fn exclude(&mut self, fields: &FieldSet) {
        for set in [&mut self.added, &mut self.modified, &mut self.removed] {
            set.subtract_below(fields);
        }
    }

    /// What the new object says that the old did not.
    pub fn changed(&self) -> FieldSet {
        match (self.added.is_empty(), self.modified.is_empty()) {
            (_, true) => self.added.clone(),
            (true, _) => self.modified.clone(),
            _ => {
                let mut both = self.modified.clone();
                both.union(&self.added);
                both
            }
        }
    }
}

/// Compares two objects of a kind. Without an old one everything is new, but for the structs every object of the kind
/// has.
pub fn compare(schema: &dyn Schema, old: Option<Ref<'_>>, new: Ref<'_>) -> Result<Comparison, String> {
    let Some(old) = old else {
        return Ok(Comparison {
            added: fresh::fields(schema, new)?,
            ..Comparison::default()
        });
    };
    let root = node(schema, Side::There(old), Side::There(new))?;
    Ok(Comparison {
        added: FieldSet::from_branch(root.added),
        modified: FieldSet::from_branch(root.modified),
        removed: FieldSet::from_branch(root.removed),
    })
}

/// One of the two values at a place.
#[derive(Clone, Copy)]
enum Side<'t> {
    /// There is none.
    Absent,
    /// It is there, but nothing was written: a struct in a struct, a number that is zero.
    Unwritten,
    There(Ref<'t>),
}

impl<'t> Side<'t> {
    fn sort(self) -> Sort {
        match self {
            Side::There(value) => value.sort(),
            _ => Sort::Null,
        }
    }

    fn is_absent(self) -> bool {
        matches!(self, Side::Absent)
    }

    /// Whether there is nothing in the list or map.
    fn is_empty(self) -> bool {
        match self {
            Side::There(value) => value.is_empty(),
            _ => true,
        }
    }

    fn same(self, other: Side<'_>) -> bool {
        match (self, other) {
            (Side::There(a), Side::There(b)) => a.same(b),
            (Side::There(value), _) | (_, Side::There(value)) => value.is_zero(),
            _ => true,
        }
    }

    fn entries(self) -> impl Iterator<Item = (&'t str, Ref<'t>)> {
        let value = match self {
            Side::There(value) => Some(value),
            _ => None,
        };
        value.into_iter().flat_map(Ref::entries)
    }

    /// The other side of a field that only one side has.
    fn counterpart(self, field: &Child<'_>) -> Side<'t> {
        if !self.is_absent() && field.always_there {
            Side::Unwritten
        } else {
            Side::Absent
        }
    }
}

#[derive(Default)]
struct Changes {
    added: Branch,
    modified: Branch,
    removed: Branch,
}

impl Changes {
    fn attach(&mut self, step: Step<'_>, inner: Changes) {
        self.added.attach(step, inner.added);
        self.modified.attach(step, inner.modified);
        self.removed.attach(step, inner.removed);
    }

    /// The place is owned as a whole.
    fn leaf(old: Side<'_>, new: Side<'_>) -> Self {
        let mut changes = Self::default();
        if old.is_absent() {
            changes.added = Branch::leaf();
        } else if new.is_absent() {
            changes.removed = Branch::leaf();
        } else if !old.same(new) {
            changes.modified = Branch::leaf();
        }
        changes
    }

    /// The place itself, besides what is in it.
    fn mark(&mut self, old: Side<'_>, new: Side<'_>) {
        self.added.member |= old.is_absent();
        self.removed.member |= new.is_absent();
    }
}

fn node(schema: &dyn Schema, old: Side<'_>, new: Side<'_>) -> Result<Changes, String> {
    match (old, new) {
        (Side::There(a), Side::There(b)) if a.same(b) => Ok(Changes::default()),
        _ => unequal(schema, old, new),
    }
}

/// What differs between two values that are not written alike.
fn unequal(schema: &dyn Schema, old: Side<'_>, new: Side<'_>) -> Result<Changes, String> {
    let sort = match (old.sort(), new.sort()) {
        (Sort::Null, sort) | (sort, Sort::Null) => sort,
        (a, b) if a == b => a,
        // One is a map and the other is not: both are gone through, each as what it is.
        _ => {
            let mut changes = Changes::leaf(old, new);
            for (old, new) in [(old, Side::Unwritten), (Side::Unwritten, new)] {
                let sort = if matches!(old, Side::There(_)) {
                    old.sort()
                } else {
                    new.sort()
                };
                let inner = match sort {
                    Sort::Map if !schema.atomic_map() => map(schema, old, new)?,
                    Sort::List => list(schema, old, new)?,
                    _ => Changes::default(),
                };
                changes.added.append(inner.added);
                changes.removed.append(inner.removed);
            }
            return Ok(changes);
        }
    };
    let whole = match sort {
        Sort::Null | Sort::Scalar => true,
        Sort::Map => schema.atomic_map() || (old.is_empty() && new.is_empty()),
        Sort::List => old.is_empty() && new.is_empty(),
    };
    if whole {
        return Ok(Changes::leaf(old, new));
    }
    match sort {
        Sort::List => list(schema, old, new),
        _ => map(schema, old, new),
    }
}

fn map(schema: &dyn Schema, old: Side<'_>, new: Side<'_>) -> Result<Changes, String> {
    let mut changes = Changes::default();
    let (mut ours, mut theirs) = (old.entries().peekable(), new.entries().peekable());
    loop {
        let (name, a, b) = match (ours.peek().copied(), theirs.peek().copied()) {
            (None, None) => break,
            (Some((name, a)), Some((other, b))) if name == other => {
                ours.next();
                theirs.next();
                (name, Some(a), Some(b))
            }
            (Some((name, a)), other) if other.is_none_or(|(other, _)| name < other) => {
                ours.next();
                (name, Some(a), None)
            }
            (_, Some((name, b))) => {
                theirs.next();
                (name, None, Some(b))
            }
            (Some(_), None) => break,
        };
        if let (Some(a), Some(b)) = (a, b)
            && a.same(b)
        {
            continue;
        }
        // A field the schema does not know was stored before it was forgotten.
        let Some(child) = schema.field(name) else { continue };
        let a = a.map_or_else(|| old.counterpart(&child), Side::There);
        let b = b.map_or_else(|| new.counterpart(&child), Side::There);
        changes.attach(Step::Field(name), unequal(child.schema, a, b)?);
    }
    changes.mark(old, new);
    Ok(changes)
}

fn list(schema: &dyn Schema, old: Side<'_>, new: Side<'_>) -> Result<Changes, String> {
    let kind = schema.list();
    if kind == Lists::Atomic {
        return Ok(Changes::leaf(old, new));
    }
    let mut changes = Changes::default();
    let elements = |side| match side {
        Side::There(list) => indexed(schema, &kind, list),
        _ => Ok(Vec::new()),
    };
    let (ours, theirs) = (elements(old)?, elements(new)?);
    let items = schema.items().ok_or("the elements of a list have no type")?;
    let (mut ours, mut theirs) = (ours.as_slice(), theirs.as_slice());
    while let Some(step) = first_step(ours, theirs) {
        let (a, rest) = take(ours, step);
        ours = rest;
        let (b, rest) = take(theirs, step);
        theirs = rest;
        let inner = match (a.len(), b.len()) {
            (0 | 1, 0 | 1) => node(items, there(a), there(b))?,
            // Elements that cannot be told apart are owned together.
            (2.., 2..) => {
                let same = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.value.same(b.value));
                Changes {
                    modified: if same { Branch::default() } else { Branch::leaf() },
                    ..Changes::default()
                }
            }
            (2.., _) => {
                let mut inner = node_or_nothing(items, Side::Absent, there(b))?;
                inner.removed.member = true;
                inner
            }
            (_, _) => {
                let mut inner = node_or_nothing(items, there(a), Side::Absent)?;
                inner.added.member = true;
                inner
            }
        };
        changes.attach(Step::Element(step), inner);
    }
    changes.mark(old, new);
    Ok(changes)
}

fn node_or_nothing(schema: &dyn Schema, old: Side<'_>, new: Side<'_>) -> Result<Changes, String> {
    if old.is_absent() && new.is_absent() {
        return Ok(Changes::default());
    }
    node(schema, old, new)
}

/// The elements of a list, by their steps.
pub(super) fn indexed<'t>(
    schema: &dyn Schema,
    kind: &Lists<'_>,
    list: Ref<'t>,
) -> Result<Vec<Keyed<'t>>, String> {
    let mut elements = elements::keyed(schema, kind, list)?;
    if !elements.is_sorted_by(|a, b| a.step <= b.step) {
        elements.sort_by(|a, b| a.step.cmp(&b.step));
    }
    Ok(elements)
}

fn first_step<'k>(ours: &'k [Keyed<'_>], theirs: &'k [Keyed<'_>]) -> Option<&'k str> {
    match (ours.first(), theirs.first()) {
        (Some(a), Some(b)) => Some(a.step.as_str().min(b.step.as_str())),
        (Some(one), None) | (None, Some(one)) => Some(one.step.as_str()),
        (None, None) => None,
    }
}

/// Splits off the elements of this step.
fn take<'k, 't>(elements: &'k [Keyed<'t>], step: &str) -> (&'k [Keyed<'t>], &'k [Keyed<'t>]) {
    let count = elements.iter().take_while(|element| element.step == step).count();
    elements.split_at(count)
}

fn there<'t>(group: &[Keyed<'t>]) -> Side<'t> {
    group
        .first()
        .map_or(Side::Absent, |element| Side::There(element.value))
}

/// The fields a configuration speaks of: every leaf, every element of a list that is owned by elements.
pub(super) fn mentioned(schema: &dyn Schema, config: Ref<'_>) -> Result<FieldSet, String> {
    fn walk(schema: &dyn Schema, value: Ref<'_>) -> Result<Branch, String> {
        let mut branch = Branch::default();
        match value.sort() {
            Sort::Scalar => return Ok(Branch::leaf()),
            Sort::Null => {}
            Sort::Map if schema.atomic_map() => return Ok(Branch::leaf()),
            Sort::Map => {
                for (name, inner) in value.entries() {
                    let Some(child) = schema.field(name) else { continue };
                    let mut found = walk(child.schema, inner)?;
                    let nothing = matches!(inner.sort(), Sort::Null | Sort::Map) && inner.is_empty();
                    found.member |= nothing || !child.declared;
                    branch.attach(Step::Field(name), found);
                }
            }
            Sort::List => {
                let kind = schema.list();
                if kind == Lists::Atomic {
                    return Ok(Branch::leaf());
                }
                let items = schema.items().ok_or("the elements of a list have no type")?;
                let elements = indexed(schema, &kind, value)?;
                let mut rest = elements.as_slice();
                while let Some(first) = rest.first() {
                    let (group, more) = take(rest, &first.step);
                    rest = more;
                    let mut found = match group {
                        [only] => walk(items, only.value)?,
                        _ => Branch::default(),
                    };
                    found.member = true;
                    branch.attach(Step::Element(&first.step), found);
                }
            }
        }
        Ok(branch)
    }
    Ok(FieldSet::from_branch(walk(schema, config)?))
}
