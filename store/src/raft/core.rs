//! What to do with everything that comes in, as one step of a loop.
//!
//! The order inside [`Core::process`] is Raft's: a leader's messages may leave at once; entries and votes must
//! be on disk before messages that promise them leave; only then is the library told that they are.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_proto::store::{MembershipChange, Proposal, StoredMember};
use prost::Message as _;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeType, ConfChangeV2, Entry, EntryType, Message, MessageType, Snapshot,
};
use raft::{RawNode, SnapshotStatus, StateRole};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::handle::{Answer, Command, Leadership, Membership, encode_change};
use super::log::LogTail;
use super::reads::Reads;
use crate::error::StoreError;
use crate::persist::{Persister, STORE_BYTES};
use crate::state::{Applied, Outcome, State};
use crate::wal::{Mark, Room, Wal, WalError};

/// Entries applied under one lock.
const APPLY_BATCH: usize = 256;
/// Requests that may wait for agreement before more are refused.
const MAX_WAITING: usize = 20_000;
/// Bytes of entries kept for members that are behind.
const KEEP_BYTES: usize = 16 << 20;
/// Readers who are not confirmed after this give up.
const READ_PATIENCE: Duration = Duration::from_secs(7);
/// How long a question to the leader may take before it is asked again.
const READ_RETRY: Duration = Duration::from_millis(500);
/// How often requests that nobody waits for any more are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Size of the changes in memory from which on every round of the loop is slowed down.
const SLOW_BYTES: usize = 32 << 20;
/// By how much.
const SLOW_DOWN: Duration = Duration::from_millis(10);

/// Entries that were taken in and should go to the log before more are.
const LOADED_BYTES: u64 = 2 << 20;
/// What the log adds to an entry's bytes, and more.
const ENTRY_OVERHEAD: u64 = 128;

/// Why the loop ends.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The write-ahead log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The applied state failed.
    #[error("applying entry {index}: {source}")]
    Apply {
        /// The entry.
        index: u64,
        /// Why.
        source: StoreError,
    },
    /// The applied state could not be replaced by a snapshot.
    #[error("installing the snapshot at entry {index}: {source}")]
    Install {
        /// The snapshot's last entry.
        index: u64,
        /// Why.
        source: StoreError,
    },
    /// The library found the log or a message inconsistent.
    #[error("raft: {0}")]
    Raft(#[from] raft::Error),
    /// An entry does not decode.
    #[error("entry {index} of the log does not decode: {reason}")]
    Decode {
        /// The entry.
        index: u64,
        /// Why.
        reason: String,
    },
    /// The group has removed this member.
    #[error("this member has been removed from the cluster")]
    Removed,
}

/// Where messages for other members go. It must not wait.
pub trait Outbox: Send {
    /// Sends messages, or loses them: Raft repeats what matters.
    fn send(&self, messages: Vec<Message>);
    /// The members changed.
    fn members(&self, members: Vec<StoredMember>);
}

/// A client that waits for its proposal.
struct Waiting {
    answer: Answer,
    /// Raft's term when it was proposed.
    term: u64,
}

/// What a member's consensus works with.
pub struct Parts {
    /// Who it is.
    pub member: u64,
    /// Its log on disk.
    pub wal: Wal,
    /// What it applies to.
    pub state: Arc<State>,
    /// The other members.
    pub outbox: Box<dyn Outbox>,
    /// What it tells the process of the leadership.
    pub leadership: Arc<Leadership>,
    /// Silence of the leader before an election.
    pub election_timeout: Duration,
    /// Who brings the state to the engine.
    pub persister: Persister,
    /// Where chance begins.
    pub seed: u64,
    /// Entries kept for members that are behind.
    pub keep_entries: u64,
    /// Refuse changes of the group that would leave it without a working majority.
    pub strict_reconfig: bool,
}

/// One member's consensus.
pub struct Core {
    member: u64,
    node: RawNode<LogTail>,
    wal: Wal,
    state: Arc<State>,
    outbox: Box<dyn Outbox>,
    leadership: Arc<Leadership>,
    waiting: HashMap<u64, Waiting>,
    /// Bytes of entries that were taken in and are not in the log yet.
    unwritten: u64,
    /// Proposals made while nobody led.
    parked: Vec<Command>,
    reads: Reads,
    /// Received states by the entry they are at.
    incoming: BTreeMap<u64, PathBuf>,
    election_timeout: Duration,
    swept: Instant,
    persister: Persister,
    random: StdRng,
    keep_entries: u64,
    strict_reconfig: bool,
}

