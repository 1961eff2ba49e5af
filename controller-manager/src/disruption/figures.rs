//! The figures of a budget: how many of its pods are healthy, how many have to be, how many may go.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use keelson_api::conditions;
use keelson_api::object::Object as _;
use keelson_api::pods::is_ready;
use keelson_api::time;

use crate::common::limits::{Rounding, scaled};

/// The condition that says whether a pod may go.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";
/// A pod whose eviction was granted counts as going for so long; what is still there afterwards stays.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(120);

/// How many pods a budget expects, and how many of them have to be healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expectation {
    /// Pods there should be.
    pub expected: i32,
    /// Pods that have to be healthy.
    pub desired_healthy: i32,
}

/// Whether the sizes of the pods' controllers have to be known, or counting the pods is enough.
#[must_use]
pub fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let Some(spec) = &budget.spec else { return false };
    spec.max_unavailable.is_some()
        || matches!(
            spec.min_available,
            Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String(
                _
            ))
        )
}

/// What the budget asks for: `scale` is the sum of the sizes of the pods' controllers, `pods` the number of pods.
///
/// # Errors
/// When a limit is neither a number nor a percentage.
pub fn expectation(budget: &PodDisruptionBudget, scale: i32, pods: i32) -> Result<Expectation, String> {
    let Some(spec) = &budget.spec else {
        return Ok(Expectation {
            expected: pods,
            desired_healthy: 0,
        });
    };
    let expected = if needs_scale(budget) { scale } else { pods };
    let count = |limit| {
        scaled(limit, expected, Rounding::Up)
            .ok_or_else(|| "a limit is neither a number nor a percentage".to_owned())
    };
    let desired_healthy = match (&spec.max_unavailable, &spec.min_available) {
        (Some(limit), _) => expected.saturating_sub(count(limit)?).max(0),
        (None, Some(limit)) => count(limit)?,
        (None, None) => 0,
    };
    Ok(Expectation {
        expected,
        desired_healthy,
    })
}

/// Pods whose eviction was granted and has not shown yet.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Disrupted {
    /// Their names, and when it was granted.
    pub pods: BTreeMap<String, Time>,
    /// Those that should have gone by now.
    pub late: Vec<String>,
    /// When the first of the others is late.
    pub look_again: Option<Timestamp>,
}

/// Which of the pods that the budget remembers are still on their way.
#[must_use]
pub fn disrupted(budget: &PodDisruptionBudget, pods: &[&Pod], now: Timestamp) -> Disrupted {
    let mut found = Disrupted::default();
    let Some(remembered) = budget
        .status
        .as_ref()
        .and_then(|status| status.disrupted_pods.as_ref())
    else {
        return found;
    };
    for pod in pods {
        // A pod that is being deleted is known by that.
        if pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let Some(granted) = remembered.get(pod.name()) else {
            continue;
        };
        let due = time::after(granted.0, DELETION_TIMEOUT);
        if due < now {
            found.late.push(pod.name().to_owned());
        } else {
            found.pods.insert(pod.name().to_owned(), granted.clone());
            found.look_again = Some(found.look_again.map_or(due, |before| before.min(due)));
        }
    }
    found
}

/// Pods that serve and are to stay.
#[must_use]
pub fn healthy(pods: &[&Pod], disrupted: &Disrupted) -> i32 {
    let count = pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| !disrupted.pods.contains_key(pod.name()) && is_ready(pod))
        .count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The whole status.
#[must_use]
pub fn status(
    budget: &PodDisruptionBudget,
    wanted: Expectation,
    healthy: i32,
    disrupted: Disrupted,
) -> PodDisruptionBudgetStatus {
    // A budget without pods lets nothing go, so that the first of them is not lost before it is counted.
    let allowed = if wanted.expected <= 0 {
        0
    } else {
        healthy.saturating_sub(wanted.desired_healthy).max(0)
    };
    let generation = budget.metadata.generation;
    let mut status = PodDisruptionBudgetStatus {
        conditions: budget
            .status
            .as_ref()
            .and_then(|status| status.conditions.clone()),
        current_healthy: Some(healthy),
        desired_healthy: Some(wanted.desired_healthy),
        disrupted_pods: (!disrupted.pods.is_empty()).then_some(disrupted.pods),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(wanted.expected),
        observed_generation: generation,
    };
    let (holds, reason) = if allowed > 0 {
        (conditions::TRUE, "SufficientPods")
    } else {
        (conditions::FALSE, "InsufficientPods")
    };
    set_allowed(&mut status, generation, holds, reason, String::new());
    status
}

