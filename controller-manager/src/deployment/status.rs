//! The status of a Deployment, from the statuses of its ReplicaSets.

use k8s_openapi::api::apps::v1::DeploymentStatus;
use keelson_api::object::Object as _;

use super::plan::Planner;
use super::replica_sets::{actual, available, ready, sum, terminating, wanted};
use super::{conditions, limits};

/// Counts and availability.
pub(super) fn counts(planner: &Planner<'_>) -> DeploymentStatus {
    let deployment = &planner.deployment;
    let before = deployment.status.clone().unwrap_or_default();
    let sets = &planner.sets;
    let available_replicas = sum(sets, available);
    let count = |count: i32| Some(count).filter(|count| *count != 0);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: count(sum(sets, actual)),
        updated_replicas: count(planner.new.map_or(0, |new| actual(&sets[new]))),
        ready_replicas: count(sum(sets, ready)),
        available_replicas: count(available_replicas),
        unavailable_replicas: count((sum(sets, wanted) - available_replicas).max(0)),
        terminating_replicas: terminating_replicas(planner),
        collision_count: before.collision_count,
        conditions: before.conditions,
    };
    let enough = available_replicas >= limits::replicas(deployment) - limits::max_unavailable(deployment);
    let (value, reason, message) = if enough {
        (
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        (
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let condition = conditions::new(
        conditions::AVAILABLE,
        value,
        reason,
        message.into(),
        planner.now(),
    );
    conditions::set(&mut status, condition);
    status
}

/// Unknown as long as one ReplicaSet does not tell.
fn terminating_replicas(planner: &Planner<'_>) -> Option<i32> {
    let tells = |set: &k8s_openapi::api::apps::v1::ReplicaSet| {
        set.status
            .as_ref()
            .is_some_and(|status| status.terminating_replicas.is_some())
    };
    planner
        .sets
        .iter()
        .all(|set| tells(set))
        .then(|| sum(&planner.sets, terminating))
}

/// Counts, availability, and how the rollout goes.
pub(super) fn of_rollout(planner: &Planner<'_>) -> DeploymentStatus {
    let deployment = &planner.deployment;
    let before = planner.status();
    let mut status = counts(planner);
    if limits::progress_deadline(deployment).is_none() {
        conditions::remove(&mut status, conditions::PROGRESSING);
    } else {
        let was_over = status.replicas == status.updated_replicas
            && conditions::progress_reason(&before) == Some(conditions::NEW_REPLICA_SET_AVAILABLE);
        if !was_over {
            note_progress(planner, &before, &mut status);
        }
    }
    let failure = planner
        .new
        .and_then(|new| conditions::failure_of(&planner.sets[new]))
        .or_else(|| planner.sets.iter().find_map(|set| conditions::failure_of(set)));
    match failure {
        Some(failure) => conditions::set(&mut status, failure),
        None => conditions::remove(&mut status, conditions::REPLICA_FAILURE),
    }
    status
}

fn note_progress(planner: &Planner<'_>, before: &DeploymentStatus, status: &mut DeploymentStatus) {
    let deployment = &planner.deployment;
    let subject = match planner.new {
        Some(new) => format!("ReplicaSet \"{}\"", planner.sets[new].name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    let progressing = |value: &str, reason: &str, what: &str| {
        conditions::new(
            conditions::PROGRESSING,
            value,
            reason,
            format!("{subject} {what}"),
            planner.now(),
        )
    };
    if conditions::is_complete(deployment, status) {
        let condition = progressing(
            "True",
            conditions::NEW_REPLICA_SET_AVAILABLE,
            "has successfully progressed.",
        );
        conditions::set(status, condition);
    } else if conditions::has_progressed(before, status) {
        let mut condition = progressing("True", conditions::REPLICA_SET_UPDATED, "is progressing.");
        if let Some(current) = conditions::get(before, conditions::PROGRESSING) {
            if current.status == "True" {
                condition.last_transition_time = current.last_transition_time.clone();
            }
            // Removed first, so that the time of the update, which the deadline counts from, moves on.
            conditions::remove(status, conditions::PROGRESSING);
        }
        conditions::set(status, condition);
    } else if conditions::has_timed_out(deployment, status, planner.now().0) {
        let condition = progressing("False", conditions::TIMED_OUT, "has timed out progressing.");
        conditions::set(status, condition);
    }
}
