//! What a seed makes of a run: who is there, how fast they are, and what may go wrong how often.
//!
//! A run in which everything may go wrong a little sees no long chain of one kind. So most seeds switch kinds of faults
//! on and off and draw their rates anew (swarm testing), and some are about one part of the store: short, with little in
//! between, and with faults that wait for their moment.

use std::ops::Range;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// What can go wrong at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Everything works again.
    Heal,
    /// Two sides that do not hear each other.
    Partition,
    /// Whoever leads is alone, and has just been asked for a lot.
    IsolateLeader,
    /// Some do not hear one.
    OneWay,
    /// Loss, duplication, delay.
    BadNetwork,
    Crash,
    /// A crash in one of the next writes.
    CrashInWrite,
    /// A member stands still.
    Pause,
    /// The leader stands still, for longer than leases live.
    PauseLeader,
    SlowDisk,
    FullDisk,
    Transfer,
    Compaction,
    Membership,
}

/// Every kind, with how often it is drawn when nothing speaks for or against it.
const KINDS: [(Kind, u32); 14] = [
    (Kind::Heal, 3),
    (Kind::Partition, 3),
    (Kind::IsolateLeader, 1),
    (Kind::OneWay, 2),
    (Kind::BadNetwork, 3),
    (Kind::Crash, 2),
    (Kind::CrashInWrite, 4),
    (Kind::Pause, 1),
    (Kind::PauseLeader, 1),
    (Kind::SlowDisk, 1),
    (Kind::FullDisk, 1),
    (Kind::Transfer, 1),
    (Kind::Compaction, 2),
    (Kind::Membership, 2),
];

/// Chances that something goes wrong just when something else happens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moments {
    /// Who votes crashes at once, and whom it voted for is cut off.
    pub vote: f64,
    /// Who receives a snapshot crashes within the next writes, or right after it is in place.
    pub snapshot_crash: f64,
    /// Who receives a snapshot stands still before it does anything with it.
    pub snapshot_pause: f64,
    /// The sender of a snapshot gives up before it has arrived.
    pub snapshot_given_up: f64,
    /// A new leader stands still.
    pub election_pause: f64,
}

/// What a run is like.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub members: u64,
    /// Simulated time in which things go wrong.
    pub trouble_micros: u64,
    pub faults: Vec<(Kind, u32)>,
    /// Between two faults.
    pub fault_micros: Range<u64>,
    pub moments: Moments,
    /// Until a crashed member is started again.
    pub restart_micros: Range<u64>,
    pub clients: usize,
    /// Between two operations of a client.
    pub client_micros: Range<u64>,
    pub holders: usize,
    /// Most renewals of a lease before it is let go.
    pub renewals: u32,
    /// Granted time of leases in seconds.
    pub ttl: Range<u64>,
    /// Watchers that come for a while and go.
    pub visitors: usize,
    /// How often persisters look around.
    pub persist_micros: u64,
    /// How often members look for leases that have run out.
    pub expiry_micros: u64,
    /// Longest time until a process gets to what has arrived.
    pub wake_micros: u64,
    /// Bytes of changes kept in memory for watchers.
    pub recent_bytes: usize,
    /// Entries kept in the log for members that are behind.
    pub keep_entries: u64,
    pub segment_bytes: u64,
    /// How far behind the newest revision a compaction goes at most.
    pub compact_behind: i64,
    pub pre_vote: bool,
}

