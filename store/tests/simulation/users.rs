//! Who uses the store: when clients, holders of leases, watchers and visitors take their next step.

use keelson_proto::etcd::RangeRequest;
use keelson_store::error::StoreError;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use crate::client::decode;
use crate::member::{Machine, Running};
use crate::watcher::Watcher;
use crate::world::{Happening, World};

/// Keys that visitors look at.
const RANGES: [(&str, &str); 4] = [("k/", "k0"), ("k/1", "k/3"), ("k/0", ""), ("", "\0")];

/// Somebody who watches for a while, and reads what was before.
#[derive(Default)]
pub struct Visitor {
    watcher: Option<Watcher>,
    /// How often it still looks for news.
    looks: u32,
}

/// A revision near one at which something changes for readers.
fn revision_of_interest(running: &Running, random: &mut StdRng) -> i64 {
    let interesting = running.state.read(|inner| {
        let (mvcc, recent) = (&inner.mvcc, &inner.mvcc.recent);
        [
            1,
            mvcc.compacted,
            mvcc.compacted,
            running.state.dropped_through(),
            recent.first_revision(),
            recent.stored(),
            mvcc.current,
            random.random_range(1..=mvcc.current.max(1)),
        ]
    });
    let near = interesting.choose(random).copied().unwrap_or(1) + random.random_range(-1..=1);
    near.max(1)
}

impl World {
    /// A member that runs, by chance.
    pub fn any_running(&mut self) -> Option<u64> {
        let running: Vec<u64> = self
            .machines
            .values()
            .filter(|machine| machine.running.is_some() && machine.busy_until <= self.now)
            .map(|machine| machine.member)
            .collect();
        running.choose(&mut self.random).copied()
    }

    pub(crate) fn client(&mut self, number: usize) {
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
        let wait = self.random.random_range(self.plan.client_micros.clone());
        self.later(wait, Happening::Client(number));
    }

    pub(crate) fn holder(&mut self, number: usize) {
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

    pub(crate) fn poll_client(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let running = client.waits_for().and_then(|id| {
            let machine = self.machines.get(&id)?;
            Some((machine.running.as_ref()?, machine.starts))
        });
        if let Err(error) = client.poll(running, self.now, &mut self.history.operations) {
            self.history.violations.push(error);
        }
    }

    pub(crate) fn watch(&mut self, number: usize) {
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

    pub(crate) fn visit(&mut self, number: usize) {
        let mut visitor = std::mem::take(&mut self.visitors[number]);
        if let Err(error) = self.go_on_visiting(&mut visitor) {
            self.history.violations.push(error);
        }
        self.visitors[number] = visitor;
        let wait = self.random.random_range(1_000..60_000);
        self.later(wait, Happening::Visit(number));
    }

    fn go_on_visiting(&mut self, visitor: &mut Visitor) -> Result<(), String> {
        let Some(watcher) = &mut visitor.watcher else {
            if !self.quiet {
                self.begin_visit(visitor)?;
            }
            return Ok(());
        };
        let member = watcher.member();
        let running = member.and_then(|(id, starts)| {
            let machine = self.machines.get(&id)?;
            machine.running.as_ref().filter(|_| machine.starts == starts)
        });
        let Some(running) = running.filter(|_| visitor.looks > 0) else {
            self.history.watches.push(watcher.watched(false));
            visitor.watcher = None;
            return Ok(());
        };
        visitor.looks -= 1;
        // A true answer to this says that nothing is missing.
        watcher.progress(true);
        watcher.poll(running)
    }

    fn begin_visit(&mut self, visitor: &mut Visitor) -> Result<(), String> {
        let Some(id) = self.any_running() else {
            return Ok(());
        };
        let Some(machine) = self.machines.get(&id) else {
            return Ok(());
        };
        let Some(running) = &machine.running else {
            return Ok(());
        };
        let random = &mut self.random;
        let past = revision_of_interest(running, random);
        let (from, end) = RANGES[random.random_range(0..RANGES.len())];
        read_back(running, &self.history, past).map_err(|error| format!("member {id}: {error}"))?;
        let mut watcher = Watcher::from_revision(from, end, revision_of_interest(running, random));
        watcher.connect(running, id, machine.starts);
        *visitor = Visitor {
            watcher: Some(watcher),
            looks: random.random_range(4..25),
        };
        Ok(())
    }
}

/// What a member says was there at a revision, against what truly was.
fn read_back(running: &Running, history: &crate::history::History, revision: i64) -> Result<(), String> {
    let (compacted, current) = running
        .state
        .read(|inner| (inner.mvcc.compacted, inner.mvcc.current));
    let request = RangeRequest {
        key: "k/".into(),
        range_end: "k0".into(),
        revision,
        ..RangeRequest::default()
    };
    let response = match running.state.range(&request) {
        Ok(response) => response,
        Err(StoreError::Compacted) if revision < compacted => return Ok(()),
        Err(StoreError::FutureRevision) if revision > current => return Ok(()),
        Err(error) => {
            return Err(format!(
                "reading at {revision} of {compacted} to {current}: {error}"
            ));
        }
    };
    if revision < compacted || revision > current {
        return Err(format!(
            "revision {revision} was read though there are only {compacted} to {current}"
        ));
    }
    let found = response.kvs.iter().map(|kv| (&kv.key[..], decode(&kv.value)));
    let truth = history.at(revision, "k/", "k0");
    if !found
        .clone()
        .eq(truth.iter().map(|(key, value)| (key.as_bytes(), *value)))
    {
        let found: Vec<_> = found.collect();
        return Err(format!(
            "at revision {revision} were {truth:?}, but {found:?} was read"
        ));
    }
    Ok(())
}
