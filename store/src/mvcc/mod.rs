//! Keys and their history.
//!
//! - [`revision`]: points in the history; [`key_range`]: etcd's way of naming keys
//! - [`index`]: which revisions every key has, in memory
//! - [`recent`]: the newest changes, in memory: what is not yet in the engine, and what watchers read
//! - [`schema`]: how records look in the engine
//! - [`read`]: ranges at a revision; [`write`]: puts, deletions, transactions; [`compare`]: their conditions
//! - [`check`]: what a request must look like before it is proposed
//! - [`compact`]: dropping history, a few keys at a time; [`hash`]: a checksum over all of it

pub mod check;
pub mod compact;
pub mod compare;
pub mod hash;
pub mod index;
pub mod key_range;
pub mod read;
pub mod recent;
pub mod revision;
pub mod schema;
pub mod write;

use std::sync::Arc;

use crate::engine::Engine;
use crate::lease::Leases;
use index::Index;
use recent::Recent;

/// The keys, as of the last applied entry. Behind a lock: one thread applies, many read.
pub struct Mvcc {
    /// Every key's revisions.
    pub index: Index,
    /// The newest changes.
    pub recent: Recent,
    /// Leases and the keys that hang on them.
    pub leases: Leases,
    /// The newest revision; 1 is the empty store's.
    pub current: i64,
    /// History before this revision must not be read any more; 0 is none.
    pub compacted: i64,
    /// The same as the engine knows it. Records of later compactions stay there: after a crash nobody could tell that they
    /// are missing.
    pub compaction_stored: i64,
    /// Records that are no longer in `recent`.
    pub engine: Arc<dyn Engine>,
}

impl Mvcc {
    /// An empty store.
    #[must_use]
    pub fn empty(engine: Arc<dyn Engine>) -> Self {
        Self {
            index: Index::default(),
            recent: Recent::new(1),
            leases: Leases::default(),
            current: 1,
            compacted: 0,
            compaction_stored: 0,
            engine,
        }
    }
}

#[cfg(test)]
mod tests;
