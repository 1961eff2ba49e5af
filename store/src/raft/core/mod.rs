//! One member's consensus, as the steps of a loop: [`Core::take`] takes in what comes, [`Core::tick`] tells that time
//! has passed, [`Core::process`] does what follows.
//!
//! - [`process`]: messages, the log on disk, the applied state, and answers
//! - [`members`]: changes of the group
//! - [`room`]: what the log has room for, and what it may forget

mod members;
mod process;
mod room;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keelson_proto::store::StoredMember;
use raft::eraftpb::{Message, MessageType};
use raft::{RawNode, SnapshotStatus, StateRole};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use room::{ENTRY_OVERHEAD, entry_bytes};

use super::handle::{Answer, Command, Leadership};
use super::log::LogTail;
use super::reads::Reads;
use crate::error::StoreError;
use crate::persist::Persister;
use crate::state::State;
use crate::wal::{Room, Wal, WalError};

/// Requests that may wait for agreement before more are refused.
const MAX_WAITING: usize = 20_000;
/// Readers who are not confirmed after this give up.
const READ_PATIENCE: Duration = Duration::from_secs(7);
/// How often requests that nobody waits for any more are forgotten.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

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
    /// When each other member was last heard of.
    heard: HashMap<u64, Instant>,
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
            heard: HashMap::new(),
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
            && self.can_promise()
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
        // Nothing but an election comes of time that passes for one who does not lead.
        if self.node.raft.state == StateRole::Leader || self.can_promise() {
            self.node.tick();
        }
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
                let now = self.state.now();
                for message in messages {
                    self.heard.insert(message.from, now);
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

    fn step(&mut self, mut message: Message) {
        if self.is_too_much(&message) {
            return;
        }
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
}

fn refuse(answer: Answer, error: &raft::Error) {
    let error = match error {
        raft::Error::ProposalDropped => StoreError::LeaderChanged,
        _ => StoreError::NoLeader,
    };
    // The client may have gone.
    let _ = answer.send(Err(error));
}
