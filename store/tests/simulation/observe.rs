//! What follows from a member's step: messages on their way, changes seen, perhaps its end.

use std::hash::Hash;
use std::ops::Range;

use raft::eraftpb::MessageType;
use rand::Rng;

use crate::history::Event;
use crate::invariants;
use crate::member::{Halt, Machine};
use crate::world::{Happening, World};

const SECOND: u64 = 1_000_000;

impl World {
    /// What follows from a member's step: messages on their way, changes seen, perhaps its end.
    pub(crate) fn after(&mut self, id: u64, result: Result<(), Halt>) {
        let voted = self.route(id);
        let moment = self.moment();
        if self.observe(id) && self.random.random_bool(moment.election_pause) {
            self.faults.counts.moments += 1;
            self.pause(id, SECOND / 10..3 * SECOND);
        }
        if let Some(candidate) = voted
            && result.is_ok()
            && self.random.random_bool(moment.vote)
        {
            self.betray(id, candidate);
        }
        match result {
            Ok(()) => {
                let fell = self.machines.get_mut(&id).is_some_and(Machine::meets_its_doom);
                if fell {
                    self.crash(id);
                }
            }
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

    /// Sends a member's messages on their way. Returns whom it has voted for.
    fn route(&mut self, from: u64) -> Option<u64> {
        let mut voted = None;
        let moment = self.moment();
        let machine = self.machines.get_mut(&from)?;
        let starts = machine.starts;
        for sent in machine.sent() {
            let to = sent.message.to;
            (from, to, sent.message.get_msg_type() as u8).hash(&mut self.digest);
            if sent.message.get_msg_type() == MessageType::MsgRequestVoteResponse && !sent.message.reject {
                voted = Some(to);
            }
            let journeys = self.network.journeys(from, to, &mut self.random);
            if sent.message.get_msg_type() == MessageType::MsgSnapshot {
                let snapshot = self
                    .machines
                    .get(&from)
                    .and_then(|machine| machine.snapshot(sent.message.clone()));
                match (journeys.first(), snapshot) {
                    (Some(journey), Some((message, data))) => {
                        let wait = sent.after + journey * 20;
                        let given_up = self.random.random_bool(moment.snapshot_given_up);
                        if given_up {
                            self.faults.counts.moments += 1;
                            let until_then = self.random.random_range(0..=wait);
                            self.later(
                                until_then,
                                Happening::SnapshotSent {
                                    member: from,
                                    starts,
                                    to,
                                    arrived: false,
                                },
                            );
                        }
                        self.later(
                            wait,
                            Happening::Snapshot {
                                message,
                                data,
                                starts,
                                given_up,
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
        voted
    }

    /// A voter crashes, and whom it voted for hears nobody any more, once it has its vote.
    fn betray(&mut self, voter: u64, candidate: u64) {
        self.faults.counts.moments += 1;
        self.crash(voter);
        let all: Vec<u64> = self.machines.keys().copied().collect();
        for other in all {
            self.network.cut(candidate, other);
            self.network.cut(other, candidate);
        }
    }

    /// Notes what a member has applied since it was last looked at, and who leads: whether it has just been elected.
    fn observe(&mut self, id: u64) -> bool {
        let Some((machine, running)) = self
            .machines
            .get(&id)
            .and_then(|machine| Some((machine, machine.running.as_ref()?)))
        else {
            return false;
        };
        let mut elected = false;
        let (term, leader) = (running.leadership.term(), running.leadership.leader());
        let applied = running.state.read(|inner| inner.shared.applied);
        let mut wrong = self.logs.applied(applied);
        if leader == id && self.history.leaders.get(&term) != Some(&id) {
            if let Some(other) = self.history.leaders.insert(term, id) {
                wrong = Err(format!("{other} led in term {term}, too"));
            }
            let led = machine.log().and_then(|log| self.logs.leads(term, &log));
            wrong = wrong.and(led);
            elected = true;
        }
        if let Err(error) = wrong {
            self.history.violations.push(format!("member {id}: {error}"));
        }
        let key = (id, machine.starts);
        let newest = running.state.revision();
        let seen = *self.seen.get(&key).unwrap_or(&0);
        if seen == newest {
            return elected;
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
                    self.history.note(change.revision, events);
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
        elected
    }

    /// A member stands still for some time.
    pub fn pause(&mut self, id: u64, micros: Range<u64>) {
        let until = self.now + self.random.random_range(micros);
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.busy_until = machine.busy_until.max(until);
        }
    }

    /// A member ends without a warning.
    pub fn crash(&mut self, id: u64) {
        let wait = self.random.random_range(self.plan.restart_micros.clone());
        let Some(machine) = self.machines.get_mut(&id) else {
            return;
        };
        machine.crash();
        if !machine.removed {
            self.start_later(id, wait);
        }
    }
}
