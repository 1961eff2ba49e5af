//! What follows from everything that was taken in: messages, the log on disk, the applied state, and answers.
//!
//! The order inside [`Core::process`] is Raft's: a leader's messages may leave at once; entries and votes must
//! be on disk before messages that promise them leave; only then is the library told that they are.

use std::time::Duration;

use keelson_proto::store::Proposal;
use prost::Message as _;
use raft::StateRole;
use raft::eraftpb::{Entry, EntryType, Snapshot};

use super::{Core, CoreError};
use crate::error::StoreError;
use crate::persist::STORE_BYTES;
use crate::state::{Applied, Outcome};
use crate::wal::Mark;

/// Entries applied under one lock.
const APPLY_BATCH: usize = 256;
/// How long a question to the leader may take before it is asked again.
const READ_RETRY: Duration = Duration::from_millis(500);
/// Size of the changes in memory from which on every round of the loop is slowed down.
const SLOW_BYTES: usize = 32 << 20;
/// By how much, for every so many bytes: a round may take in thousands of changes.
const SLOW_DOWN: Duration = Duration::from_millis(10);
/// The most; the other members must hear of a leader in time.
const SLOWEST: Duration = Duration::from_millis(200);

impl Core {
    /// Does everything there is to do.
    ///
    /// # Errors
    /// When this member cannot go on.
    pub fn process(&mut self) -> Result<(), CoreError> {
        self.ask_for_reads();
        while self.node.has_ready() {
            let mut ready = self.node.ready();
            if !ready.messages().is_empty() {
                self.outbox.send(ready.take_messages());
            }
            if !ready.snapshot().is_empty() {
                let snapshot = ready.snapshot().clone();
                self.install(&snapshot)?;
            }
            self.apply(ready.take_committed_entries())?;
            for read in ready.take_read_states() {
                self.reads.answered(&read.request_ctx, read.index);
            }
            if let Some(hard_state) = ready.hs() {
                self.node.mut_store().set_hard_state(hard_state.clone());
            }
            for entry in ready.entries() {
                self.wal.append(entry)?;
            }
            self.node.mut_store().append(ready.entries());
            self.wal.set_hard_state(self.node.store().hard_state())?;
            if ready.must_sync() {
                self.wal.sync()?;
            }
            if !ready.persisted_messages().is_empty() {
                self.outbox.send(ready.take_persisted_messages());
            }
            let role = ready.ss().map(|soft| soft.raft_state);
            let mut light = self.node.advance_append(ready);
            if let Some(commit) = light.commit_index() {
                self.node.mut_store().set_commit(commit);
            }
            if !light.messages().is_empty() {
                self.outbox.send(light.take_messages());
            }
            self.apply(light.take_committed_entries())?;
            self.node.advance_apply();
            if let Some(role) = role {
                self.role_changed(role);
            }
            self.publish_leadership();
            self.reads.applied(self.state.applied_index());
        }
        self.unwritten = 0;
        // What the library did not want is out of date.
        for unwanted in std::mem::take(&mut self.incoming).into_values() {
            self.state.engine().discard(&unwanted);
        }
        self.mind_memory();
        Ok(())
    }

    fn ask_for_reads(&mut self) {
        if self.node.raft.leader_id == raft::INVALID_ID {
            return;
        }
        let now = self.state.now();
        if let Some(context) = self.reads.next_question(self.member, READ_RETRY, now) {
            self.node.read_index(context);
        }
    }

    /// Writers who are faster than the engine are slowed down before they fill the memory.
    fn mind_memory(&self) {
        let bytes = self.state.unstored_bytes();
        if bytes >= STORE_BYTES {
            self.persister.nudge();
        }
        if let Some(time) = slow_down(bytes) {
            std::thread::sleep(time);
        }
    }

    fn role_changed(&mut self, role: StateRole) {
        if role == StateRole::Leader {
            tracing::info!(term = self.node.raft.term, "leading");
            let leases: Vec<(i64, i64)> = self.state.read(|inner| {
                inner
                    .mvcc
                    .leases
                    .all()
                    .map(|(id, lease)| (id, lease.ttl))
                    .collect()
            });
            self.state
                .clock
                .lead(self.node.raft.term, leases.into_iter(), self.election_timeout);
        } else {
            self.state.clock.follow();
        }
    }