impl Plan {
    /// What `seed` makes.
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed ^ 0x9e37_79b9_7f4a_7c15);
        let mut plan = Self::usual(seed, &mut random);
        match seed % 8 {
            0 => {}
            1 => plan.about_snapshots(&mut random),
            2 => plan.about_elections(&mut random),
            3 => plan.about_leases(&mut random),
            4 => plan.about_watches(&mut random),
            _ => plan.swarm(&mut random),
        }
        plan
    }

    /// Everything may go wrong.
    fn usual(seed: u64, random: &mut StdRng) -> Self {
        Self {
            seed,
            members: if random.random_bool(0.25) { 5 } else { 3 },
            trouble_micros: random.random_range(20..40) * SECOND,
            faults: KINDS.to_vec(),
            fault_micros: 100 * MILLI..3 * SECOND,
            moments: Moments::default(),
            restart_micros: 50 * MILLI..4 * SECOND,
            clients: 4,
            client_micros: MILLI..120 * MILLI,
            holders: 2,
            renewals: 5,
            ttl: 2..5,
            visitors: 2,
            persist_micros: 300 * MILLI,
            expiry_micros: 500 * MILLI,
            wake_micros: MILLI,
            recent_bytes: 2 << 20,
            keep_entries: 40,
            segment_bytes: 16 << 10,
            compact_behind: 40,
            pre_vote: true,
        }
    }

    fn swarm(&mut self, random: &mut StdRng) {
        self.faults.retain_mut(|(kind, weight)| {
            *weight *= [1, 1, 3, 10].choose(random).copied().unwrap_or(1);
            *kind == Kind::Heal || random.random_bool(0.5)
        });
        self.members = [2, 3, 3, 3, 4, 5].choose(random).copied().unwrap_or(3);
        let longest = [300 * MILLI, SECOND, 3 * SECOND].choose(random).copied();
        self.fault_micros = 50 * MILLI..longest.unwrap_or(SECOND);
        let mut chance = || {
            let often = random.random_bool(0.3);
            if often { random.random_range(0.0..0.5) } else { 0.0 }
        };
        self.moments = Moments {
            vote: chance(),
            snapshot_crash: chance(),
            snapshot_pause: chance(),
            snapshot_given_up: chance(),
            election_pause: chance(),
        };
        self.restart_micros = 50 * MILLI
            ..[200 * MILLI, SECOND, 6 * SECOND]
                .choose(random)
                .copied()
                .unwrap_or(SECOND);
        self.clients = random.random_range(2..7);
        self.client_micros = MILLI
            ..[20 * MILLI, 120 * MILLI, SECOND]
                .choose(random)
                .copied()
                .unwrap_or(SECOND);
        self.holders = random.random_range(0..4);
        self.renewals = random.random_range(1..30);
        self.visitors = random.random_range(0..4);
        self.persist_micros = [50 * MILLI, 300 * MILLI, SECOND]
            .choose(random)
            .copied()
            .unwrap_or(SECOND);
        self.expiry_micros = [50 * MILLI, 500 * MILLI]
            .choose(random)
            .copied()
            .unwrap_or(SECOND);
        self.wake_micros = [MILLI, 20 * MILLI].choose(random).copied().unwrap_or(MILLI);
        self.recent_bytes = [0, 1 << 10, 8 << 10, 2 << 20]
            .choose(random)
            .copied()
            .unwrap_or(0);
        self.keep_entries = [1, 5, 40, 200].choose(random).copied().unwrap_or(1);
        self.segment_bytes = [4 << 10, 16 << 10, 64 << 10]
            .choose(random)
            .copied()
            .unwrap_or(4 << 10);
        self.compact_behind = [1, 10, 100].choose(random).copied().unwrap_or(1);
        self.pre_vote = random.random_bool(0.8);
    }

    /// Keeps only some kinds of faults, with these weights.
    fn only(&mut self, faults: &[(Kind, u32)], random: &mut StdRng) {
        self.faults = faults.to_vec();
        // Not the same mixture every time.
        for (_, weight) in &mut self.faults {
            *weight *= random.random_range(1..=3);
        }
    }

    /// A log that is soon forgotten, members that fall behind and have more in their own log than the snapshot they get,
    /// and crashes around the moment they get it.
    fn about_snapshots(&mut self, random: &mut StdRng) {
        self.only(
            &[
                (Kind::Heal, 4),
                (Kind::IsolateLeader, 4),
                (Kind::Partition, 2),
                (Kind::BadNetwork, 1),
                (Kind::Crash, 1),
                (Kind::SlowDisk, 1),
                (Kind::Transfer, 1),
                (Kind::Compaction, 6),
            ],
            random,
        );
        self.fault_micros = 50 * MILLI..SECOND;
        self.trouble_micros = random.random_range(15..30) * SECOND;
        self.moments = Moments {
            snapshot_crash: random.random_range(0.0..0.6),
            snapshot_pause: random.random_range(0.0..0.6),
            snapshot_given_up: random.random_range(0.0..0.6),
            ..Moments::default()
        };
        self.keep_entries = random.random_range(0..4);
        self.compact_behind = 2;
        self.persist_micros = 60 * MILLI;
        self.restart_micros = 50 * MILLI..SECOND;
        self.client_micros = MILLI..random.random_range(200 * MILLI..SECOND);
        self.holders = 0;
        self.visitors = 1;
    }

    /// Nothing but elections, with hardly an entry between them, and voters that crash.
    fn about_elections(&mut self, random: &mut StdRng) {
        self.only(
            &[
                (Kind::Heal, 3),
                (Kind::IsolateLeader, 3),
                (Kind::Partition, 2),
                (Kind::OneWay, 2),
                (Kind::BadNetwork, 2),
                (Kind::Crash, 2),
                (Kind::Transfer, 2),
                (Kind::Membership, 1),
            ],
            random,
        );
        self.fault_micros = 50 * MILLI..1500 * MILLI;
        self.trouble_micros = random.random_range(20..40) * SECOND;
        self.moments = Moments {
            vote: random.random_range(0.1..0.8),
            election_pause: random.random_range(0.0..0.3),
            ..Moments::default()
        };
        self.restart_micros = 20 * MILLI..400 * MILLI;
        self.client_micros = 100 * MILLI..2 * SECOND;
        self.holders = 0;
        self.visitors = 0;
        self.pre_vote = random.random_bool(0.6);
    }

    /// Leases that are renewed for long, and leaders that stand still meanwhile.
    fn about_leases(&mut self, random: &mut StdRng) {
        self.only(
            &[
                (Kind::Heal, 2),
                (Kind::PauseLeader, 6),
                (Kind::Pause, 1),
                (Kind::IsolateLeader, 2),
                (Kind::Crash, 1),
                (Kind::Transfer, 2),
                (Kind::SlowDisk, 1),
            ],
            random,
        );
        self.fault_micros = 500 * MILLI..4 * SECOND;
        self.trouble_micros = random.random_range(30..60) * SECOND;
        self.holders = random.random_range(3..7);
        self.renewals = 200;
        self.ttl = 1..4;
        self.expiry_micros = random.random_range(100..800) * MILLI;
        self.clients = 2;
        self.client_micros = 50 * MILLI..SECOND;
        self.visitors = 0;
    }

    /// Watches that begin at every kind of revision, hardly any memory for them, and history that goes all the time.
    fn about_watches(&mut self, random: &mut StdRng) {
        self.only(
            &[
                (Kind::Heal, 3),
                (Kind::Partition, 1),
                (Kind::Crash, 1),
                (Kind::CrashInWrite, 1),
                (Kind::Transfer, 1),
                (Kind::SlowDisk, 1),
                (Kind::Compaction, 10),
            ],
            random,
        );
        self.fault_micros = 50 * MILLI..500 * MILLI;
        self.trouble_micros = random.random_range(15..30) * SECOND;
        self.visitors = random.random_range(4..9);
        self.recent_bytes = [0, 500, 4 << 10].choose(random).copied().unwrap_or(0);
        self.persist_micros = 100 * MILLI;
        self.compact_behind = random.random_range(2..60);
        self.client_micros = MILLI..50 * MILLI;
        self.keep_entries = 20;
        self.holders = 1;
    }
}
