//! One member: the real core, log, state and persister on a simulated disk.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;
use keelson_proto::store::StoredMember;
use keelson_store::cluster::Membership;
use keelson_store::dump::{self, Loader};
use keelson_store::engine::{Batch, Engine};
use keelson_store::mvcc::schema;
use keelson_store::persist::{self, Worker};
use keelson_store::raft::core::{Core, CoreError, Outbox};
use keelson_store::raft::handle::{Command, Leadership, RaftHandle};
use keelson_store::raft::start::{self, Found, Manners, Surroundings};
use keelson_store::server::Headers;
use keelson_store::state::{Applied, State, encode_state};
use keelson_store::time::Time;
use keelson_store::wal::{Replay, Wal};
use parking_lot::Mutex;
use raft::eraftpb::Message;

use crate::disk::SimDisk;
use crate::engine::SimEngine;
use crate::invariants::logs::Logs;
use crate::invariants::pledges::Pledges;
use crate::plan::Plan;

/// Ticks of silence before an election.
const ELECTION_TICKS: usize = 10;
/// A tick, with a clock that goes right.
pub const TICK_MICROS: u64 = 100_000;

/// A machine that may run a member.
pub struct Machine {
    pub member: u64,
    pub disk: SimDisk,
    pub engine: SimEngine,
    pub running: Option<Running>,
    /// How often it was started.
    pub starts: u32,
    /// It does nothing before this.
    pub busy_until: u64,
    /// A tick by its own clock.
    pub tick_micros: u64,
    /// What it begins with when it has nothing.
    pub membership: Membership,
    pub founding: bool,
    /// The group has removed it.
    pub removed: bool,
    /// What has come and was not looked at yet.
    pub arrived: Vec<Command>,
    /// It crashes once a snapshot is in place.
    pub doomed: bool,
    installed: u32,
    pub pledges: Pledges,
    keep_entries: u64,
    pre_vote: bool,
    snapshots: u32,
}

/// A member that runs.
pub struct Running {
    pub core: Core,
    pub worker: Worker,
    pub handle: RaftHandle,
    pub state: Arc<State>,
    pub leadership: Arc<Leadership>,
    pub headers: Headers,
    inbox: Receiver<Command>,
    time: Time,
    sent: Arc<Mutex<Vec<Sent>>>,
}

/// A message and how far into its step it was sent.
pub struct Sent {
    pub message: Message,
    pub after: u64,
}

struct SimOutbox {
    disk: SimDisk,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Outbox for SimOutbox {
    fn send(&self, messages: Vec<Message>) {
        let after = self.disk.spent();
        let sent = messages.into_iter().map(|message| Sent { message, after });
        self.sent.lock().extend(sent);
    }

    fn members(&self, _: Vec<StoredMember>) {}
}

/// Why a step did not work.
#[derive(Debug)]
pub enum Halt {
    /// The machine failed, as the faults wanted.
    Crashed,
    /// The group has removed the member.
    Removed,
    /// Something that must not happen.
    Wrong(String),
}

impl Machine {
    pub fn new(member: u64, plan: &Plan, membership: Membership, founding: bool) -> Self {
        let disk = SimDisk::new(plan.seed ^ member << 40, plan.segment_bytes);
        Self {
            member,
            engine: SimEngine::new(disk.clone()),
            disk,
            running: None,
            starts: 0,
            busy_until: 0,
            tick_micros: TICK_MICROS,
            membership,
            founding,
            removed: false,
            arrived: Vec::new(),
            doomed: false,
            installed: 0,
            pledges: Pledges::default(),
            keep_entries: plan.keep_entries,
            pre_vote: plan.pre_vote,
            snapshots: 0,
        }
    }

    fn halt(&self, error: String) -> Halt {
        if self.disk.has_failed() {
            return Halt::Crashed;
        }
        Halt::Wrong(format!("member {}: {error}", self.member))
    }

    /// Starts the member from what is on the disk.
    pub fn start(&mut self, now: u64, logs: &mut Logs) -> Result<(), Halt> {
        let torn = self.disk.has_failed();
        self.disk.restart();
        self.engine.restart();
        self.starts += 1;
        match self.try_start(now, torn, logs) {
            Ok(running) => {
                self.running = Some(running);
                self.step(now, |running| {
                    running.core.start().map_err(|error| format!("starting: {error}"))
                })
            }
            Err(error) => Err(self.halt(format!("{error:#}"))),
        }
    }

