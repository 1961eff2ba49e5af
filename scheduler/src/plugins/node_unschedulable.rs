//! NodeUnschedulable: cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;
use keelson_api::labels::TAINT_UNSCHEDULABLE;

use super::taints;
use crate::framework::{ClusterEvent, Cycle, Filter, Hint, Plugin, Refusal, Scope};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "NodeUnschedulable";

/// The plugin.
pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
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
    if !node.is_unschedulable() {
        return true;
    }
    // What the node lifecycle controller makes of a cordon; a pod that tolerates the one tolerates the other.
    let cordon = Taint {
        key: TAINT_UNSCHEDULABLE.into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    };
    pod.tolerations()
        .iter()
        .any(|toleration| taints::tolerates(toleration, &cordon))
}

impl Filter for NodeUnschedulable {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        if fits(cycle.pod, node) {
            return Ok(());
        }
        Err(Refusal::unresolvable(NAME, "node(s) were unschedulable"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn a_cordon_is_for_those_who_do_not_tolerate_it() {
        let cache = cluster(vec![], vec![]);
        let (plain, daemon) = (pod("p").info(), pod("d").toleration(TAINT_UNSCHEDULABLE).info());
        let cordoned = node("a").cordoned().info();
        assert!(
            NodeUnschedulable
                .filter(&cycle(&plain, &cache), &node("b").info())
                .is_ok()
        );
        assert!(
            NodeUnschedulable
                .filter(&cycle(&plain, &cache), &cordoned)
                .is_err()
        );
        assert!(
            NodeUnschedulable
                .filter(&cycle(&daemon, &cache), &cordoned)
                .is_ok()
        );
    }
}
