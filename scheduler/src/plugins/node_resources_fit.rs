//! NodeResourcesFit: a node must have what the pod asks for; the emptier one is better (LeastAllocated).

use std::borrow::Cow;

use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, MAX_SCORE, Permanence, Plugin, Refusal, Scope, Score,
};
use crate::model::{NodeInfo, PodInfo};

const NAME: &str = "NodeResourcesFit";

/// The plugin.
pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        match event {
            ClusterEvent::NodeAdded(node) => Hint::queue_if(lacks(pod, node).is_empty()),
            ClusterEvent::NodeChanged(node, changes) => {
                Hint::queue_if(changes.allocatable && lacks(pod, node).is_empty())
            }
            // Even a pod that asked for nothing made room for one more.
            ClusterEvent::PodRemoved(_) | ClusterEvent::AssignedPodChanged(_) => Hint::Queue,
            _ => Hint::Skip,
        }
    }
}

/// A resource that a node has too little of.
struct Lack {
    reason: Cow<'static, str>,
    /// Even the empty node would not have enough.
    ever: bool,
}

fn lacks(pod: &PodInfo, node: &NodeInfo) -> Vec<Lack> {
    let mut lacks = Vec::new();
    let (offered, taken, wanted) = (&node.allocatable, &node.requested, &pod.requests);
    if node.pods.len() as i64 + 1 > offered.pods {
        lacks.push(Lack {
            reason: "Too many pods".into(),
            ever: offered.pods == 0,
        });
    }
    let mut check = |name: &str, reason: Option<&'static str>, wanted: i64, offered: i64, taken: i64| {
        if wanted > 0 && wanted > offered - taken {
            let reason = reason.map_or_else(|| format!("Insufficient {name}").into(), Cow::Borrowed);
            lacks.push(Lack {
                reason,
                ever: wanted > offered,
            });
        }
    };
    let cpu = (wanted.milli_cpu, offered.milli_cpu, taken.milli_cpu);
    check("cpu", Some("Insufficient cpu"), cpu.0, cpu.1, cpu.2);
    let memory = (wanted.memory, offered.memory, taken.memory);
    check(
        "memory",
        Some("Insufficient memory"),
        memory.0,
        memory.1,
        memory.2,
    );
    let storage = (
        wanted.ephemeral_storage,
        offered.ephemeral_storage,
        taken.ephemeral_storage,
    );
    check(
        "ephemeral-storage",
        Some("Insufficient ephemeral-storage"),
        storage.0,
        storage.1,
        storage.2,
    );
    for (name, amount) in &wanted.scalar {
        check(name, None, *amount, offered.scalar(name), taken.scalar(name));
    }
    lacks
}

impl Filter for NodeResourcesFit {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let lacks = lacks(cycle.pod, node);
        if lacks.is_empty() {
            return Ok(());
        }
        let ever = lacks.iter().any(|lack| lack.ever);
        Err(Refusal {
            plugin: NAME,
            reasons: lacks.into_iter().map(|lack| lack.reason).collect(),
            permanence: if ever {
                Permanence::Unresolvable
            } else {
                Permanence::Resolvable
            },
        })
    }
}

impl Score for NodeResourcesFit {
    fn scope(&self) -> Scope {
        Scope::Node
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let pod = cycle.pod.nonzero;
        let free = |offered: i64, taken: i64, wanted: i64| {
            let then = taken + wanted;
            if offered <= 0 {
                return None;
            }
            Some(if then > offered {
                0
            } else {
                (offered - then) * MAX_SCORE / offered
            })
        };
        let cpu = free(
            node.allocatable.milli_cpu,
            node.nonzero_requested.milli_cpu,
            pod.milli_cpu,
        );
        let memory = free(node.allocatable.memory, node.nonzero_requested.memory, pod.memory);
        let known: Vec<i64> = [cpu, memory].into_iter().flatten().collect();
        if known.is_empty() {
            0
        } else {
            known.iter().sum::<i64>() / known.len() as i64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cluster, cycle, node, pod};

    #[test]
    fn every_lack_is_named() {
        let cache = cluster(vec![], vec![]);
        let mut info = node("a").offer("pods", "1").info();
        info.add_pod(pod("there").request("cpu", "3500m").info());
        let wants = pod("p")
            .request("cpu", "1")
            .request("memory", "9Gi")
            .request("example.com/gpu", "1")
            .info();
        let refusal = NodeResourcesFit
            .filter(&cycle(&wants, &cache), &info)
            .unwrap_err();
        let expected = [
            "Too many pods",
            "Insufficient cpu",
            "Insufficient memory",
            "Insufficient example.com/gpu",
        ];
        assert_eq!(refusal.reasons, expected);
        assert_eq!(
            refusal.permanence,
            Permanence::Unresolvable,
            "no eviction makes 9 GiB of 8"
        );
    }

    #[test]
    fn what_evictions_can_cure_is_resolvable() {
        let cache = cluster(vec![], vec![]);
        let mut info = node("a").info();
        info.add_pod(pod("there").request("cpu", "3500m").info());
        let wants = pod("p").request("cpu", "1").info();
        let refusal = NodeResourcesFit
            .filter(&cycle(&wants, &cache), &info)
            .unwrap_err();
        assert_eq!(refusal.permanence, Permanence::Resolvable);
        // 500m and exactly that is left.
        let fits = pod("p").request("cpu", "500m").info();
        assert!(NodeResourcesFit.filter(&cycle(&fits, &cache), &info).is_ok());
    }

    #[test]
    fn the_emptier_node_is_better() {
        let cache = cluster(vec![], vec![]);
        let wants = pod("p").request("cpu", "1").request("memory", "2Gi").info();
        let cycle = cycle(&wants, &cache);
        let empty = node("a").info();
        let mut half = node("b").info();
        half.add_pod(pod("x").request("cpu", "2").request("memory", "4Gi").info());
        assert_eq!(NodeResourcesFit.score(&cycle, &empty), 75);
        assert_eq!(NodeResourcesFit.score(&cycle, &half), 25);
    }

    #[test]
    fn pods_that_ask_for_nothing_still_spread() {
        let cache = cluster(vec![], vec![]);
        let nothing = pod("p").info();
        let cycle = cycle(&nothing, &cache);
        let mut used = node("a").info();
        used.add_pod(pod("x").info());
        used.add_pod(pod("y").info());
        assert!(NodeResourcesFit.score(&cycle, &used) < NodeResourcesFit.score(&cycle, &node("b").info()));
    }
}
