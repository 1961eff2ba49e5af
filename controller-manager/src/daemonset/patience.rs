//! How long pods that fail again and again on one node are waited for before they are replaced.
//!
//! A kubelet that refuses a pod (no room, no such label any more) would otherwise be sent one pod after the other as
//! fast as it can refuse them.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// After the first failure on a node, the next failed pod there stays this long; after each further one twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// But never longer than this.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long each daemon set has to wait on which node.
#[derive(Debug, Default)]
pub struct Patience {
    /// By the uid of the set, by the name of the node.
    sets: Mutex<HashMap<String, HashMap<String, Wait>>>,
}

#[derive(Debug, Clone, Copy)]
struct Wait {
    since: Timestamp,
    delay: Duration,
}

impl Wait {
    fn left(self, now: Timestamp) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.since)).unwrap_or_default();
        self.delay.saturating_sub(passed)
    }

    /// Long enough without a failure: what was is forgotten.
    fn is_over(self, now: Timestamp) -> bool {
        Duration::try_from(now.duration_since(self.since)).is_ok_and(|passed| passed > 2 * LONGEST)
    }
}

impl Patience {
    /// Nodes on which failed pods of this set stay for now, and how long.
    #[must_use]
    pub fn held(&self, set: &str, now: Timestamp) -> HashMap<String, Duration> {
        let mut sets = self.sets.lock();
        let Some(nodes) = sets.get_mut(set) else {
            return HashMap::new();
        };
        nodes.retain(|_, wait| !wait.is_over(now));
        nodes
            .iter()
            .map(|(node, wait)| (node.clone(), wait.left(now)))
            .filter(|(_, left)| !left.is_zero())
            .collect()
    }

    /// A failed pod of this set is replaced on this node.
    pub fn failed(&self, set: &str, node: &str, now: Timestamp) {
        let mut sets = self.sets.lock();
        let nodes = sets.entry(set.to_owned()).or_default();
        let before = nodes.get(node).filter(|wait| !wait.is_over(now));
        let delay = before.map_or(FIRST, |wait| (wait.delay * 2).min(LONGEST));
        nodes.insert(node.to_owned(), Wait { since: now, delay });
    }

    /// The set is gone.
    pub fn forget(&self, set: &str) {
        self.sets.lock().remove(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_on_a_node_doubles_the_wait() {
        let patience = Patience::default();
        let mut now = Timestamp::UNIX_EPOCH;
        assert!(patience.held("set", now).is_empty());
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            patience.failed("set", "a", now);
            let wait = Duration::from_secs(seconds);
            assert_eq!(patience.held("set", now), HashMap::from([("a".to_owned(), wait)]));
            now += wait;
            assert!(patience.held("set", now).is_empty());
        }
        assert!(patience.held("other", now).is_empty());
        patience.failed("set", "a", now + 3 * LONGEST);
        assert_eq!(patience.held("set", now + 3 * LONGEST)["a"], FIRST);
        patience.forget("set");
        assert!(patience.held("set", now).is_empty());
    }
}
