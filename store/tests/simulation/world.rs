//! Time, and everything that happens in it, one thing after the other.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{Hash, Hasher};

use keelson_proto::store::{LeaseExpiry, StoredMember};
use keelson_store::cluster::Membership;
use keelson_store::raft::handle::Command;
use raft::eraftpb::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::faults::{Counts, Faults};
use crate::history::History;
use crate::invariants::logs::Logs;
use crate::leases::{self, Holder, Promises};
use crate::member::Machine;
use crate::network::Network;
use crate::plan::{Moments, Plan};
use crate::users::Visitor;
use crate::watcher::Watcher;

const SECOND: u64 = 1_000_000;

/// What can happen.
pub enum Happening {
    Message(Message),
    Snapshot {
        message: Message,
        data: Vec<u8>,
        starts: u32,
        /// Its sender has given up already.
        given_up: bool,
    },
    /// A member gets to what has arrived.
    Wake {
        member: u64,
        starts: u32,
    },
    SnapshotSent {
        member: u64,
        starts: u32,
        to: u64,
        arrived: bool,
    },
    Tick {
        member: u64,
        starts: u32,
    },
    Persist {
        member: u64,
        starts: u32,
    },
    Start {
        member: u64,
    },
    Expire {
        member: u64,
        starts: u32,
        found: Vec<LeaseExpiry>,
    },
    Client(usize),
    Holder(usize),
    Watch(usize),
    Visit(usize),
    Fault,
}

/// A run.
pub struct World {
    pub plan: Plan,
    pub now: u64,
    pub random: StdRng,
    pub network: Network,
    pub machines: BTreeMap<u64, Machine>,
    pub clients: Vec<Client>,
    pub holders: Vec<Holder>,
    /// What holders of leases were promised.
    pub(crate) promises: Promises,
    pub watchers: Vec<Watcher>,
    pub visitors: Vec<Visitor>,
    pub history: History,
    pub(crate) logs: Logs,
    pub faults: Faults,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    number: u64,
    /// The revision up to which each start of a member was seen to apply changes.
    pub(crate) seen: BTreeMap<(u64, u32), i64>,
    /// Clients do nothing new.
    pub quiet: bool,
    pub(crate) digest: DefaultHasher,
    pub steps: u64,
}

