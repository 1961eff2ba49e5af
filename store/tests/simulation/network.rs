//! The network between members: slow, lossy, and cut as the faults want it.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

/// What happens to messages at the moment.
pub struct Network {
    /// Pairs of sender and receiver between which nothing passes.
    cut: BTreeSet<(u64, u64)>,
    pub loss: f64,
    pub duplication: f64,
    /// Longest time on the way.
    pub delay_micros: u64,
    pub lost: u64,
    pub duplicated: u64,
}

impl Network {
    pub fn new() -> Self {
        let mut network = Self {
            cut: BTreeSet::new(),
            loss: 0.0,
            duplication: 0.0,
            delay_micros: 0,
            lost: 0,
            duplicated: 0,
        };
        network.heal();
        network
    }

    /// All is well again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.loss = 0.0;
        self.duplication = 0.0;
        self.delay_micros = 3_000;
    }

    pub fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// How long each copy of a message is on its way; nothing if it is lost.
    pub fn journeys(&mut self, from: u64, to: u64, random: &mut StdRng) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || random.random_bool(self.loss) {
            self.lost += 1;
            return Vec::new();
        }
        let mut journeys = vec![random.random_range(200..=self.delay_micros)];
        if random.random_bool(self.duplication) {
            self.duplicated += 1;
            journeys.push(random.random_range(200..=self.delay_micros * 10));
        }
        journeys
    }
}
