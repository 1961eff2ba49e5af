//! PodTopologySpread: pods that belong together are spread over zones, hosts or any other domains.

use std::collections::HashMap;

use keelson_api::object::Object;

use super::taints;
use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, MAX_SCORE, Plugin, PreFilter, PreFiltered, PreScore, PreScored,
    Refusal, Scope, Score,
};
use crate::model::{NodeInfo, PodInfo, SpreadConstraint, WhenUnsatisfiable};

const NAME: &str = "PodTopologySpread";
const HOSTNAME: &str = keelson_api::labels::HOSTNAME;

/// The plugin.
pub struct PodTopologySpread;

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        let counts = |other: &PodInfo| {
            other.key.namespace == pod.key.namespace
                && pod
                    .spread
                    .iter()
                    .any(|constraint| constraint.selector.matches(other.pod.labels()))
        };
        match event {
            ClusterEvent::PodAssigned(other) | ClusterEvent::PodRemoved(other) => {
                Hint::queue_if(counts(other))
            }
            // It may have been counted before.
            ClusterEvent::AssignedPodChanged(_) => Hint::Queue,
            ClusterEvent::NodeAdded(_) | ClusterEvent::NodeRemoved => Hint::Queue,
            ClusterEvent::NodeChanged(_, changes) => Hint::queue_if(changes.labels || changes.taints),
            ClusterEvent::NamespaceChanged => Hint::Skip,
        }
    }
}

/// How many matching pods each domain has, for one constraint.
#[derive(Default)]
struct Domains {
    constraint: usize,
    counts: HashMap<String, i64>,
}

struct FilterState(Vec<Domains>);

struct ScoreState {
    domains: Vec<Domains>,
    weights: Vec<f64>,
}

fn constraints(pod: &PodInfo, when: WhenUnsatisfiable) -> impl Iterator<Item = (usize, &SpreadConstraint)> {
    pod.spread
        .iter()
        .enumerate()
        .filter(move |(_, constraint)| constraint.when_unsatisfiable == when)
}

/// How many of the node's pods the constraint is about.
fn matching(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> i64 {
    let counted = node.pods.iter().filter(|other| {
        other.key.namespace == pod.key.namespace
            && !other.is_terminating()
            && constraint.selector.matches(other.pod.labels())
    });
    counted.count() as i64
}

/// Whether the pods on a node count for a constraint.
fn included(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || pod.required_nodes.matches(node))
        && (!constraint.honor_taints || taints::forbidding(node.taints(), pod.tolerations()).is_none())
}

fn count(pod: &PodInfo, when: WhenUnsatisfiable, nodes: &[NodeInfo]) -> Vec<Domains> {
    let wanted: Vec<_> = constraints(pod, when).collect();
    let mut domains: Vec<Domains> = wanted
        .iter()
        .map(|(number, _)| Domains {
            constraint: *number,
            counts: HashMap::new(),
        })
        .collect();
    for node in nodes {
        // A node outside one of the domains is outside all of them.
        if wanted
            .iter()
            .any(|(_, constraint)| node.label(&constraint.topology_key).is_none())
        {
            continue;
        }
        for ((_, constraint), domains) in wanted.iter().zip(&mut domains) {
            if !included(constraint, pod, node) {
                continue;
            }
            let value = node.label(&constraint.topology_key).unwrap_or_default();
            let pods = matching(constraint, pod, node);
            match domains.counts.get_mut(value) {
                Some(count) => *count += pods,
                None => drop(domains.counts.insert(value.to_owned(), pods)),
            }
        }
    }
    domains
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal> {
        if constraints(cycle.pod, WhenUnsatisfiable::DoNotSchedule)
            .next()
            .is_none()
        {
            return Ok(PreFiltered::Skip);
        }
        let domains = count(
            cycle.pod,
            WhenUnsatisfiable::DoNotSchedule,
            cycle.snapshot.nodes(),
        );
        cycle.state.put(FilterState(domains));
        Ok(PreFiltered::Filter)
    }
}

impl Filter for PodTopologySpread {
    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(FilterState(domains)) = cycle.state.get() else {
            return Ok(());
        };
        for domains in domains {
            let constraint = &cycle.pod.spread[domains.constraint];
            let Some(value) = node.label(&constraint.topology_key) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::unresolvable(NAME, reason));
            };
            let emptiest = if (domains.counts.len() as i64) < constraint.min_domains {
                0
            } else {
                domains.counts.values().copied().min().unwrap_or_default()
            };
            let there = domains.counts.get(value).copied().unwrap_or_default();
            let itself = i64::from(constraint.selector.matches(cycle.pod.pod.labels()));
            if there + itself - emptiest > constraint.max_skew {
                return Err(Refusal::resolvable(
                    NAME,
                    "node(s) didn't match pod topology spread constraints",
                ));
            }
        }
        Ok(())
    }
}

