//! What clients saw, and what truly happened.

use std::collections::BTreeMap;

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
    /// The watch begins, or begins again, here.
    Begun { at: i64 },
    /// One response: revisions and their events.
    Events(Vec<(i64, Event)>),
    /// Everything up to here has been told.
    Progress(i64),
    /// The history before this is gone.
    Compacted(i64),
}

/// Everything a run leaves behind for the invariants.
#[derive(Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// All changes by revision, as the first member that applied them did.
    pub truth: BTreeMap<i64, Vec<Event>>,
    /// Every watch: the prefix of its keys, and what it was told.
    pub watches: Vec<(String, Vec<Told>)>,
    /// Who led in each term.
    pub leaders: BTreeMap<u64, u64>,
    /// What was found to be wrong while it happened.
    pub violations: Vec<String>,
}
