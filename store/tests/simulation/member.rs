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
use keelson_store::wal::Wal;
use parking_lot::Mutex;
use raft::eraftpb::Message;

use crate::disk::SimDisk;
use crate::engine::SimEngine;

/// Ticks of silence before an election.
const ELECTION_TICKS: usize = 10;
/// A tick, with a clock that goes right.
pub const TICK_MICROS: u64 = 100_000;
/// Few, so that members that were away need a snapshot.
const KEEP_ENTRIES: u64 = 40;

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
    pub fn new(member: u64, seed: u64, membership: Membership, founding: bool) -> Self {
        let disk = SimDisk::new(seed);
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
    pub fn start(&mut self, now: u64) -> Result<(), Halt> {
        self.disk.restart();
        self.engine.restart();
        self.starts += 1;
        match self.try_start(now) {
            Ok(running) => {
                self.running = Some(running);
                self.step(now, |running| {
                    running.core.start().map_err(|error| format!("starting: {error}"))
                })
            }
            Err(error) => Err(self.halt(format!("{error:#}"))),
        }
    }

    fn try_start(&self, now: u64) -> anyhow::Result<Running> {
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
            pre_vote: true,
            keep_entries: KEEP_ENTRIES,
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
        self.busy_until = now + self.disk.take_spent();
        let halt = match done {
            Ok(None) => None,
            Ok(Some(())) => Some(Halt::Removed),
            Err(error) => Some(self.halt(error)),
        };
        self.running = Some(running);
        halt.map_or(Ok(()), Err)
    }

    /// The messages of the last step.
    pub fn sent(&self) -> Vec<Sent> {
        let sent = self.running.as_ref().map(|running| &running.sent);
        sent.map(|sent| std::mem::take(&mut *sent.lock()))
            .unwrap_or_default()
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

    /// A state that another member sent has arrived.
    pub fn receive(&mut self, now: u64, message: Message, data: &[u8]) -> Result<(), Halt> {
        self.snapshots += 1;
        let path = PathBuf::from(format!("incoming-{}", self.snapshots));
        // It is prepared beside the state; what a crash leaves of it is deleted at the next start.
        let mut loader = Loader::into_engine(SimEngine::new(SimDisk::new(0)));
        let loaded = data
            .chunks(1000)
            .try_for_each(|piece| loader.take(piece))
            .and_then(|()| loader.finish());
        match loaded {
            Ok(engine) => self.engine.prepare(&path, engine),
            Err(error) => return Err(Halt::Wrong(format!("a snapshot does not load: {error}"))),
        }
        self.step(now, |running| {
            running.core.take(Command::Snapshot(message, path));
            Ok(())
        })
    }
}
