//! Which domain each node is in, and how many of the counted pods each node has: remembered from cycle to cycle, so
//! that a cycle counts only on the nodes that changed since the last one.

use std::collections::HashMap;
use std::sync::Arc;

use crate::engine::Snapshot;
use crate::model::{Counted, NodeInfo};

/// How many different groups of counted pods are remembered. Each costs sixteen bytes per node.
const MAX_GROUPS: usize = 128;

/// The domains of one topology key.
pub struct Domains {
    /// By the node's place; `None` if the node has no such label.
    pub of_node: Vec<Option<usize>>,
    /// How many there are.
    pub count: usize,
}

/// What is remembered.
#[derive(Default)]
pub struct Tally {
    layout: u64,
    domains: HashMap<String, Arc<Domains>>,
    /// By namespace and who is counted.
    groups: HashMap<(String, Counted), Group>,
    clock: u64,
}

#[derive(Default)]
struct Group {
    /// By the node's place: its generation when its pods were counted, and how many they were.
    counts: Vec<(u64, i64)>,
    used: u64,
}

impl Tally {
    /// The domains of a topology key.
    pub fn domains(&mut self, snapshot: Snapshot<'_>, key: &str) -> Arc<Domains> {
        self.follow(snapshot);
        if let Some(known) = self.domains.get(key) {
            return known.clone();
        }
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        let of_node = snapshot
            .nodes()
            .iter()
            .map(|node| {
                let next = numbers.len();
                node.label(key).map(|value| *numbers.entry(value).or_insert(next))
            })
            .collect();
        let domains = Arc::new(Domains {
            of_node,
            count: numbers.len(),
        });
        self.domains.insert(key.to_owned(), domains.clone());
        domains
    }

    /// How many pods of the namespace are counted on each node, by the node's place.
    pub fn counts(&mut self, snapshot: Snapshot<'_>, namespace: &str, counted: &Counted) -> Vec<i64> {
        self.follow(snapshot);
        self.clock += 1;
        let key = (namespace.to_owned(), counted.clone());
        if self.groups.len() >= MAX_GROUPS && !self.groups.contains_key(&key) {
            let oldest = self
                .groups
                .iter()
                .min_by_key(|(_, group)| group.used)
                .map(|(key, _)| key.clone());
            if let Some(key) = oldest {
                self.groups.remove(&key);
            }
        }
        let group = self.groups.entry(key).or_default();
        group.used = self.clock;
        group.counts.resize(snapshot.nodes().len(), (0, 0));
        for (entry, node) in group.counts.iter_mut().zip(snapshot.nodes()) {
            if entry.0 != node.generation {
                *entry = (node.generation, count(node, namespace, counted));
            }
        }
        group.counts.iter().map(|(_, count)| *count).collect()
    }

    /// Places mean other nodes once nodes have come or gone.
    fn follow(&mut self, snapshot: Snapshot<'_>) {
        if self.layout != snapshot.layout() {
            self.layout = snapshot.layout();
            self.domains.clear();
            self.groups.clear();
        }
    }
}

fn count(node: &NodeInfo, namespace: &str, counted: &Counted) -> i64 {
    let pods = node.pods.iter();
    let counted =
        pods.filter(|pod| pod.key.namespace == namespace && !pod.is_terminating() && counted.matches(pod));
    counted.count() as i64
}
