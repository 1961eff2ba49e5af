//! What becomes of an object and its managers when it is updated, and when a configuration is applied.
//!
//! Source: KEP-555 and structured-merge-diff's `merge`.

use std::collections::HashMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::Value;

use super::compare::{Comparison, compare, mentioned};
use super::managers::{Entry, Managed, Manager, Operation};
use super::merge;
use super::schema::Schema;
use super::set::FieldSet;
use super::shapes::Shapes;
use super::tree::Tree;
use super::validate;

/// Fields nobody manages: the server decides them, or they are what the object is.
static UNMANAGED: LazyLock<FieldSet> = LazyLock::new(|| {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The manager of what was there before anybody applied.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// An object before and after a change, in one version.
pub struct View<'a> {
    /// What has to be known of the version.
    pub schema: &'a dyn Schema,
    /// As it was; `None` for a new one.
    pub old: Option<Tree>,
    /// As it is to be.
    pub new: Tree,
    /// Fields that are set back on the way to the store, and so do not count.
    pub reset: &'a FieldSet,
    /// What is known of new objects that came before.
    pub shapes: Option<&'a Shapes>,
}

impl View<'_> {
    fn compare(&self) -> Result<Comparison, String> {
        let mut comparison = compare(self.schema, self.old.as_ref().map(Tree::root), self.new.root())?;
        if !self.reset.is_empty() {
            comparison.exclude(self.reset);
        }
        Ok(comparison)
    }

    /// The fields of a new object, but for those that nobody manages.
    fn fields_of_new(&self) -> Result<FieldSet, String> {
        let work_out = || {
            let mut fields = self.compare()?.added;
            fields.subtract(&UNMANAGED);
            Ok(fields)
        };
        match self.shapes {
            Some(shapes) => shapes.fields(self.schema, self.reset, self.new.root(), work_out),
            None => work_out(),
        }
    }
}

/// The object in the versions that others speak. `None` for versions that are no longer served.
pub type Versions<'a, 'v> = &'a mut dyn FnMut(&str) -> Option<Result<View<'v>, String>>;

/// An update: everybody who managed what has changed loses it, and the one who changed it has it now. An object nobody
/// managed stays one, unless it is new.
pub fn update(
    managed: &mut Managed,
    manager: Manager,
    now: Timestamp,
    view: &View<'_>,
    versions: Versions<'_, '_>,
) -> Result<(), String> {
    if managed.is_empty() {
        if view.old.is_none() {
            give(managed, manager, view.fields_of_new()?, now);
        }
        return Ok(());
    }
    let comparison = view.compare()?;
    if comparison.is_empty() {
        return Ok(());
    }
    let mut comparisons = Comparisons::new(&manager.version, &comparison);
    managed
        .0
        .retain_mut(|entry| match comparisons.of(&entry.manager.version, versions) {
            Some(other) => {
                other.take_from(&mut entry.fields);
                !entry.fields.is_empty()
            }
            None => false,
        });
    comparisons.problem()?;
    let mut fields = comparison.added;
    fields.union(&comparison.modified);
    give_managed(managed, manager, fields, now);
    managed.cap_updaters();
    Ok(())
}

/// Hands fields to a manager, but for those that nobody manages.
fn give_managed(managed: &mut Managed, manager: Manager, mut fields: FieldSet, now: Timestamp) {
    fields.subtract(&UNMANAGED);
    give(managed, manager, fields, now);
}

fn give(managed: &mut Managed, manager: Manager, fields: FieldSet, now: Timestamp) {
    if !fields.is_empty() {
        managed.give(Entry {
            manager,
            fields,
            time: Some(now),
        });
    }
}

/// The comparison in every version somebody speaks.
struct Comparisons<'c> {
    version: &'c str,
    own: &'c Comparison,
    others: HashMap<String, Option<Comparison>>,
    problem: Option<String>,
}

impl<'c> Comparisons<'c> {
    fn new(version: &'c str, own: &'c Comparison) -> Self {
        Self {
            version,
            own,
            others: HashMap::new(),
            problem: None,
        }
    }

    fn of(&mut self, version: &str, versions: Versions<'_, '_>) -> Option<&Comparison> {
        if version == self.version {
            return Some(self.own);
        }
        if !self.others.contains_key(version) {
            let comparison = versions(version).and_then(|view| match view.and_then(|view| view.compare()) {
                Ok(comparison) => Some(comparison),
                Err(problem) => {
                    self.problem = Some(problem);
                    None
                }
            });
            self.others.insert(version.to_owned(), comparison);
        }
        self.others.get(version)?.as_ref()
    }

    fn problem(self) -> Result<(), String> {
        self.problem.map_or(Ok(()), Err)
    }
}

impl Comparison {
    /// Takes away what somebody else has changed.
    fn take_from(&self, fields: &mut FieldSet) {
        fields.subtract(&self.added);
        fields.subtract(&self.modified);
        fields.subtract(&self.removed);
    }
}

