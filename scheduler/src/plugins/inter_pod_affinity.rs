//! InterPodAffinity: pods that want to be, or must not be, near other pods.

use std::collections::{BTreeMap, HashMap};

use keelson_api::object::Object;

use crate::engine::Snapshot;
use crate::framework::{
    ClusterEvent, Cycle, Filter, Hint, MAX_SCORE, Plugin, PreFilter, PreFiltered, PreScore, PreScored,
    Refusal, Scope, Score,
};
use crate::model::{AffinityTerm, NodeInfo, PodInfo};

const NAME: &str = "InterPodAffinity";
/// What a rule of a pod that is there counts as when nodes are compared for a pod it would like beside it.
/// (Upstream's default.)
const HARD_AFFINITY_WEIGHT: i64 = 1;

/// The plugin.
pub struct InterPodAffinity;

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        NAME
    }

    fn hint(&self, event: &ClusterEvent<'_>, pod: &PodInfo) -> Hint {
        let terms = |pick: fn(&crate::model::Affinity) -> &Vec<AffinityTerm>| {
            pod.affinity.as_deref().map(pick).into_iter().flatten()
        };
        match event {
            // Namespace labels are not at hand: a selector of namespaces counts as matching.
            ClusterEvent::PodAssigned(other) => {
                Hint::queue_if(terms(|a| &a.required).any(|term| may_match(term, other)))
            }
            ClusterEvent::PodRemoved(other) => Hint::queue_if(
                other.has_required_anti_affinity()
                    || terms(|a| &a.required_anti).any(|term| may_match(term, other)),
            ),
            ClusterEvent::AssignedPodChanged(_)
            | ClusterEvent::NodeAdded(_)
            | ClusterEvent::NamespaceChanged => Hint::Queue,
            ClusterEvent::NodeChanged(_, changes) => Hint::queue_if(changes.labels),
            ClusterEvent::NodeRemoved => Hint::Skip,
        }
    }
}

fn may_match(term: &AffinityTerm, pod: &PodInfo) -> bool {
    let somewhere = term.namespaces.contains(&pod.key.namespace) || !term.namespace_selector.is_nothing();
    somewhere && term.selector.matches(pod.pod.labels())
}

/// Sums by topology key and value.
#[derive(Default)]
struct Sums(HashMap<String, HashMap<String, i64>>);

impl Sums {
    fn add(&mut self, term: &AffinityTerm, node: &NodeInfo, amount: i64) {
        if let Some(value) = node.label(&term.topology_key) {
            let values = self.0.entry(term.topology_key.clone()).or_default();
            *values.entry(value.to_owned()).or_default() += amount;
        }
    }

    fn of(&self, key: &str, node: &NodeInfo) -> i64 {
        let values = self.0.get(key);
        let value = node.label(key);
        values
            .zip(value)
            .and_then(|(values, value)| values.get(value))
            .copied()
            .unwrap_or_default()
    }

    /// Over all keys.
    fn total(&self, node: &NodeInfo) -> i64 {
        self.0.keys().map(|key| self.of(key, node)).sum()
    }
}

struct FilterState {
    /// Pods there whose anti-affinity rules mean us.
    refusing: Sums,
    /// Pods there that all our affinity rules mean.
    wanted: Sums,
    /// Pods there that our anti-affinity rules mean.
    unwanted: Sums,
    /// Our own rules mean us, too: the first of a group need not wait for itself.
    wants_itself: bool,
}

struct ScoreState(Sums);

fn labels_of<'a>(snapshot: Snapshot<'a>, pod: &PodInfo) -> Option<&'a BTreeMap<String, String>> {
    snapshot.namespace_labels(&pod.key.namespace)
}

