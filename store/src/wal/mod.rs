//! The write-ahead log: Raft's entries and hard state, in segments of a fixed size.
//!
//! - [`record`]: how a record looks on disk, and its checksum
//! - [`segment`]: one file of records; [`disk`]: where the files are
//! - [`sync_times`]: how long the disk takes
//! - [`Wal`]: appending (buffered), syncing (one `fdatasync` for all that was buffered), replay, release
//!
//! Order: [`Wal::append`] and [`Wal::set_hard_state`] only fill a buffer; nothing they were given may be
//! acknowledged, and no message that depends on it sent, before [`Wal::sync`] has returned.

pub mod disk;
pub mod record;
pub mod segment;
pub mod sync_times;

use std::collections::VecDeque;
use std::path::PathBuf;

use raft::eraftpb::{Entry, HardState};

use disk::Disk;
use record::Record;
use segment::Segment;
pub use sync_times::SyncTimes;

/// Why the log failed. Nothing may be acknowledged after an error.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// The system refused.
    #[error("{attempt} {path}: {source}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A record that was once complete no longer reads as written, or records are missing.
    #[error("the write-ahead log is damaged at {path}, offset {offset}: {reason}; {WHAT_TO_DO}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
}

const WHAT_TO_DO: &str = "what this member promised to the others may be lost, so it must not go on: remove it \
    from the group, empty its data folder and add it again; if it is the only member, restore a backup";

/// Where the log begins: the entry before its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Index of the last entry that is no longer in the log.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What a log held when it was opened.
#[derive(Debug, Default)]
pub struct Replay {
    /// The entry before the first.
    pub mark: Mark,
    /// The entries, contiguous.
    pub entries: VecDeque<Entry>,
    /// Term, vote and commit index.
    pub hard_state: HardState,
}

/// How much room the log has for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// Only for what Raft itself has to write.
    None,
    /// For small writes that help to make room: deletions, compaction.
    Reserve,
    /// For everything.
    Plenty,
}

/// Part of the last segment of a full disk that is kept free for what Raft itself has to write.
const RESERVE_PART: u64 = 16;

/// What Raft itself may come to write at once, entries of others not counted: term, vote and commit index a few times, the
/// empty entry of a new leader, a mark, and the notes of syncs before them.
const PROMISE_BYTES: u64 = 320;

/// An open log. One thread appends.
pub struct Wal {
    disk: Box<dyn Disk>,
    current: Segment,
    closed: VecDeque<Closed>,
    buffer: Vec<u8>,
    mark: Mark,
    hard_state: HardState,
}

struct Closed {
    sequence: u64,
    /// Index of the last entry in it or before it.
    last_index: u64,
}

impl Wal {
    /// Opens the log on a disk, or begins one. A torn record at the end, from a crash in the middle of a write,
    /// is cut off: it was never acknowledged.
    ///
    /// # Errors
    /// When files cannot be read or made, or anything but the end is damaged.
    pub fn open(disk: Box<dyn Disk>) -> Result<(Self, Replay), WalError> {
        let mut replay = Replay::default();
        let mut closed = VecDeque::new();
        let mut current = None;
        let sequences = disk.segments().map_err(|source| WalError::Io {
            attempt: "listing the segments of",
            path: disk.path(0),
            source,
        })?;
        for (position, sequence) in sequences.iter().copied().enumerate() {
            let last = position + 1 == sequences.len();
            let mut opened =
                Segment::replay(disk.as_ref(), sequence, last, &mut |record| replay.take(record))?;
            if last {
                opened.last_index = replay.last_index();
                current = Some(opened);
            } else {
                closed.push_back(Closed {
                    sequence,
                    last_index: replay.last_index(),
                });
            }
        }
        replay.finish(disk.path(sequences.first().copied().unwrap_or(0)))?;
        let fresh = current.is_none();
        let current = match current {
            Some(segment) => segment,
            None => Segment::create(disk.as_ref(), 1)?,
        };
        let mut wal = Self {
            disk,
            current,
            closed,
            buffer: Vec::new(),
            mark: replay.mark,
            hard_state: replay.hard_state.clone(),
        };
        if fresh || wal.current.is_empty() {
            wal.begin_segment();
            wal.sync()?;
        }
        Ok((wal, replay))
    }