/// Somebody else manages a field that a configuration wants otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Who manages the field.
    pub manager: Manager,
    /// The field.
    pub path: Vec<String>,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Failure {
    /// It, or the object, is not what it has to be.
    Invalid(String),
    /// Others manage what it wants to change.
    Conflicts(Vec<Conflict>),
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Invalid(problem)
    }
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Self {
        Self::Invalid(problem.to_owned())
    }
}

/// How an object looks in another version: `convert(object, from, to)`. `None` when that version is not served.
pub trait Converter {
    /// What has to be known of a version.
    fn schema(&self, version: &str) -> Option<&dyn Schema>;
    /// The object of one version in another.
    fn convert(&self, object: &Value, from: &str, to: &str) -> Option<Result<Value, String>>;
}

/// A configuration to be applied.
pub struct Application<'a> {
    /// What it says, without `metadata.managedFields`.
    pub config: &'a Value,
    /// The object as it is, in the version of the configuration; without managed fields. An empty one when there is none.
    pub live: &'a Value,
    /// Whether there is an object.
    pub exists: bool,
    /// Who applies. The version is that of the configuration.
    pub manager: Manager,
    /// Whether to take over what others manage.
    pub force: bool,
    /// Fields that are set back on the way to the store.
    pub reset: &'a FieldSet,
    /// The time.
    pub now: Timestamp,
}