impl Core {
    /// A member at the start of its loop.
    #[must_use]
    pub fn new(node: RawNode<LogTail>, parts: Parts) -> Self {
        let Parts {
            member,
            wal,
            state,
            outbox,
            leadership,
            election_timeout,
            persister,
            seed,
            keep_entries,
            strict_reconfig,
        } = parts;
        let swept = state.now();
        Self {
            member,
            node,
            wal,
            state,
            outbox,
            leadership,
            waiting: HashMap::new(),
            unwritten: 0,
            parked: Vec::new(),
            reads: Reads::default(),
            incoming: BTreeMap::new(),
            election_timeout,
            swept,
            persister,
            random: StdRng::seed_from_u64(seed),
            keep_entries,
            strict_reconfig,
        }
    }

    /// Begins: a member that decides alone does not wait for an election.
    ///
    /// # Errors
    /// When the log or the state fails.
    pub fn start(&mut self) -> Result<(), CoreError> {
        let members = self
            .state
            .read(|inner| inner.shared.membership.members.values().cloned().collect());
        self.outbox.members(members);
        if self
            .state
            .read(|inner| inner.shared.membership.is_sole_voter(self.member))
        {
            self.node.campaign()?;
        }
        self.process()
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        if self.node.raft.election_elapsed == 0 {
            self.draw_election_timeout();
        }
        self.node.tick();
        let now = self.state.now();
        if now.duration_since(self.swept) > SWEEP_EVERY {
            self.swept = now;
            self.waiting.retain(|_, waiting| !waiting.answer.is_closed());
            self.reads.expire(READ_PATIENCE, now);
        }
        self.give_up_on_the_lost();
        if !self.parked.is_empty() && self.node.raft.leader_id != raft::INVALID_ID {
            for command in std::mem::take(&mut self.parked) {
                self.take(command);
            }
        }
    }