/// The status of a budget whose figures cannot be had: nothing may go.
#[must_use]
pub fn failed(budget: &PodDisruptionBudget, message: String) -> PodDisruptionBudgetStatus {
    let mut status = budget.status.clone().unwrap_or_default();
    status.disruptions_allowed = Some(0);
    set_allowed(
        &mut status,
        budget.metadata.generation,
        conditions::FALSE,
        "SyncFailed",
        message,
    );
    status
}

fn set_allowed(
    status: &mut PodDisruptionBudgetStatus,
    observed_generation: Option<i64>,
    holds: &str,
    reason: &str,
    message: String,
) {
    let since = conditions::find(status.conditions.as_ref(), DISRUPTION_ALLOWED)
        .filter(|before| before.status == holds)
        .map_or_else(time::now, |before| before.last_transition_time.clone());
    let condition = Condition {
        last_transition_time: since,
        message,
        observed_generation,
        reason: reason.to_owned(),
        status: holds.to_owned(),
        type_: DISRUPTION_ALLOWED.to_owned(),
    };
    conditions::set(&mut status.conditions, condition);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn budget(spec: serde_json::Value, status: serde_json::Value) -> PodDisruptionBudget {
        serde_json::from_value(
            json!({"metadata": {"name": "b", "generation": 3}, "spec": spec, "status": status}),
        )
        .expect("a budget")
    }

    fn pod(name: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": name},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
        .expect("a pod")
    }

    #[test]
    fn limits_are_numbers_of_pods_or_shares_of_what_controllers_want() {
        let wants = |spec, scale, pods| {
            let found = expectation(&budget(spec, json!({})), scale, pods).expect("figures");
            (found.expected, found.desired_healthy)
        };
        assert_eq!(wants(json!({"minAvailable": 2}), 0, 5), (5, 2));
        assert_eq!(wants(json!({"minAvailable": "50%"}), 5, 3), (5, 3));
        assert_eq!(wants(json!({"maxUnavailable": 1}), 5, 3), (5, 4));
        assert_eq!(wants(json!({"maxUnavailable": "30%"}), 5, 5), (5, 3));
        assert_eq!(wants(json!({"maxUnavailable": 9}), 5, 5), (5, 0));
        assert!(expectation(&budget(json!({"minAvailable": "x"}), json!({})), 1, 1).is_err());
    }

    #[test]
    fn pods_that_were_let_go_count_as_gone_until_they_are_late() {
        let (p, q, r) = (pod("p", "True"), pod("q", "True"), pod("r", "False"));
        let pods = [&p, &q, &r];
        let at = |text: &str| text.parse::<Timestamp>().expect("a time");
        let budget = budget(
            json!({"minAvailable": 1}),
            json!({"disruptedPods": {"p": "2026-01-01T00:00:00Z", "gone": "2026-01-01T00:00:00Z"}}),
        );
        let soon = disrupted(&budget, &pods, at("2026-01-01T00:01:00Z"));
        assert_eq!(soon.look_again, Some(at("2026-01-01T00:02:00Z")));
        assert_eq!((soon.pods.len(), healthy(&pods, &soon)), (1, 1));
        let late = disrupted(&budget, &pods, at("2026-01-01T00:03:00Z"));
        assert_eq!((late.late.len(), healthy(&pods, &late)), (1, 2));
    }

    #[test]
    fn the_status_says_how_many_may_go() {
        let budget = budget(json!({"minAvailable": 1}), json!({}));
        let wanted = expectation(&budget, 0, 3).expect("figures");
        let told = status(&budget, wanted, 3, Disrupted::default());
        assert_eq!(
            (told.disruptions_allowed, told.observed_generation),
            (Some(2), Some(3))
        );
        assert!(conditions::is_true(told.conditions.as_ref(), DISRUPTION_ALLOWED));
        let told = status(&budget, wanted, 1, Disrupted::default());
        let reason = conditions::find(told.conditions.as_ref(), DISRUPTION_ALLOWED).map(|c| c.reason.clone());
        assert_eq!(
            (told.disruptions_allowed, reason.as_deref()),
            (Some(0), Some("InsufficientPods"))
        );
        // Without pods nothing may go, even if nothing has to stay.
        let none = Expectation {
            expected: 0,
            desired_healthy: 0,
        };
        assert_eq!(
            status(&budget, none, 1, Disrupted::default()).disruptions_allowed,
            Some(0)
        );
        let told = failed(&budget, "no controller".into());
        assert_eq!(told.disruptions_allowed, Some(0));
        assert_eq!(told.conditions.expect("conditions")[0].reason, "SyncFailed");
    }
}
