//! Who manages what: the entries of `metadata.managedFields`.
//!
//! Entries stay in the form they are stored in. Source: KEP-555, apimachinery's `util/managedfields`.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};

use super::set::FieldSet;
use crate::packed;

/// How many managers that update an object are told apart; of more, the oldest become one.
const MAX_UPDATERS: usize = 10;
/// The name of managers that have become one.
const ANCIENT: &str = "ancient-changes";
/// The one type of field sets there is.
const FIELDS_TYPE: &str = "FieldsV1";

/// What a manager did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// It said which fields it wants.
    Apply,
    /// It changed the object in any other way.
    Update,
}

impl Operation {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// A manager.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Manager {
    /// Its name; may be empty.
    pub name: String,
    /// What it did.
    pub operation: Operation,
    /// The version it speaks. Those that apply are the same manager in every version.
    pub version: String,
    /// The subresource it went through; empty for the object itself.
    pub subresource: String,
}

/// A manager and its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Who.
    pub manager: Manager,
    /// Which fields, in the version the manager speaks.
    pub fields: FieldSet,
    /// When the fields, or what is in them, were last changed by the manager.
    pub time: Option<Timestamp>,
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Managed(pub(super) Vec<Entry>);

impl Manager {
    /// Whether it is the same manager.
    pub fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.version == other.version)
    }
}

impl Manager {
    /// What tells managers apart: equal for those that [`Manager::is`] says are the same.
    fn identity(&self) -> Manager {
        let mut identity = self.clone();
        if self.operation == Operation::Apply {
            identity.version.clear();
        }
        identity
    }
}

impl FromIterator<Entry> for Managed {
    fn from_iter<I: IntoIterator<Item = Entry>>(entries: I) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl Managed {
    /// Reads entries as clients send them. What cannot be read makes all of them unreadable.
    pub fn read(entries: &[ManagedFieldsEntry]) -> Result<Self, String> {
        let mut managed = Self::default();
        // A client may send any number of entries: finding the earlier one of a manager must not take long.
        let mut places: HashMap<Manager, usize> = HashMap::new();
        for (i, entry) in entries.iter().enumerate() {
            match entry.fields_type.as_deref().unwrap_or_default() {
                FIELDS_TYPE => {}
                "" => return Err(format!("missing fieldsType in managed fields entry {i}")),
                other => {
                    return Err(format!(
                        "invalid fieldsType \"{other}\" in managed fields entry {i}"
                    ));
                }
            }
            let manager = manager_of(entry).ok_or("operation must be `Apply` or `Update`")?;
            if manager.version.is_empty() {
                return Err("apiVersion must not be empty".to_owned());
            }
            let fields = match &entry.fields_v1 {
                Some(fields) => {
                    FieldSet::parse(&packed::text(fields)).map_err(|e| format!("error decoding set: {e}"))?
                }
                None => FieldSet::default(),
            };
            let entry = Entry {
                manager,
                fields,
                time: entry.time.as_ref().map(|time| time.0),
            };
            match places.entry(entry.manager.identity()) {
                Occupied(place) => managed.0[*place.get()] = entry,
                Vacant(place) => {
                    place.insert(managed.0.len());
                    managed.0.push(entry);
                }
            }
        }
        Ok(managed)
    }

    /// Takes entries that were written by this module, as stored objects have them.
    pub fn stored(entries: Vec<ManagedFieldsEntry>) -> Self {
        let entry = |entry: ManagedFieldsEntry| {
            Some(Entry {
                manager: manager_of(&entry)?,
                fields: entry
                    .fields_v1
                    .map(|fields| FieldSet::stored(&packed::text(&fields)))
                    .unwrap_or_default(),
                time: entry.time.map(|time| time.0),
            })
        };
        Self(entries.into_iter().filter_map(entry).collect())
    }

    /// As an object has them; `None` when there are none.
    pub fn into_entries(mut self) -> Option<Vec<ManagedFieldsEntry>> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| {
            let key = |e: &Entry| (e.manager.operation, e.time.map_or(0, Timestamp::as_second));
            let (m, n) = (&a.manager, &b.manager);
            let names = || {
                m.name
                    .cmp(&n.name)
                    .then_with(|| m.version.cmp(&n.version))
                    .then_with(|| m.subresource.cmp(&n.subresource))
            };
            key(a).cmp(&key(b)).then_with(names)
        });
        let filled = |text: String| (!text.is_empty()).then_some(text);
        let entry = |entry: Entry| ManagedFieldsEntry {
            api_version: Some(entry.manager.version),
            fields_type: Some(FIELDS_TYPE.to_owned()),
            fields_v1: Some(packed::fields(entry.fields.into_json())),
            manager: filled(entry.manager.name),
            operation: Some(entry.manager.operation.as_str().to_owned()),
            subresource: filled(entry.manager.subresource),
            time: entry.time.map(Time),
        };
        Some(self.0.into_iter().map(entry).collect())
    }

    /// Whether nobody manages anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everybody.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub(super) fn find(&self, manager: &Manager) -> Option<&Entry> {
        self.0.iter().find(|entry| entry.manager.is(manager))
    }

    /// Replaces the manager's entry.
    pub(super) fn put(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|one| one.manager.is(&entry.manager)) {
            Some(slot) => *slot = entry,
            None => self.0.push(entry),
        }
    }

    pub(super) fn drop_empty(&mut self) {
        self.0.retain(|entry| !entry.fields.is_empty());
    }

    /// Gives fields to a manager besides those it has.
    pub(super) fn give(&mut self, entry: Entry) {
        match self.0.iter_mut().find(|one| one.manager.is(&entry.manager)) {
            Some(slot) => {
                slot.fields.union(&entry.fields);
                slot.time = entry.time;
                slot.manager.version = entry.manager.version;
            }
            None => self.0.push(entry),
        }
    }

    /// Makes one of the oldest managers when too many have updated the object.
    pub(super) fn cap_updaters(&mut self) {
        let updater = |entry: &Entry| entry.manager.operation == Operation::Update;
        let mut count = self.0.iter().filter(|entry| updater(entry)).count();
        if count <= MAX_UPDATERS {
            return;
        }
        let (mut updaters, mut rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.0).into_iter().partition(updater);
        updaters.sort_by_cached_key(|entry| {
            (
                entry.time.map_or(0, Timestamp::as_second),
                entry.manager.name.clone(),
                entry.manager.version.clone(),
            )
        });
        // The first manager of each version; the second one makes a bucket of it.
        let mut firsts: Vec<Entry> = Vec::new();
        let mut updaters = updaters.into_iter();
        while count > MAX_UPDATERS {
            let Some(entry) = updaters.next() else { break };
            match firsts
                .iter_mut()
                .find(|one| one.manager.version == entry.manager.version)
            {
                None => firsts.push(entry),
                Some(bucket) => {
                    bucket.manager.name = ANCIENT.to_owned();
                    bucket.manager.subresource.clear();
                    bucket.fields.union(&entry.fields);
                    bucket.time = entry.time;
                    count -= 1;
                }
            }
        }
        rest.extend(firsts);
        rest.extend(updaters);
        self.0 = rest;
    }
}