impl PreFilter for InterPodAffinity {
    fn pre_filter(&self, cycle: &mut Cycle<'_>) -> Result<PreFiltered, Refusal> {
        let (pod, snapshot) = (cycle.pod, cycle.snapshot);
        let own = pod
            .affinity
            .as_deref()
            .filter(|a| !a.required.is_empty() || !a.required_anti.is_empty());
        let guarded = || {
            snapshot
                .nodes()
                .iter()
                .filter(|node| node.pods_with_required_anti_affinity > 0)
        };
        if own.is_none() && guarded().next().is_none() {
            return Ok(PreFiltered::Skip);
        }

        let our_namespace = labels_of(snapshot, pod);
        let mut refusing = Sums::default();
        for node in guarded() {
            for other in node
                .pods
                .iter()
                .filter(|other| other.has_required_anti_affinity())
            {
                let terms = other.affinity.iter().flat_map(|affinity| &affinity.required_anti);
                terms
                    .filter(|term| term.matches(pod, our_namespace))
                    .for_each(|term| refusing.add(term, node, 1));
            }
        }
        let (mut wanted, mut unwanted, mut wants_itself) = (Sums::default(), Sums::default(), false);
        if let Some(own) = own {
            for node in snapshot.nodes() {
                for other in node.pods.iter().filter(|other| !other.is_terminating()) {
                    let namespace = labels_of(snapshot, other);
                    if !own.required.is_empty()
                        && own.required.iter().all(|term| term.matches(other, namespace))
                    {
                        own.required.iter().for_each(|term| wanted.add(term, node, 1));
                    }
                    let against = own
                        .required_anti
                        .iter()
                        .filter(|term| term.matches(other, namespace));
                    against.for_each(|term| unwanted.add(term, node, 1));
                }
            }
            wants_itself = own.required.iter().all(|term| term.matches(pod, our_namespace));
        }
        cycle.state.put(FilterState {
            refusing,
            wanted,
            unwanted,
            wants_itself,
        });
        Ok(PreFiltered::Filter)
    }
}

impl Filter for InterPodAffinity {
    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn filter(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
        let Some(state) = cycle.state.get::<FilterState>() else {
            return Ok(());
        };
        if let Some(own) = cycle.pod.affinity.as_deref() {
            let has_keys = own
                .required
                .iter()
                .all(|term| node.label(&term.topology_key).is_some());
            let near = own
                .required
                .iter()
                .all(|term| state.wanted.of(&term.topology_key, node) > 0);
            let first_of_its_kind = state.wanted.0.is_empty() && state.wants_itself;
            if !(has_keys && (near || first_of_its_kind)) {
                return Err(Refusal::unresolvable(
                    NAME,
                    "node(s) didn't match pod affinity rules",
                ));
            }
            if own
                .required_anti
                .iter()
                .any(|term| state.unwanted.of(&term.topology_key, node) > 0)
            {
                return Err(Refusal::resolvable(
                    NAME,
                    "node(s) didn't match pod anti-affinity rules",
                ));
            }
        }
        if state.refusing.total(node) > 0 {
            return Err(Refusal::resolvable(
                NAME,
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ));
        }
        Ok(())
    }
}

impl PreScore for InterPodAffinity {
    fn pre_score(&self, cycle: &mut Cycle<'_>, _: &[usize]) -> PreScored {
        let (pod, snapshot) = (cycle.pod, cycle.snapshot);
        let own = pod
            .affinity
            .as_deref()
            .filter(|a| !a.preferred.is_empty() || !a.preferred_anti.is_empty());
        let our_namespace = labels_of(snapshot, pod);
        let mut sums = Sums::default();
        for node in snapshot.nodes() {
            if own.is_none() && node.pods_with_affinity == 0 {
                continue;
            }
            for other in &node.pods {
                if let Some(own) = own {
                    let namespace = labels_of(snapshot, other);
                    let mut weigh = |terms: &[AffinityTerm], sign: i64| {
                        let matching = terms.iter().filter(|term| term.matches(other, namespace));
                        matching.for_each(|term| sums.add(term, node, sign * term.weight));
                    };
                    weigh(&own.preferred, 1);
                    weigh(&own.preferred_anti, -1);
                }
                let Some(theirs) = other.affinity.as_deref() else {
                    continue;
                };
                for term in theirs
                    .required
                    .iter()
                    .filter(|term| term.matches(pod, our_namespace))
                {
                    sums.add(term, node, HARD_AFFINITY_WEIGHT);
                }
                for term in theirs
                    .preferred
                    .iter()
                    .filter(|term| term.matches(pod, our_namespace))
                {
                    sums.add(term, node, term.weight);
                }
                for term in theirs
                    .preferred_anti
                    .iter()
                    .filter(|term| term.matches(pod, our_namespace))
                {
                    sums.add(term, node, -term.weight);
                }
            }
        }
        if sums.0.is_empty() {
            return PreScored::Skip;
        }
        cycle.state.put(ScoreState(sums));
        PreScored::Score
    }
}

