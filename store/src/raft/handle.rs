//! How the rest of the process talks to the thread that drives Raft.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use keelson_proto::store::{MembershipChange, Proposal, StoredMember, proposal::Operation};
use prost::Message as _;
use raft::eraftpb::Message;
use tokio::sync::oneshot;

use super::reads::Waiter;
use crate::error::StoreError;
use crate::lease::LeaseClock;
use crate::state::{Applied, Outcome};

/// How long a request may wait for agreement; etcd's time with its default timing.
pub const PROPOSAL_PATIENCE: Duration = Duration::from_secs(7);

/// Told what a proposal came to.
pub type Answer = oneshot::Sender<Result<Outcome, StoreError>>;

/// A change of the group.
#[derive(Debug, Clone)]
pub enum Membership {
    /// A new member, voting or learning.
    Add(StoredMember),
    /// A learner becomes a voter.
    Promote(u64),
    /// A member leaves.
    Remove(u64),
}

/// What the thread is asked to do.
pub enum Command {
    /// Agree on a proposal.
    Propose {
        /// Its number.
        id: u64,
        /// Its bytes.
        data: Vec<u8>,
        /// Whether it is worth the last room on a full disk.
        frees_space: bool,
        /// Who waits for it.
        answer: Answer,
    },
    /// Agree on a change of the group.
    ChangeMembership {
        /// Its number.
        id: u64,
        /// The change.
        change: Membership,
        /// Who waits for it.
        answer: Answer,
    },
    /// Messages of another member.
    Step(Vec<Message>),
    /// A snapshot of another member: its announcement, and the folder with the state.
    Snapshot(Message, std::path::PathBuf),
    /// Tell when the state is recent enough for a linearizable read.
    ReadIndex(Waiter),
    /// A member did not answer.
    Unreachable(u64),
    /// How sending a snapshot went.
    SnapshotSent {
        /// To whom.
        to: u64,
        /// Whether it arrived.
        arrived: bool,
    },
    /// The engine has everything up to here.
    Stored(Applied),
    /// Hand over the leadership.
    Transfer(u64),
    /// End.
    Stop,
}

/// What is known of the group's leadership.
#[derive(Debug, Default)]
pub struct Leadership {
    term: AtomicU64,
    leader: AtomicU64,
    committed: AtomicU64,
    /// This member leads and decides alone: its applied state is the truth.
    alone: AtomicBool,
    /// The disk is full: only what makes room is agreed on.
    disk_full: AtomicBool,
}

impl Leadership {
    /// Raft's term.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// Who leads; 0 is nobody.
    #[must_use]
    pub fn leader(&self) -> u64 {
        self.leader.load(Ordering::Relaxed)
    }

    /// Index of the last entry that is agreed on.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Whether this member leads and decides alone.
    #[must_use]
    pub fn alone(&self) -> bool {
        self.alone.load(Ordering::Acquire)
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn disk_full(&self) -> bool {
        self.disk_full.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, term: u64, leader: u64, alone: bool) {
        self.term.store(term, Ordering::Relaxed);
        self.leader.store(leader, Ordering::Relaxed);
        self.alone.store(alone, Ordering::Release);
    }

    pub(super) fn set_committed(&self, committed: u64) {
        self.committed.store(committed, Ordering::Relaxed);
    }

    /// The disk is full, or has room again.
    pub fn set_disk_full(&self, full: bool) {
        self.disk_full.store(full, Ordering::Relaxed);
    }
}

/// Proposes and asks. Clones talk to the same thread.
#[derive(Clone)]
pub struct RaftHandle {
    commands: mpsc::Sender<Command>,
    /// What is known of the leadership.
    pub leadership: Arc<Leadership>,
    /// This member.
    pub member: u64,
    next_id: Arc<AtomicU64>,
}

impl RaftHandle {
    /// A handle for the thread that reads from the other end of `commands`.
    #[must_use]
    pub fn new(commands: mpsc::Sender<Command>, leadership: Arc<Leadership>, member: u64) -> Self {
        Self::numbering_from(commands, leadership, member, rand::random())
    }

