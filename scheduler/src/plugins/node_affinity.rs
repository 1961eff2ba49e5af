//! NodeAffinity: node selector, required and preferred node affinity.

use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, Plugin, PreFilter, PreFiltered, PreScore, PreScored, Refusal, Scope,
    Score, normalize_to_max,
};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "NodeAffinity";

/// The plugin.
pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(pod.required_nodes.matches(node)),
            ClusterEvent::NodeChanged(node, changes) => {
                Hint::queue_if(changes.labels && pod.required_nodes.matches(node))
            }
            _ => Hint::Skip,
        }
    }
}

impl PreFilter for NodeAffinity {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal> {
        let required = &cycle.pod.required_nodes;
        if required.is_any() {
            return Ok(PreFiltered::Skip);
        }
        match required.names() {
            None => Ok(PreFiltered::Filter),
            Some(names) if names.is_empty() => {
                Err(Refusal::unresolvable(NAME, "pod affinity terms conflict"))
            }
            Some(names) => Ok(PreFiltered::Only(names.into_iter().map(str::to_owned).collect())),
        }
    }
}

impl Filter for NodeAffinity {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if cycle.pod.required_nodes.matches(node) {
            return Ok(());
        }
        Err(Refusal::unresolvable(
            NAME,
            "node(s) didn't match Pod's node affinity/selector",
        ))
    }
}

impl PreScore for NodeAffinity {
    fn pre_score(&self, cycle: &mut Cycle<'_>, _: &[usize]) -> PreScored {
        if cycle.pod.preferred_nodes.is_empty() {
            PreScored::Skip
        } else {
            PreScored::Score
        }
    }
}

impl Score for NodeAffinity {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let matching = cycle
            .pod
            .preferred_nodes
            .iter()
            .filter(|preferred| preferred.term.matches(node));
        matching.map(|preferred| preferred.weight).sum()
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[usize], scores: &mut [i64]) {
        normalize_to_max(scores);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PodBuilder, cluster, cycle, node, pod};

    fn fits(builder: PodBuilder) -> bool {
        let cache = cluster(vec![], vec![]);
        let info = builder.info();
        let node = node("a").label("disk", "ssd").label("cores", "8").info();
        NodeAffinity.filter(&cycle(&info, &cache), &node).is_ok()
    }

    #[test]
    fn selectors_and_operators() {
        assert!(fits(pod("p")));
        assert!(fits(pod("p").select("disk", "ssd")));
        assert!(!fits(pod("p").select("disk", "ssd").select("gpu", "yes")));
        assert!(fits(pod("p").require_node("disk", "In", &["hdd", "ssd"])));
        assert!(!fits(pod("p").require_node("disk", "NotIn", &["ssd"])));
        assert!(fits(pod("p").require_node("gpu", "NotIn", &["yes"])));
        assert!(fits(pod("p").require_node("disk", "Exists", &[])));
        assert!(fits(pod("p").require_node("gpu", "DoesNotExist", &[])));
        assert!(fits(pod("p").require_node("cores", "Gt", &["4"])));
        assert!(!fits(pod("p").require_node("cores", "Lt", &["4"])));
        // Terms are alternatives; they come on top of the selector.
        let either = || {
            pod("p")
                .require_node("gpu", "Exists", &[])
                .require_node("disk", "Exists", &[])
        };
        assert!(fits(either()));
        assert!(!fits(either().select("gpu", "yes")));
    }

    #[test]
    fn a_daemon_sets_pod_is_tried_on_its_node_only() {
        let cache = cluster(vec![], vec![]);
        let info = pod("p").require_name("b").info();
        match NodeAffinity.pre_filter(&mut cycle(&info, &cache)) {
            Ok(PreFiltered::Only(names)) => assert_eq!(names, ["b"]),
            _ => panic!("not restricted"),
        }
    }

    #[test]
    fn preferences_add_up() {
        let cache = cluster(vec![], vec![]);
        let info = pod("p")
            .prefer_node(10, "disk", "ssd")
            .prefer_node(30, "zone", "a")
            .info();
        let cycle = cycle(&info, &cache);
        let nodes = [
            node("a").label("disk", "ssd").info(),
            node("b").label("disk", "ssd").label("zone", "a").info(),
            node("c").info(),
        ];
        let mut scores = nodes.each_ref().map(|node| NodeAffinity.score(&cycle, node));
        NodeAffinity.normalize(&cycle, &[0, 1, 2], &mut scores);
        assert_eq!(scores, [25, 100, 0]);
    }
}