fn member(id: u64, learner: bool) -> StoredMember {
    StoredMember {
        id,
        name: format!("m{id}"),
        peer_urls: vec![format!("http://m{id}:2380")],
        learner,
        ..StoredMember::default()
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let members = plan.members;
        let mut world = Self {
            now: 0,
            random: StdRng::seed_from_u64(plan.seed),
            network: Network::new(),
            machines: BTreeMap::new(),
            clients: (0..plan.clients).map(Client::new).collect(),
            holders: (0..plan.holders)
                .map(|number| Holder::new(number as i64 + 1, &plan))
                .collect(),
            promises: Promises::new(),
            watchers: vec![
                Watcher::new("k/", "k0"),
                Watcher::new("k/1", "k/3"),
                Watcher::new("k/0", ""),
            ],
            visitors: (0..plan.visitors).map(|_| Visitor::default()).collect(),
            history: History::default(),
            logs: Logs::default(),
            faults: Faults::default(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            number: 0,
            seen: BTreeMap::new(),
            quiet: false,
            digest: DefaultHasher::new(),
            steps: 0,
            plan,
        };
        let founders = Membership::founding((1..=members).map(|id| member(id, false)).collect());
        for id in 1..=members {
            world.add_machine(id, founders.clone(), true);
        }
        for client in 0..world.clients.len() {
            world.later(SECOND, Happening::Client(client));
        }
        for holder in 0..world.holders.len() {
            world.later(SECOND, Happening::Holder(holder));
        }
        for watcher in 0..world.watchers.len() {
            world.later(SECOND, Happening::Watch(watcher));
        }
        for visitor in 0..world.visitors.len() {
            world.later(SECOND, Happening::Visit(visitor));
        }
        world.later(3 * SECOND, Happening::Fault);
        world
    }

    /// A machine comes into being; its member starts at once.
    pub fn add_machine(&mut self, id: u64, membership: Membership, founding: bool) {
        let mut machine = Machine::new(id, &self.plan, membership, founding);
        // No two clocks go alike.
        machine.tick_micros = self
            .random
            .random_range(crate::member::TICK_MICROS * 9 / 10..=crate::member::TICK_MICROS * 11 / 10);
        self.machines.insert(id, machine);
        self.start_later(id, 1000);
    }

    /// A member that is to join, as the group knows it.
    pub fn newcomer(id: u64) -> StoredMember {
        member(id, true)
    }

    pub fn start_later(&mut self, id: u64, wait: u64) {
        self.later(wait, Happening::Start { member: id });
    }

    pub(crate) fn later(&mut self, wait: u64, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse((self.now + wait, self.number)));
        self.happenings.insert(self.number, happening);
    }

    /// What a run came to, to be compared with that of another run.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// Lets things happen until a time.
    pub fn run_until(&mut self, end: u64) {
        while let Some(Reverse((at, number))) = self.queue.peek().copied() {
            if at > end || !self.history.violations.is_empty() {
                break;
            }
            self.queue.pop();
            let Some(happening) = self.happenings.remove(&number) else {
                continue;
            };
            self.now = at;
            if let Some(wait) = self.busy(&happening) {
                self.later(wait, happening);
                continue;
            }
            self.steps += 1;
            (at, number).hash(&mut self.digest);
            self.happen(happening);
        }
        self.now = self.now.max(end);
    }

    /// How long what happens has to wait for a member that is at work, or stopped.
    fn busy(&self, happening: &Happening) -> Option<u64> {
        let member = match happening {
            Happening::Wake { member, .. }
            | Happening::Tick { member, .. }
            | Happening::Persist { member, .. }
            | Happening::Expire { member, .. }
            | Happening::SnapshotSent { member, .. } => *member,
            _ => return None,
        };
        let until = self.machines.get(&member)?.busy_until;
        (until > self.now).then(|| until - self.now)
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Message(message) => {
                let to = message.to;
                self.arrive(to, Command::Step(vec![message]));
            }
            Happening::Snapshot {
                message,
                data,
                starts,
                given_up,
            } => {
                let (from, to) = (message.from, message.to);
                let up = self.take_snapshot(message, &data);
                if given_up {
                    return;
                }
                let arrived = up && !self.network.journeys(to, from, &mut self.random).is_empty();
                self.later(
                    1000,
                    Happening::SnapshotSent {
                        member: from,
                        starts,
                        to,
                        arrived,
                    },
                );
            }
            Happening::Wake { member, starts } => {
                let Some(machine) = self.machines.get_mut(&member) else {
                    return;
                };
                if machine.starts != starts {
                    return;
                }
                let arrived = std::mem::take(&mut machine.arrived);
                self.at(member, Some(starts), |running| {
                    for command in arrived {
                        running.core.take(command);
                    }
                });
            }
            Happening::SnapshotSent {
                member,
                starts,
                to,
                arrived,
            } => self.at(member, Some(starts), |running| {
                running.core.take(Command::SnapshotSent { to, arrived });
            }),
            Happening::Tick { member, starts } => {
                self.at(member, Some(starts), |running| running.core.tick());
                if let Some(machine) = self.running(member, starts) {
                    let wait = machine.tick_micros;
                    self.later(wait, Happening::Tick { member, starts });
                }
            }
            Happening::Persist { member, starts } => {
                let now = self.now;
                if let Some(machine) = self.machines.get_mut(&member)
                    && machine.starts == starts
                {
                    let result = machine.step(now, |running| {
                        running
                            .worker
                            .look()
                            .map_err(|error| format!("persisting: {error}"))
                    });
                    self.after(member, result);
                }
                if let Some(machine) = self.running(member, starts) {
                    if let Some(running) = &machine.running {
                        let keep = self.plan.recent_bytes;
                        running.state.apply(|inner| inner.mvcc.recent.trim(keep));
                    }
                    let every = self.plan.persist_micros;
                    let wait = self.random.random_range(every / 3..every * 2);
                    self.later(wait, Happening::Persist { member, starts });
                }
            }
            Happening::Start { member } => self.start(member),
            Happening::Expire {
                member,
                starts,
                mut found,
            } => {
                self.at(member, Some(starts), |running| {
                    leases::expire(running, &mut found)
                });
                if self.running(member, starts).is_some() {
                    let every = self.plan.expiry_micros;
                    let wait = self.random.random_range(every / 2..every);
                    self.later(
                        wait,
                        Happening::Expire {
                            member,
                            starts,
                            found,
                        },
                    );
                }
            }
            Happening::Client(number) => self.client(number),
            Happening::Holder(number) => self.holder(number),
            Happening::Watch(number) => self.watch(number),
            Happening::Visit(number) => self.visit(number),
            Happening::Fault => {
                let wait = crate::faults::next(self);
                self.later(wait, Happening::Fault);
            }
        }
    }

    pub(crate) fn running(&self, member: u64, starts: u32) -> Option<&Machine> {
        self.machines
            .get(&member)
            .filter(|machine| machine.running.is_some() && machine.starts == starts)
    }

    /// Something has come for a member: it gets to it when it can, and to all that has come by then.
    fn arrive(&mut self, to: u64, command: Command) {
        let wait = self.random.random_range(0..=self.plan.wake_micros);
        let Some(machine) = self.machines.get_mut(&to) else {
            return;
        };
        if machine.running.is_none() {
            return;
        }
        machine.arrived.push(command);
        let starts = machine.starts;
        if machine.arrived.len() == 1 {
            self.later(wait, Happening::Wake { member: to, starts });
        }
    }

    /// A snapshot has come, unless nobody is there to take it.
    fn take_snapshot(&mut self, message: Message, data: &[u8]) -> bool {
        let to = message.to;
        let moment = self.moment();
        let Some(machine) = self.machines.get_mut(&to) else {
            return false;
        };
        if machine.running.is_none() {
            return false;
        }
        self.faults.counts.snapshots += 1;
        if self.random.random_bool(moment.snapshot_pause) {
            self.faults.counts.moments += 1;
            let until = self.now + self.random.random_range(SECOND / 10..3 * SECOND);
            machine.busy_until = machine.busy_until.max(until);
        }
        if self.random.random_bool(moment.snapshot_crash) {
            self.faults.counts.moments += 1;
            if self.random.random_bool(0.5) {
                machine.doomed = true;
            } else {
                machine.disk.fail_in(self.random.random_range(1..6));
            }
        }
        match machine.prepare(message, data) {
            Ok(command) => self.arrive(to, command),
            Err(halt) => self.after(to, Err(halt)),
        }
        true
    }

    /// The chances of faults that wait for their moment.
    pub(crate) fn moment(&self) -> Moments {
        if self.faults.over {
            Moments::default()
        } else {
            self.plan.moments
        }
    }

    /// Does something with a member, if it runs.
    pub fn at(&mut self, member: u64, starts: Option<u32>, work: impl FnOnce(&mut crate::member::Running)) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&member) else {
            return;
        };
        if starts.is_some_and(|starts| starts != machine.starts) {
            return;
        }
        let result = machine.step(now, |running| {
            work(running);
            Ok(())
        });
        self.after(member, result);
    }

    fn start(&mut self, id: u64) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        if machine.running.is_some() || machine.removed {
            return;
        }
        let result = machine.start(now, &mut self.logs);
        let starts = machine.starts;
        let failed = result.is_err();
        self.after(id, result);
        if !failed {
            self.later(1000, Happening::Tick { member: id, starts });
            self.later(2000, Happening::Persist { member: id, starts });
            let found = Vec::new();
            self.later(
                3000,
                Happening::Expire {
                    member: id,
                    starts,
                    found,
                },
            );
        }
    }

    /// What happened in numbers.
    pub fn counts(&self) -> Counts {
        Counts {
            lost: self.network.lost,
            duplicated: self.network.duplicated,
            ..self.faults.counts.clone()
        }
    }
}