fn manager_of(entry: &ManagedFieldsEntry) -> Option<Manager> {
    Some(Manager {
        name: entry.manager.clone().unwrap_or_default(),
        operation: match entry.operation.as_deref()? {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        },
        version: entry.api_version.clone().unwrap_or_default(),
        subresource: entry.subresource.clone().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn updater(name: &str, second: i64, field: &str) -> Entry {
        Entry {
            manager: Manager {
                name: name.to_owned(),
                operation: Operation::Update,
                version: "v1".to_owned(),
                subresource: String::new(),
            },
            fields: FieldSet::of_fields(&[&[field]]),
            time: Timestamp::from_second(second).ok(),
        }
    }

    #[test]
    fn the_oldest_of_too_many_become_one() {
        let mut managed = Managed::default();
        for n in 0..12 {
            managed.put(updater(&format!("m{n:02}"), n, &format!("f{n}")));
        }
        managed.cap_updaters();
        assert_eq!(managed.entries().len(), MAX_UPDATERS);
        let entries = managed.into_entries().expect("entries");
        let ancient = &entries[0];
        assert_eq!(ancient.manager.as_deref(), Some(ANCIENT));
        assert_eq!(
            ancient.fields_v1.as_ref().map(packed::text).as_deref(),
            Some(r#"{"f:f0":{},"f:f1":{},"f:f2":{}}"#)
        );
        assert_eq!(ancient.time.as_ref().map(|time| time.0.as_second()), Some(2));
        assert_eq!(entries[1].manager.as_deref(), Some("m03"));
    }

    #[test]
    fn entries_that_cannot_be_read_are_refused() {
        let good = json!({"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:a": {}}});
        let read = |value: &Value| {
            let entry: ManagedFieldsEntry = serde_json::from_value(value.clone()).expect("an entry");
            Managed::read(&[entry])
        };
        assert!(read(&good).is_ok());
        for (field, bad) in [
            ("operation", json!("Steal")),
            ("apiVersion", json!("")),
            ("fieldsType", json!("FieldsV2")),
            ("fieldsV1", json!({"a": {}})),
        ] {
            let mut entry = good.clone();
            entry[field] = bad;
            assert!(read(&entry).is_err(), "{field}");
        }
    }
}
