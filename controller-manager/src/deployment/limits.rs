//! What a Deployment's strategy allows: surge, unavailability, deadlines.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::common::limits::{Rounding, scaled};

/// `spec.replicas`.
#[must_use]
pub fn replicas(deployment: &Deployment) -> i32 {
    spec(deployment).and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Whether old pods are replaced a few at a time; otherwise all of them go first.
#[must_use]
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = spec(deployment).and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) != Some("Recreate")
}

/// Pods beyond `spec.replicas` that a rollout may create.
#[must_use]
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) {
        fence_posts(deployment).0
    } else {
        0
    }
}

/// Pods below `spec.replicas` that a rollout may make unavailable.
#[must_use]
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || replicas(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(replicas(deployment))
}

/// Surge and unavailability in pods. Both zero would leave no way forward, so one may then be unavailable.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let rolling = spec(deployment)
        .and_then(|spec| spec.strategy.as_ref())
        .and_then(|strategy| strategy.rolling_update.as_ref());
    let quarter = IntOrString::String("25%".into());
    let surge = rolling.map_or(&quarter, |rolling| rolling.max_surge.as_ref().unwrap_or(&quarter));
    let unavailable = rolling.map_or(&quarter, |rolling| {
        rolling.max_unavailable.as_ref().unwrap_or(&quarter)
    });
    let surge = scaled(surge, replicas(deployment), Rounding::Up).unwrap_or_default();
    let unavailable = scaled(unavailable, replicas(deployment), Rounding::Down).unwrap_or_default();
    if surge == 0 && unavailable == 0 {
        (0, 1)
    } else {
        (surge, unavailable)
    }
}

/// How long a rollout may stand still before it counts as failed; `None` if it may for ever.
#[must_use]
pub fn progress_deadline(deployment: &Deployment) -> Option<std::time::Duration> {
    let seconds = spec(deployment)?
        .progress_deadline_seconds
        .filter(|seconds| *seconds != i32::MAX)?;
    Some(std::time::Duration::from_secs(
        u64::try_from(seconds).unwrap_or_default(),
    ))
}

/// How many old ReplicaSets are kept for going back to; `None` if all are.
#[must_use]
pub fn revision_history_limit(deployment: &Deployment) -> Option<usize> {
    let limit = spec(deployment)?
        .revision_history_limit
        .filter(|limit| *limit != i32::MAX)?;
    Some(usize::try_from(limit).unwrap_or_default())
}

/// `spec.paused`.
#[must_use]
pub fn is_paused(deployment: &Deployment) -> bool {
    spec(deployment).and_then(|spec| spec.paused).unwrap_or_default()
}

/// `spec.minReadySeconds`.
#[must_use]
pub fn min_ready_seconds(deployment: &Deployment) -> i32 {
    spec(deployment)
        .and_then(|spec| spec.min_ready_seconds)
        .unwrap_or_default()
}

fn spec(deployment: &Deployment) -> Option<&DeploymentSpec> {
    deployment.spec.as_ref()
}
