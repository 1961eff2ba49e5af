//! How many pods to create, which to delete, and what the status says.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::object::Object as _;
use keelson_api::selector::LabelSelector;

use super::rank;
use super::replicated::{Failure, ReplicaStatus, Replicated};
use crate::common::pods;

/// No more pods than this are created or deleted before their effect has been seen.
pub const BURST: usize = 500;

/// What brings the number of pods to the number wanted.
#[derive(Debug)]
pub enum Change {
    /// Nothing.
    None,
    /// So many new pods.
    Create(usize),
    /// These pods go.
    Delete(Vec<Arc<Pod>>),
}

/// Decides, given the active pods. `related` are the active pods of all controllers with the same owner: where
/// several of them share a node, one of them goes first.
#[must_use]
pub fn change(
    wanted: i32,
    active: &[Arc<Pod>],
    related: impl FnOnce() -> Vec<Arc<Pod>>,
    now: Timestamp,
) -> Change {
    let wanted = usize::try_from(wanted).unwrap_or_default();
    match active.len().cmp(&wanted) {
        std::cmp::Ordering::Equal => Change::None,
        std::cmp::Ordering::Less => Change::Create((wanted - active.len()).min(BURST)),
        std::cmp::Ordering::Greater => {
            let excess = (active.len() - wanted).min(BURST);
            let mut victims = active.to_vec();
            if excess < victims.len() {
                let mut on_node: HashMap<String, usize> = HashMap::new();
                for pod in related() {
                    *on_node.entry(pods::node_name(&pod).to_owned()).or_default() += 1;
                }
                rank::sort(
                    &mut victims,
                    |node| on_node.get(node).copied().unwrap_or_default(),
                    now,
                );
                victims.truncate(excess);
            }
            Change::Delete(victims)
        }
    }
}

/// The status that the active and terminating pods make, with what went wrong in this sync.
#[must_use]
pub fn status<K: Replicated>(
    owner: &K,
    active: &[Arc<Pod>],
    terminating: usize,
    failure: Option<(&str, String)>,
    now: &Time,
) -> ReplicaStatus {
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let template = owner.template().and_then(|template| template.metadata.as_ref());
    let labels = template.and_then(|meta| meta.labels.as_ref());
    let labels = labels.map_or_else(LabelSelector::everything, LabelSelector::from_map);
    let min_ready = owner.min_ready_seconds();
    let mut status = ReplicaStatus {
        replicas: count(active.len()),
        terminating: K::COUNTS_TERMINATING.then(|| count(terminating)),
        observed_generation: Some(owner.generation()),
        ..ReplicaStatus::default()
    };
    for pod in active {
        if labels.matches(pod.labels()) {
            status.fully_labeled += 1;
        }
        if let Some(from) = pods::available_from(pod, min_ready) {
            status.ready += 1;
            if from <= now.0 {
                status.available += 1;
            }
        }
    }
    status.failure = failure.map(|(reason, message)| {
        // The condition stays as it was first reported until it is over.
        owner.status().failure.unwrap_or_else(|| Failure {
            reason: reason.to_owned(),
            message,
            since: Some(now.clone()),
        })
    });
    status
}

/// When the next ready pod becomes available; `None` if all of them are.
#[must_use]
pub fn next_available(active: &[Arc<Pod>], min_ready_seconds: i32, now: Timestamp) -> Option<Duration> {
    if min_ready_seconds <= 0 {
        return None;
    }
    let next = active
        .iter()
        .filter_map(|pod| pods::available_from(pod, min_ready_seconds))
        .filter(|from| *from > now)
        .min()?;
    let nanos = next.as_nanosecond() - now.as_nanosecond();
    Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::testing::pod;
    use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn creations_come_in_bursts() {
        assert!(matches!(change(3000, &[], Vec::new, at(0)), Change::Create(500)));
        assert!(matches!(change(0, &[], Vec::new, at(0)), Change::None));
    }

    #[test]
    fn the_worst_pods_go_first() {
        let pods = vec![
            Arc::new(pod("good", "Running", true)),
            Arc::new(pod("bad", "Running", false)),
        ];
        let Change::Delete(victims) = change(1, &pods, || pods.clone(), at(100)) else {
            panic!("one has to go");
        };
        assert_eq!(victims[0].name(), "bad");
    }

    #[test]
    fn pods_count_as_available_after_their_minimum() {
        let set = ReplicaSet {
            spec: Some(ReplicaSetSpec {
                min_ready_seconds: Some(30),
                ..ReplicaSetSpec::default()
            }),
            ..ReplicaSet::default()
        };
        let pods = vec![
            Arc::new(pod("a", "Running", true)),
            Arc::new(pod("b", "Running", false)),
        ];
        let early = status(&set, &pods, 1, None, &Time(at(10)));
        assert_eq!(
            (early.replicas, early.ready, early.available, early.terminating),
            (2, 1, 0, Some(1))
        );
        assert_eq!(next_available(&pods, 30, at(10)), Some(Duration::from_secs(20)));
        assert_eq!(status(&set, &pods, 0, None, &Time(at(30))).available, 1);
    }

    #[test]
    fn a_failure_keeps_its_first_message() {
        let mut set = ReplicaSet::default();
        let first = status(&set, &[], 0, Some(("FailedCreate", "quota".into())), &Time(at(1)));
        set.set_status(first.clone());
        let second = status(&set, &[], 0, Some(("FailedCreate", "other".into())), &Time(at(2)));
        assert_eq!(first.failure, second.failure);
        assert_eq!(status(&set, &[], 0, None, &Time(at(3))).failure, None);
    }
}