    /// The same, with the number of this start given: members and their starts must not share numbers.
    #[must_use]
    pub fn numbering_from(
        commands: mpsc::Sender<Command>,
        leadership: Arc<Leadership>,
        member: u64,
        start: u32,
    ) -> Self {
        let start = (member << 48) | (u64::from(start) << 12);
        Self {
            commands,
            leadership,
            member,
            next_id: Arc::new(AtomicU64::new(start)),
        }
    }

    /// Sends a command that nobody waits for. A thread that has ended does not need it.
    pub fn send(&self, command: Command) {
        let _ = self.commands.send(command);
    }

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Agrees on an operation and waits until this member has applied it.
    ///
    /// # Errors
    /// What it came to, or [`StoreError::Timeout`] when it is not known what it came to.
    pub async fn propose(&self, operation: Operation) -> Result<Outcome, StoreError> {
        let frees_space = match &operation {
            Operation::Put(_) | Operation::LeaseGrant(_) => false,
            Operation::Txn(txn) => !crate::mvcc::write::may_put(txn),
            _ => true,
        };
        let id = self.id();
        let data = Proposal {
            id,
            operation: Some(operation),
        }
        .encode_to_vec();
        self.ask(|answer| Command::Propose {
            id,
            data,
            frees_space,
            answer,
        })
        .await
    }

    /// Proposes an operation whose outcome nobody waits for.
    pub fn propose_unattended(&self, operation: Operation) {
        let id = self.id();
        let data = Proposal {
            id,
            operation: Some(operation),
        }
        .encode_to_vec();
        let (answer, _) = oneshot::channel();
        self.send(Command::Propose {
            id,
            data,
            frees_space: true,
            answer,
        });
    }

    /// Agrees on a change of the group and waits until this member has applied it.
    ///
    /// # Errors
    /// As for [`Self::propose`].
    pub async fn change_membership(&self, change: Membership) -> Result<Outcome, StoreError> {
        let id = self.id();
        self.ask(|answer| Command::ChangeMembership { id, change, answer })
            .await
    }

    async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Result<Outcome, StoreError> {
        let (answer, outcome) = oneshot::channel();
        self.commands
            .send(command(answer))
            .map_err(|_| StoreError::Stopped)?;
        match tokio::time::timeout(PROPOSAL_PATIENCE, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(StoreError::Stopped),
            Err(_) => Err(StoreError::Timeout),
        }
    }

    /// Waits until the applied state holds everything that was acknowledged anywhere before the call.
    ///
    /// # Errors
    /// When the group has no leader for too long.
    pub async fn linearize(&self) -> Result<(), StoreError> {
        if self.leadership.alone() {
            return Ok(());
        }
        let (waiter, ready) = oneshot::channel();
        self.commands
            .send(Command::ReadIndex(waiter))
            .map_err(|_| StoreError::Stopped)?;
        ready.await.unwrap_or(Err(StoreError::Stopped))
    }
}

impl RaftHandle {
    /// Gives a lease its full time again, as the leader, and returns that time in seconds. `None`: it has run out or
    /// never was.
    ///
    /// # Errors
    /// When the others do not confirm that this member led all the while.
    pub async fn renew(&self, clock: &LeaseClock, id: i64) -> Result<Option<i64>, StoreError> {
        let term = clock.term();
        let renewed = clock.renew(id);
        self.linearize().await?;
        if term == 0 || clock.term() != term {
            return Err(StoreError::NoLeader);
        }
        Ok(renewed)
    }
}

/// A membership change as it stands in the log.
#[must_use]
pub fn encode_change(id: u64, member: StoredMember) -> Vec<u8> {
    MembershipChange {
        id,
        member: Some(member),
    }
    .encode_to_vec()
}
