//! One scheduling cycle: from a pod to its node, or to the reasons why there is none.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::cache::Cache;
use super::diagnosis;
use super::shared::{Entry, SharedVerdicts};
use crate::framework::{
    Cycle, CycleState, Filter, Permission, PreFiltered, PreScored, Profile, Refusal, Scope, Score,
};
use crate::model::PodInfo;

/// Where a pod goes.
pub enum Placement {
    /// To this node, once the permissions are there.
    Node { node: Arc<str>, waits: Vec<Permission> },
    /// Nowhere now.
    Nowhere {
        message: String,
        /// The plugins whose refusal decided: what they say to later events decides when to try again.
        plugins: BTreeSet<&'static str>,
        nominated: Option<String>,
    },
}

/// Places a pod.
pub fn schedule(profile: &Profile, pod: &PodInfo, cache: &Cache, shared: &mut SharedVerdicts) -> Placement {
    let mut cycle = Cycle {
        pod,
        snapshot: cache.snapshot(),
        state: CycleState::default(),
    };
    let feasible = match find_feasible(profile, &mut cycle, cache.layout(), shared) {
        Ok(feasible) => feasible,
        Err(refusals) => return nowhere(profile, &cycle, refusals),
    };
    let best = match feasible.as_slice() {
        [only] => only.place,
        several => choose(profile, &mut cycle, several),
    };
    let node = &cycle.snapshot.nodes()[best];
    match reserve(profile, &mut cycle, node) {
        Ok(waits) => Placement::Node {
            node: node.name.clone(),
            waits,
        },
        Err(refusal) => nowhere(profile, &cycle, Refusals::All(refusal)),
    }
}

/// A node that fits, and its raw scores of node scope.
struct Feasible {
    place: usize,
    scores: Arc<[i64]>,
}

/// Why no node fits.
enum Refusals {
    /// One reason for all of them.
    All(Refusal),
    /// Each node's, by its place.
    Each(Vec<(usize, Arc<Refusal>)>),
}

