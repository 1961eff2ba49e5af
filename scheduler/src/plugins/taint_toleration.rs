//! TaintToleration: nodes with taints that the pod does not tolerate are refused, or liked less.

use super::taints;
use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, Plugin, PreScore, PreScored, Refusal, Scope, Score,
    normalize_to_max_reversed,
};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "TaintToleration";

/// The plugin.
pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(fits(pod, node)),
            ClusterEvent::NodeChanged(node, changes) => Hint::queue_if(changes.taints && fits(pod, node)),
            _ => Hint::Skip,
        }
    }
}

fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    taints::forbidding(node.taints(), pod.tolerations()).is_none()
}

impl Filter for TaintToleration {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if fits(cycle.pod, node) {
            return Ok(());
        }
        // Which taint it was is the cluster administrator's business: the pod's owner reads this.
        Err(Refusal::unresolvable(NAME, "node(s) had untolerated taint(s)"))
    }
}

impl PreScore for TaintToleration {
    fn pre_score(&self, _: &mut Cycle<'_>, _: &[usize]) -> PreScored {
        PreScored::Score
    }
}

impl Score for TaintToleration {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        taints::discouraging(node.taints(), cycle.pod.tolerations()) as i64
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[usize], scores: &mut [i64]) {
        normalize_to_max_reversed(scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::framework::Permanence;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn hard_taints_refuse_and_soft_ones_discourage() {
        let cache = cluster(vec![], vec![]);
        let plain = pod("p").info();
        let tolerant = pod("q").toleration("dedicated").info();
        let hard = node("a").taint("dedicated", "db", "NoSchedule").info();
        let soft = node("b").taint("dedicated", "db", "PreferNoSchedule").info();

        let refusal = TaintToleration.filter(&cycle(&plain, &cache), &hard).unwrap_err();
        assert_eq!(refusal.permanence, Permanence::Unresolvable);
        assert!(TaintToleration.filter(&cycle(&tolerant, &cache), &hard).is_ok());
        assert!(TaintToleration.filter(&cycle(&plain, &cache), &soft).is_ok());

        let score = |info| TaintToleration.score(&cycle(info, &cache), &soft);
        let mut scores = [score(&plain), score(&tolerant)];
        TaintToleration.normalize(&cycle(&plain, &cache), &[0, 1], &mut scores);
        assert_eq!(scores, [0, 100]);
    }
}