    /// The library draws its own at every reset; drawn here, a run with the same seed is the same run.
    fn draw_election_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let least = raft.election_timeout();
        raft.set_randomized_election_timeout(self.random.random_range(least..2 * least));
    }

    /// Proposals of an earlier term that are not applied when an entry of the present one is: the leader they
    /// were sent to has lost them, as good as certainly. Their clients should not wait for nothing.
    fn give_up_on_the_lost(&mut self) {
        if self.waiting.is_empty() {
            return;
        }
        let applied_term = self.state.read(|inner| inner.shared.applied.term);
        for (_, lost) in self.waiting.extract_if(|_, waiting| waiting.term < applied_term) {
            // The client may have gone.
            let _ = lost.answer.send(Err(StoreError::LeaderChanged));
        }
    }

    /// Takes a command in.
    pub fn take(&mut self, command: Command) {
        match command {
            Command::Propose {
                id,
                data,
                frees_space,
                answer,
            } => self.propose(id, data, frees_space, answer),
            Command::ChangeMembership { id, change, answer } => self.change_membership(id, change, answer),
            Command::Step(messages) => {
                for message in messages {
                    self.step(message);
                }
            }
            Command::Snapshot(message, path) => {
                let index = message.get_snapshot().get_metadata().index;
                if let Some(old) = self.incoming.insert(index, path) {
                    self.state.engine().discard(&old);
                }
                self.step(message);
            }
            Command::ReadIndex(waiter) => self.reads.ask(waiter, self.state.now()),
            Command::Unreachable(member) => self.node.report_unreachable(member),
            Command::SnapshotSent { to, arrived } => {
                let status = if arrived {
                    SnapshotStatus::Finish
                } else {
                    SnapshotStatus::Failure
                };
                self.node.report_snapshot(to, status);
            }
            Command::Stored(applied) => self.release(applied),
            Command::Transfer(to) => self.node.transfer_leader(to),
            Command::Stop => {}
        }
    }

    fn propose(&mut self, id: u64, data: Vec<u8>, frees_space: bool, answer: Answer) {
        let enough = match self.wal.room() {
            Room::Plenty => !self.leadership.disk_full() || frees_space,
            Room::Reserve => frees_space,
            Room::None => false,
        };
        let bytes = data.len() as u64 + ENTRY_OVERHEAD;
        if !enough || !self.has_room_for(self.unwritten, bytes) {
            let _ = answer.send(Err(StoreError::NoSpace));
            return;
        }
        if self.waiting.len() + self.parked.len() >= MAX_WAITING {
            let _ = answer.send(Err(StoreError::TooManyRequests));
            return;
        }
        if self.node.raft.leader_id == raft::INVALID_ID {
            self.parked.push(Command::Propose {
                id,
                data,
                frees_space,
                answer,
            });
            return;
        }
        match self.node.propose(Vec::new(), data) {
            Ok(()) => {
                self.unwritten += bytes;
                let term = self.node.raft.term;
                self.waiting.insert(id, Waiting { answer, term });
            }
            Err(error) => refuse(answer, &error),
        }
    }

    fn change_membership(&mut self, id: u64, change: Membership, answer: Answer) {
        if let Err(error) = self.check_change(&change) {
            let _ = answer.send(Err(error));
            return;
        }
        let mut conf_change = ConfChange::default();
        let member = match change {
            Membership::Add(member) => {
                conf_change.set_change_type(if member.learner {
                    ConfChangeType::AddLearnerNode
                } else {
                    ConfChangeType::AddNode
                });
                member
            }
            Membership::Promote(member) => {
                conf_change.set_change_type(ConfChangeType::AddNode);
                StoredMember {
                    id: member,
                    ..StoredMember::default()
                }
            }
            Membership::Remove(member) => {
                conf_change.set_change_type(ConfChangeType::RemoveNode);
                StoredMember {
                    id: member,
                    ..StoredMember::default()
                }
            }
        };
        conf_change.node_id = member.id;
        conf_change.context = Bytes::from(encode_change(id, member));
        match self.node.propose_conf_change(Vec::new(), conf_change) {
            Ok(()) => {
                let term = self.node.raft.term;
                self.waiting.insert(id, Waiting { answer, term });
            }
            Err(error) => refuse(answer, &error),
        }
    }

    fn check_change(&self, change: &Membership) -> Result<(), StoreError> {
        self.state.read(|inner| {
            let membership = &inner.shared.membership;
            match change {
                Membership::Add(member) => {
                    membership.check_add(member)?;
                    if member.learner {
                        return Ok(());
                    }
                }
                Membership::Promote(id) => match membership.members.get(id) {
                    None => return Err(StoreError::MemberNotFound),
                    Some(member) if !member.learner => return Err(StoreError::NotLearner),
                    Some(_) if !self.is_in_sync(*id) => return Err(StoreError::LearnerNotReady),
                    Some(_) => {}
                },
                Membership::Remove(id) => {
                    let Some(member) = membership.members.get(id) else {
                        return Err(StoreError::MemberNotFound);
                    };
                    if membership.is_sole_voter(*id) {
                        return Err(StoreError::NotEnoughStarted);
                    }
                    // Whoever does not answer is no loss to the majority.
                    if member.learner || !self.is_active(*id) {
                        return Ok(());
                    }
                }
            }
            if !self.strict_reconfig {
                return Ok(());
            }
            membership.check_started(change)?;
            self.check_active(membership, change)
        })
    }

    /// Whether a member answered within the last election timeout. Only the leader knows; others believe so.
    fn is_active(&self, member: u64) -> bool {
        let raft = &self.node.raft;
        raft.state != StateRole::Leader
            || member == self.member
            || raft
                .prs()
                .get(member)
                .is_some_and(|progress| progress.recent_active)
    }

    /// After the change, those who answer now must still be a majority.
    fn check_active(
        &self,
        membership: &crate::cluster::Membership,
        change: &Membership,
    ) -> Result<(), StoreError> {
        let voters = membership.members.values().filter(|member| !member.learner);
        let (mut all, mut active) = (0, 0);
        for voter in voters.filter(|voter| !matches!(change, Membership::Remove(id) if *id == voter.id)) {
            all += 1;
            active += usize::from(self.is_active(voter.id));
        }
        if let Membership::Promote(id) = change {
            all += 1;
            active += usize::from(self.is_active(*id));
        } else if matches!(change, Membership::Add(_)) {
            all += 1;
            // The second member of a group is not there yet when it is added.
            active += usize::from(all == 2);
        }
        if active < all / 2 + 1 {
            return Err(StoreError::Unhealthy);
        }
        Ok(())
    }

    /// Whether a learner, as its leader sees it, has nine tenths of the log.
    fn is_in_sync(&self, member: u64) -> bool {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            // Only the leader knows; it checks again when the change is forwarded to it.
            return true;
        }
        let committed = raft.raft_log.committed;
        raft.prs()
            .get(member)
            .is_some_and(|progress| progress.matched * 10 >= committed * 9)
    }

    /// Whether enough was taken in to be processed before more is.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.unwritten >= LOADED_BYTES
    }

    /// Whether the log has room for so many bytes more than the `before` that were taken in already. One entry that is
    /// larger than most of a segment is let through when there is as much room as there can be.
    fn has_room_for(&self, before: u64, bytes: u64) -> bool {
        self.wal.fits(before + bytes)
            || (before == 0 && bytes > self.wal.segment_bytes() / 2 && self.wal.room() == Room::Plenty)
    }

    /// Takes from a message the entries that the log has no room for: what is left is worth as much as a shorter
    /// message. `false`: nothing is left of it.
    fn fit(&self, message: &mut Message) -> bool {
        let all = message.entries.len();
        let mut before = self.unwritten;
        let fitting = message
            .entries
            .iter()
            .take_while(|entry| {
                let bytes = entry_bytes(entry);
                let fits = self.has_room_for(before, bytes);
                before += bytes;
                fits
            })
            .count();
        message.entries.truncate(fitting);
        fitting == all || (fitting > 0 && message.get_msg_type() == MessageType::MsgAppend)
    }

    /// Whether a change of the group that another member has forwarded may be made. That member could not tell who
    /// answers and who is in step: only the leader knows.
    fn allows(&self, entry: &Entry) -> bool {
        if entry.entry_type != EntryType::EntryConfChange {
            return true;
        }
        let mut conf_change = ConfChange::default();
        let context = conf_change
            .merge_from_bytes(&entry.data)
            .ok()
            .and_then(|()| MembershipChange::decode(conf_change.context.clone()).ok());
        let Some(member) = context.and_then(|context| context.member) else {
            return false;
        };
        let learns = self.state.read(|inner| {
            let known = inner.shared.membership.members.get(&member.id);
            known.is_some_and(|known| known.learner)
        });
        let change = match conf_change.get_change_type() {
            ConfChangeType::RemoveNode => Membership::Remove(member.id),
            ConfChangeType::AddNode if learns => Membership::Promote(member.id),
            _ => Membership::Add(member),
        };
        match self.check_change(&change) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "refused a change of the group that another member forwarded");
                false
            }
        }
    }

    fn step(&mut self, mut message: Message) {
        let room = self.wal.room();
        let kind = message.get_msg_type();
        if kind == MessageType::MsgPropose && self.node.raft.state == StateRole::Leader {
            let mut entries = message.take_entries().into_vec();
            entries.retain(|entry| self.allows(entry));
            if entries.is_empty() {
                return;
            }
            message.set_entries(entries.into());
        }
        let taken = match kind {
            MessageType::MsgPropose => room == Room::Plenty && self.fit(&mut message),
            MessageType::MsgAppend => room > Room::None && self.fit(&mut message),
            _ => true,
        };
        if !taken {
            return;
        }
        if matches!(kind, MessageType::MsgPropose | MessageType::MsgAppend) {
            self.unwritten += message.entries.iter().map(entry_bytes).sum::<u64>();
        }
        if let Err(error) = self.node.step(message) {
            // A removed member may go on calling for a while.
            tracing::debug!(%error, "a message was refused");
        }
    }

    /// The engine has everything up to here: the log need not keep it for this member.
    fn release(&mut self, stored: Applied) {
        let alone = self.state.read(|inner| {
            inner.shared.membership.members.len() == 1 && inner.shared.membership.is_sole_voter(self.member)
        });
        let (entries, bytes) = if alone {
            (0, 0)
        } else {
            (self.keep_entries, KEEP_BYTES)
        };
        let mark = self.node.mut_store().release(stored.index, entries, bytes);
        if let Err(error) = self.wal.release(mark) {
            // The log is longer than it need be; the next release tries again.
            tracing::warn!(%error, "releasing the log");
        }
    }

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

    /// Writers who are faster than the engine are slowed down before they fill the memory.
    fn mind_memory(&self) {
        let bytes = self.state.unstored_bytes();
        if bytes >= STORE_BYTES {
            self.persister.nudge();
        }
        if bytes >= SLOW_BYTES {
            std::thread::sleep(SLOW_DOWN);
        }
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

    fn tell_members(&self) {
        let members = self
            .state
            .read(|inner| inner.shared.membership.members.values().cloned().collect());
        self.outbox.members(members);
    }

    fn apply_conf_change(&mut self, entry: &Entry) -> Result<(), CoreError> {
        let applied = Applied {
            index: entry.index,
            term: entry.term,
        };
        let decode = |error: protobuf::ProtobufError| CoreError::Decode {
            index: entry.index,
            reason: error.to_string(),
        };
        if entry.entry_type == EntryType::EntryConfChangeV2 {
            let mut change = ConfChangeV2::default();
            change.merge_from_bytes(&entry.data).map_err(decode)?;
            let conf_state = self.node.apply_conf_change(&change)?;
            self.node.mut_store().set_conf_state(conf_state.clone());
            self.state.apply(|inner| {
                inner.shared.membership.conf_state = conf_state;
                inner.shared.applied = applied;
            });
            return Ok(());
        }
        let mut change = ConfChange::default();
        change.merge_from_bytes(&entry.data).map_err(decode)?;
        let context =
            MembershipChange::decode(change.context.clone()).map_err(|error| CoreError::Decode {
                index: entry.index,
                reason: error.to_string(),
            })?;
        let member = context.member.unwrap_or_default();
        let kind = change.get_change_type();
        let allowed = self.state.read(|inner| {
            let membership = &inner.shared.membership;
            let known = membership.members.get(&member.id);
            match kind {
                ConfChangeType::RemoveNode => known.map(|_| ()).ok_or(StoreError::MemberNotFound),
                ConfChangeType::AddNode if known.is_some_and(|known| known.learner) => Ok(()),
                _ => membership.check_add(&member),
            }
        });
        let outcome = match allowed {
            Err(error) => {
                self.state.apply(|inner| inner.shared.applied = applied);
                Err(error)
            }
            Ok(()) => {
                let conf_state = self.node.apply_conf_change(&change)?;
                self.node.mut_store().set_conf_state(conf_state.clone());
                self.state.apply(|inner| {
                    let membership = &mut inner.shared.membership;
                    membership.conf_state = conf_state;
                    match kind {
                        ConfChangeType::RemoveNode => {
                            membership.members.remove(&member.id);
                            membership.removed.insert(member.id);
                        }
                        _ => match membership.members.get_mut(&member.id) {
                            Some(known) => known.learner = false,
                            None => {
                                membership.members.insert(member.id, member.clone());
                            }
                        },
                    }
                    inner.shared.applied = applied;
                    Ok(Outcome::Members(membership.to_etcd()))
                })
            }
        };
        self.tell_members();
        if let Some(waiting) = self.waiting.remove(&context.id) {
            let _ = waiting.answer.send(outcome);
        }
        if kind == ConfChangeType::RemoveNode && member.id == self.member {
            return Err(CoreError::Removed);
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

/// What an entry takes in the log, or a little more.
fn entry_bytes(entry: &Entry) -> u64 {
    entry.data.len() as u64 + entry.context.len() as u64 + ENTRY_OVERHEAD
}

fn refuse(answer: Answer, error: &raft::Error) {
    let error = match error {
        raft::Error::ProposalDropped => StoreError::LeaderChanged,
        _ => StoreError::NoLeader,
    };
    // The client may have gone.
    let _ = answer.send(Err(error));
}
