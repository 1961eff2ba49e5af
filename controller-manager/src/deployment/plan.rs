//! One step of a rollout, as data: from what is observed to what has to be written.
//!
//! [`plan`] simulates its own writes as it goes, so that one pass does what can be done without waiting: it may
//! create the new ReplicaSet and scale others, and the status it computes is that of the observed world.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_api::labels;
use keelson_api::object::Object as _;
use keelson_api::owners;

use super::replica_sets::{self as sets, actual, available, sum, wanted};
use super::{conditions, limits, scaling, status};
use crate::common::template;

/// What there is.
pub struct Observed<'a> {
    /// The Deployment.
    pub deployment: &'a Deployment,
    /// The ReplicaSets it controls.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    /// Whether the ReplicaSet with this uid has pods that have not ended; `Recreate` waits for them.
    pub has_live_pods: &'a dyn Fn(&str) -> bool,
    /// The present.
    pub now: Time,
}

/// What to do about it, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// A ReplicaSet for a template that has none.
    pub create: Option<Box<ReplicaSet>>,
    /// ReplicaSets to write.
    pub update: Vec<Update>,
    /// Old ReplicaSets beyond the history limit: names and uids.
    pub delete: Vec<(String, String)>,
    /// The Deployment with its new status and revision annotation, if they changed.
    pub status: Option<Box<Deployment>>,
    /// When to look again though nothing has happened.
    pub look_again: Option<Duration>,
}

/// A ReplicaSet to write.
#[derive(Debug)]
pub struct Update {
    /// Its new content.
    pub replica_set: Arc<ReplicaSet>,
    /// Its replicas before.
    pub from: i32,
    /// Its replicas now.
    pub to: i32,
}

/// Plans the next step.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut planner = Planner::new(observed);
    planner.run();
    planner.finish()
}

