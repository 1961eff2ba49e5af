//! What goes wrong, and when.

use std::ops::AddAssign;

use keelson_store::cluster::Membership;
use keelson_store::raft::handle::{Command, Membership as Change};
use rand::Rng;
use rand::seq::IndexedRandom as _;
use tokio::sync::oneshot;

use crate::client::Client;
use crate::plan::Kind;
use crate::world::World;

const SECOND: u64 = 1_000_000;
/// More members than this are not added.
const MOST_MEMBERS: usize = 5;

/// What went wrong in a run.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub partitions: u64,
    pub one_way: u64,
    pub bad_networks: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub crashes: u64,
    pub crashes_in_writes: u64,
    pub pauses: u64,
    pub slow_disks: u64,
    pub full_disks: u64,
    pub membership_changes: u64,
    pub transfers: u64,
    pub compactions: u64,
    pub snapshots: u64,
    /// Faults that waited for their moment.
    pub moments: u64,
}

impl Counts {
    /// Faults, as opposed to messages that were lost and work that is part of normal life.
    pub fn faults(&self) -> u64 {
        self.partitions
            + self.one_way
            + self.bad_networks
            + self.crashes
            + self.crashes_in_writes
            + self.pauses
            + self.slow_disks
            + self.full_disks
            + self.membership_changes
            + self.transfers
            + self.moments
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.partitions += other.partitions;
        self.one_way += other.one_way;
        self.bad_networks += other.bad_networks;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.crashes += other.crashes;
        self.crashes_in_writes += other.crashes_in_writes;
        self.pauses += other.pauses;
        self.slow_disks += other.slow_disks;
        self.full_disks += other.full_disks;
        self.membership_changes += other.membership_changes;
        self.transfers += other.transfers;
        self.compactions += other.compactions;
        self.snapshots += other.snapshots;
        self.moments += other.moments;
    }
}

/// What is in force.
#[derive(Default)]
pub struct Faults {
    pub counts: Counts,
    /// Nothing new goes wrong.
    pub over: bool,
    /// The last identity that was given to a member.
    last_member: u64,
    /// A membership change that is on its way: the newcomer, or none for a removal or promotion.
    changing: Option<(Option<u64>, oneshot::Receiver<Outcome>)>,
}

type Outcome = Result<keelson_store::state::Outcome, keelson_store::error::StoreError>;

/// Everything works again.
pub fn heal(world: &mut World) {
    world.faults.over = true;
    world.network.heal();
    for machine in world.machines.values_mut() {
        machine.disk.set_full(false);
        machine.disk.set_sync_micros(500);
    }
}

/// Something goes wrong, or right again. Returns how long that lasts.
pub fn next(world: &mut World) -> u64 {
    finish_change(world);
    if world.faults.over {
        return SECOND;
    }
    if let Ok((kind, _)) = world
        .plan
        .faults
        .choose_weighted(&mut world.random, |(_, weight)| *weight)
    {
        happen(world, *kind);
    }
    let wait = world.plan.fault_micros.clone();
    world.random.random_range(wait)
}

/// Who leads, as far as anybody has seen; otherwise `otherwise`.
fn leader(world: &World, otherwise: u64) -> u64 {
    let last = world.history.leaders.last_key_value();
    last.map_or(otherwise, |(_, leader)| *leader)
}