    fn try_start(&mut self, now: u64, torn: bool, logs: &mut Logs) -> anyhow::Result<Running> {
        let time = Time::simulated();
        time.set(now);
        let engine: Arc<dyn Engine> = Arc::new(self.engine.clone());
        let state = match State::load(engine.clone())? {
            Some(state) => state,
            None => {
                let applied = if self.founding {
                    keelson_store::backup::FOUNDING
                } else {
                    Applied::default()
                };
                let state = State::founding(engine.clone(), self.membership.clone(), applied);
                let mut batch = Batch::default();
                batch.put(schema::STATE_KEY.to_vec(), state.read(encode_state));
                engine.commit(batch)?;
                state
            }
        };
        let state = Arc::new(state.with_time(time.clone()));
        let (mut wal, replay) = Wal::open(Box::new(self.disk.clone()))?;
        let replay = start::reconcile(&state, &mut wal, replay)?;
        let applied = state.read(|inner| inner.shared.applied);
        self.pledges.kept(&replay, torn).map_err(anyhow::Error::msg)?;
        logs.found(&replay, applied).map_err(anyhow::Error::msg)?;
        let (commands, inbox) = channel();
        let leadership = Arc::new(Leadership::default());
        let number = (self.starts << 16) | 1;
        let handle = RaftHandle::numbering_from(commands, leadership.clone(), self.member, number);
        let (persister, worker) =
            persist::persister(state.clone(), handle.clone(), Box::new(self.disk.clone()), 0);
        let sent = Arc::<Mutex<Vec<Sent>>>::default();
        let outbox = SimOutbox {
            disk: self.disk.clone(),
            sent: sent.clone(),
        };
        let found = Found {
            member: self.member,
            state: state.clone(),
            wal,
            replay,
        };
        let manners = Manners {
            election_ticks: ELECTION_TICKS,
            election_timeout: Duration::from_millis(1000),
            seed: self.member ^ u64::from(self.starts) << 32,
            pre_vote: self.pre_vote,
            keep_entries: self.keep_entries,
            strict_reconfig: true,
        };
        let around = Surroundings {
            outbox: Box::new(outbox),
            leadership: leadership.clone(),
            persister,
        };
        let core = start::core(found, manners, around).context("starting raft")?;
        let headers = Headers {
            cluster_id: 1,
            member_id: self.member,
            leadership: leadership.clone(),
        };
        Ok(Running {
            core,
            worker,
            handle,
            state,
            leadership,
            headers,
            inbox,
            time,
            sent,
        })
    }

    /// Does something with the member, and then everything that follows from it.
    pub fn step(
        &mut self,
        now: u64,
        work: impl FnOnce(&mut Running) -> Result<(), String>,
    ) -> Result<(), Halt> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        running.time.set(now);
        let worked = work(&mut running);
        let done = worked.and_then(|()| {
            loop {
                for command in running.inbox.try_iter().collect::<Vec<_>>() {
                    running.core.take(command);
                }
                match running.core.process() {
                    Ok(()) => {}
                    Err(CoreError::Removed) => return Ok(Some(())),
                    Err(error) => return Err(error.to_string()),
                }
                match running.inbox.try_recv() {
                    Ok(command) => running.core.take(command),
                    Err(_) => return Ok(None),
                }
            }
        });
        self.busy_until = self.busy_until.max(now + self.disk.take_spent());
        let halt = match done {
            Ok(None) => None,
            Ok(Some(())) => Some(Halt::Removed),
            Err(error) => Some(self.halt(error)),
        };
        self.running = Some(running);
        halt.map_or(Ok(()), Err)
    }

    /// The messages of the last step.
    pub fn sent(&mut self) -> Vec<Sent> {
        let sent = self.running.as_ref().map(|running| &running.sent);
        let sent = sent
            .map(|sent| std::mem::take(&mut *sent.lock()))
            .unwrap_or_default();
        for sent in &sent {
            self.pledges.sent(&sent.message);
        }
        sent
    }

    /// Its log, as somebody else would read it.
    pub fn log(&self) -> Result<Replay, String> {
        let opened = Wal::open(Box::new(self.disk.copy()));
        opened
            .map(|(_, replay)| replay)
            .map_err(|error| error.to_string())
    }

    /// The whole state, as it is sent to another member, with the announcement that says where it is.
    pub fn snapshot(&self, mut message: Message) -> Option<(Message, Vec<u8>)> {
        let running = self.running.as_ref()?;
        let mut data = Vec::new();
        let (applied, conf_state) = dump::write(&running.state, &mut |chunk| {
            data.extend_from_slice(&chunk);
            std::ops::ControlFlow::Continue(())
        })
        .ok()??;
        let metadata = message.mut_snapshot().mut_metadata();
        metadata.index = applied.index;
        metadata.term = applied.term;
        metadata.set_conf_state(conf_state);
        Some((message, data))
    }

    /// A state that another member sent has arrived: what the core is told of it.
    pub fn prepare(&mut self, message: Message, data: &[u8]) -> Result<Command, Halt> {
        self.snapshots += 1;
        let path = PathBuf::from(format!("incoming-{}", self.snapshots));
        // It is prepared beside the state; what a crash leaves of it is deleted at the next start.
        let mut loader = Loader::into_engine(SimEngine::new(SimDisk::new(0, 0)));
        let loaded = data
            .chunks(1000)
            .try_for_each(|piece| loader.take(piece))
            .and_then(|()| loader.finish());
        match loaded {
            Ok(engine) => self.engine.prepare(&path, engine),
            Err(error) => return Err(Halt::Wrong(format!("a snapshot does not load: {error}"))),
        }
        Ok(Command::Snapshot(message, path))
    }

    /// Whether it is to crash because a snapshot is in place now.
    pub fn meets_its_doom(&mut self) -> bool {
        let installed = self.engine.installed();
        let fresh = std::mem::replace(&mut self.installed, installed) != installed;
        fresh && std::mem::take(&mut self.doomed)
    }

    /// It ends without a warning.
    pub fn crash(&mut self) {
        self.running = None;
        self.arrived.clear();
        self.doomed = false;
    }
}
