//! One step of a stateful set, as data.
//!
//! Pods come in order of their ordinals and go in the reverse one, each waiting for the one before, unless the set's
//! pod management is parallel. An update replaces pods from the highest ordinal down to the partition.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::Object as _;

use super::identity;
use crate::common::limits::{Rounding, scaled};
use crate::common::pods;

/// What there is.
pub struct Observed<'a> {
    /// The stateful set.
    pub set: &'a StatefulSet,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// The name of the revision that the set is coming from.
    pub current: &'a str,
    /// The name of the revision of its template.
    pub update: &'a str,
    /// The present.
    pub now: Time,
}

/// A pod to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// Its ordinal.
    pub ordinal: i32,
    /// Whether it is of the new revision.
    pub updated: bool,
}

/// What to do about it.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to create.
    pub create: Vec<Creation>,
    /// Pods that go.
    pub delete: Vec<Arc<Pod>>,
    /// The new status.
    pub status: StatefulSetStatus,
    /// When to look again though nothing has happened.
    pub look_again: Option<Duration>,
}

/// Plans the next step.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut planner = Planner::new(observed);
    let mut plan = Plan {
        status: planner.status(),
        look_again: planner.next_available(),
        ..Plan::default()
    };
    if observed.set.metadata.deletion_timestamp.is_none() {
        planner.act();
        plan.create = planner.create;
        plan.delete = planner.delete;
    }
    plan
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    /// Pods at their places, from the first ordinal.
    places: Vec<Option<Arc<Pod>>>,
    /// Pods beyond the last place, the highest ordinal first.
    beyond: Vec<Arc<Pod>>,
    first: i32,
    create: Vec<Creation>,
    delete: Vec<Arc<Pod>>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let set = observed.set;
        let replicas = set
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1)
            .max(0);
        let first = identity::first(set);
        let mut places = vec![None; usize::try_from(replicas).unwrap_or_default()];
        let mut beyond = Vec::new();
        for pod in observed.pods {
            let Some(ordinal) = identity::ordinal(set, pod) else {
                continue;
            };
            let place = usize::try_from(ordinal - first)
                .ok()
                .and_then(|index| places.get_mut(index));
            match place {
                Some(place) => *place = Some(pod.clone()),
                None => beyond.push((ordinal, pod.clone())),
            }
        }
        beyond.sort_by_key(|(ordinal, _)| std::cmp::Reverse(*ordinal));
        let beyond = beyond.into_iter().map(|(_, pod)| pod).collect();
        Self {
            observed,
            places,
            beyond,
            first,
            create: Vec::new(),
            delete: Vec::new(),
        }
    }

    fn is_parallel(&self) -> bool {
        let spec = self.observed.set.spec.as_ref();
        spec.and_then(|spec| spec.pod_management_policy.as_deref()) == Some("Parallel")
    }

    fn min_ready_seconds(&self) -> i32 {
        self.observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or_default()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pods::is_available(pod, self.min_ready_seconds(), self.observed.now.0)
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pods::phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none() && self.is_available(pod)
    }

    fn partition(&self) -> i32 {
        let strategy = self
            .observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        rolling.and_then(|rolling| rolling.partition).unwrap_or_default()
    }

    /// Whether the pod with this ordinal is to be made of the new revision.
    fn is_to_be_updated(&self, ordinal: i32) -> bool {
        let strategy = self
            .observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return true;
        }
        ordinal >= self.first + self.partition()
    }

    fn act(&mut self) {
        if self.replicate() {
            return;
        }
        if self.scale_down() {
            return;
        }
        self.update();
    }

    /// Fills the places. Returns whether the rest has to wait.
    fn replicate(&mut self) -> bool {
        let parallel = self.is_parallel();
        for index in 0..self.places.len() {
            let ordinal = self.first + i32::try_from(index).unwrap_or(i32::MAX);
            match self.places[index].clone() {
                None => {
                    let updated = self.is_to_be_updated(ordinal);
                    self.create.push(Creation { ordinal, updated });
                }
                // One that has ended makes place for another of its name.
                Some(pod) if pods::is_terminal(&pod) => {
                    if pod.metadata.deletion_timestamp.is_none() {
                        self.delete.push(pod);
                    }
                }
                Some(pod) if self.is_healthy(&pod) => continue,
                Some(_) => {}
            }
            if !parallel {
                return true;
            }
        }
        !self.create.is_empty()
    }

    /// Takes away what is beyond the last place. Returns whether the rest has to wait.
    fn scale_down(&mut self) -> bool {
        let parallel = self.is_parallel();
        let runs = |pod: &Pod| {
            pods::phase(pod) == "Running" && pod.metadata.deletion_timestamp.is_none() && pods::is_ready(pod)
        };
        // Of those that are not well, only the lowest may go: the others might be needed to make it well again.
        let lowest_unwell = self.beyond.iter().rfind(|pod| !runs(pod)).map(|pod| pod.uid());
        for pod in &self.beyond {
            if pod.metadata.deletion_timestamp.is_none() {
                if !parallel && !self.is_healthy(pod) && lowest_unwell != Some(pod.uid()) {
                    return true;
                }
                self.delete.push(pod.clone());
            }
            if !parallel {
                return true;
            }
        }
        !self.beyond.is_empty() && !parallel
    }

    /// Replaces pods of older revisions, highest ordinal first.
    fn update(&mut self) {
        let strategy = self
            .observed
            .set
            .spec
            .as_ref()
            .and_then(|spec| spec.update_strategy.as_ref());
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let one = IntOrString::Int(1);
        let limit = rolling
            .and_then(|rolling| rolling.max_unavailable.as_ref())
            .unwrap_or(&one);
        let places = i32::try_from(self.places.len()).unwrap_or(i32::MAX);
        let limit = scaled(limit, places, Rounding::Up).unwrap_or(1).max(1);
        let healthy = |pod: &Option<Arc<Pod>>| pod.as_ref().is_some_and(|pod| self.is_healthy(pod));
        let unavailable = self.places.iter().filter(|pod| !healthy(pod)).count();
        let mut room = limit - i32::try_from(unavailable).unwrap_or(i32::MAX);
        let partition = usize::try_from(self.partition()).unwrap_or_default();
        for pod in self.places.iter().skip(partition).rev().flatten() {
            let old = revision_of(pod) != self.observed.update;
            if old && pod.metadata.deletion_timestamp.is_none() {
                // What does not work is replaced at once: that costs nothing.
                if room <= 0 && self.is_healthy(pod) {
                    return;
                }
                room -= i32::from(self.is_healthy(pod));
                self.delete.push(pod.clone());
                if room <= 0 {
                    return;
                }
            } else if !self.is_healthy(pod) && limit == 1 {
                // The one before has to be well first.
                return;
            }
        }
    }

    fn status(&self) -> StatefulSetStatus {
        let set = self.observed.set;
        let before = set.status.clone().unwrap_or_default();
        let (mut replicas, mut ready, mut available, mut current, mut updated) = (0, 0, 0, 0, 0);
        for pod in self
            .observed
            .pods
            .iter()
            .filter(|pod| identity::ordinal(set, pod).is_some())
        {
            replicas += 1;
            if pods::phase(pod) == "Running" && pods::is_ready(pod) {
                ready += 1;
                available += i32::from(self.is_available(pod));
            }
            if pod.metadata.deletion_timestamp.is_none() && !pods::is_terminal(pod) {
                current += i32::from(revision_of(pod) == self.observed.current);
                updated += i32::from(revision_of(pod) == self.observed.update);
            }
        }
        let mut status = StatefulSetStatus {
            replicas,
            ready_replicas: count(ready),
            available_replicas: Some(available),
            current_replicas: count(current),
            updated_replicas: count(updated),
            current_revision: Some(self.observed.current.to_owned()),
            update_revision: Some(self.observed.update.to_owned()),
            observed_generation: set.metadata.generation,
            collision_count: before.collision_count.or(Some(0)),
            conditions: before.conditions,
        };
        let rolling = set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolling = rolling.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete");
        let all_updated = updated == replicas && ready == replicas;
        if rolling && all_updated && self.observed.current != self.observed.update {
            // The update is over: what was new is current.
            status.current_replicas = count(updated);
            status.current_revision = Some(self.observed.update.to_owned());
        }
        status
    }

    fn next_available(&self) -> Option<Duration> {
        crate::replicaset::next_available(self.observed.pods, self.min_ready_seconds(), self.observed.now.0)
    }
}

fn count(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count != 0)
}

fn revision_of(pod: &Pod) -> &str {
    pod.labels()
        .get(CONTROLLER_REVISION_HASH)
        .map(String::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
