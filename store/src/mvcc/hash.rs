//! A checksum over the history, for comparing members: etcd's `HashKV`, to the bit.
//!
//! CRC32C over the name of etcd's bucket and then, for every change in the order of revisions, its key and value
//! there. What members may have dropped already and what not does not count, so that they can be compared while they
//! compact.

use std::ops::ControlFlow;

use keelson_proto::mvcc::KeyValue;
use prost::Message;

use super::recent::Record;
use super::revision::Revision;
use crate::error::StoreError;
use crate::history::History;

/// etcd's bucket of changes.
const BUCKET: &[u8] = b"key";

/// A checksum and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryHash {
    /// The checksum.
    pub hash: u32,
    /// Revision of the last compaction.
    pub compacted: i64,
    /// The last revision it covers.
    pub revision: i64,
}

/// A change's key in etcd's bucket.
#[must_use]
pub fn bucket_key(revision: Revision, deleted: bool) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.extend_from_slice(&revision.main.to_be_bytes());
    key.push(b'_');
    key.extend_from_slice(&i64::from(revision.sub).to_be_bytes());
    if deleted {
        key.push(b't');
    }
    key
}

/// A change's value in etcd's bucket.
#[must_use]
pub fn bucket_value(record: &Record) -> KeyValue {
    if record.deleted {
        return KeyValue {
            key: record.key.clone(),
            ..KeyValue::default()
        };
    }
    record.to_key_value()
}

/// Computes the checksum at `revision`; 0 is now.
///
/// # Errors
/// When the revision is not there, or a record cannot be read.
pub fn hash(history: &History<'_>, revision: i64) -> Result<HistoryHash, StoreError> {
    if revision > history.current {
        return Err(StoreError::FutureRevision);
    }
    if revision > 0 && revision < history.compacted {
        return Err(StoreError::Compacted);
    }
    let until = if revision <= 0 { history.current } else { revision };
    let (mut kept, alive) = history.compacted_at(until);
    if !alive {
        // Where nothing was alive, etcd counts what the compaction left.
        kept = history.compacted_at(history.compacted).0;
    }
    let wants = |revision: Revision| {
        revision.main <= until && (revision.main > history.compacted || kept.binary_search(&revision).is_ok())
    };
    let mut hash = crc32c::crc32c(BUCKET);
    let mut value = Vec::new();
    history.records(&wants, &mut |record| {
        hash = crc32c::crc32c_append(hash, &bucket_key(record.revision, record.deleted));
        value.clear();
        // A vector takes as much as comes.
        let _ = bucket_value(record).encode(&mut value);
        hash = crc32c::crc32c_append(hash, &value);
        ControlFlow::Continue(())
    })?;
    Ok(HistoryHash {
        hash,
        compacted: history.compacted,
        revision: until,
    })
}
