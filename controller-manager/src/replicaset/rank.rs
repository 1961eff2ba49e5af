//! Which of too many pods go first.
//!
//! In this order: not bound to a node; pending rather than unknown rather than running; not ready; cheaper to
//! delete (`controller.kubernetes.io/pod-deletion-cost`); on a node with more of its siblings; ready for a shorter
//! time; restarted more often; younger. Times are compared by magnitude only, so that among pods of about the same
//! age chance decides and no node loses all of its pods because they were created a second later.

use std::cmp::{Ordering, Reverse};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use keelson_api::labels::POD_DELETION_COST as DELETION_COST;
use keelson_api::object::Object as _;

use crate::common::pods;

/// Sorts the pods that should go first to the front.
pub fn sort(victims: &mut [Arc<Pod>], siblings_on: impl Fn(&str) -> usize, now: Timestamp) {
    victims.sort_by_cached_key(|pod| Key::of(pod, siblings_on(pods::node_name(pod)), now));
}

/// Smaller goes first.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    assigned: bool,
    phase: u8,
    ready: bool,
    cost: i32,
    siblings: Reverse<usize>,
    ready_for: Magnitude,
    restarts: Reverse<(i32, i32)>,
    age: Magnitude,
    uid: String,
}

impl Key {
    fn of(pod: &Pod, siblings: usize, now: Timestamp) -> Self {
        let phase = match pods::phase(pod) {
            pods::PENDING | "" => 0,
            pods::UNKNOWN => 1,
            _ => 2,
        };
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            assigned: !pods::node_name(pod).is_empty(),
            phase,
            ready: pods::is_ready(pod),
            cost: pod
                .annotations()
                .get(DELETION_COST)
                .and_then(|text| text.parse().ok())
                .unwrap_or_default(),
            siblings: Reverse(siblings),
            ready_for: Magnitude::since(pods::ready_since(pod), now),
            restarts: Reverse(pods::max_restarts(pod)),
            age: Magnitude::since(created, now),
            uid: pod.uid().to_owned(),
        }
    }
}

/// How long something has been, as a power of two of nanoseconds; what has no beginning is youngest.
#[derive(PartialEq, Eq)]
struct Magnitude(Option<u32>);

impl Magnitude {
    fn since(begin: Option<Timestamp>, now: Timestamp) -> Self {
        Self(begin.map(|begin| {
            let nanos = now.as_nanosecond() - begin.as_nanosecond();
            // Durations end at about 292 years.
            u64::try_from(nanos.clamp(0, i128::from(i64::MAX)))
                .ok()
                .and_then(u64::checked_ilog2)
                .map_or(0, |log| log + 1)
        }))
    }
}

impl PartialOrd for Magnitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Magnitude {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.cmp(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::common::pods::testing::pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn order(mut pods: Vec<Pod>) -> Vec<String> {
        let mut pods: Vec<Arc<Pod>> = pods.drain(..).map(Arc::new).collect();
        let now = Timestamp::from_second(1_000_000).expect("a time");
        sort(&mut pods, |node| if node == "busy" { 2 } else { 1 }, now);
        pods.iter().map(|pod| pod.name().to_owned()).collect()
    }

    fn bound(mut pod: Pod, node: &str) -> Pod {
        pod.spec.get_or_insert_default().node_name = Some(node.into());
        pod
    }

    fn created(mut pod: Pod, second: i64) -> Pod {
        pod.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).expect("a time")));
        pod
    }

    #[test]
    fn from_useless_to_useful() {
        let mut costly = bound(pod("costly", "Running", true), "calm");
        costly.metadata.annotations = Some([(DELETION_COST.to_owned(), "10".to_owned())].into());
        let pods = vec![
            costly,
            bound(pod("running", "Running", true), "calm"),
            bound(pod("crowded", "Running", true), "busy"),
            bound(pod("unready", "Running", false), "calm"),
            bound(pod("unknown", "Unknown", true), "calm"),
            bound(pod("pending", "Pending", false), "calm"),
            pod("unbound", "Running", true),
        ];
        let expected = [
            "unbound", "pending", "unknown", "unready", "crowded", "running", "costly",
        ];
        assert_eq!(order(pods), expected);
    }

    #[test]
    fn the_much_younger_go_first() {
        let pods = vec![
            created(pod("old", "Running", true), 10),
            created(pod("young", "Running", true), 999_990),
        ];
        assert_eq!(order(pods), ["young", "old"]);
    }
}
