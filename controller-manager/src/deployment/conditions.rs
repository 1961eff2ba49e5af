//! A Deployment's conditions, and what a status says about a rollout.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::object::Object as _;

use super::limits;

/// The condition that says whether enough pods are available.
pub const AVAILABLE: &str = "Available";
/// The condition that says how the rollout goes.
pub const PROGRESSING: &str = "Progressing";
/// The condition that says that pods cannot be created or deleted.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// `Progressing`: a ReplicaSet was created for the template.
pub const NEW_REPLICA_SET: &str = "NewReplicaSetCreated";
/// `Progressing`: a ReplicaSet with the template was there already.
pub const FOUND_NEW_REPLICA_SET: &str = "FoundNewReplicaSet";
/// `Progressing`: pods are coming or going.
pub const REPLICA_SET_UPDATED: &str = "ReplicaSetUpdated";
/// `Progressing`: the rollout is over.
pub const NEW_REPLICA_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
/// `Progressing`: nothing has moved for longer than the deadline.
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
/// `Progressing`: the rollout is paused.
pub const PAUSED: &str = "DeploymentPaused";
/// `Progressing`: the rollout goes on.
pub const RESUMED: &str = "DeploymentResumed";
/// `Progressing`: the API refuses the ReplicaSet.
pub const FAILED_CREATE: &str = "ReplicaSetCreateError";

/// A condition as of `now`.
#[must_use]
pub fn new(kind: &str, status: &str, reason: &str, message: String, now: &Time) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
    }
}

/// One of a status's conditions.
#[must_use]
pub fn get<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status
        .conditions
        .as_deref()
        .unwrap_or_default()
        .iter()
        .find(|condition| condition.type_ == kind)
}

/// Sets a condition. Where status and reason stay it keeps the old one, times and message included.
pub fn set(status: &mut DeploymentStatus, mut condition: DeploymentCondition) {
    if let Some(current) = get(status, &condition.type_) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time.clone();
        }
    }
    remove(status, &condition.type_.clone());
    status.conditions.get_or_insert_default().push(condition);
}

/// Takes a condition away.
pub fn remove(status: &mut DeploymentStatus, kind: &str) {
    if let Some(conditions) = &mut status.conditions {
        conditions.retain(|condition| condition.type_ != kind);
        if conditions.is_empty() {
            status.conditions = None;
        }
    }
}

/// The reason of the `Progressing` condition.
#[must_use]
pub fn progress_reason(status: &DeploymentStatus) -> Option<&str> {
    get(status, PROGRESSING)?.reason.as_deref()
}

/// Whether every pod is of the newest template, available, and no other is left.
#[must_use]
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = limits::replicas(deployment);
    status.updated_replicas.unwrap_or_default() == wanted
        && status.replicas.unwrap_or_default() == wanted
        && status.available_replicas.unwrap_or_default() == wanted
        && status.observed_generation.unwrap_or_default() >= deployment.generation()
}

/// Whether pods have come, become ready, or old ones gone, between two statuses.
#[must_use]
pub fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let count = Option::<i32>::unwrap_or_default;
    let of_old_template = |status: &DeploymentStatus| count(status.replicas) - count(status.updated_replicas);
    count(new.updated_replicas) > count(old.updated_replicas)
        || of_old_template(new) < of_old_template(old)
        || count(new.ready_replicas) > count(old.ready_replicas)
        || count(new.available_replicas) > count(old.available_replicas)
}

/// When the rollout will have stood still for too long; `None` if that cannot happen.
#[must_use]
pub fn deadline(deployment: &Deployment, status: &DeploymentStatus) -> Option<Timestamp> {
    let limit = limits::progress_deadline(deployment)?;
    let since = get(status, PROGRESSING)?.last_update_time.as_ref()?.0;
    Some(keelson_api::time::after(since, limit))
}

/// Whether the rollout has stood still for too long.
#[must_use]
pub fn has_timed_out(deployment: &Deployment, status: &DeploymentStatus, now: Timestamp) -> bool {
    match progress_reason(status) {
        None | Some(NEW_REPLICA_SET_AVAILABLE) => false,
        Some(TIMED_OUT) => true,
        Some(_) => deadline(deployment, status).is_some_and(|deadline| deadline < now),
    }
}

/// What a ReplicaSet says about pods it cannot create or delete, as the Deployment's own condition.
#[must_use]
pub fn failure_of(set: &ReplicaSet) -> Option<DeploymentCondition> {
    let conditions = set.status.as_ref()?.conditions.as_deref()?;
    let failure = conditions
        .iter()
        .find(|condition| condition.type_ == REPLICA_FAILURE)?;
    Some(DeploymentCondition {
        type_: REPLICA_FAILURE.into(),
        status: failure.status.clone(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        last_update_time: failure.last_transition_time.clone(),
        last_transition_time: failure.last_transition_time.clone(),
    })
}