pub(super) struct Planner<'a> {
    observed: &'a Observed<'a>,
    /// The Deployment as it will be: status conditions and the revision annotation change on the way.
    pub(super) deployment: Deployment,
    /// All ReplicaSets, oldest first, with the changes made so far.
    pub(super) sets: Vec<Arc<ReplicaSet>>,
    /// Which of them has the Deployment's template.
    pub(super) new: Option<usize>,
    created: Option<usize>,
    /// Changed ones in order of change, with their replicas before.
    changed: Vec<(usize, i32)>,
    delete: Vec<(String, String)>,
    look_again: Option<Duration>,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>) -> Self {
        let mut sets = observed.replica_sets.clone();
        sets.sort_by(|a, b| sets::age_order(a, b));
        Self {
            observed,
            deployment: observed.deployment.clone(),
            sets,
            new: None,
            created: None,
            changed: Vec::new(),
            delete: Vec::new(),
            look_again: None,
        }
    }

    fn run(&mut self) {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            self.find_new();
            self.deployment.status = Some(status::counts(self));
            return;
        }
        self.note_pause();
        if limits::is_paused(&self.deployment) || self.is_being_scaled() {
            self.sync_revision(Create::No);
            scaling::scale(self);
            if limits::is_paused(&self.deployment) {
                self.clean_up_history();
            }
            self.deployment.status = Some(status::counts(self));
        } else if limits::is_rolling(&self.deployment) {
            self.roll();
        } else {
            self.recreate();
        }
    }

    /// One step of a rolling update: up, else down, else tidy up.
    fn roll(&mut self) {
        self.sync_revision(Create::Yes);
        let moved = scaling::scale_up_new(self) || scaling::scale_down_old(self);
        if !moved && conditions::is_complete(&self.deployment, &self.status()) {
            self.clean_up_history();
        }
        self.sync_rollout_status();
    }

    /// One step of a recreation: old pods go and are gone before new ones come.
    fn recreate(&mut self) {
        self.sync_revision(Create::No);
        let mut scaled_down = false;
        for index in self.active_old() {
            scaled_down |= self.scale(index, 0);
        }
        if !scaled_down && !self.old_pods_run() {
            self.sync_revision(Create::Yes);
            if let Some(new) = self.new {
                let replicas = limits::replicas(&self.deployment);
                self.scale(new, replicas);
            }
            if conditions::is_complete(&self.deployment, &self.status()) {
                self.clean_up_history();
            }
        }
        self.sync_rollout_status();
    }

    fn old_pods_run(&self) -> bool {
        let old = self.old();
        old.iter().any(|index| actual(&self.sets[*index]) > 0)
            || old
                .iter()
                .any(|index| (self.observed.has_live_pods)(self.sets[*index].uid()))
    }

    /// The observed status with the conditions set so far.
    pub(super) fn status(&self) -> DeploymentStatus {
        self.deployment.status.clone().unwrap_or_default()
    }

    pub(super) fn now(&self) -> &Time {
        &self.observed.now
    }

    pub(super) fn old(&self) -> Vec<usize> {
        (0..self.sets.len())
            .filter(|index| Some(*index) != self.new)
            .collect()
    }

    pub(super) fn active_old(&self) -> Vec<usize> {
        self.old()
            .into_iter()
            .filter(|index| wanted(&self.sets[*index]) > 0)
            .collect()
    }

    fn note_pause(&mut self) {
        let mut status = self.status();
        if limits::progress_deadline(&self.deployment).is_none()
            || conditions::progress_reason(&status) == Some(conditions::TIMED_OUT)
        {
            return;
        }
        let noted = conditions::progress_reason(&status) == Some(conditions::PAUSED);
        let (reason, message) = match (limits::is_paused(&self.deployment), noted) {
            (true, false) => (conditions::PAUSED, "Deployment is paused"),
            (false, true) => (conditions::RESUMED, "Deployment is resumed"),
            _ => return,
        };
        let condition = conditions::new(
            conditions::PROGRESSING,
            "Unknown",
            reason,
            message.into(),
            self.now(),
        );
        conditions::set(&mut status, condition);
        self.deployment.status = Some(status);
    }

    /// Whether `spec.replicas` has changed since the ReplicaSets were last scaled.
    fn is_being_scaled(&self) -> bool {
        let replicas = limits::replicas(&self.deployment);
        self.sets
            .iter()
            .filter(|set| wanted(set) > 0)
            .filter_map(|set| sets::number(set, labels::DESIRED_REPLICAS))
            .any(|desired| desired != replicas)
    }

    fn find_new(&mut self) {
        let Some(spec) = &self.deployment.spec else { return };
        // The oldest one wins, so that every sync picks the same one if there are several.
        self.new = self.sets.iter().position(|set| {
            let own = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            own.is_some_and(|own| template::equal_ignoring_hash(own, &spec.template))
        });
    }

    /// Finds or creates the ReplicaSet of the template, and makes it the latest revision.
    fn sync_revision(&mut self, create: Create) {
        self.find_new();
        let revision = self
            .old()
            .into_iter()
            .map(|index| sets::revision(&self.sets[index]))
            .max()
            .unwrap_or_default()
            + 1;
        match self.new {
            Some(new) => self.take_up(new, revision),
            None if create == Create::Yes => self.create_new(revision),
            None => {}
        }
    }

    fn take_up(&mut self, new: usize, revision: i64) {
        let mut set = self.sets[new].clone();
        let content = Arc::make_mut(&mut set);
        let annotations = content.metadata.annotations.get_or_insert_default();
        let mut changed = sets::annotate_new(annotations, &self.deployment, revision, true);
        let min_ready_seconds = limits::min_ready_seconds(&self.deployment);
        if let Some(spec) = &mut content.spec
            && spec.min_ready_seconds.unwrap_or_default() != min_ready_seconds
        {
            spec.min_ready_seconds = Some(min_ready_seconds);
            changed = true;
        }
        let revision = annotations_revision(content);
        let name = content.name().to_owned();
        if changed {
            let from = wanted(&set);
            self.mark(new, from);
            self.sets[new] = set;
        }
        self.set_revision(revision);
        let mut status = self.status();
        if limits::progress_deadline(&self.deployment).is_some()
            && conditions::get(&status, conditions::PROGRESSING).is_none()
        {
            let message = format!("Found new replica set \"{name}\"");
            conditions::set(
                &mut status,
                self.progressing(conditions::FOUND_NEW_REPLICA_SET, message),
            );
            self.deployment.status = Some(status);
        }
    }

    fn create_new(&mut self, revision: i64) {
        let Some(mut set) = self.new_set() else { return };
        let annotations = set.metadata.annotations.get_or_insert_default();
        sets::annotate_new(annotations, &self.deployment, revision, false);
        let name = set.name().to_owned();
        self.sets.push(Arc::new(set));
        let new = self.sets.len() - 1;
        let replicas = scaling::size_of_new(self, new);
        if let Some(spec) = &mut Arc::make_mut(&mut self.sets[new]).spec {
            spec.replicas = Some(replicas);
        }
        self.new = Some(new);
        self.created = Some(new);
        self.set_revision(Some(revision.to_string()));
        if limits::progress_deadline(&self.deployment).is_some() {
            let mut status = self.status();
            let message = format!("Created new replica set \"{name}\"");
            conditions::set(
                &mut status,
                self.progressing(conditions::NEW_REPLICA_SET, message),
            );
            self.deployment.status = Some(status);
        }
    }

    fn new_set(&self) -> Option<ReplicaSet> {
        let deployment = &self.deployment;
        let spec = deployment.spec.as_ref()?;
        let collisions = deployment
            .status
            .as_ref()
            .and_then(|status| status.collision_count);
        let hash = template::hash(&spec.template, collisions);
        let label = |labels: &mut Option<std::collections::BTreeMap<String, String>>| {
            labels
                .get_or_insert_default()
                .insert(labels::POD_TEMPLATE_HASH.into(), hash.clone());
        };
        let mut template = spec.template.clone();
        label(&mut template.metadata.get_or_insert_default().labels);
        let mut selector = spec.selector.clone();
        label(&mut selector.match_labels);
        // 253 is the longest name there is; the hash must survive.
        let prefix: String = deployment.name().chars().take(252 - hash.len()).collect();
        Some(ReplicaSet {
            metadata: ObjectMeta {
                name: Some(format!("{prefix}-{hash}")),
                namespace: deployment.metadata.namespace.clone(),
                labels: template.metadata.as_ref().and_then(|meta| meta.labels.clone()),
                owner_references: Some(vec![owners::new_controller_ref(deployment)]),
                ..ObjectMeta::default()
            },
            spec: Some(ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: spec.min_ready_seconds,
                selector,
                template: Some(template),
            }),
            status: None,
        })
    }

    fn progressing(&self, reason: &str, message: String) -> k8s_openapi::api::apps::v1::DeploymentCondition {
        conditions::new(conditions::PROGRESSING, "True", reason, message, self.now())
    }

    fn set_revision(&mut self, revision: Option<String>) {
        if let Some(revision) = revision
            && self.deployment.annotations().get(labels::DEPLOYMENT_REVISION) != Some(&revision)
        {
            self.deployment
                .metadata
                .annotations
                .get_or_insert_default()
                .insert(labels::DEPLOYMENT_REVISION.into(), revision);
        }
    }

    fn mark(&mut self, index: usize, from: i32) {
        if self.created != Some(index) && !self.changed.iter().any(|(changed, _)| *changed == index) {
            self.changed.push((index, from));
        }
    }

    /// Scales a ReplicaSet. Returns whether its size changes.
    pub(super) fn scale(&mut self, index: usize, replicas: i32) -> bool {
        let from = wanted(&self.sets[index]);
        let mut set = self.sets[index].clone();
        let content = Arc::make_mut(&mut set);
        let annotated = sets::set_replica_annotations(
            content.metadata.annotations.get_or_insert_default(),
            &self.deployment,
        );
        if from == replicas && !annotated {
            return false;
        }
        if let Some(spec) = &mut content.spec {
            spec.replicas = Some(replicas);
        }
        self.mark(index, from);
        self.sets[index] = set;
        from != replicas
    }

    fn clean_up_history(&mut self) {
        let Some(limit) = limits::revision_history_limit(&self.deployment) else {
            return;
        };
        let mut cleanable: Vec<&Arc<ReplicaSet>> = self
            .old()
            .into_iter()
            .map(|index| &self.sets[index])
            .filter(|set| set.metadata.deletion_timestamp.is_none())
            .collect();
        let Some(excess) = cleanable.len().checked_sub(limit) else {
            return;
        };
        cleanable.sort_by(|a, b| {
            sets::revision(a)
                .cmp(&sets::revision(b))
                .then_with(|| sets::age_order(a, b))
        });
        let gone: Vec<_> = cleanable
            .into_iter()
            .take(excess)
            .filter(|set| actual(set) == 0 && wanted(set) == 0)
            .filter(|set| {
                let seen = set.status.as_ref().and_then(|status| status.observed_generation);
                set.generation() <= seen.unwrap_or_default()
            })
            .map(|set| (set.name().to_owned(), set.uid().to_owned()))
            .collect();
        self.delete.extend(gone);
    }

    fn sync_rollout_status(&mut self) {
        let outcome = status::of_rollout(self);
        self.deployment.status = Some(outcome);
        if let Some(deadline) = self.open_deadline() {
            // One second more: timestamps are cut to seconds, and looking a moment early would find nothing.
            let left = deadline.as_nanosecond() - self.now().0.as_nanosecond();
            let left = Duration::from_nanos(u64::try_from(left).unwrap_or_default());
            self.look_again = Some(left + Duration::from_secs(1));
        }
    }

    fn open_deadline(&self) -> Option<jiff::Timestamp> {
        let status = self.status();
        let settled = matches!(
            conditions::progress_reason(&status),
            None | Some(conditions::TIMED_OUT | conditions::NEW_REPLICA_SET_AVAILABLE)
        );
        if settled || conditions::is_complete(&self.deployment, &status) {
            return None;
        }
        conditions::deadline(&self.deployment, &status)
    }

    fn finish(self) -> Plan {
        let before = self.observed.deployment;
        let unchanged = before.status.as_ref().unwrap_or(&DeploymentStatus::default())
            == self
                .deployment
                .status
                .as_ref()
                .unwrap_or(&DeploymentStatus::default())
            && before.annotations() == self.deployment.annotations();
        let update = self
            .changed
            .iter()
            .map(|(index, from)| Update {
                replica_set: self.sets[*index].clone(),
                from: *from,
                to: wanted(&self.sets[*index]),
            })
            .collect();
        Plan {
            create: self.created.map(|index| Box::new((*self.sets[index]).clone())),
            update,
            delete: self.delete,
            status: (!unchanged).then(|| Box::new(self.deployment)),
            look_again: self.look_again,
        }
    }

    /// Replicas wanted, over all ReplicaSets.
    pub(super) fn total_wanted(&self) -> i32 {
        sum(&self.sets, wanted)
    }

    /// Replicas available, over all ReplicaSets.
    pub(super) fn total_available(&self) -> i32 {
        sum(&self.sets, available)
    }
}

fn annotations_revision(set: &ReplicaSet) -> Option<String> {
    set.annotations().get(labels::DEPLOYMENT_REVISION).cloned()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Create {
    Yes,
    No,
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
