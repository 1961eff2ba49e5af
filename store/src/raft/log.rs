//! The log's tail in memory, as the Raft library wants to read it. The same entries are in the write-ahead
//! log; they leave both when the applied state is on disk and no member is expected to ask for them.

use std::collections::VecDeque;
use std::sync::Arc;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::state::State;
use crate::wal::Mark;

/// The tail of the log.
pub struct LogTail {
    mark: Mark,
    entries: VecDeque<Entry>,
    bytes: usize,
    hard_state: HardState,
    conf_state: ConfState,
    state: Arc<State>,
}

fn entry_bytes(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 96
}

impl LogTail {
    /// The tail as it was replayed.
    #[must_use]
    pub fn new(
        mark: Mark,
        entries: VecDeque<Entry>,
        hard_state: HardState,
        conf_state: ConfState,
        state: Arc<State>,
    ) -> Self {
        Self {
            mark,
            bytes: entries.iter().map(entry_bytes).sum(),
            entries,
            hard_state,
            conf_state,
            state,
        }
    }

    /// Adds entries; those of the same or a higher index are replaced.
    pub fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            while self.entries.back().is_some_and(|last| last.index >= entry.index) {
                if let Some(void) = self.entries.pop_back() {
                    self.bytes -= entry_bytes(&void);
                }
            }
            self.bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Takes over Raft's term, vote and commit index.
    pub fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    /// Raft's term, vote and commit index.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// A later commit index.
    pub fn set_commit(&mut self, commit: u64) {
        self.hard_state.commit = commit;
    }

    /// Takes over who votes.
    pub fn set_conf_state(&mut self, state: ConfState) {
        self.conf_state = state;
    }

    /// Everything before a snapshot is gone.
    pub fn reset(&mut self, mark: Mark, conf_state: ConfState) {
        self.mark = mark;
        self.entries.clear();
        self.bytes = 0;
        self.conf_state = conf_state;
        self.hard_state.commit = self.hard_state.commit.max(mark.index);
        self.hard_state.term = self.hard_state.term.max(mark.term);
    }

    /// Forgets entries up to `index`, but leaves as many as a member that is behind may still ask for: at
    /// most `keep_entries` of them and `keep_bytes`. Returns where the log begins now.
    pub fn release(&mut self, index: u64, keep_entries: u64, keep_bytes: usize) -> Mark {
        while let Some(first) = self.entries.front() {
            let behind = index.saturating_sub(first.index);
            if first.index > index || (behind < keep_entries && self.bytes <= keep_bytes) {
                break;
            }
            self.mark = Mark {
                index: first.index,
                term: first.term,
            };
            if let Some(gone) = self.entries.pop_front() {
                self.bytes -= entry_bytes(&gone);
            }
        }
        if self.entries.capacity() > 1024 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        self.mark
    }

    fn last(&self) -> u64 {
        self.mark.index + self.entries.len() as u64
    }
}

impl Storage for LogTail {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState {
            hard_state: self.hard_state.clone(),
            conf_state: self.conf_state.clone(),
        })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.mark.index {
            return Err(StorageError::Compacted.into());
        }
        if high > self.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let start = (low - self.mark.index - 1) as usize;
        let end = (high - self.mark.index - 1) as usize;
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut found = Vec::with_capacity((end - start).min(256));
        for entry in self.entries.range(start..end) {
            size += entry_bytes(entry) as u64;
            if size > max_size && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.mark.index {
            return Ok(self.mark.term);
        }
        if index < self.mark.index {
            return Err(StorageError::Compacted.into());
        }
        self.entries
            .get((index - self.mark.index - 1) as usize)
            .map(|entry| entry.term)
            .ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.mark.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// The announcement of a snapshot. Its data is streamed from the applied state when it is sent.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let (applied, conf_state) = self
            .state
            .read(|inner| (inner.shared.applied, inner.shared.membership.conf_state.clone()));
        if applied.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = applied.index;
        metadata.term = applied.term;
        metadata.set_conf_state(conf_state);
        Ok(snapshot)
    }
}
