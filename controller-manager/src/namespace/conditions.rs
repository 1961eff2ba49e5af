//! What a namespace that is being deleted says about how that goes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NamespaceCondition, NamespaceStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// How far the deletion of a namespace's contents has come.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Why the resources could not all be listed.
    pub discovery: Option<String>,
    /// Resources that could not be deleted, and why.
    pub failures: Vec<String>,
    /// Objects that are left, by `resource.group`.
    pub remaining: BTreeMap<String, usize>,
    /// Objects that finalizers hold, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
    /// The longest grace period among what is left, in seconds.
    pub estimate: u64,
}

impl Outcome {
    /// Whether the namespace is empty, as far as anybody can tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.discovery.is_none() && self.failures.is_empty() && self.remaining.is_empty()
    }
}

/// Writes the outcome into the conditions. Returns whether that changed them.
pub fn update(status: &mut NamespaceStatus, outcome: &Outcome, now: &Time) -> bool {
    let mut changed = false;
    for wanted in of(outcome, now) {
        let conditions = status.conditions.get_or_insert_default();
        match conditions.iter_mut().find(|old| old.type_ == wanted.type_) {
            None => {
                conditions.push(wanted);
                changed = true;
            }
            Some(old)
                if (&old.status, &old.reason, &old.message)
                    != (&wanted.status, &wanted.reason, &wanted.message) =>
            {
                let since = old
                    .last_transition_time
                    .clone()
                    .filter(|_| old.status == wanted.status);
                *old = NamespaceCondition {
                    last_transition_time: since.or(wanted.last_transition_time.clone()),
                    ..wanted
                };
                changed = true;
            }
            Some(_) => {}
        }
    }
    changed
}

fn of(outcome: &Outcome, now: &Time) -> Vec<NamespaceCondition> {
    let condition = |kind: &str, problem: Option<(&str, String)>, fine: (&str, &str)| {
        let (status, reason, message) = match problem {
            Some((reason, message)) => ("True", reason, message),
            None => ("False", fine.0, fine.1.to_owned()),
        };
        NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(now.clone()),
        }
    };
    let failures = (!outcome.failures.is_empty()).then(|| {
        let message = format!(
            "Failed to delete all resource types, {} remaining: {}",
            outcome.failures.len(),
            outcome.failures.join(", ")
        );
        ("ContentDeletionFailed", message)
    });
    vec![
        condition(
            "NamespaceDeletionDiscoveryFailure",
            outcome
                .discovery
                .clone()
                .map(|message| ("DiscoveryFailed", message)),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        condition(
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        condition(
            "NamespaceDeletionContentFailure",
            failures,
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        condition(
            "NamespaceContentRemaining",
            listed(
                &outcome.remaining,
                "Some resources are remaining",
                "has",
                "resource instances",
            )
            .map(|message| ("SomeResourcesRemain", message)),
            ("ContentRemoved", "All content successfully removed"),
        ),
        condition(
            "NamespaceFinalizersRemaining",
            listed(
                &outcome.finalizers,
                "Some content in the namespace has finalizers remaining",
                "in",
                "resource instances",
            )
            .map(|message| ("SomeFinalizersRemain", message)),
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ]
}

fn listed(counts: &BTreeMap<String, usize>, what: &str, verb: &str, unit: &str) -> Option<String> {
    if counts.is_empty() {
        return None;
    }
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {verb} {count} {unit}"))
        .collect();
    Some(format!("{what}: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_remains_is_named() {
        let mut status = NamespaceStatus::default();
        let mut outcome = Outcome::default();
        outcome.remaining.insert("pods.".into(), 2);
        outcome.finalizers.insert("x.io/hold".into(), 1);
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        assert!(update(&mut status, &outcome, &now));
        assert!(!update(&mut status, &outcome, &now));
        let messages: Vec<_> = status
            .conditions
            .iter()
            .flatten()
            .filter_map(|c| c.message.as_deref())
            .collect();
        assert!(messages.contains(&"Some resources are remaining: pods. has 2 resource instances"));
        assert!(messages.contains(
            &"Some content in the namespace has finalizers remaining: x.io/hold in 1 resource instances"
        ));
        assert!(!outcome.is_empty());
    }
}
