//! From a log and an applied state, as they were found, to a member's consensus.

use std::sync::Arc;
use std::time::Duration;

use raft::RawNode;

use super::core::{Core, Outbox, Parts};
use super::handle::Leadership;
use super::log::LogTail;
use super::logger::logger;
use crate::persist::Persister;
use crate::state::State;
use crate::wal::{Mark, Replay, Wal, WalError};

/// Entries and bytes of one message between members.
const MESSAGE_BYTES: u64 = 1 << 20;
const INFLIGHT_MESSAGES: usize = 256;

/// What a member was before.
pub struct Found {
    /// Who it is.
    pub member: u64,
    /// Its applied state.
    pub state: Arc<State>,
    /// Its log.
    pub wal: Wal,
    /// What was in the log.
    pub replay: Replay,
}

/// How a member takes part: timing in ticks of one heartbeat, and what it allows.
#[derive(Debug, Clone, Copy)]
pub struct Manners {
    /// Ticks of the leader's silence before an election.
    pub election_ticks: usize,
    /// The same as a time.
    pub election_timeout: Duration,
    /// Where chance begins.
    pub seed: u64,
    /// Whether an election is preceded by a trial.
    pub pre_vote: bool,
    /// Entries kept in the log for members that are behind.
    pub keep_entries: u64,
    /// Refuse changes of the group that would leave it without a working majority.
    pub strict_reconfig: bool,
}

/// Whom a member talks to.
pub struct Surroundings {
    /// The other members.
    pub outbox: Box<dyn Outbox>,
    /// What it tells the process of the leadership.
    pub leadership: Arc<Leadership>,
    /// Who brings the state to the engine.
    pub persister: Persister,
}

/// The applied state does not belong to the log.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log failed.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// Entries between the two are in neither.
    #[error("the log begins after entry {log}, but the applied state is only at entry {state}")]
    Gap {
        /// The last entry before the log.
        log: u64,
        /// The last entry of the state.
        state: u64,
    },
    /// The library refused.
    #[error("starting raft: {0}")]
    Raft(#[from] raft::Error),
}

/// Makes a log agree with its applied state, which may come from a snapshot that the log was not told of.
///
/// # Errors
/// When the log cannot be written, or the state lacks entries that the log no longer has.
pub fn reconcile(state: &State, wal: &mut Wal, replay: Replay) -> Result<Replay, StartError> {
    let applied = state.read(|inner| inner.shared.applied);
    if replay.mark.index > applied.index {
        return Err(StartError::Gap {
            log: replay.mark.index,
            state: applied.index,
        });
    }
    if replay.term(applied.index) == Some(applied.term) {
        return Ok(replay);
    }
    // A new group, or a snapshot that was installed just before the log could be told. What the log has
    // beyond it is of leaders who never got it agreed on.
    let mark = Mark {
        index: applied.index,
        term: applied.term,
    };
    wal.reset(mark)?;
    Ok(Replay {
        mark,
        hard_state: replay.hard_state,
        ..Replay::default()
    })
}

/// A member's consensus at the start of its loop.
///
/// # Errors
/// When the library finds log and state inconsistent.
pub fn core(found: Found, manners: Manners, around: Surroundings) -> Result<Core, StartError> {
    let Found {
        member,
        state,
        wal,
        replay,
    } = found;
    let (applied, conf_state) =
        state.read(|inner| (inner.shared.applied, inner.shared.membership.conf_state.clone()));
    let mut hard_state = replay.hard_state.clone();
    // What is applied was committed, even if the log did not come to note it.
    hard_state.commit = hard_state.commit.max(applied.index).min(replay.last_index());
    hard_state.term = hard_state
        .term
        .max(replay.entries.back().map_or(replay.mark.term, |last| last.term));
    let log = LogTail::new(replay.mark, replay.entries, hard_state, conf_state, state.clone());
    let raft_config = raft::Config {
        id: member,
        election_tick: manners.election_ticks,
        heartbeat_tick: 1,
        applied: applied.index,
        max_size_per_msg: MESSAGE_BYTES,
        max_inflight_msgs: INFLIGHT_MESSAGES,
        check_quorum: true,
        pre_vote: manners.pre_vote,
        ..raft::Config::default()
    };
    let node = RawNode::new(&raft_config, log, &logger())?;
    Ok(Core::new(
        node,
        Parts {
            member,
            wal,
            state,
            outbox: around.outbox,
            leadership: around.leadership,
            election_timeout: manners.election_timeout,
            persister: around.persister,
            seed: manners.seed,
            keep_entries: manners.keep_entries,
            strict_reconfig: manners.strict_reconfig,
        },
    ))
}