    /// Buffers an entry. Entries of the same or a higher index before it are void from then on.
    ///
    /// # Errors
    /// When the log had to begin a new segment and could not.
    pub fn append(&mut self, entry: &Entry) -> Result<(), WalError> {
        self.reserve(record::entry_bytes(entry))?;
        record::encode_entry(&mut self.buffer, self.current.sequence, entry);
        self.current.last_index = entry.index;
        Ok(())
    }

    /// Buffers the hard state, if it changed. A commit index alone is left out while there is no room: it promises nothing
    /// to anybody, and is learnt again.
    ///
    /// # Errors
    /// When the log had to begin a new segment and could not.
    pub fn set_hard_state(&mut self, state: &HardState) -> Result<(), WalError> {
        if *state == self.hard_state {
            return Ok(());
        }
        let promises = (state.term, state.vote) != (self.hard_state.term, self.hard_state.vote);
        if !promises && self.room() == Room::None {
            return Ok(());
        }
        self.reserve(record::HARD_STATE_BYTES)?;
        self.hard_state = state.clone();
        record::encode_hard_state(&mut self.buffer, self.current.sequence, state);
        Ok(())
    }

    /// Writes what is buffered and waits until it is on disk.
    ///
    /// # Errors
    /// When it could not be written; what was buffered may or may not be on disk then.
    pub fn sync(&mut self) -> Result<(), WalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        self.current.write(&self.buffer)?;
        self.buffer.clear();
        // A burst must not keep its memory.
        self.buffer.shrink_to(1 << 20);
        Ok(())
    }

    /// The log begins after `mark` from now on; segments that are wholly before it are deleted.
    ///
    /// # Errors
    /// When the mark could not be written.
    pub fn release(&mut self, mark: Mark) -> Result<(), WalError> {
        if mark.index <= self.mark.index {
            return Ok(());
        }
        let deletes = self
            .closed
            .front()
            .is_some_and(|closed| closed.last_index <= mark.index);
        if !deletes && self.room() == Room::None {
            // The next release tells it, too.
            return Ok(());
        }
        self.set_mark(mark)?;
        if !deletes {
            // The mark may wait for the next sync.
            return Ok(());
        }
        self.sync()?;
        self.delete_before(mark.index)
    }

    /// Forgets all entries: the applied state has been replaced by one that is at `mark`.
    ///
    /// # Errors
    /// When the mark could not be written.
    pub fn reset(&mut self, mark: Mark) -> Result<(), WalError> {
        self.reserve(record::MARK_BYTES)?;
        self.mark = mark;
        record::encode_reset(&mut self.buffer, self.current.sequence, mark);
        self.current.last_index = mark.index;
        self.sync()?;
        self.delete_before(mark.index)
    }

    /// How much the log can still take.
    #[must_use]
    pub fn room(&self) -> Room {
        let all = self.disk.segment_bytes();
        let left = self.left();
        // The spare is made in the background; only a writer who is faster than that waits for it here.
        if left > all / 2 || self.disk.has_spare() {
            Room::Plenty
        } else if left > all / RESERVE_PART {
            Room::Reserve
        } else {
            Room::None
        }
    }

    /// Size of a segment.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.disk.segment_bytes()
    }

    /// Whether so many bytes of entries can be appended without asking the disk for more than it has put by, and
    /// leave what Raft itself needs.
    #[must_use]
    pub fn fits(&self, bytes: u64) -> bool {
        let all = self.disk.segment_bytes();
        let want = bytes + all / RESERVE_PART;
        want <= self.left() || (want <= all && self.disk.has_spare())
    }

    /// Whether the next segment has been put by.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        self.disk.has_spare()
    }

    /// Whether a hard state and what follows from it can be written behind `unwritten` bytes of entries without asking the
    /// disk for more than it has put by.
    #[must_use]
    pub fn can_promise(&self, unwritten: u64) -> bool {
        unwritten + PROMISE_BYTES <= self.left() || self.disk.has_spare()
    }

    /// Bytes that the current segment can still take.
    fn left(&self) -> u64 {
        let written = self.current.bytes + self.buffer.len() as u64;
        self.disk.segment_bytes().saturating_sub(written)
    }

    fn set_mark(&mut self, mark: Mark) -> Result<(), WalError> {
        self.reserve(record::MARK_BYTES)?;
        self.mark = mark;
        record::encode_mark(&mut self.buffer, self.current.sequence, mark);
        Ok(())
    }

    fn delete_before(&mut self, index: u64) -> Result<(), WalError> {
        while let Some(closed) = self.closed.front() {
            if closed.last_index > index {
                break;
            }
            self.disk.remove(closed.sequence).map_err(|source| WalError::Io {
                attempt: "deleting the segment",
                path: self.disk.path(closed.sequence),
                source,
            })?;
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Begins a new segment if the current one cannot take `bytes` more, and notes at the start of every write
    /// that the one before it is on disk.
    fn reserve(&mut self, bytes: usize) -> Result<(), WalError> {
        let want = self.buffer.len() + bytes + record::SYNCED_BYTES;
        if self.current.bytes + want as u64 > self.disk.segment_bytes() {
            self.sync()?;
            let next = Segment::create(self.disk.as_ref(), self.current.sequence + 1)?;
            let old = std::mem::replace(&mut self.current, next);
            self.current.last_index = old.last_index;
            self.closed.push_back(Closed {
                sequence: old.sequence,
                last_index: old.last_index,
            });
            self.begin_segment();
        }
        if self.buffer.is_empty() {
            record::encode_synced(&mut self.buffer, self.current.sequence, self.current.bytes);
        }
        Ok(())
    }

    /// Every segment opens with the state so far, so that the ones before it can be deleted.
    fn begin_segment(&mut self) {
        record::encode_mark(&mut self.buffer, self.current.sequence, self.mark);
        record::encode_hard_state(&mut self.buffer, self.current.sequence, &self.hard_state);
    }
}

impl Replay {
    fn take(&mut self, record: Record) {
        match record {
            Record::HardState(state) => self.hard_state = state,
            Record::Synced(_) => {}
            Record::Reset(mark) => {
                self.mark = mark;
                self.entries.clear();
            }
            Record::Mark(mark) => {
                if mark.index >= self.mark.index {
                    self.mark = mark;
                    while self
                        .entries
                        .front()
                        .is_some_and(|entry| entry.index <= mark.index)
                    {
                        self.entries.pop_front();
                    }
                }
            }
            Record::Entry(entry) => {
                while self.entries.back().is_some_and(|last| last.index >= entry.index) {
                    self.entries.pop_back();
                }
                // After a gap there must come a mark that explains it; `finish` checks.
                if self.last_entry() + 1 != entry.index {
                    self.entries.clear();
                }
                if entry.index > self.mark.index {
                    self.entries.push_back(entry);
                }
            }
        }
    }

    fn last_entry(&self) -> u64 {
        self.entries.back().map_or(self.mark.index, |entry| entry.index)
    }

    /// Index of the last entry, or of the mark if there is none.
    #[must_use]
    pub fn last_index(&self) -> u64 {
        self.last_entry()
    }

    /// Whether the log has never been used.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mark.index == 0 && self.entries.is_empty() && self.hard_state == HardState::default()
    }

    /// The term of an entry, or of the mark.
    #[must_use]
    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.mark.index {
            return Some(self.mark.term);
        }
        let place = index.checked_sub(self.mark.index + 1)?;
        self.entries.get(place as usize).map(|entry| entry.term)
    }

    fn finish(&mut self, path: PathBuf) -> Result<(), WalError> {
        match self.entries.front() {
            Some(first) if first.index != self.mark.index + 1 => Err(WalError::Damaged {
                path,
                offset: 0,
                reason: format!(
                    "the log begins after entry {} but its first entry is {}",
                    self.mark.index, first.index
                ),
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
