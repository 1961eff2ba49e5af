//! Time, and everything that happens in it, one thing after the other.

use std::cmp::Reverse;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{Hash, Hasher};

use keelson_proto::store::{LeaseExpiry, StoredMember};
use keelson_store::cluster::Membership;
use keelson_store::raft::handle::Command;
use raft::eraftpb::{Message, MessageType};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::client::Client;
use crate::faults::{Counts, Faults};
use crate::history::{Event, History};
use crate::invariants;
use crate::leases::{self, Holder, Promises};
use crate::member::{Halt, Machine};
use crate::network::Network;
use crate::watcher::Watcher;

/// How often the persister looks around.
const PERSIST_MICROS: u64 = 300_000;
/// How often members look for leases that have run out.
const EXPIRY_MICROS: u64 = 500_000;
const SECOND: u64 = 1_000_000;

/// What can happen.
enum Happening {
    Message(Message),
    Snapshot {
        message: Message,
        data: Vec<u8>,
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
    Fault,
}

/// A run.
pub struct World {
    pub seed: u64,
    pub now: u64,
    pub random: StdRng,
    pub network: Network,
    pub machines: BTreeMap<u64, Machine>,
    pub clients: Vec<Client>,
    pub holders: Vec<Holder>,
    /// What holders of leases were promised.
    promises: Promises,
    pub watchers: Vec<Watcher>,
    pub history: History,
    pub faults: Faults,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    number: u64,
    /// The revision up to which each start of a member was seen to apply changes.
    seen: BTreeMap<(u64, u32), i64>,
    /// Clients do nothing new.
    pub quiet: bool,
    digest: DefaultHasher,
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
    pub fn new(seed: u64, members: u64) -> Self {
        let mut world = Self {
            seed,
            now: 0,
            random: StdRng::seed_from_u64(seed),
            network: Network::new(),
            machines: BTreeMap::new(),
            clients: (0..4).map(Client::new).collect(),
            holders: (1..=2).map(Holder::new).collect(),
            promises: Promises::new(),
            watchers: vec![
                Watcher::new("k/", "k0"),
                Watcher::new("k/1", "k/3"),
                Watcher::new("k/0", ""),
            ],
            history: History::default(),
            faults: Faults::default(),
            queue: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            number: 0,
            seen: BTreeMap::new(),
            quiet: false,
            digest: DefaultHasher::new(),
            steps: 0,
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
        world.later(3 * SECOND, Happening::Fault);
        world
    }

    /// A machine comes into being; its member starts at once.
    pub fn add_machine(&mut self, id: u64, membership: Membership, founding: bool) {
        let mut machine = Machine::new(id, self.seed ^ id << 40, membership, founding);
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

    fn later(&mut self, wait: u64, happening: Happening) {
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
            Happening::Message(message) | Happening::Snapshot { message, .. } => message.to,
            Happening::Tick { member, .. }
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
                self.at(to, None, |running| {
                    running.core.take(Command::Step(vec![message]));
                });
            }
            Happening::Snapshot {
                message,
                data,
                starts,
            } => {
                let (from, to) = (message.from, message.to);
                let up = self
                    .machines
                    .get(&to)
                    .is_some_and(|machine| machine.running.is_some());
                if up {
                    let now = self.now;
                    self.faults.counts.snapshots += 1;
                    let result = self
                        .machines
                        .get_mut(&to)
                        .map_or(Ok(()), |machine| machine.receive(now, message, &data));
                    self.after(to, result);
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
                if self.running(member, starts).is_some() {
                    let wait = self.random.random_range(PERSIST_MICROS / 3..PERSIST_MICROS * 2);
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
                    let wait = self.random.random_range(EXPIRY_MICROS / 2..EXPIRY_MICROS);
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
            Happening::Fault => {
                let wait = crate::faults::next(self);
                self.later(wait, Happening::Fault);
            }
        }
    }

    fn running(&self, member: u64, starts: u32) -> Option<&Machine> {
        self.machines
            .get(&member)
            .filter(|machine| machine.running.is_some() && machine.starts == starts)
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

    /// What follows from a member's step: messages on their way, changes seen, perhaps its end.
    fn after(&mut self, id: u64, result: Result<(), Halt>) {
        self.route(id);
        self.observe(id);
        match result {
            Ok(()) => {}
            Err(Halt::Crashed) => {
                self.faults.counts.crashes_in_writes += 1;
                self.crash(id);
            }
            Err(Halt::Removed) => {
                if let Some(machine) = self.machines.get_mut(&id) {
                    machine.running = None;
                    machine.removed = true;
                }
            }
            Err(Halt::Wrong(error)) => self.history.violations.push(error),
        }
        for number in 0..self.clients.len() {
            if self.clients[number].waits_for() == Some(id) {
                self.poll_client(number);
            }
        }
    }

    fn route(&mut self, from: u64) {
        let Some(machine) = self.machines.get(&from) else {
            return;
        };
        let starts = machine.starts;
        for sent in machine.sent() {
            let to = sent.message.to;
            (from, to, sent.message.get_msg_type() as u8).hash(&mut self.digest);
            let journeys = self.network.journeys(from, to, &mut self.random);
            if sent.message.get_msg_type() == MessageType::MsgSnapshot {
                let snapshot = self
                    .machines
                    .get(&from)
                    .and_then(|machine| machine.snapshot(sent.message.clone()));
                match (journeys.first(), snapshot) {
                    (Some(journey), Some((message, data))) => {
                        let wait = sent.after + journey * 20;
                        self.later(
                            wait,
                            Happening::Snapshot {
                                message,
                                data,
                                starts,
                            },
                        );
                    }
                    _ => self.later(
                        sent.after + 100_000,
                        Happening::SnapshotSent {
                            member: from,
                            starts,
                            to,
                            arrived: false,
                        },
                    ),
                }
                continue;
            }
            // The transport sends a message at most once. For all but one kind that does not matter; a proposal
            // that came twice would be two.
            let copies = match sent.message.get_msg_type() {
                MessageType::MsgPropose => 1,
                _ => journeys.len(),
            };
            for journey in journeys.into_iter().take(copies) {
                self.later(sent.after + journey, Happening::Message(sent.message.clone()));
            }
        }
    }

    /// Notes what a member has applied since it was last looked at, and who leads.
    fn observe(&mut self, id: u64) {
        let Some(machine) = self.machines.get(&id) else {
            return;
        };
        let Some(running) = &machine.running else {
            return;
        };
        let (term, leader) = (running.leadership.term(), running.leadership.leader());
        if leader == id
            && let Some(other) = self.history.leaders.insert(term, id)
            && other != id
        {
            let violation = format!("both {other} and {id} lead in term {term}");
            self.history.violations.push(violation);
        }
        let key = (id, machine.starts);
        let newest = running.state.revision();
        let seen = *self.seen.get(&key).unwrap_or(&0);
        if seen == newest {
            return;
        }
        let changes: Vec<_> = running
            .state
            .read(|inner| inner.mvcc.recent.since(seen + 1).cloned().collect());
        self.seen.insert(key, newest);
        for change in changes {
            let events: Vec<Event> = change
                .records
                .iter()
                .map(|record| Event {
                    key: String::from_utf8_lossy(&record.key).into_owned(),
                    value: if record.deleted {
                        0
                    } else {
                        crate::client::decode(&record.value)
                    },
                    version: record.life.version,
                    created: record.life.created,
                })
                .collect();
            match self.history.truth.get(&change.revision) {
                None => {
                    (change.revision, events.len()).hash(&mut self.digest);
                    for event in events.iter().filter(|event| event.value == 0) {
                        if let Err(error) = invariants::leases::ended(&self.promises, &event.key, self.now) {
                            self.history.violations.push(format!("leases: {error}"));
                        }
                    }
                    self.history.truth.insert(change.revision, events);
                }
                Some(truth) if *truth == events => {}
                Some(truth) => {
                    let violation = format!(
                        "member {id} has {events:?} as revision {}, another has {truth:?}",
                        change.revision
                    );
                    self.history.violations.push(violation);
                }
            }
        }
    }

    /// A member ends without a warning.
    pub fn crash(&mut self, id: u64) {
        let wait = self.random.random_range(50_000..4 * SECOND);
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.running = None;
        if !machine.removed {
            self.start_later(id, wait);
        }
    }

    fn start(&mut self, id: u64) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        if machine.running.is_some() || machine.removed {
            return;
        }
        let result = machine.start(now);
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

    /// A member that runs, by chance.
    pub fn any_running(&mut self) -> Option<u64> {
        let running: Vec<u64> = self
            .machines
            .values()
            .filter(|machine| machine.running.is_some() && machine.busy_until <= self.now)
            .map(|machine| machine.member)
            .collect();
        if running.is_empty() {
            return None;
        }
        Some(running[self.random.random_range(0..running.len())])
    }

    fn client(&mut self, number: usize) {
        self.poll_client(number);
        if !self.clients[number].is_waiting()
            && !self.quiet
            && let Some(id) = self.any_running()
            && let Some(machine) = self.machines.get_mut(&id)
        {
            let now = self.now;
            let starts = machine.starts;
            let client = &mut self.clients[number];
            let random = &mut self.random;
            let operations = &mut self.history.operations;
            let result = machine.step(now, |running| {
                client.begin(running, (id, starts), now, random, operations);
                Ok(())
            });
            self.after(id, result);
        }
        let wait = self.random.random_range(1_000..120_000);
        self.later(wait, Happening::Client(number));
    }

    fn holder(&mut self, number: usize) {
        if let Some(id) = self.holder_member()
            && !self.quiet
            && let Some(machine) = self.machines.get_mut(&id)
        {
            let now = self.now;
            let starts = machine.starts;
            let holder = &mut self.holders[number];
            let (random, promises) = (&mut self.random, &mut self.promises);
            let result = machine.step(now, |running| {
                holder.step(running, (id, starts), now, random, promises);
                Ok(())
            });
            self.after(id, result);
        }
        let wait = self.random.random_range(1_000..400_000);
        self.later(wait, Happening::Holder(number));
    }

    /// Holders of leases talk to the leader as long as there is one: who else renews?
    fn holder_member(&mut self) -> Option<u64> {
        let leads = |machine: &&Machine| {
            machine.busy_until <= self.now
                && machine
                    .running
                    .as_ref()
                    .is_some_and(|running| running.leadership.leader() == machine.member)
        };
        let leader = self.machines.values().find(leads).map(|machine| machine.member);
        leader.or_else(|| self.any_running())
    }

    fn poll_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let running = client.waits_for().and_then(|id| {
            let machine = self.machines.get(&id)?;
            Some((machine.running.as_ref()?, machine.starts))
        });
        if let Err(error) = client.poll(running, self.now, &mut self.history.operations) {
            self.history.violations.push(error);
        }
    }

    fn watch(&mut self, number: usize) {
        let connected = self.watchers[number].member();
        // Who was removed from the group and never told so has no leader, and nothing new to say.
        let gone = connected.is_some_and(|(id, starts)| {
            let running = self
                .running(id, starts)
                .and_then(|machine| machine.running.as_ref());
            running.is_none_or(|running| self.faults.over && running.leadership.leader() == 0)
        });
        if gone || (connected.is_some() && !self.quiet && self.random.random_bool(0.01)) {
            self.watchers[number].disconnect();
        }
        match self.watchers[number].member() {
            None => {
                if let Some(id) = self.any_running()
                    && let Some(machine) = self.machines.get(&id)
                    && let Some(running) = &machine.running
                {
                    self.watchers[number].connect(running, id, machine.starts);
                }
            }
            Some((id, _)) => {
                let ask = self.random.random_bool(0.5);
                if self.random.random_bool(0.2) {
                    self.watchers[number].progress(ask);
                }
                if let Some(running) = self
                    .machines
                    .get(&id)
                    .and_then(|machine| machine.running.as_ref())
                    && let Err(error) = self.watchers[number].poll(running)
                {
                    self.history.violations.push(error);
                }
            }
        }
        let wait = self.random.random_range(5_000..150_000);
        self.later(wait, Happening::Watch(number));
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