impl Application<'_> {
    fn schema<'c>(&self, converter: &'c dyn Converter) -> Result<&'c dyn Schema, Failure> {
        converter
            .schema(&self.manager.version)
            .ok_or_else(|| Failure::Invalid(format!("no schema for version {:?}", self.manager.version)))
    }

    /// Checks the configuration against its schema.
    pub fn validate(&self, converter: &dyn Converter) -> Result<(), Failure> {
        let schema = self.schema(converter)?;
        validate::validate(schema, Tree::of(self.config)?.root())?;
        Ok(())
    }

    /// Applies it: the object as it is to be, and who manages it then. The object is `None` when nothing changes.
    pub fn apply(
        &self,
        managed: &Managed,
        converter: &dyn Converter,
    ) -> Result<(Option<Value>, Managed), Failure> {
        let schema = self.schema(converter)?;
        let before = managed.find(&self.manager);
        let mut managed = managed.clone();
        if managed.is_empty() && self.exists {
            self.claim_existing(&mut managed, schema)?;
        }
        self.settle(&mut managed, converter);
        let last = managed.find(&self.manager).cloned();
        let merged = merge::merge(schema, self.live.clone(), self.config)
            .map_err(|e| format!("failed to merge config: {e}"))?;
        let mut fields = mentioned(schema, Tree::of(self.config)?.root())?;
        fields.subtract_below(self.reset);
        managed.put(Entry {
            manager: self.manager.clone(),
            fields,
            time: last.as_ref().and_then(|entry| entry.time),
        });
        let new = match last {
            Some(last) if !last.fields.is_empty() => self.prune(merged, &managed, &last, converter)?,
            _ => merged,
        };
        self.take_over(&mut managed, schema, &new, converter)?;
        if let Some(entry) = managed.0.iter_mut().find(|entry| entry.manager.is(&self.manager)) {
            entry.fields.subtract(&UNMANAGED);
        }
        managed.drop_empty();
        let changed = !self.exists || !Tree::of(&new)?.root().same(Tree::of(self.live)?.root());
        if let Some(entry) = managed.0.iter_mut().find(|entry| entry.manager.is(&self.manager))
            && (changed || before.is_none_or(|before| before.fields != entry.fields))
        {
            entry.time = Some(self.now);
        }
        Ok((changed.then_some(new), managed))
    }

    /// What was there before anybody's fields were known belongs to a manager of its own.
    fn claim_existing(&self, managed: &mut Managed, schema: &dyn Schema) -> Result<(), Failure> {
        let tree = Tree::of(self.live)?;
        let mut comparison = compare(schema, None, tree.root())?;
        comparison.exclude(self.reset);
        let manager = Manager {
            name: BEFORE_FIRST_APPLY.to_owned(),
            operation: Operation::Update,
            version: self.manager.version.clone(),
            subresource: self.manager.subresource.clone(),
        };
        let mut fields = comparison.added;
        fields.union(&comparison.modified);
        give_managed(managed, manager, fields, self.now);
        Ok(())
    }

    /// Brings the sets of others into the shape of today's schema.
    fn settle(&self, managed: &mut Managed, converter: &dyn Converter) {
        for entry in &mut managed.0 {
            if let Some(schema) = converter.schema(&entry.manager.version) {
                entry.fields = entry.fields.settled(schema);
            }
        }
    }

    /// Takes out what the manager applied last time, does not apply now, and nobody else manages.
    fn prune(
        &self,
        merged: Value,
        managed: &Managed,
        last: &Entry,
        converter: &dyn Converter,
    ) -> Result<Value, Failure> {
        let own = &self.manager.version;
        let version = &last.manager.version;
        let (Some(schema), Some(merged_then)) = (
            converter.schema(version),
            convert(converter, &merged, own, version)?,
        ) else {
            return Ok(merged);
        };
        let last_fields = last.fields.with_named_fields(schema);
        let mut pruned = (
            version.clone(),
            merge::remove(schema, merged_then.clone(), &last_fields),
        );

        // What somebody manages comes back, version by version, that of the last time first.
        let mut by_version: Vec<(String, FieldSet)> = vec![(version.clone(), FieldSet::default())];
        for entry in managed.entries() {
            match by_version
                .iter_mut()
                .find(|(one, _)| *one == entry.manager.version)
            {
                Some((_, fields)) => fields.union(&entry.fields),
                None => by_version.push((entry.manager.version.clone(), entry.fields.clone())),
            }
        }
        for (version, fields) in by_version {
            let Some(schema) = converter.schema(&version) else {
                continue;
            };
            let (Some(merged), Some(left)) = (
                convert(converter, &merged, own, &version)?,
                convert(converter, &pruned.1, &pruned.0, &version)?,
            ) else {
                continue;
            };
            let named = |value: &Value| -> Result<FieldSet, Failure> {
                Ok(mentioned(schema, Tree::of(value)?.root())?.with_named_fields(schema))
            };
            let mut gone = named(&merged)?;
            gone.subtract(&named(&left)?);
            gone.subtract(&fields.with_named_fields(schema));
            pruned = (version, merge::remove(schema, merged, &gone));
        }

        // What was never the manager's comes back, too.
        let Some(left) = convert(converter, &pruned.1, &pruned.0, version)? else {
            return Ok(merged);
        };
        let named = |value: &Value| -> Result<FieldSet, Failure> {
            Ok(mentioned(schema, Tree::of(value)?.root())?.with_named_fields(schema))
        };
        let mut gone = named(&merged_then)?;
        gone.subtract(&named(&left)?);
        let gone = gone.intersection(&last_fields);
        let left = merge::remove(schema, merged_then, &gone);
        Ok(convert(converter, &left, version, own)?.unwrap_or(merged))
    }

    /// Takes changed fields from others: by force, or not at all.
    fn take_over(
        &self,
        managed: &mut Managed,
        schema: &dyn Schema,
        new: &Value,
        converter: &dyn Converter,
    ) -> Result<(), Failure> {
        let own = &self.manager.version;
        let view = |schema, old: &Value, new: &Value| -> Result<Comparison, String> {
            let view = View {
                schema,
                old: self.exists.then(|| Tree::of(old)).transpose()?,
                new: Tree::of(new)?,
                reset: self.reset,
                shapes: None,
            };
            view.compare()
        };
        let comparison = view(schema, self.live, new)?;
        let mut others: Vec<(String, Option<Comparison>)> = vec![(own.clone(), Some(comparison))];
        for entry in managed.entries() {
            let version = &entry.manager.version;
            if others.iter().any(|(known, _)| known == version) {
                continue;
            }
            let converted = match converter.schema(version) {
                Some(schema) => match (
                    convert(converter, self.live, own, version)?,
                    convert(converter, new, own, version)?,
                ) {
                    (Some(old), Some(new)) => Some(view(schema, &old, &new)?),
                    _ => None,
                },
                None => None,
            };
            others.push((version.clone(), converted));
        }
        let of = |version: &str| {
            others
                .iter()
                .find(|(known, _)| known == version)
                .and_then(|(_, comparison)| comparison.as_ref())
        };
        managed
            .0
            .retain(|entry| entry.manager.is(&self.manager) || of(&entry.manager.version).is_some());

        let mut conflicts = Vec::new();
        for entry in managed
            .entries()
            .iter()
            .filter(|entry| !entry.manager.is(&self.manager))
        {
            let Some(comparison) = of(&entry.manager.version) else {
                continue;
            };
            for path in entry.fields.intersection(&comparison.changed()).paths() {
                conflicts.push(Conflict {
                    manager: entry.manager.clone(),
                    path,
                });
            }
        }
        if !self.force && !conflicts.is_empty() {
            return Err(Failure::Conflicts(conflicts));
        }
        for entry in &mut managed.0 {
            if !entry.manager.is(&self.manager)
                && let Some(comparison) = of(&entry.manager.version)
            {
                comparison.take_from(&mut entry.fields);
            }
        }
        managed.drop_empty();
        Ok(())
    }
}

fn convert(
    converter: &dyn Converter,
    object: &Value,
    from: &str,
    to: &str,
) -> Result<Option<Value>, Failure> {
    if from == to {
        return Ok(Some(object.clone()));
    }
    Ok(converter.convert(object, from, to).transpose()?)
}
