//! A checksum over the history, for comparing members.

use super::Mvcc;
use super::index;
use super::schema;
use crate::error::StoreError;

/// A checksum and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryHash {
    /// CRC32C over the records.
    pub hash: u32,
    /// Revision of the last compaction.
    pub compacted: i64,
    /// The last revision it covers.
    pub revision: i64,
}

impl Mvcc {
    /// Computes the checksum over what is readable at `revision` (0 is now) and before, back to the last
    /// compaction. It covers keys, revisions and lives; not the values, which the engine guards by itself.
    ///
    /// # Errors
    /// When the revision is not there.
    pub fn hash(&self, revision: i64) -> Result<HistoryHash, StoreError> {
        if revision > self.current {
            return Err(StoreError::FutureRevision);
        }
        if revision > 0 && revision < self.compacted {
            return Err(StoreError::Compacted);
        }
        let until = if revision <= 0 { self.current } else { revision };
        let mut hash = crc32c::crc32c(&self.compacted.to_be_bytes());
        for (key, item) in self.index.all() {
            let history = item.history();
            // Members drop records at their own pace; what is superfluous does not count.
            let kept = &history[index::superseded(history, self.compacted)..];
            for stamp in kept.iter().filter(|stamp| stamp.revision.main <= until) {
                hash = crc32c::crc32c_append(hash, key);
                hash = crc32c::crc32c_append(hash, &schema::meta_key(stamp.revision));
                hash = crc32c::crc32c_append(hash, &[u8::from(stamp.deleted)]);
            }
        }
        Ok(HistoryHash {
            hash,
            compacted: self.compacted,
            revision: until,
        })
    }
}
