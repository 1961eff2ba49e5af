//! Dropping history, a few changes at a time.
//!
//! A compaction is agreed through Raft and takes effect at once: nothing before its revision may be read any
//! more. The records go afterwards, in steps, each of which holds the lock only briefly. A record becomes
//! superfluous by a later change of its key, so it is enough to look at the changes since the last compaction, and at
//! the deletions of its own revision: watches may have begun there, and could not be spared them.

use std::ops::ControlFlow;

use smallvec::SmallVec;

use super::Mvcc;
use super::revision::Revision;
use super::schema;
use crate::engine::{Batch, Engine};
use crate::error::StoreError;

/// Changes looked at in one step, and dropped from the index under one lock.
pub const STEP_CHANGES: usize = 512;

/// Records that are removed from the engine together: it rewrites whole leaves and waits for the disk.
pub const REMOVED_TOGETHER: usize = 16 << 10;

/// Most steps until then.
pub const STEPS_TOGETHER: usize = 32;

/// Changes of one step.
pub struct Step {
    keys: Vec<bytes::Bytes>,
    /// All revisions up to this one have been looked at.
    pub through: i64,
}

/// Reads which keys changed after revision `after` and up to `until`, or were deleted at it, as many as make a step.
///
/// # Errors
/// When the engine cannot be read.
pub fn next_step(engine: &dyn Engine, after: i64, until: i64) -> Result<Step, StoreError> {
    let mut keys = Vec::new();
    let mut through = until;
    let from = schema::meta_key(Revision::start_of(after));
    let to = schema::meta_key(Revision::start_of(until + 1));
    let mut damaged = false;
    let mut last = after;
    let mut looked = 0;
    engine.scan(&from, &to, &mut |key, value| {
        let Some(meta) = schema::decode_meta(key, value) else {
            damaged = true;
            return ControlFlow::Break(());
        };
        let main = meta.stamp.revision.main;
        if main == after {
            if meta.stamp.deleted {
                keys.push(meta.key);
            }
            return ControlFlow::Continue(());
        }
        // A step ends between revisions.
        if looked >= STEP_CHANGES && main != last {
            through = last;
            return ControlFlow::Break(());
        }
        last = main;
        looked += 1;
        keys.push(meta.key);
        ControlFlow::Continue(())
    })?;
    if damaged {
        return Err(StoreError::Corrupt);
    }
    Ok(Step { keys, through })
}

impl Mvcc {
    /// Drops from the index what a step's keys do not need any more for reading at `compacted` or later, and
    /// returns it. Records the engine does not have yet stay until it has them.
    pub fn drop_history(&mut self, step: &Step, compacted: i64) -> SmallVec<[Revision; 64]> {
        let mut gone = SmallVec::new();
        for key in &step.keys {
            gone.extend(self.index.compact(key, compacted));
        }
        gone
    }
}

/// The removal of records from the engine, and how far history has been dropped with it.
#[must_use]
pub fn removal(gone: &[Revision], done: Option<i64>) -> Batch {
    let mut batch = Batch::default();
    for revision in gone {
        batch.remove(schema::meta_key(*revision));
    }
    for revision in gone {
        batch.remove(schema::value_key(*revision));
    }
    if let Some(done) = done {
        batch.put(
            schema::COMPACTION_DONE_KEY.to_vec(),
            bytes::Bytes::copy_from_slice(&done.to_be_bytes()),
        );
    }
    batch
}
