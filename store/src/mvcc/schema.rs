//! How records look in the engine: one tree, a letter before every key.
//!
//! | key | value |
//! | --- | --- |
//! | `m` revision | flags, created, version, lease, key |
//! | `v` revision | the value; nothing for a deletion |
//! | `l` lease | its time to live in seconds |
//! | `s` name | the rest of the state |
//!
//! Numbers are big-endian so that they sort. What is needed to build the index is apart from the values, so
//! that a start reads little.

use bytes::Bytes;

use super::index::{Life, Stamp};
use super::recent::Record;
use super::revision::Revision;
use crate::engine::Batch;

const META: u8 = b'm';
const VALUE: u8 = b'v';
const LEASE: u8 = b'l';

/// Where the rest of the state is.
pub const STATE_KEY: &[u8] = b"s/state";
/// Revision up to which history has been dropped from the engine, which follows the logical compaction.
pub const COMPACTION_DONE_KEY: &[u8] = b"s/compaction-done";

const DELETED: u8 = 1;
const META_FIXED: usize = 1 + 3 * 8;

/// Everything known of a change but its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Meta {
    /// When, and whether it was a deletion.
    pub stamp: Stamp,
    /// What is known of the key after it.
    pub life: Life,
    /// The key.
    pub key: Bytes,
}

fn revision_key(kind: u8, revision: Revision) -> Vec<u8> {
    let mut key = Vec::with_capacity(13);
    key.push(kind);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.extend_from_slice(&revision.sub.to_be_bytes());
    key
}

/// Where a change's metadata is.
#[must_use]
pub fn meta_key(revision: Revision) -> Vec<u8> {
    revision_key(META, revision)
}

/// Where a change's value is.
#[must_use]
pub fn value_key(revision: Revision) -> Vec<u8> {
    revision_key(VALUE, revision)
}

/// Where a lease is.
#[must_use]
pub fn lease_key(id: i64) -> Vec<u8> {
    let mut key = vec![LEASE];
    // Sorted as unsigned; only equality matters.
    key.extend_from_slice(&id.to_be_bytes());
    key
}

/// The keys of all leases.
#[must_use]
pub fn lease_bounds() -> ([u8; 1], [u8; 1]) {
    ([LEASE], [LEASE + 1])
}

/// A lease's number, from its key.
#[must_use]
pub fn parse_lease_key(key: &[u8]) -> Option<i64> {
    let (kind, id) = key.split_first()?;
    (*kind == LEASE).then_some(())?;
    Some(i64::from_be_bytes(id.try_into().ok()?))
}

/// The metadata of a change, encoded.
#[must_use]
pub fn encode_meta(record: &Record) -> Bytes {
    let mut value = Vec::with_capacity(META_FIXED + record.key.len());
    value.push(if record.deleted { DELETED } else { 0 });
    for number in [record.life.created, record.life.version, record.life.lease] {
        value.extend_from_slice(&number.to_be_bytes());
    }
    value.extend_from_slice(&record.key);
    value.into()
}

/// Metadata read from the engine; `None` if it is not what was written.
#[must_use]
pub fn decode_meta(key: &[u8], value: &[u8]) -> Option<Meta> {
    let revision = parse_revision(key)?;
    let number = |at: usize| Some(i64::from_be_bytes(value.get(at..at + 8)?.try_into().ok()?));
    Some(Meta {
        stamp: Stamp {
            revision,
            deleted: value.first()? & DELETED != 0,
        },
        life: Life {
            created: number(1)?,
            version: number(9)?,
            lease: number(17)?,
        },
        key: Bytes::copy_from_slice(value.get(META_FIXED..)?),
    })
}

/// Adds records to what goes to the engine, in the order in which that takes them best. `records` are gone through twice.
pub fn add_records<'r, R: Iterator<Item = &'r Record>>(batch: &mut Batch, records: impl Fn() -> R) {
    for record in records() {
        batch.add(meta_key(record.revision), encode_meta(record));
    }
    for record in records().filter(|record| !record.deleted) {
        batch.add(value_key(record.revision), record.value.clone());
    }
}

fn parse_revision(key: &[u8]) -> Option<Revision> {
    Some(Revision {
        main: i64::from_be_bytes(key.get(1..9)?.try_into().ok()?),
        sub: u32::from_be_bytes(key.get(9..13)?.try_into().ok()?),
    })
}
