//! What ReplicaSets and ReplicationControllers have in common.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::object::Kind;

use keelson_api::selector::LabelSelector;

/// The condition that says that pods cannot be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// A kind that keeps a number of equal pods running.
pub trait Replicated: Kind {
    /// `spec.replicas`.
    fn replicas(&self) -> i32;
    /// `spec.minReadySeconds`.
    fn min_ready_seconds(&self) -> i32;
    /// `spec.selector`; `None` if it is not a selector.
    fn selector(&self) -> Option<LabelSelector>;
    /// `spec.template`.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// `status`.
    fn status(&self) -> ReplicaStatus;
    /// Replaces `status`, keeping conditions of other types.
    fn set_status(&mut self, status: ReplicaStatus);
    /// Whether the status has a count of terminating pods.
    const COUNTS_TERMINATING: bool;
}

/// The status of either kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReplicaStatus {
    /// Active pods.
    pub replicas: i32,
    /// Active pods with all of the template's labels.
    pub fully_labeled: i32,
    /// Active pods that are ready.
    pub ready: i32,
    /// Active pods that have been ready for `minReadySeconds`.
    pub available: i32,
    /// Pods being deleted, where the kind counts them.
    pub terminating: Option<i32>,
    /// The generation these counts are of.
    pub observed_generation: Option<i64>,
    /// Why pods cannot be created or deleted.
    pub failure: Option<Failure>,
}

/// The content of the condition `ReplicaFailure`.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// `FailedCreate` or `FailedDelete`.
    pub reason: String,
    /// What the API answered.
    pub message: String,
    /// Since when.
    pub since: Option<Time>,
}

impl Replicated for ReplicaSet {
    const COUNTS_TERMINATING: bool = true;

    fn replicas(&self) -> i32 {
        self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
    }

    fn min_ready_seconds(&self) -> i32 {
        self.spec
            .as_ref()
            .and_then(|spec| spec.min_ready_seconds)
            .unwrap_or_default()
    }

    fn selector(&self) -> Option<LabelSelector> {
        LabelSelector::from_meta(Some(&self.spec.as_ref()?.selector)).ok()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaStatus {
        let Some(status) = &self.status else {
            return ReplicaStatus::default();
        };
        let failure = status.conditions.as_deref().unwrap_or_default();
        ReplicaStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: status.terminating_replicas,
            observed_generation: status.observed_generation,
            failure: failure
                .iter()
                .find(|condition| condition.type_ == REPLICA_FAILURE)
                .map(|condition| Failure {
                    reason: condition.reason.clone().unwrap_or_default(),
                    message: condition.message.clone().unwrap_or_default(),
                    since: condition.last_transition_time.clone(),
                }),
        }
    }

    fn set_status(&mut self, status: ReplicaStatus) {
        let mut conditions = self
            .status
            .take()
            .and_then(|status| status.conditions)
            .unwrap_or_default();
        conditions.retain(|condition| condition.type_ != REPLICA_FAILURE);
        conditions.extend(status.failure.map(|failure| ReplicaSetCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        let count = |count: i32| Some(count).filter(|count| *count != 0);
        self.status = Some(ReplicaSetStatus {
            replicas: status.replicas,
            fully_labeled_replicas: count(status.fully_labeled),
            ready_replicas: count(status.ready),
            available_replicas: count(status.available),
            terminating_replicas: status.terminating,
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        });
    }
}
