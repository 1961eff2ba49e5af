//! The newest changes, in memory. They serve two ends: what the engine does not have yet is read from here,
//! and watchers that are a little behind catch up from here.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::mvcc::KeyValue;
use smallvec::SmallVec;

use super::index::Life;
use super::revision::Revision;

/// Changes that are in the engine are kept for watchers up to this size.
const KEEP_BYTES: usize = 2 << 20;

/// What a change occupies beside its key and value.
const OVERHEAD_BYTES: usize = 160;

/// One change of one key. Key and value are slices of the log entry that brought them.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// When.
    pub revision: Revision,
    /// Whether it was a deletion.
    pub deleted: bool,
    /// What is known of the key after it.
    pub life: Life,
    /// The key.
    pub key: Bytes,
    /// The value; empty after a deletion.
    pub value: Bytes,
}

impl Record {
    /// As it travels.
    #[must_use]
    pub fn to_key_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            create_revision: self.life.created,
            mod_revision: self.revision.main,
            version: self.life.version,
            value: self.value.clone(),
            lease: self.life.lease,
        }
    }
}

/// All changes of one revision; `records[sub]` is the change with that number.
#[derive(Debug, PartialEq)]
pub struct Change {
    /// The store's revision after them.
    pub revision: i64,
    /// The changes, at least one.
    pub records: SmallVec<[Record; 1]>,
}

impl Change {
    /// About how much memory it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.records
            .iter()
            .map(|record| record.key.len() + record.value.len() + OVERHEAD_BYTES)
            .sum()
    }
}

/// The newest changes, without a gap.
#[derive(Debug)]
pub struct Recent {
    changes: VecDeque<Arc<Change>>,
    bytes: usize,
    /// The last revision that is in the engine.
    stored: i64,
    unstored_bytes: usize,
}

impl Recent {
    /// None yet; everything up to `stored` is in the engine.
    #[must_use]
    pub fn new(stored: i64) -> Self {
        Self {
            changes: VecDeque::new(),
            bytes: 0,
            stored,
            unstored_bytes: 0,
        }
    }

    /// Takes in the changes of the next revision.
    pub fn push(&mut self, change: Arc<Change>) {
        let bytes = change.bytes();
        self.bytes += bytes;
        self.unstored_bytes += bytes;
        self.changes.push_back(change);
    }

    /// Takes back the last change.
    pub fn pop_last(&mut self) {
        if let Some(change) = self.changes.pop_back() {
            let bytes = change.bytes();
            self.bytes -= bytes;
            self.unstored_bytes = self.unstored_bytes.saturating_sub(bytes);
        }
    }

    /// The record of a change, if it is still here.
    #[must_use]
    pub fn get(&self, revision: Revision) -> Option<&Record> {
        let first = self.changes.front()?.revision;
        let position = usize::try_from(revision.main.checked_sub(first)?).ok()?;
        self.changes
            .get(position)
            .filter(|change| change.revision == revision.main)?
            .records
            .get(revision.sub as usize)
    }

    /// The first revision that is here, or would be.
    #[must_use]
    pub fn first_revision(&self) -> i64 {
        self.changes
            .front()
            .map_or(self.stored + 1, |change| change.revision)
    }

    /// The changes from a revision on; all of them must be here.
    pub fn since(&self, revision: i64) -> impl Iterator<Item = &Arc<Change>> {
        let start = self.changes.partition_point(|change| change.revision < revision);
        self.changes.range(start..)
    }

    /// What the engine does not have yet.
    #[must_use]
    pub fn unstored(&self) -> Vec<Arc<Change>> {
        self.since(self.stored + 1).cloned().collect()
    }

    /// How much that is.
    #[must_use]
    pub fn unstored_bytes(&self) -> usize {
        self.unstored_bytes
    }

    /// The last revision that is in the engine.
    #[must_use]
    pub fn stored(&self) -> i64 {
        self.stored
    }

    /// The engine has everything up to `revision` now: `bytes` of what [`Self::unstored`] returned.
    pub fn mark_stored(&mut self, revision: i64, bytes: usize) {
        self.stored = revision;
        self.unstored_bytes = self.unstored_bytes.saturating_sub(bytes);
        self.trim(KEEP_BYTES);
    }

    /// Forgets changes that are in the engine until no more than `keep` bytes are left.
    pub fn trim(&mut self, keep: usize) {
        while self.bytes > keep
            && self
                .changes
                .front()
                .is_some_and(|change| change.revision <= self.stored)
        {
            if let Some(change) = self.changes.pop_front() {
                self.bytes -= change.bytes();
            }
        }
        if self.changes.capacity() > 4096 && self.changes.len() < self.changes.capacity() / 4 {
            self.changes.shrink_to(self.changes.len() * 2);
        }
    }
}
