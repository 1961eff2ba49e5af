//! ReplicationControllers: the same loop as ReplicaSets over the older kind.

use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};

use crate::context::Context;
use crate::replicaset;
use crate::replicaset::replicated::{Failure, REPLICA_FAILURE, ReplicaStatus, Replicated};
use keelson_api::selector::LabelSelector;

/// Runs the controller until shutdown.
pub async fn run(context: Context) {
    let workers = context.config().concurrent_rc_syncs;
    let owners = context.replication_controllers();
    replicaset::run_loop(
        "replicationcontroller",
        "replication-controller",
        owners,
        context,
        workers,
    )
    .await;
}

impl Replicated for ReplicationController {
    const COUNTS_TERMINATING: bool = false;

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
        Some(LabelSelector::from_map(self.spec.as_ref()?.selector.as_ref()?))
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn status(&self) -> ReplicaStatus {
        let Some(status) = &self.status else {
            return ReplicaStatus::default();
        };
        let conditions = status.conditions.as_deref().unwrap_or_default();
        ReplicaStatus {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or_default(),
            ready: status.ready_replicas.unwrap_or_default(),
            available: status.available_replicas.unwrap_or_default(),
            terminating: None,
            observed_generation: status.observed_generation,
            failure: conditions
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
        conditions.extend(status.failure.map(|failure| ReplicationControllerCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(failure.reason),
            message: Some(failure.message),
            last_transition_time: failure.since,
        }));
        let count = |count: i32| Some(count).filter(|count| *count != 0);
        self.status = Some(ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: count(status.fully_labeled),
            ready_replicas: count(status.ready),
            available_replicas: count(status.available),
            observed_generation: status.observed_generation,
            conditions: Some(conditions).filter(|conditions| !conditions.is_empty()),
        });
    }
}
