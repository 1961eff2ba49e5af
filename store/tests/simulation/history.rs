//! What clients saw, and what truly happened.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Values are numbers; every write has one of its own. 0 is a key that is not there.
pub type Value = u64;

/// What a client asked of one key, and what it was told; `None` if it never learned.
#[derive(Debug, Clone)]
pub enum Asked {
    Put(Value),
    Delete {
        found: Option<bool>,
    },
    Get(Value),
    /// If the key has the expected value it gets the new one. `found` is what it had if not.
    Swap {
        expected: Value,
        new: Value,
        outcome: Option<Result<(), Value>>,
    },
}

/// One operation on one key.
#[derive(Debug, Clone)]
pub struct Operation {
    pub key: String,
    pub asked: Asked,
    pub called: u64,
    /// `None`: nobody knows whether, or when, it happens.
    pub returned: Option<u64>,
    /// The revision of a write that happened, or of the store when it was read.
    pub revision: Option<i64>,
}

/// A change of a key, as members apply it and watchers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub key: String,
    /// 0: it was deleted.
    pub value: Value,
    pub version: i64,
    pub created: i64,
}

/// What a watch was told, in order.
#[derive(Debug, Clone)]
pub enum Told {
    /// The watch begins, or begins again, here, at a member whose history begins at `compacted`.
    Begun { at: i64, compacted: i64 },
    /// One response: revisions and their events.
    Events(Vec<(i64, Event)>),
    /// Everything up to here has been told.
    Progress(i64),
    /// The history before this is gone.
    Compacted(i64),
}

/// A watch and what it was told.
#[derive(Debug, Clone)]
pub struct Watched {
    /// Its keys are `from` alone, or, if there is an end, those up to it.
    pub from: String,
    pub end: String,
    pub told: Vec<Told>,
    /// It stayed until everything was told.
    pub stayed: bool,
}

impl Watched {
    /// How it is called when something is wrong with it.
    pub fn name(&self) -> String {
        format!("[{} {})", self.from, self.end)
    }
}

/// Everything a run leaves behind for the invariants.
#[derive(Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// All changes by revision, as the first member that applied them did.
    pub truth: BTreeMap<i64, Vec<Event>>,
    /// Every value a key had, by the revision from which on.
    pub keys: BTreeMap<String, Vec<(i64, Value)>>,
    /// Every watch.
    pub watches: Vec<Watched>,
    /// Who led in each term.
    pub leaders: BTreeMap<u64, u64>,
    /// What was found to be wrong while it happened.
    pub violations: Vec<String>,
}

impl History {
    /// What happened at a revision.
    pub fn note(&mut self, revision: i64, events: Vec<Event>) {
        for event in &events {
            let values = self.keys.entry(event.key.clone()).or_default();
            let at = values.partition_point(|(before, _)| *before <= revision);
            values.insert(at, (revision, event.value));
        }
        self.truth.insert(revision, events);
    }

    /// The keys from `from` up to `end` that were there at a revision, and their values.
    pub fn at(&self, revision: i64, from: &str, end: &str) -> Vec<(&str, Value)> {
        let keys = self
            .keys
            .range::<str, _>((Bound::Included(from), Bound::Excluded(end)));
        keys.filter_map(|(key, values)| {
            let by_then = values.partition_point(|(before, _)| *before <= revision);
            let (_, value) = values[..by_then].last()?;
            (*value != 0).then_some((key.as_str(), *value))
        })
        .collect()
    }
}
