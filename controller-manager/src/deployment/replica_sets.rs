//! What a Deployment reads from and writes into its ReplicaSets: counts, revisions, annotations, order.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use keelson_api::labels::{
    DEPLOYMENT_REVISION as REVISION, DEPLOYMENT_REVISION_HISTORY as REVISION_HISTORY, DESIRED_REPLICAS,
    LAST_APPLIED, MAX_REPLICAS,
};
use keelson_api::object::Object as _;

use super::limits;

const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";

/// More history than this is forgotten, oldest first, in characters.
const REVISION_HISTORY_LIMIT: usize = 2000;

/// `spec.replicas`.
#[must_use]
pub fn wanted(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// `status.replicas`.
#[must_use]
pub fn actual(set: &ReplicaSet) -> i32 {
    set.status.as_ref().map_or(0, |status| status.replicas)
}

/// `status.readyReplicas`.
#[must_use]
pub fn ready(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.ready_replicas)
        .unwrap_or_default()
}

/// `status.availableReplicas`.
#[must_use]
pub fn available(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.available_replicas)
        .unwrap_or_default()
}

/// `status.terminatingReplicas`.
#[must_use]
pub fn terminating(set: &ReplicaSet) -> i32 {
    set.status
        .as_ref()
        .and_then(|status| status.terminating_replicas)
        .unwrap_or_default()
}

/// The sum of a count over ReplicaSets.
pub fn sum<'a>(sets: impl IntoIterator<Item = &'a Arc<ReplicaSet>>, count: fn(&ReplicaSet) -> i32) -> i32 {
    sets.into_iter().map(|set| count(set)).sum()
}

/// The release a ReplicaSet is; 0 if it does not say.
#[must_use]
pub fn revision(set: &ReplicaSet) -> i64 {
    set.annotations()
        .get(REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or_default()
}

/// An annotation that is a number.
#[must_use]
pub fn number(set: &ReplicaSet, annotation: &str) -> Option<i32> {
    set.annotations().get(annotation)?.parse().ok()
}

/// By age, oldest first, names deciding between equals.
#[must_use]
pub fn age_order(a: &ReplicaSet, b: &ReplicaSet) -> std::cmp::Ordering {
    let created = |set: &ReplicaSet| set.metadata.creation_timestamp.as_ref().map(|time| time.0);
    created(a).cmp(&created(b)).then_with(|| a.name().cmp(b.name()))
}

/// Writes a Deployment's annotations and the revision into its newest ReplicaSet. Returns whether that changed it.
pub fn annotate_new(
    annotations: &mut BTreeMap<String, String>,
    deployment: &Deployment,
    revision: i64,
    exists: bool,
) -> bool {
    let mut changed = false;
    for (key, value) in deployment.annotations() {
        if !stays_behind(key) && annotations.get(key) != Some(value) {
            annotations.insert(key.clone(), value.clone());
            changed = true;
        }
    }
    changed |= advance_revision(annotations, revision);
    if !exists {
        changed |= set_replica_annotations(annotations, deployment);
    }
    changed
}

fn stays_behind(annotation: &str) -> bool {
    [
        LAST_APPLIED,
        REVISION,
        REVISION_HISTORY,
        DESIRED_REPLICAS,
        MAX_REPLICAS,
        ROLLBACK_TO,
    ]
    .contains(&annotation)
}

fn advance_revision(annotations: &mut BTreeMap<String, String>, revision: i64) -> bool {
    let old = annotations.get(REVISION).cloned();
    let old_number = match old.as_deref() {
        None | Some("") => 0,
        Some(text) => match text.parse::<i64>() {
            Ok(number) => number,
            // Somebody wrote something else there: leave it alone.
            Err(_) => return false,
        },
    };
    if old_number >= revision {
        return false;
    }
    annotations.insert(REVISION.into(), revision.to_string());
    if let Some(old) = old {
        let history = annotations.get(REVISION_HISTORY).cloned().unwrap_or_default();
        annotations.insert(REVISION_HISTORY.into(), remember(&history, &old));
    }
    true
}

/// A history with one more revision at its end, cut at its start to the limit.
fn remember(history: &str, revision: &str) -> String {
    let mut revisions: Vec<&str> = history
        .split(',')
        .filter(|revision| !revision.is_empty())
        .collect();
    revisions.push(revision);
    let mut length = revisions.iter().map(|revision| revision.len() + 1).sum::<usize>() - 1;
    let mut first = 0;
    while length > REVISION_HISTORY_LIMIT && first + 1 < revisions.len() {
        length -= revisions[first].len() + 1;
        first += 1;
    }
    revisions[first..].join(",")
}

/// Writes the Deployment's scale into a ReplicaSet's annotations. Returns whether that changed them.
pub fn set_replica_annotations(annotations: &mut BTreeMap<String, String>, deployment: &Deployment) -> bool {
    let desired = limits::replicas(deployment);
    let wanted = [
        (DESIRED_REPLICAS, desired),
        (MAX_REPLICAS, desired + limits::max_surge(deployment)),
    ];
    let mut changed = false;
    for (key, value) in wanted {
        let value = value.to_string();
        if annotations.get(key) != Some(&value) {
            annotations.insert(key.into(), value);
            changed = true;
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_release_remembers_what_it_was() {
        let mut annotations = BTreeMap::from([(REVISION.to_owned(), "1".to_owned())]);
        assert!(advance_revision(&mut annotations, 3));
        assert!(!advance_revision(&mut annotations, 3));
        assert!(advance_revision(&mut annotations, 5));
        assert_eq!(annotations[REVISION], "5");
        assert_eq!(annotations[REVISION_HISTORY], "1,3");
    }

    #[test]
    fn history_is_cut_at_its_start() {
        let long = vec!["12345"; 400].join(",");
        let cut = remember(&long, "9");
        assert!(cut.len() <= REVISION_HISTORY_LIMIT && cut.ends_with(",9"));
    }
}