impl Score for InterPodAffinity {
    fn scope(&self) -> Scope {
        Scope::Cluster
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeInfo) -> i64 {
        cycle
            .state
            .get::<ScoreState>()
            .map_or(0, |ScoreState(sums)| sums.total(node))
    }

    fn normalize(&self, _: &Cycle<'_>, _: &[usize], scores: &mut [i64]) {
        let min = scores.iter().copied().min().unwrap_or_default();
        let max = scores.iter().copied().max().unwrap_or_default();
        for score in scores {
            *score = if max > min {
                MAX_SCORE * (*score - min) / (max - min)
            } else {
                0
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Cache;
    use crate::testing::{PodBuilder, cluster, cycle, node, pod};

    fn cache(pods: Vec<PodBuilder>) -> Cache {
        let nodes = vec![
            node("a1").label("zone", "a"),
            node("a2").label("zone", "a"),
            node("b1").label("zone", "b"),
        ];
        cluster(nodes, pods)
    }

    /// The nodes that fit.
    fn fitting(builder: PodBuilder, cache: &Cache) -> Vec<String> {
        let info = builder.info();
        let mut cycle = cycle(&info, cache);
        if matches!(InterPodAffinity.pre_filter(&mut cycle), Ok(PreFiltered::Skip)) {
            return cache.nodes().iter().map(|node| node.name.to_string()).collect();
        }
        let fits = |node: &&NodeInfo| InterPodAffinity.filter(&cycle, node).is_ok();
        cache
            .nodes()
            .iter()
            .filter(fits)
            .map(|node| node.name.to_string())
            .collect()
    }

    #[test]
    fn beside_means_in_the_same_domain() {
        let cache = cache(vec![pod("db").app("db").on("a1")]);
        assert_eq!(fitting(pod("p").beside("db", "zone"), &cache), ["a1", "a2"]);
        assert_eq!(
            fitting(pod("p").beside("db", "kubernetes.io/hostname"), &cache),
            ["a1"]
        );
        assert!(fitting(pod("p").beside("cache", "zone"), &cache).is_empty());
    }

    #[test]
    fn the_first_of_a_group_may_go_anywhere() {
        let cache = cache(vec![]);
        assert_eq!(
            fitting(pod("p").app("web").beside("web", "zone"), &cache).len(),
            3
        );
        assert!(fitting(pod("p").app("api").beside("web", "zone"), &cache).is_empty());
    }

    #[test]
    fn apart_works_both_ways() {
        let cache = cache(vec![pod("w1").app("web").apart_from("web", "zone").on("a1")]);
        assert_eq!(
            fitting(pod("w2").app("web").apart_from("web", "zone"), &cache),
            ["b1"]
        );
        // The one that is there refuses, although the new one has no rule.
        assert_eq!(fitting(pod("w3").app("web"), &cache), ["b1"]);
        assert_eq!(fitting(pod("other").app("db"), &cache).len(), 3);
    }

    #[test]
    fn preferences_draw() {
        let cache = cache(vec![pod("db").app("db").on("b1")]);
        let info = pod("p").prefer_beside(50, "db", "zone").info();
        let mut cycle = cycle(&info, &cache);
        assert_eq!(
            InterPodAffinity.pre_score(&mut cycle, &[0, 1, 2]),
            PreScored::Score
        );
        let mut scores: Vec<i64> = cache
            .nodes()
            .iter()
            .map(|node| InterPodAffinity.score(&cycle, node))
            .collect();
        InterPodAffinity.normalize(&cycle, &[0, 1, 2], &mut scores);
        assert_eq!(scores, [0, 0, 100]);
    }
}