impl PreScore for PodTopologySpread {
    fn pre_score(&self, cycle: &mut Cycle<'_>, feasible: &[usize]) -> PreScored {
        if constraints(cycle.pod, WhenUnsatisfiable::ScheduleAnyway)
            .next()
            .is_none()
        {
            return PreScored::Skip;
        }
        let nodes = cycle.snapshot.nodes();
        let domains = count(cycle.pod, WhenUnsatisfiable::ScheduleAnyway, nodes);
        let weight = |domains: &Domains| {
            let key = &cycle.pod.spread[domains.constraint].topology_key;
            let size = if key == HOSTNAME {
                feasible.len()
            } else {
                domains.counts.len()
            };
            // A skew among many domains says more than the same one among few.
            ((size + 2) as f64).ln()
        };
        let weights = domains.iter().map(weight).collect();
        cycle.state.put(ScoreState { domains, weights });
        PreScored::Score
    }
}

impl Score for PodTopologySpread {
    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        let Some(state) = cycle.state.get::<ScoreState>() else {
            return 0;
        };
        let mut score = 0.0;
        for (domains, weight) in state.domains.iter().zip(&state.weights) {
            let constraint = &cycle.pod.spread[domains.constraint];
            let Some(value) = node.label(&constraint.topology_key) else {
                return MISSING;
            };
            let there = domains.counts.get(value).copied().unwrap_or_default();
            score += there as f64 * weight + (constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[usize], scores: &mut [i64]) {
        let known = || scores.iter().copied().filter(|score| *score != MISSING);
        let (min, max) = (
            known().min().unwrap_or_default(),
            known().max().unwrap_or_default(),
        );
        for score in scores {
            *score = match (*score, max) {
                (MISSING, _) => 0,
                (_, 0) => MAX_SCORE,
                (score, max) => MAX_SCORE * (max + min - score) / max,
            };
        }
    }
}

/// The raw score of a node outside the domains.
const MISSING: i64 = -1;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cache;
    use crate::testing::{cluster, cycle, node, pod};

    /// Two zones, three nodes, one node in no zone; two pods of the app in zone a.
    fn cache() -> Cache {
        cluster(
            vec![
                node("a1").label("zone", "a"),
                node("a2").label("zone", "a"),
                node("b1").label("zone", "b"),
                node("x"),
            ],
            vec![
                pod("w1").app("web").on("a1"),
                pod("w2").app("web").on("a2"),
                pod("other").app("db").on("b1"),
            ],
        )
    }

    #[test]
    fn a_rule_keeps_domains_even() {
        let cache = cache();
        let info = pod("w3")
            .app("web")
            .spread("zone", 1, "DoNotSchedule", "web")
            .info();
        let mut cycle = cycle(&info, &cache);
        assert!(matches!(
            PodTopologySpread.pre_filter(&mut cycle),
            Ok(PreFiltered::Filter)
        ));
        let verdict = |name| PodTopologySpread.filter(&cycle, cache.node(name).unwrap());
        assert!(verdict("b1").is_ok());
        assert_eq!(
            verdict("a1").unwrap_err().reasons,
            ["node(s) didn't match pod topology spread constraints"]
        );
        assert!(verdict("x").unwrap_err().reasons[0].ends_with("(missing required label)"));
    }

    #[test]
    fn a_larger_skew_allows_more() {
        let cache = cache();
        let info = pod("w3")
            .app("web")
            .spread("zone", 3, "DoNotSchedule", "web")
            .info();
        let mut cycle = cycle(&info, &cache);
        assert!(PodTopologySpread.pre_filter(&mut cycle).is_ok());
        assert!(
            PodTopologySpread
                .filter(&cycle, cache.node("a1").unwrap())
                .is_ok()
        );
    }

    #[test]
    fn a_wish_prefers_the_emptier_domain() {
        let cache = cache();
        let info = pod("w3")
            .app("web")
            .spread("zone", 1, "ScheduleAnyway", "web")
            .info();
        let mut cycle = cycle(&info, &cache);
        assert!(matches!(
            PodTopologySpread.pre_filter(&mut cycle),
            Ok(PreFiltered::Skip)
        ));
        assert_eq!(
            PodTopologySpread.pre_score(&mut cycle, &[0, 1, 2, 3]),
            PreScored::Score
        );
        let mut scores: Vec<i64> = cache
            .nodes()
            .iter()
            .map(|node| PodTopologySpread.score(&cycle, node))
            .collect();
        PodTopologySpread.normalize(&cycle, &[0, 1, 2, 3], &mut scores);
        assert_eq!(scores, [0, 0, 100, 0]);
    }
}
