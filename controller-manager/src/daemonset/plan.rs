//! One step of a daemon set, as data: which nodes get a pod, which pods go, what the status says.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::Object as _;

use super::placement::{Place, place};
use super::pods as own_pods;
use crate::common::limits::{Rounding, scaled};
use crate::common::pods;

/// No more pods than this are created or deleted before their effect has been seen.
const BURST: usize = 250;

/// What there is.
pub struct Observed<'a> {
    /// The daemon set.
    pub set: &'a DaemonSet,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Every node.
    pub nodes: &'a [Arc<Node>],
    /// The hash of its current revision.
    pub hash: &'a str,
    /// The hashes of its other revisions.
    pub older: &'a HashSet<String>,
    /// Whether every earlier write has been seen.
    pub may_write: bool,
    /// Nodes where failed pods stay for now, and how long.
    pub held: &'a HashMap<String, Duration>,
    /// The present.
    pub now: Time,
}

/// What to do about it.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nodes that get a pod.
    pub create: Vec<String>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// Pods that go because they have failed or ended: the reason and message to report.
    pub ended: Vec<(&'static str, String)>,
    /// The nodes of those that have failed.
    pub failed_on: Vec<String>,
    /// When to look again, if nothing happens.
    pub look_again: Option<Duration>,
    /// The new status.
    pub status: DaemonSetStatus,
}

/// Plans the next step.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let by_node = by_node(observed);
    let places: BTreeMap<&str, Place> = observed
        .nodes
        .iter()
        .map(|node| (node.name(), place(observed.set, node)))
        .collect();
    let mut plan = Plan {
        status: status(observed, &by_node, &places),
        ..Plan::default()
    };
    if !observed.may_write {
        return plan;
    }
    let wanted = i32::try_from(places.values().filter(|place| place.should_run).count()).unwrap_or(i32::MAX);
    let limits = Limits::of(observed.set, wanted);
    manage(observed, &by_node, &places, &limits, &mut plan);
    // A rollout goes on from where nothing else is to be done.
    if plan.create.is_empty() && plan.delete.is_empty() && limits.rolling {
        roll(observed, &by_node, &places, &limits, &mut plan);
    }
    plan.create.truncate(BURST);
    plan.delete.truncate(BURST);
    plan
}

struct Limits {
    rolling: bool,
    surge: i32,
    unavailable: i32,
}

impl Limits {
    fn of(set: &DaemonSet, wanted: i32) -> Self {
        let strategy = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let update = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let up = |value: Option<&IntOrString>, default: i32| {
            let default = IntOrString::Int(default);
            scaled(value.unwrap_or(&default), wanted, Rounding::Up).unwrap_or_default()
        };
        let surge = up(update.and_then(|update| update.max_surge.as_ref()), 0);
        let unavailable = up(update.and_then(|update| update.max_unavailable.as_ref()), 1);
        // Both zero would leave no way forward.
        let unavailable = if surge == 0 {
            unavailable.max(1)
        } else {
            unavailable
        };
        Self {
            rolling,
            surge: if rolling { surge } else { 0 },
            unavailable,
        }
    }
}

type ByNode<'a> = BTreeMap<String, Vec<&'a Arc<Pod>>>;

/// Pods by the node they are on or meant for, oldest first.
fn by_node<'a>(observed: &Observed<'a>) -> ByNode<'a> {
    let mut by_node = ByNode::new();
    for pod in observed.pods {
        if let Some(node) = own_pods::node(pod) {
            by_node.entry(node.to_owned()).or_default().push(pod);
        }
    }
    for pods in by_node.values_mut() {
        // Bound ones before others: of two for one node, the other may never be.
        pods.sort_by_key(|pod| {
            let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (pods::node_name(pod).is_empty(), created, pod.name().to_owned())
        });
    }
    by_node
}

/// Whether a pod is of the set's template: by the hash of its revision, or, when nothing remembers that revision any
/// more, by how often the template had changed when the pod was made.
fn is_current(observed: &Observed<'_>, pod: &Pod) -> bool {
    let hash = pod.labels().get(CONTROLLER_REVISION_HASH);
    if hash.is_some_and(|hash| hash == observed.hash) {
        return true;
    }
    let known = hash.is_some_and(|hash| observed.older.contains(hash));
    !known && own_pods::has_generation_of(pod, observed.set)
}

fn is_available(observed: &Observed<'_>, pod: &Pod) -> bool {
    let min_ready = observed
        .set
        .spec
        .as_ref()
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or_default();
    pods::is_available(pod, min_ready, observed.now.0)
}

/// One pod on each node that should have one, none elsewhere.
fn manage(
    observed: &Observed<'_>,
    by_node: &ByNode<'_>,
    places: &BTreeMap<&str, Place>,
    limits: &Limits,
    plan: &mut Plan,
) {
    for (node, place) in places {
        let own = by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
        if place.should_run && own.is_empty() {
            plan.create.push((*node).to_owned());
        } else if !place.should_stay {
            plan.delete.extend(
                own.iter()
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                    .map(|pod| (*pod).clone()),
            );
        } else {
            keep_one(observed, node, own, limits, plan);
        }
    }
    // Pods that wait for a node that is gone.
    for (node, own) in by_node {
        if !places.contains_key(node.as_str()) {
            plan.delete.extend(
                own.iter()
                    .filter(|pod| pods::node_name(pod).is_empty())
                    .map(|pod| (*pod).clone()),
            );
        }
    }
}