fn happen(world: &mut World, kind: Kind) {
    let all: Vec<u64> = world.machines.keys().copied().collect();
    let Some(one) = all.choose(&mut world.random).copied() else {
        return;
    };
    let leader = leader(world, one);
    match kind {
        Kind::Heal => {
            world.network.heal();
            for machine in world.machines.values() {
                machine.disk.set_full(false);
                machine.disk.set_sync_micros(500);
            }
        }
        Kind::Partition => {
            world.faults.counts.partitions += 1;
            let side: Vec<bool> = all.iter().map(|_| world.random.random_bool(0.5)).collect();
            for (a, a_side) in all.iter().zip(&side) {
                for (b, b_side) in all.iter().zip(&side) {
                    if a_side != b_side {
                        world.network.cut(*a, *b);
                    }
                }
            }
        }
        Kind::IsolateLeader => {
            world.faults.counts.partitions += 1;
            for other in &all {
                world.network.cut(leader, *other);
                world.network.cut(*other, leader);
            }
            if world.random.random_bool(0.5) {
                let (writes, number) = (world.random.random_range(1..40), world.faults.counts.partitions);
                world.at(leader, None, |running| Client::burst(running, writes, number));
            }
        }
        Kind::OneWay => {
            world.faults.counts.one_way += 1;
            for _ in 0..world.random.random_range(1..=3) {
                if let Some(other) = all.choose(&mut world.random) {
                    world.network.cut(one, *other);
                }
            }
        }
        Kind::BadNetwork => {
            world.faults.counts.bad_networks += 1;
            world.network.loss = world.random.random_range(0.0..0.3);
            world.network.duplication = world.random.random_range(0.0..0.2);
            world.network.delay_micros = world.random.random_range(1_000..400_000);
        }
        Kind::Crash => {
            world.faults.counts.crashes += 1;
            world.crash(one);
        }
        Kind::CrashInWrite => {
            let operations = world.random.random_range(1..60);
            world.machines[&one].disk.fail_in(operations);
        }
        Kind::Pause => {
            world.faults.counts.pauses += 1;
            world.pause(one, SECOND / 10..5 * SECOND);
        }
        Kind::PauseLeader => {
            world.faults.counts.pauses += 1;
            world.pause(leader, SECOND..8 * SECOND);
        }
        Kind::SlowDisk => {
            world.faults.counts.slow_disks += 1;
            let micros = world.random.random_range(5_000..200_000);
            world.machines[&one].disk.set_sync_micros(micros);
        }
        Kind::FullDisk => {
            world.faults.counts.full_disks += 1;
            world.machines[&one].disk.set_full(true);
        }
        Kind::Transfer => {
            world.faults.counts.transfers += 1;
            world.at(leader, None, |running| running.core.take(Command::Transfer(one)));
        }
        Kind::Compaction => {
            if let Some(id) = world.any_running() {
                world.faults.counts.compactions += 1;
                let newest = world
                    .history
                    .truth
                    .last_key_value()
                    .map_or(1, |(revision, _)| *revision);
                let revision = newest - world.random.random_range(0..world.plan.compact_behind);
                world.at(id, None, |running| Client::compact(running, revision.max(1)));
            }
        }
        Kind::Membership => change_membership(world),
    }
}

/// A learner comes, a learner votes, or a member goes.
fn change_membership(world: &mut World) {
    if world.faults.changing.is_some() {
        return;
    }
    let Some(at) = world.any_running() else {
        return;
    };
    let Some(running) = world.machines[&at].running.as_ref() else {
        return;
    };
    let (members, learner) = running.state.read(|inner| {
        let members = &inner.shared.membership.members;
        let learner = members
            .values()
            .find(|member| member.learner)
            .map(|member| member.id);
        (members.keys().copied().collect::<Vec<_>>(), learner)
    });
    let (newcomer, change) = match learner {
        Some(learner) if world.random.random_bool(0.8) => (None, Change::Promote(learner)),
        _ if members.len() < MOST_MEMBERS && world.random.random_bool(0.6) => {
            let last = world.machines.keys().last().copied().unwrap_or(0);
            let id = world.faults.last_member.max(last) + 1;
            world.faults.last_member = id;
            (Some(id), Change::Add(World::newcomer(id)))
        }
        // As an administrator would: never so many that a failure more is the end.
        _ if members.len() > 3 => {
            let victim = members[world.random.random_range(0..members.len())];
            (None, Change::Remove(victim))
        }
        _ => return,
    };
    world.faults.counts.membership_changes += 1;
    let (answer, outcome) = oneshot::channel();
    let id = (0xfffe_u64 << 48) | world.faults.counts.membership_changes;
    world.faults.changing = Some((newcomer, outcome));
    world.at(at, None, |running| {
        running
            .core
            .take(Command::ChangeMembership { id, change, answer });
    });
}

/// A newcomer is started once the group has it, and told who is there.
fn finish_change(world: &mut World) {
    let Some((newcomer, outcome)) = &mut world.faults.changing else {
        return;
    };
    let newcomer = *newcomer;
    let answered = outcome.try_recv();
    if matches!(answered, Err(oneshot::error::TryRecvError::Empty)) {
        return;
    }
    world.faults.changing = None;
    let Some(id) = newcomer else {
        return;
    };
    // Whatever the answer was: it may have been added.
    let known = world.machines.values().find_map(|machine| {
        let running = machine.running.as_ref()?;
        running.state.read(|inner| {
            let membership = &inner.shared.membership;
            membership.members.contains_key(&id).then(|| Membership {
                cluster_id: membership.cluster_id,
                members: membership.members.clone(),
                ..Membership::default()
            })
        })
    });
    if let Some(membership) = known {
        world.add_machine(id, membership, false);
    }
}
