//! What a failed pod means for its job.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use keelson_api::object::Object as _;

use crate::common::pods;

/// The wait after the first failure; doubled with each further one.
const BACKOFF_INITIAL: Duration = Duration::from_secs(10);
/// The longest wait.
const BACKOFF_MAX: Duration = Duration::from_secs(600);

/// What a rule of the pod failure policy asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The failure counts towards the limit.
    Count,
    /// It does not.
    Ignore,
    /// The pod's index fails.
    FailIndex,
    /// The job fails, with this message.
    FailJob(String),
}

/// What the policy says about a failed pod.
#[must_use]
pub fn action(spec: &JobSpec, pod: &Pod) -> Action {
    let rules = spec
        .pod_failure_policy
        .as_ref()
        .map(|policy| policy.rules.as_slice())
        .unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        let Some(why) = matches(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Action::Ignore,
            "FailIndex" => Action::FailIndex,
            "FailJob" => Action::FailJob(format!("{why} matching FailJob rule at index {index}")),
            _ => Action::Count,
        };
    }
    Action::Count
}

fn matches(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    if let Some(codes) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let statuses = status
            .init_container_statuses
            .iter()
            .chain(&status.container_statuses)
            .flatten();
        let found = statuses.filter(|status| {
            codes
                .container_name
                .as_ref()
                .is_none_or(|name| *name == status.name)
        });
        let (name, code) = found.filter_map(|status| exit_code(status, codes)).next()?;
        return Some(format!(
            "Container {name} for pod {} failed with exit code {code}",
            pod.key()
        ));
    }
    for pattern in rule.on_pod_conditions.as_deref().unwrap_or_default() {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        if pods::condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted) {
            return Some(format!("Pod {} has condition {}", pod.key(), pattern.type_));
        }
    }
    None
}

fn exit_code<'a>(
    status: &'a ContainerStatus,
    wanted: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
    let listed = wanted.values.contains(&code);
    let fits = if wanted.operator == "NotIn" {
        !listed
    } else {
        listed
    };
    (code != 0 && fits).then_some((status.name.as_str(), code))
}

/// When a pod's last container ended.
#[must_use]
pub fn finished_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.as_deref().unwrap_or_default();
    let ended = containers.iter().filter_map(|container| {
        Some(
            container
                .state
                .as_ref()?
                .terminated
                .as_ref()?
                .finished_at
                .as_ref()?
                .0,
        )
    });
    let ready = || {
        pods::condition(pod, "Ready")?
            .last_transition_time
            .as_ref()
            .map(|time| time.0)
    };
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
    ended.max().or_else(ready).or_else(deleted)
}

/// When the next pod may be created, given the pods that have ended: later with every failure since the last success.
#[must_use]
pub fn next_attempt<'a>(ended: impl Iterator<Item = &'a Pod>) -> Option<Timestamp> {
    let mut failures = Vec::new();
    let mut last_success = Timestamp::MIN;
    for pod in ended {
        let Some(at) = finished_at(pod) else { continue };
        if pods::phase(pod) == pods::FAILED {
            failures.push(at);
        } else {
            last_success = last_success.max(at);
        }
    }
    failures.retain(|at| *at > last_success);
    let last = *failures.iter().max()?;
    let doublings = u32::try_from(failures.len() - 1).unwrap_or(u32::MAX).min(16);
    let wait = BACKOFF_INITIAL.saturating_mul(1 << doublings).min(BACKOFF_MAX);
    Some(keelson_api::time::after(last, wait))
}

/// Restarts within the pods, which count where the pods themselves are restarted rather than replaced.
#[must_use]
pub fn restarts<'a>(active: impl Iterator<Item = &'a Pod>) -> i32 {
    active
        .filter_map(|pod| pod.status.as_ref())
        .flat_map(|status| {
            status
                .init_container_statuses
                .iter()
                .chain(&status.container_statuses)
                .flatten()
        })
        .map(|container| container.restart_count)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::PodFailurePolicy;
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, PodStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn ended(code: i32, at: i64) -> Pod {
        let terminated = ContainerStateTerminated {
            exit_code: code,
            finished_at: Some(Time(Timestamp::from_second(at).expect("a time"))),
            ..ContainerStateTerminated::default()
        };
        let state = ContainerState {
            terminated: Some(terminated),
            ..ContainerState::default()
        };
        let status = ContainerStatus {
            name: "c".into(),
            state: Some(state),
            ..ContainerStatus::default()
        };
        Pod {
            status: Some(PodStatus {
                phase: Some(if code == 0 { "Succeeded" } else { "Failed" }.into()),
                container_statuses: Some(vec![status]),
                ..PodStatus::default()
            }),
            ..Pod::default()
        }
    }

    #[test]
    fn the_wait_doubles_until_a_success() {
        let second = |pods: &[Pod]| next_attempt(pods.iter()).map(|at| at.as_second());
        assert_eq!(second(&[ended(1, 100)]), Some(110));
        assert_eq!(second(&[ended(1, 100), ended(1, 120)]), Some(140));
        assert_eq!(second(&[ended(1, 100), ended(0, 110)]), None);
        assert_eq!(second(&vec![ended(1, 100); 30]), Some(700));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let rule = |action: &str, operator: &str, value: i32| PodFailurePolicyRule {
            action: action.into(),
            on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                container_name: None,
                operator: operator.into(),
                values: vec![value],
            }),
            on_pod_conditions: None,
        };
        let rules = vec![rule("Ignore", "In", 7), rule("FailJob", "NotIn", 3)];
        let spec = JobSpec {
            pod_failure_policy: Some(PodFailurePolicy { rules }),
            ..JobSpec::default()
        };
        assert_eq!(action(&spec, &ended(7, 0)), Action::Ignore);
        assert_eq!(action(&spec, &ended(3, 0)), Action::Count);
        assert!(
            matches!(action(&spec, &ended(1, 0)), Action::FailJob(why) if why.contains("exit code 1 matching FailJob rule at index 1"))
        );
    }
}