fn keep_one(observed: &Observed<'_>, node: &str, own: &[&Arc<Pod>], limits: &Limits, plan: &mut Plan) {
    let mut running = Vec::new();
    for pod in own.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let (reason, verb, end) = match pods::phase(pod) {
            pods::FAILED => ("FailedDaemonPod", "failed", "kill"),
            "Succeeded" => ("SucceededDaemonPod", "succeeded", "delete"),
            _ => {
                running.push((*pod).clone());
                continue;
            }
        };
        if verb == "failed" {
            if let Some(left) = observed.held.get(node) {
                plan.look_again = plan.look_again.into_iter().chain([*left]).min();
                continue;
            }
            plan.failed_on.push(node.to_owned());
        }
        plan.ended.push((
            reason,
            format!(
                "Found {verb} daemon pod {} on node {node}, will try to {end} it",
                pod.key()
            ),
        ));
        plan.delete.push((*pod).clone());
    }
    if limits.surge == 0 {
        plan.delete.extend(running.into_iter().skip(1));
        return;
    }
    // With surge, an old and a new one may be there together, until the new one is available.
    let (new, old): (Vec<_>, Vec<_>) = running.into_iter().partition(|pod| is_current(observed, pod));
    // An old one that is not ready serves nobody.
    let old_serves = old.first().is_some_and(|pod| pods::is_ready(pod));
    let new_serves = new
        .first()
        .is_some_and(|pod| !old_serves || is_available(observed, pod));
    plan.delete.extend(new.into_iter().skip(1));
    plan.delete.extend(old.into_iter().skip(usize::from(!new_serves)));
}

/// Replaces pods of older revisions, as many as the limits allow.
fn roll(
    observed: &Observed<'_>,
    by_node: &ByNode<'_>,
    places: &BTreeMap<&str, Place>,
    limits: &Limits,
    plan: &mut Plan,
) {
    let mut unavailable = 0;
    let mut surging = 0;
    let mut broken = Vec::new();
    let mut healthy = Vec::new();
    for (node, place) in places {
        let own = by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
        // A node that is closed to the set and has none of its pods misses nothing.
        if !place.should_stay || (own.is_empty() && !place.should_run) {
            continue;
        }
        let going = own.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
        let mut stays = own.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        let new = stays.clone().find(|pod| is_current(observed, pod));
        let old = stays.find(|pod| !is_current(observed, pod));
        match (old, new) {
            (None, None) => unavailable += 1,
            (Some(_), Some(_)) => surging += 1,
            (None, Some(new)) => unavailable += i32::from(!is_available(observed, new)),
            (Some(_), None) if going => unavailable += 1,
            (Some(old), None) if is_available(observed, old) => healthy.push((*node, (*old).clone())),
            (Some(old), None) => {
                unavailable += 1;
                broken.push((*node, (*old).clone()));
            }
        }
    }
    let room = if limits.surge > 0 {
        limits.surge - surging
    } else {
        limits.unavailable - unavailable
    };
    let room = usize::try_from(room).unwrap_or_default();
    // What does not work is replaced at once: that costs nothing.
    let replaced = broken.into_iter().chain(healthy.into_iter().take(room));
    if limits.surge > 0 {
        plan.create.extend(replaced.map(|(node, _)| node.to_owned()));
    } else {
        plan.delete.extend(replaced.map(|(_, pod)| pod));
    }
}

fn status(observed: &Observed<'_>, by_node: &ByNode<'_>, places: &BTreeMap<&str, Place>) -> DaemonSetStatus {
    let before = observed.set.status.clone().unwrap_or_default();
    let (mut desired, mut current, mut misplaced, mut ready, mut updated, mut available) = (0, 0, 0, 0, 0, 0);
    for (node, place) in places {
        let own = by_node.get(*node).map(Vec::as_slice).unwrap_or_default();
        if !place.should_run {
            misplaced += i32::from(!own.is_empty());
            continue;
        }
        desired += 1;
        let serving = |pod: &&&Arc<Pod>| pods::is_ready(pod) && pod.metadata.deletion_timestamp.is_none();
        current += i32::from(!own.is_empty());
        ready += i32::from(own.iter().any(|pod| serving(&pod)));
        available += i32::from(own.iter().filter(serving).any(|pod| is_available(observed, pod)));
        updated += i32::from(own.iter().any(|pod| is_current(observed, pod)));
    }
    let count = |count: i32| Some(count).filter(|count| *count != 0);
    DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: current,
        number_misscheduled: misplaced,
        number_ready: ready,
        updated_number_scheduled: count(updated),
        number_available: count(available),
        number_unavailable: count(desired - available),
        observed_generation: if observed.may_write {
            observed.set.metadata.generation
        } else {
            before.observed_generation
        },
        collision_count: before.collision_count,
        conditions: before.conditions,
    }
}

/// Revisions that pods are of, by hash.
#[must_use]
pub fn hashes_in_use(pods: &[Arc<Pod>]) -> HashSet<String> {
    pods.iter()
        .filter_map(|pod| pod.labels().get(CONTROLLER_REVISION_HASH).cloned())
        .collect()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
