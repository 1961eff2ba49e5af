//! NodeResourcesBalancedAllocation: a node whose CPU and memory are used up alike is better than one that has much of
//! what nobody can use any more.

use crate::framework::{Cycle, MAX_SCORE, Plugin, PreScore, PreScored, Scope, Score};
use crate::model::NodeInfo;

/// The plugin.
pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }
}

impl PreScore for NodeResourcesBalancedAllocation {
    fn pre_score(&self, cycle: &mut Cycle<'_>, _: &[usize]) -> PreScored {
        // A pod that asks for nothing unbalances nothing.
        if cycle.pod.requests.is_zero() {
            PreScored::Skip
        } else {
            PreScored::Score
        }
    }
}

impl Score for NodeResourcesBalancedAllocation {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let pod = &cycle.pod.requests;
        let used = |offered: i64, taken: i64, wanted: i64| {
            (offered > 0).then(|| ((taken + wanted) as f64 / offered as f64).min(1.0))
        };
        let cpu = used(
            node.allocatable.milli_cpu,
            node.requested.milli_cpu,
            pod.milli_cpu,
        );
        let memory = used(node.allocatable.memory, node.requested.memory, pod.memory);
        // Of two values, half their difference is the standard deviation.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn balance_is_better() {
        let cache = cluster(vec![], vec![]);
        let even = pod("p").request("cpu", "2").request("memory", "4Gi").info();
        let lopsided = pod("q").request("cpu", "4").info();
        let empty = node("a").info();
        assert_eq!(
            NodeResourcesBalancedAllocation.score(&cycle(&even, &cache), &empty),
            100
        );
        assert_eq!(
            NodeResourcesBalancedAllocation.score(&cycle(&lopsided, &cache), &empty),
            50
        );
        let nothing = pod("r").info();
        let skip = NodeResourcesBalancedAllocation.pre_score(&mut cycle(&nothing, &cache), &[]);
        assert_eq!(skip, PreScored::Skip);
    }
}
