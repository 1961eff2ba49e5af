//! NodeName: a pod that names a node goes there or nowhere.

use crate::framework::{ClusterEvent, Cycle, Filter, Hint, Plugin, Refusal, Scope};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "NodeName";

/// The plugin.
pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(fits(pod, node)),
            _ => Hint::Skip,
        }
    }
}

fn fits(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_name().is_none_or(|name| *name == *node.name)
}

impl Filter for NodeName {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if fits(cycle.pod, node) {
            return Ok(());
        }
        Err(Refusal::unresolvable(
            NAME,
            "node(s) didn't match the requested node name",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn the_named_node_and_no_other() {
        let cache = cluster(vec![], vec![]);
        let named = pod("p").on("a").info();
        let cycle = cycle(&named, &cache);
        assert!(NodeName.filter(&cycle, &node("a").info()).is_ok());
        assert!(NodeName.filter(&cycle, &node("b").info()).is_err());
    }
}