fn find_feasible(
    profile: &Profile,
    cycle: &mut Cycle<'_>,
    layout: u64,
    shared: &mut SharedVerdicts,
) -> Result<Vec<Feasible>, Refusals> {
    let mut skipped: Vec<&'static str> = Vec::new();
    let mut only: Option<(Vec<String>, Vec<&'static str>)> = None;
    for plugin in &profile.points.pre_filter {
        match plugin.pre_filter(cycle).map_err(Refusals::All)? {
            PreFiltered::Filter => {}
            PreFiltered::Skip => skipped.push(plugin.name()),
            PreFiltered::Only(names) => match &mut only {
                None => only = Some((names, vec![plugin.name()])),
                Some((known, by)) => {
                    known.retain(|name| names.contains(name));
                    by.push(plugin.name());
                }
            },
        }
    }
    let filters: Vec<&dyn Filter> = profile
        .points
        .filter
        .iter()
        .filter(|filter| filter.scope() == Scope::Cluster && !skipped.contains(&filter.name()))
        .map(|filter| &**filter)
        .collect();

    let mut feasible = Vec::new();
    let mut refusals = Vec::new();
    let nodes = cycle.snapshot.nodes();
    let mut decide = |place: usize, entry: &Entry| {
        let refusal = entry.refusal.clone().or_else(|| {
            filters
                .iter()
                .map(|filter| filter.filter(cycle, &nodes[place]))
                .find_map(Result::err)
                .map(Arc::new)
        });
        match refusal {
            Some(refusal) => refusals.push((place, refusal)),
            None => feasible.push(Feasible {
                place,
                scores: entry.scores.clone(),
            }),
        }
    };
    match only {
        None => {
            let table = shared.current(profile, cycle, layout);
            for (place, entry) in table.entries.iter().enumerate() {
                decide(place, entry);
            }
        }
        Some((names, by)) => {
            let wanted: BTreeSet<usize> = names
                .iter()
                .filter_map(|name| cycle.snapshot.place(name))
                .collect();
            for place in &wanted {
                decide(*place, &Entry::of(profile, cycle, &nodes[*place]));
            }
            let reason = format!("node(s) didn't satisfy plugin(s) [{}]", by.join(" "));
            let plugin = by.first().copied().unwrap_or_default();
            let others = (0..nodes.len()).filter(|place| !wanted.contains(place));
            let absent = Arc::new(Refusal::unresolvable(plugin, reason));
            refusals.extend(others.map(|place| (place, absent.clone())));
        }
    }
    if feasible.is_empty() {
        Err(Refusals::Each(refusals))
    } else {
        Ok(feasible)
    }
}

/// The place of the best node; one of the best, if there are several.
fn choose(profile: &Profile, cycle: &mut Cycle<'_>, feasible: &[Feasible]) -> usize {
    let places: Vec<usize> = feasible.iter().map(|node| node.place).collect();
    let mut skipped: Vec<&'static str> = Vec::new();
    for plugin in &profile.points.pre_score {
        if plugin.pre_score(cycle, &places) == PreScored::Skip {
            skipped.push(plugin.name());
        }
    }
    let mut totals = vec![0_i64; feasible.len()];
    let mut scores = vec![0_i64; feasible.len()];
    for (number, (plugin, weight)) in profile.points.score.iter().enumerate() {
        let plugin: &dyn Score = &**plugin;
        if skipped.contains(&plugin.name()) {
            continue;
        }
        for (score, node) in scores.iter_mut().zip(feasible) {
            *score = match plugin.scope() {
                Scope::Node => node.scores.get(number).copied().unwrap_or_default(),
                Scope::Cluster => plugin.score(cycle, &cycle.snapshot.nodes()[node.place]),
            };
        }
        plugin.normalize(cycle, &places, &mut scores);
        for (total, score) in totals.iter_mut().zip(&scores) {
            *total += score * weight;
        }
    }
    let best = totals.iter().copied().max().unwrap_or_default();
    let best: Vec<usize> = places
        .iter()
        .zip(&totals)
        .filter(|(_, total)| **total == best)
        .map(|(place, _)| *place)
        .collect();
    // Always taking the first would send everything that is equally good everywhere to one node.
    best[rand::random_range(0..best.len())]
}

fn reserve(
    profile: &Profile,
    cycle: &mut Cycle<'_>,
    node: &crate::model::NodeInfo,
) -> Result<Vec<Permission>, Refusal> {
    let undo = |pod: &PodInfo| {
        for plugin in profile.points.reserve.iter().rev() {
            plugin.unreserve(pod, &node.name);
        }
    };
    for plugin in &profile.points.reserve {
        if let Err(refusal) = plugin.reserve(cycle, node) {
            undo(cycle.pod);
            return Err(refusal);
        }
    }
    let mut waits = Vec::new();
    for plugin in &profile.points.permit {
        match plugin.permit(cycle, node) {
            Ok(Permission::Allow) => {}
            Ok(wait) => waits.push(wait),
            Err(refusal) => {
                undo(cycle.pod);
                return Err(refusal);
            }
        }
    }
    Ok(waits)
}

fn nowhere(profile: &Profile, cycle: &Cycle<'_>, refusals: Refusals) -> Placement {
    let nodes = cycle.snapshot.nodes().len();
    let (mut message, each) = match refusals {
        Refusals::Each(each) => (
            diagnosis::message(nodes, each.iter().map(|(_, refusal)| &**refusal)),
            each,
        ),
        Refusals::All(refusal) => {
            let text = refusal.reasons.join(", ");
            let refusal = Arc::new(refusal);
            let each: Vec<_> = (0..nodes).map(|place| (place, refusal.clone())).collect();
            (format!("0/{nodes} nodes are available: {text}."), each)
        }
    };
    let plugins = each.iter().map(|(_, refusal)| refusal.plugin).collect();
    let mut nominated = None;
    if nodes > 0 {
        let mut said: Vec<String> = Vec::new();
        for plugin in &profile.points.post_filter {
            let outcome = plugin.post_filter(cycle, &each);
            nominated = outcome.nominated;
            if !outcome.message.is_empty() {
                said.push(outcome.message);
            }
            if nominated.is_some() {
                break;
            }
        }
        if !said.is_empty() {
            message.push(' ');
            message.push_str(&said.join(", "));
        }
    }
    Placement::Nowhere {
        message,
        plugins,
        nominated,
    }
}
