//! Verdicts about nodes, shared between pods with equal requirements.
//!
//! The pods of a deployment differ in nothing that a single node cares about. The first one is judged against every
//! node; the others only against the nodes that changed since, which is mostly the one the last of them went to.

use std::collections::HashMap;
use std::sync::Arc;

use crate::framework::{Cycle, Profile, Refusal, Scope, Score};
use crate::model::NodeInfo;

/// How many different requirements are remembered. Each costs about a hundred bytes per node.
const MAX_TABLES: usize = 32;

/// What every node says to one kind of pod.
pub struct Table {
    /// By the node's place.
    pub entries: Vec<Entry>,
    layout: u64,
    used: u64,
}

/// What one node says.
pub struct Entry {
    /// The node's generation when it was asked; 0: never.
    generation: u64,
    /// The first refusal of its filters.
    pub refusal: Option<Arc<Refusal>>,
    /// Raw scores, in the order of the profile's score plugins; 0 for those of cluster scope.
    pub scores: Arc<[i64]>,
}

/// The tables of the requirements seen lately.
#[derive(Default)]
pub struct SharedVerdicts {
    tables: HashMap<Vec<u8>, Table>,
    clock: u64,
}

impl SharedVerdicts {
    /// The verdicts of every node on the cycle's pod, as of now.
    pub fn current(&mut self, profile: &Profile, cycle: &Cycle<'_>, layout: u64) -> &Table {
        self.clock += 1;
        let requirements = cycle.pod.requirements();
        if self.tables.len() >= MAX_TABLES && !self.tables.contains_key(&requirements) {
            let oldest = self
                .tables
                .iter()
                .min_by_key(|(_, table)| table.used)
                .map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                self.tables.remove(&key);
            }
        }
        let table = self.tables.entry(requirements).or_insert_with(|| Table {
            entries: Vec::new(),
            layout,
            used: 0,
        });
        table.used = self.clock;
        table.refresh(profile, cycle, layout);
        table
    }
}

impl Table {
    fn refresh(&mut self, profile: &Profile, cycle: &Cycle<'_>, layout: u64) {
        let nodes = cycle.snapshot.nodes();
        if self.layout != layout {
            self.entries.clear();
            self.layout = layout;
        }
        self.entries.resize_with(nodes.len(), || Entry {
            generation: 0,
            refusal: None,
            scores: Arc::default(),
        });
        for (entry, node) in self.entries.iter_mut().zip(nodes) {
            if entry.generation == node.generation {
                continue;
            }
            entry.generation = node.generation;
            entry.judge(profile, cycle, node);
        }
    }
}

impl Entry {
    /// Asks one node, outside of any table.
    pub fn of(profile: &Profile, cycle: &Cycle<'_>, node: &NodeInfo) -> Self {
        let mut entry = Entry {
            generation: node.generation,
            refusal: None,
            scores: Arc::default(),
        };
        entry.judge(profile, cycle, node);
        entry
    }

    fn judge(&mut self, profile: &Profile, cycle: &Cycle<'_>, node: &NodeInfo) {
        let filters = profile
            .points
            .filter
            .iter()
            .filter(|filter| filter.scope() == Scope::Node);
        self.refusal = filters
            .map(|filter| filter.filter(cycle, node))
            .find_map(Result::err)
            .map(Arc::new);
        if self.refusal.is_none() {
            let score = |(plugin, _): &(Arc<dyn Score>, i64)| match plugin.scope() {
                Scope::Node => plugin.score(cycle, node),
                Scope::Cluster => 0,
            };
            self.scores = profile.points.score.iter().map(score).collect();
        }
    }
}
