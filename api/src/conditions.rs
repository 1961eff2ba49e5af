//! Conditions: what components report about an object, one entry a type.

use k8s_openapi::api::apps::v1::{
    DaemonSetCondition, DeploymentCondition, ReplicaSetCondition, StatefulSetCondition,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerCondition;
use k8s_openapi::api::batch::v1::JobCondition;
use k8s_openapi::api::certificates::v1::CertificateSigningRequestCondition;
use k8s_openapi::api::core::v1::{
    NamespaceCondition, NodeCondition, PersistentVolumeClaimCondition, PodCondition,
    ReplicationControllerCondition,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as MetaCondition, Time};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceCondition;

/// The status of a condition that holds.
pub const TRUE: &str = "True";
/// The status of a condition that does not hold.
pub const FALSE: &str = "False";
/// The status of a condition nobody can tell.
pub const UNKNOWN: &str = "Unknown";

/// What all conditions have in common.
pub trait Condition: PartialEq {
    /// The condition's type; there is one of each.
    fn kind(&self) -> &str;
    /// `True`, `False` or `Unknown`.
    fn status(&self) -> &str;
    /// Why, in one word.
    fn reason(&self) -> &str;
    /// Why, in a sentence.
    fn message(&self) -> &str;
    /// When the status last changed.
    fn since(&self) -> Option<&Time>;
    /// Sets when the status last changed.
    fn set_since(&mut self, since: Option<Time>);
}

macro_rules! conditions {
    ($($kind:ty),+ $(,)?) => {$(
        impl Condition for $kind {
            fn kind(&self) -> &str {
                &self.type_
            }
            fn status(&self) -> &str {
                &self.status
            }
            fn reason(&self) -> &str {
                self.reason.as_deref().unwrap_or_default()
            }
            fn message(&self) -> &str {
                self.message.as_deref().unwrap_or_default()
            }
            fn since(&self) -> Option<&Time> {
                self.last_transition_time.as_ref()
            }
            fn set_since(&mut self, since: Option<Time>) {
                self.last_transition_time = since;
            }
        }
    )+};
}

conditions!(
    APIServiceCondition,
    CertificateSigningRequestCondition,
    CustomResourceDefinitionCondition,
    DaemonSetCondition,
    DeploymentCondition,
    HorizontalPodAutoscalerCondition,
    JobCondition,
    NamespaceCondition,
    NodeCondition,
    PersistentVolumeClaimCondition,
    PodCondition,
    ReplicaSetCondition,
    ReplicationControllerCondition,
    StatefulSetCondition,
);

impl Condition for MetaCondition {
    fn kind(&self) -> &str {
        &self.type_
    }
    fn status(&self) -> &str {
        &self.status
    }
    fn reason(&self) -> &str {
        &self.reason
    }
    fn message(&self) -> &str {
        &self.message
    }
    fn since(&self) -> Option<&Time> {
        Some(&self.last_transition_time)
    }
    fn set_since(&mut self, since: Option<Time>) {
        if let Some(since) = since {
            self.last_transition_time = since;
        }
    }
}

/// The condition of a type, if it is reported.
pub fn find<'a, C: Condition>(conditions: Option<&'a Vec<C>>, kind: &str) -> Option<&'a C> {
    conditions?.iter().find(|one| one.kind() == kind)
}

/// Whether the condition of a type is reported as true.
pub fn is_true<C: Condition>(conditions: Option<&Vec<C>>, kind: &str) -> bool {
    find(conditions, kind).is_some_and(|one| one.status() == TRUE)
}

/// Puts a condition in its place and says whether anything changed. While the status stays the same, so does the
/// time since when; when it changes and the new condition gives no time, that time is now.
pub fn set<C: Condition>(conditions: &mut Option<Vec<C>>, mut new: C) -> bool {
    let list = conditions.get_or_insert_default();
    let Some(old) = list.iter_mut().find(|one| one.kind() == new.kind()) else {
        if new.since().is_none() {
            new.set_since(Some(crate::time::now()));
        }
        list.push(new);
        return true;
    };
    if old.status() == new.status() {
        new.set_since(old.since().cloned());
    } else if new.since().is_none() {
        new.set_since(Some(crate::time::now()));
    }
    let changed = *old != new;
    *old = new;
    changed
}

/// Removes the condition of a type and says whether it was there.
pub fn remove<C: Condition>(conditions: &mut Option<Vec<C>>, kind: &str) -> bool {
    let Some(list) = conditions else { return false };
    let before = list.len();
    list.retain(|one| one.kind() != kind);
    before != list.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str, reason: &str) -> PodCondition {
        PodCondition {
            type_: "Ready".into(),
            status: status.into(),
            reason: Some(reason.into()),
            ..PodCondition::default()
        }
    }

    #[test]
    fn the_time_changes_with_the_status_only() {
        let mut conditions = None;
        assert!(set(&mut conditions, ready(FALSE, "A")));
        let first = conditions
            .as_ref()
            .and_then(|list| list[0].last_transition_time.clone());
        assert!(first.is_some());
        assert!(!set(&mut conditions, ready(FALSE, "A")));
        assert!(set(&mut conditions, ready(FALSE, "B")));
        assert_eq!(
            conditions
                .as_ref()
                .and_then(|list| list[0].last_transition_time.clone()),
            first
        );
        assert!(set(&mut conditions, ready(TRUE, "B")) && is_true(conditions.as_ref(), "Ready"));
        assert!(remove(&mut conditions, "Ready") && !remove(&mut conditions, "Ready"));
    }
}