    fn publish_leadership(&mut self) {
        let raft = &self.node.raft;
        // A new leader's state is the truth once it holds an entry of its own term, for then it holds all
        // that were acknowledged before.
        let alone = raft.state == StateRole::Leader
            && self.state.read(|inner| {
                inner.shared.membership.is_sole_voter(self.member) && inner.shared.applied.term == raft.term
            });
        self.leadership.set(raft.term, raft.leader_id, alone);
        self.leadership.set_committed(raft.raft_log.committed);
    }

    fn apply(&mut self, entries: Vec<Entry>) -> Result<(), CoreError> {
        let mut rest = entries.as_slice();
        while let Some(first) = rest.first() {
            if first.entry_type != EntryType::EntryNormal {
                self.apply_conf_change(first)?;
                rest = &rest[1..];
                continue;
            }
            let run = rest
                .iter()
                .take(APPLY_BATCH)
                .take_while(|entry| entry.entry_type == EntryType::EntryNormal)
                .count();
            let (normal, others) = rest.split_at(run);
            self.apply_normal(normal)?;
            rest = others;
        }
        Ok(())
    }

    fn apply_normal(&mut self, entries: &[Entry]) -> Result<(), CoreError> {
        let state = self.state.clone();
        let waiting = &mut self.waiting;
        let mut answers = Vec::with_capacity(entries.len());
        let mut members_changed = false;
        state.apply(|inner| {
            for entry in entries {
                if !entry.data.is_empty() {
                    let proposal =
                        Proposal::decode(entry.data.clone()).map_err(|error| CoreError::Decode {
                            index: entry.index,
                            reason: error.to_string(),
                        })?;
                    let id = proposal.id;
                    let outcome = inner.apply(proposal, entry.term, &state.clock);
                    if let Err(source @ (StoreError::Storage(_) | StoreError::Corrupt)) = outcome {
                        return Err(CoreError::Apply {
                            index: entry.index,
                            source,
                        });
                    }
                    members_changed |= matches!(outcome, Ok(Outcome::Members(_)));
                    if let Some(waiting) = waiting.remove(&id) {
                        answers.push((waiting.answer, outcome));
                    }
                }
                inner.shared.applied = Applied {
                    index: entry.index,
                    term: entry.term,
                };
            }
            Ok(())
        })?;
        for (answer, outcome) in answers {
            // The client may have gone.
            let _ = answer.send(outcome);
        }
        if members_changed {
            self.tell_members();
        }
        Ok(())
    }

    /// Puts a received state in place of this member's.
    fn install(&mut self, snapshot: &Snapshot) -> Result<(), CoreError> {
        let metadata = snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        let path = self.incoming.remove(&index).ok_or(CoreError::Install {
            index,
            source: StoreError::Corrupt,
        })?;
        self.state
            .replace(&path)
            .map_err(|source| CoreError::Install { index, source })?;
        let mark = Mark { index, term };
        self.node
            .mut_store()
            .reset(mark, metadata.get_conf_state().clone());
        self.wal.reset(mark)?;
        tracing::info!(index, term, "installed a snapshot");
        self.tell_members();
        Ok(())
    }
}

/// How long a round waits when so many bytes of changes are only in memory.
fn slow_down(bytes: usize) -> Option<Duration> {
    let times = u32::try_from(bytes / SLOW_BYTES).unwrap_or(u32::MAX);
    (times > 0).then(|| SLOW_DOWN.saturating_mul(times).min(SLOWEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same little time, whatever waited, once let writers outrun the engine by gigabytes.
    #[test]
    fn writers_are_slowed_down_the_more_the_more_waits() {
        assert_eq!(slow_down(SLOW_BYTES - 1), None);
        assert_eq!(slow_down(SLOW_BYTES), Some(SLOW_DOWN));
        assert_eq!(slow_down(5 * SLOW_BYTES), Some(SLOW_DOWN * 5));
        assert_eq!(slow_down(usize::MAX), Some(SLOWEST));
    }
}
