//! The write-ahead log: Raft's entries and hard state, in segments of a fixed size.
//!
//! - [`record`]: how a record looks on disk, and its checksum
//! - [`segment`]: one file; preallocated, so that a full disk cannot stop a write half way
//! - [`Wal`]: appending (buffered), syncing (one `fdatasync` for all that was buffered), replay, release
//!
//! Order: [`Wal::append`] and [`Wal::set_hard_state`] only fill a buffer; nothing they were given may be
//! acknowledged, and no message that depends on it sent, before [`Wal::sync`] has returned.

pub mod record;
pub mod segment;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use record::Record;
use segment::{Segment, SpareSlot};

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
    #[error("the write-ahead log is damaged at {path}, offset {offset}: {reason}")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        reason: String,
    },
}

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

/// An open log. One thread appends.
pub struct Wal {
    folder: PathBuf,
    current: Segment,
    closed: VecDeque<Closed>,
    spare: Arc<SpareSlot>,
    buffer: Vec<u8>,
    mark: Mark,
    hard_state: HardState,
}

struct Closed {
    path: PathBuf,
    /// Index of the last entry in it or before it.
    last_index: u64,
}

impl Wal {
    /// Opens the folder, or makes it. A torn record at the end, from a crash in the middle of a write, is cut
    /// off: it was never acknowledged.
    ///
    /// # Errors
    /// When files cannot be read or made, or anything but the end is damaged.
    pub fn open(folder: &Path) -> Result<(Self, Replay), WalError> {
        std::fs::create_dir_all(folder).map_err(|source| WalError::Io {
            attempt: "making the folder",
            path: folder.to_owned(),
            source,
        })?;
        let spare = Arc::new(SpareSlot::new(folder));
        let mut replay = Replay::default();
        let mut closed = VecDeque::new();
        let mut current = None;
        let paths = segment::list(folder)?;
        for (position, (sequence, path)) in paths.iter().enumerate() {
            let last = position + 1 == paths.len();
            let mut opened = Segment::replay(path, *sequence, last, &mut |record| replay.take(record))?;
            if last {
                opened.last_index = replay.last_index();
                current = Some(opened);
            } else {
                closed.push_back(Closed {
                    path: path.clone(),
                    last_index: replay.last_index(),
                });
            }
        }
        replay.finish(folder)?;
        let fresh = current.is_none();
        let current = match current {
            Some(segment) => segment,
            None => Segment::create(folder, 1, &spare)?,
        };
        let mut wal = Self {
            folder: folder.to_owned(),
            current,
            closed,
            spare,
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

    /// The slot for the next segment, to be refilled outside the thread that appends.
    #[must_use]
    pub fn spare(&self) -> Arc<SpareSlot> {
        self.spare.clone()
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

    /// Buffers the hard state, if it changed.
    ///
    /// # Errors
    /// When the log had to begin a new segment and could not.
    pub fn set_hard_state(&mut self, state: &HardState) -> Result<(), WalError> {
        if *state == self.hard_state {
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
        self.set_mark(mark)?;
        if self
            .closed
            .front()
            .is_none_or(|closed| closed.last_index > mark.index)
        {
            // Nothing to delete: the mark may wait for the next sync.
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
        self.set_mark(mark)?;
        self.current.last_index = mark.index;
        self.sync()?;
        self.delete_before(mark.index)
    }

    /// How much the log can still take.
    #[must_use]
    pub fn room(&self) -> Room {
        let left = segment::SEGMENT_BYTES.saturating_sub(self.current.bytes + self.buffer.len() as u64);
        // The spare is made in the background; only a writer who is faster than that waits for it here.
        if left > segment::SEGMENT_BYTES / 2 || self.spare.ensure() {
            Room::Plenty
        } else if left > segment::RESERVE_BYTES {
            Room::Reserve
        } else {
            Room::None
        }
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
            std::fs::remove_file(&closed.path).map_err(|source| WalError::Io {
                attempt: "deleting the segment",
                path: closed.path.clone(),
                source,
            })?;
            self.closed.pop_front();
        }
        Ok(())
    }

    /// Begins a new segment if the current one cannot take `bytes` more.
    fn reserve(&mut self, bytes: usize) -> Result<(), WalError> {
        if self.current.bytes + (self.buffer.len() + bytes) as u64 <= segment::SEGMENT_BYTES {
            return Ok(());
        }
        self.sync()?;
        let next = Segment::create(&self.folder, self.current.sequence + 1, &self.spare)?;
        let mut old = std::mem::replace(&mut self.current, next);
        self.current.last_index = old.last_index;
        self.closed.push_back(Closed {
            path: std::mem::take(&mut old.path),
            last_index: old.last_index,
        });
        self.begin_segment();
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

    fn finish(&mut self, folder: &Path) -> Result<(), WalError> {
        match self.entries.front() {
            Some(first) if first.index != self.mark.index + 1 => Err(WalError::Damaged {
                path: folder.to_owned(),
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
