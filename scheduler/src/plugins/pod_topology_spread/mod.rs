//! PodTopologySpread: pods that belong together are spread over zones, hosts or any other domains.
//!
//! Pods without constraints of their own that a controller replicates have upstream's default ones: wishes for spread
//! over hosts and zones. They count the pods of the same controller, which is what upstream's selector made of the
//! controller's and its services' labels comes to, without watching those.

mod tally;

use std::borrow::Cow;
use std::sync::Arc;

use keelson_api::labels;
use parking_lot::Mutex;

use super::taints;
use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, MAX_SCORE, Plugin, PreFilter, PreFiltered, PreScore, PreScored,
    Refusal, Scope, Score,
};
use crate::model::{Counted, NodeInfo, PodInfo, SpreadConstraint, WhenUnsatisfiable};
use tally::{Domains, Tally};

const NAME: &str = "PodTopologySpread";
/// Upstream's default constraints: the topology key and its skew.
const DEFAULTS: [(&str, i64); 2] = [(labels::HOSTNAME, 3), (labels::ZONE, 5)];
/// The raw score of a node outside the domains.
const OUTSIDE: i64 = -1;

/// The plugin.
#[derive(Default)]
pub struct PodTopologySpread {
    tally: Mutex<Tally>,
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        let counts = |other: &PodInfo| {
            other.key.namespace == pod.key.namespace
                && pod.spread.iter().any(|rule| rule.counted.matches(other))
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

/// One constraint, counted.
struct Spread {
    constraint: SpreadConstraint,
    domains: Arc<Domains>,
    /// How many counted pods each domain has; `None` if no node of it counts.
    totals: Vec<Option<i64>>,
}

struct FilterState(Vec<Spread>);

struct ScoreState {
    spreads: Vec<Spread>,
    weights: Vec<f64>,
    missing: Missing,
}

/// What a node without one of the topology labels is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Outside: the pod's constraints name the label.
    Excludes,
    /// Judged by its other labels: nobody asked for this one.
    IsIgnored,
}

/// Whether the pods on a node count for a constraint.
fn included(constraint: &SpreadConstraint, pod: &PodInfo, node: &NodeInfo) -> bool {
    (!constraint.honor_affinity || pod.required_nodes.matches(node))
        && (!constraint.honor_taints || taints::forbidding(node.taints(), pod.tolerations()).is_none())
}

fn wished_for_by_default(pod: &PodInfo) -> Vec<SpreadConstraint> {
    let Some(controller) = pod.replicated_by() else {
        return Vec::new();
    };
    let constraint = |(key, max_skew): (&str, i64)| SpreadConstraint {
        max_skew,
        topology_key: key.to_owned(),
        when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
        counted: Counted::Siblings(controller.to_owned()),
        min_domains: 1,
        honor_affinity: true,
        honor_taints: false,
    };
    DEFAULTS.into_iter().map(constraint).collect()
}

impl PodTopologySpread {
    fn count(
        &self,
        cycle: &Cycle<'_>,
        constraints: &[SpreadConstraint],
        when: WhenUnsatisfiable,
        missing: Missing,
    ) -> Vec<Spread> {
        let mut tally = self.tally.lock();
        let (pod, snapshot) = (cycle.pod, cycle.snapshot);
        let wanted = constraints
            .iter()
            .filter(|constraint| constraint.when_unsatisfiable == when);
        let mut spreads: Vec<Spread> = wanted
            .map(|constraint| {
                let domains = tally.domains(snapshot, &constraint.topology_key);
                Spread {
                    constraint: constraint.clone(),
                    totals: vec![None; domains.count],
                    domains,
                }
            })
            .collect();
        let everywhere: Vec<_> = spreads.iter().map(|spread| spread.domains.clone()).collect();
        let outside = |place: usize| everywhere.iter().any(|domains| domains.of_node[place].is_none());
        for spread in &mut spreads {
            let counts = tally.counts(snapshot, &pod.key.namespace, &spread.constraint.counted);
            for (place, node) in snapshot.nodes().iter().enumerate() {
                let Some(domain) = spread.domains.of_node[place] else {
                    continue;
                };
                if missing == Missing::Excludes && outside(place) || !included(&spread.constraint, pod, node)
                {
                    continue;
                }
                *spread.totals[domain].get_or_insert(0) += counts[place];
            }
        }
        spreads
    }
}

impl PreFilter for PodTopologySpread {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal> {
        let rules = WhenUnsatisfiable::DoNotSchedule;
        if !cycle
            .pod
            .spread
            .iter()
            .any(|constraint| constraint.when_unsatisfiable == rules)
        {
            return Ok(PreFiltered::Skip);
        }
        let spreads = self.count(cycle, &cycle.pod.spread, rules, Missing::Excludes);
        cycle.state.put(FilterState(spreads));
        Ok(PreFiltered::Filter)
    }
}

impl Filter for PodTopologySpread {
    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(FilterState(spreads)) = cycle.state.get() else {
            return Ok(());
        };
        let Some(place) = cycle.snapshot.place(&node.name) else {
            return Ok(());
        };
        for spread in spreads {
            let constraint = &spread.constraint;
            let Some(domain) = spread.domains.of_node[place] else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Refusal::unresolvable(NAME, reason));
            };
            let known = || spread.totals.iter().flatten().copied();
            let emptiest = if (known().count() as i64) < constraint.min_domains {
                0
            } else {
                known().min().unwrap_or_default()
            };
            let there = spread.totals[domain].unwrap_or_default();
            let itself = i64::from(constraint.counted.matches(cycle.pod));
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
        let (constraints, missing) = if cycle.pod.spread.is_empty() {
            (Cow::Owned(wished_for_by_default(cycle.pod)), Missing::IsIgnored)
        } else {
            (Cow::Borrowed(cycle.pod.spread.as_slice()), Missing::Excludes)
        };
        let spreads = self.count(cycle, &constraints, WhenUnsatisfiable::ScheduleAnyway, missing);
        if spreads.iter().all(|spread| spread.domains.count == 0) {
            return PreScored::Skip;
        }
        let weight = |spread: &Spread| {
            let hosts = spread.constraint.topology_key == labels::HOSTNAME;
            let size = if hosts {
                feasible.len()
            } else {
                spread.totals.iter().flatten().count()
            };
            // A skew among many domains says more than the same one among few.
            ((size + 2) as f64).ln()
        };
        let weights = spreads.iter().map(weight).collect();
        cycle.state.put(ScoreState {
            spreads,
            weights,
            missing,
        });
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
        let Some(place) = cycle.snapshot.place(&node.name) else {
            return OUTSIDE;
        };
        let mut score = 0.0;
        for (spread, weight) in state.spreads.iter().zip(&state.weights) {
            let Some(domain) = spread.domains.of_node[place] else {
                match state.missing {
                    Missing::Excludes => return OUTSIDE,
                    Missing::IsIgnored => continue,
                }
            };
            let there = spread.totals[domain].unwrap_or_default();
            score += there as f64 * weight + (spread.constraint.max_skew - 1) as f64;
        }
        score.round() as i64
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[usize], scores: &mut [i64]) {
        let known = || scores.iter().copied().filter(|score| *score != OUTSIDE);
        let (min, max) = (
            known().min().unwrap_or_default(),
            known().max().unwrap_or_default(),
        );
        for score in scores {
            *score = match (*score, max) {
                (OUTSIDE, _) => 0,
                (_, 0) => MAX_SCORE,
                (score, max) => MAX_SCORE * (max + min - score) / max,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cache;
    use crate::testing::{PodBuilder, cluster, cycle, node, pod};

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

    fn scores(plugin: &PodTopologySpread, builder: PodBuilder, cache: &Cache) -> Vec<i64> {
        let info = builder.info();
        let mut cycle = cycle(&info, cache);
        let all: Vec<usize> = (0..cache.nodes().len()).collect();
        assert_eq!(plugin.pre_score(&mut cycle, &all), PreScored::Score);
        let mut scores: Vec<i64> = cache
            .nodes()
            .iter()
            .map(|node| plugin.score(&cycle, node))
            .collect();
        plugin.normalize(&cycle, &all, &mut scores);
        scores
    }

    #[test]
    fn a_rule_keeps_domains_even() {
        let (plugin, cache) = (PodTopologySpread::default(), cache());
        let info = pod("w3")
            .app("web")
            .spread("zone", 1, "DoNotSchedule", "web")
            .info();
        let mut cycle = cycle(&info, &cache);
        assert!(matches!(plugin.pre_filter(&mut cycle), Ok(PreFiltered::Filter)));
        let verdict = |name| plugin.filter(&cycle, cache.node(name).unwrap());
        assert!(verdict("b1").is_ok());
        assert_eq!(
            verdict("a1").unwrap_err().reasons,
            ["node(s) didn't match pod topology spread constraints"]
        );
        assert!(verdict("x").unwrap_err().reasons[0].ends_with("(missing required label)"));
    }

    #[test]
    fn a_larger_skew_allows_more() {
        let (plugin, cache) = (PodTopologySpread::default(), cache());
        let info = pod("w3")
            .app("web")
            .spread("zone", 3, "DoNotSchedule", "web")
            .info();
        let mut cycle = cycle(&info, &cache);
        assert!(plugin.pre_filter(&mut cycle).is_ok());
        assert!(plugin.filter(&cycle, cache.node("a1").unwrap()).is_ok());
    }

    #[test]
    fn a_wish_prefers_the_emptier_domain() {
        let wishing = pod("w3").app("web").spread("zone", 1, "ScheduleAnyway", "web");
        assert_eq!(
            scores(&PodTopologySpread::default(), wishing, &cache()),
            [0, 0, 100, 0]
        );
    }

    #[test]
    fn what_is_remembered_follows_the_cluster() {
        let (plugin, mut cache) = (PodTopologySpread::default(), cache());
        let wishing = || pod("w3").app("web").spread("zone", 1, "ScheduleAnyway", "web");
        scores(&plugin, wishing(), &cache);
        cache.remove_pod("w1");
        cache.remove_pod("w2");
        cache.set_pod(pod("w4").app("web").on("b1").info());
        assert_eq!(scores(&plugin, wishing(), &cache), [100, 100, 0, 0]);
        cache.remove_node("a1");
        assert_eq!(scores(&plugin, wishing(), &cache).len(), 3);
    }

    #[test]
    fn siblings_are_spread_without_being_asked() {
        let cache = cluster(
            vec![node("a"), node("b"), node("c")],
            vec![
                pod("w1").of("web").on("a"),
                pod("w2").of("web").on("a"),
                pod("w3").of("web").on("b"),
                pod("d1").of("db").on("c"),
            ],
        );
        let scores = scores(&PodTopologySpread::default(), pod("w4").of("web"), &cache);
        assert!(scores[0] < scores[1] && scores[1] < scores[2], "{scores:?}");
        let alone = pod("p").info();
        assert_eq!(
            PodTopologySpread::default().pre_score(&mut cycle(&alone, &cache), &[0, 1, 2]),
            PreScored::Skip
        );
    }
}
