//! One step of a job, as data.
//!
//! Every pod is counted exactly once, though pods may be deleted by anybody at any time: each carries a finalizer;
//! when it has ended its uid is written into the status as uncounted, then the finalizer is taken off, and when that
//! has been seen the uid becomes part of a number. (For indexed jobs the completed index is memory enough.)

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::deletion::{JOB_TRACKING_FINALIZER, has_finalizer};
use keelson_api::object::Object as _;
use keelson_client::EventKind;

use super::failures::{self, Action};
use super::indexes::Indexes;
use super::pods as own_pods;
use crate::common::pods;
use crate::replicaset::rank;

/// No more pods than this are created, or counted, before their effect has been seen.
const BURST: usize = 500;

/// What there is.
pub struct Observed<'a> {
    /// The job.
    pub job: &'a Job,
    /// Its pods.
    pub pods: &'a [Arc<Pod>],
    /// Whether every earlier write has been seen.
    pub may_write: bool,
    /// The present.
    pub now: Time,
}

/// What to do about it, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Pods to create.
    pub create: Vec<Pod>,
    /// Pods to delete.
    pub delete: Vec<Arc<Pod>>,
    /// The new status, if it changed.
    pub status: Option<JobStatus>,
    /// Pods to take the finalizer off.
    pub release: Vec<Arc<Pod>>,
    /// What to report.
    pub events: Vec<(EventKind, String, String)>,
    /// When to look again though nothing has happened.
    pub look_again: Option<Duration>,
}

/// Plans the next step.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let Some(spec) = &observed.job.spec else {
        return Plan::default();
    };
    let before = observed.job.status.clone().unwrap_or_default();
    if finished(&before).is_some() {
        let release = observed
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .cloned()
            .collect();
        return Plan {
            release,
            ..Plan::default()
        };
    }
    let mut planner = Planner::new(observed, spec, before);
    planner.settle_uncounted();
    planner.count_ended();
    planner.start();
    planner.detect_end();
    planner.act();
    planner.finish()
}

/// The condition that says that a job is over, if it is.
#[must_use]
pub fn finished(status: &JobStatus) -> Option<&JobCondition> {
    is_true(status, "Complete").or_else(|| is_true(status, "Failed"))
}

fn is_true<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions
        .iter()
        .find(|condition| condition.type_ == kind && condition.status == "True")
}

fn is_tracked(pod: &Pod) -> bool {
    has_finalizer(&pod.metadata, JOB_TRACKING_FINALIZER)
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    spec: &'a JobSpec,
    status: JobStatus,
    active: Vec<Arc<Pod>>,
    terminating: usize,
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    completed: Indexes,
    failed_indexes: Indexes,
    /// What the pod failure policy says about the whole job.
    verdict: Option<String>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(observed: &'a Observed<'a>, spec: &'a JobSpec, status: JobStatus) -> Self {
        let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
        let limit = spec.completions.unwrap_or_default();
        let indexes = |text: &Option<String>| Indexes::parse(text.as_deref().unwrap_or_default(), limit);
        Self {
            observed,
            spec,
            active: observed
                .pods
                .iter()
                .filter(|pod| pods::is_active(pod))
                .cloned()
                .collect(),
            terminating: observed
                .pods
                .iter()
                .filter(|pod| pods::is_terminating(pod))
                .count(),
            uncounted_succeeded: uncounted.succeeded.unwrap_or_default(),
            uncounted_failed: uncounted.failed.unwrap_or_default(),
            completed: indexes(&status.completed_indexes),
            failed_indexes: indexes(&status.failed_indexes),
            status,
            verdict: None,
            plan: Plan::default(),
        }
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }

    fn is_suspended(&self) -> bool {
        self.spec.suspend.unwrap_or_default()
    }

    /// Whether pods on their way out are waited for rather than replaced at once.
    fn replaces_only_failed(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed")
    }

    fn succeeded(&self) -> i32 {
        if self.is_indexed() {
            return self.completed.len();
        }
        self.status.succeeded.unwrap_or_default() + count(self.uncounted_succeeded.len())
    }

    fn failed(&self) -> i32 {
        self.status.failed.unwrap_or_default() + count(self.uncounted_failed.len())
    }

    /// Uncounted pods whose finalizer is off become numbers.
    fn settle_uncounted(&mut self) {
        let pods = self.observed.pods;
        let pending = |uid: &String| pods.iter().any(|pod| pod.uid() == uid && is_tracked(pod));
        let settled = |uids: &mut Vec<String>| {
            let all = uids.len();
            uids.retain(pending);
            count(all - uids.len())
        };
        let succeeded = settled(&mut self.uncounted_succeeded);
        let failed = settled(&mut self.uncounted_failed);
        if succeeded > 0 {
            self.status.succeeded = Some(self.status.succeeded.unwrap_or_default() + succeeded);
        }
        if failed > 0 {
            self.status.failed = Some(self.status.failed.unwrap_or_default() + failed);
        }
    }

    /// Pods that have ended and still carry the finalizer.
    fn count_ended(&mut self) {
        let completions = self.spec.completions.unwrap_or_default();
        for pod in self
            .observed
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .take(BURST)
        {
            let uid = pod.uid().to_owned();
            if pods::phase(pod) == "Succeeded" {
                if self.is_indexed() {
                    let index = own_pods::index(pod).filter(|index| *index < completions);
                    index.into_iter().for_each(|index| self.completed.insert(index));
                } else if !self.uncounted_succeeded.contains(&uid) {
                    self.uncounted_succeeded.push(uid);
                }
                self.plan.release.push(pod.clone());
            } else if self.has_failed(pod) {
                if !self.uncounted_failed.contains(&uid) {
                    self.count_failure(pod, uid);
                }
                self.plan.release.push(pod.clone());
            }
        }
    }

    fn has_failed(&self, pod: &Pod) -> bool {
        // A pod that is deleted may never get to say that it failed.
        pods::phase(pod) == pods::FAILED
            || (pod.metadata.deletion_timestamp.is_some() && !self.replaces_only_failed())
    }

    fn count_failure(&mut self, pod: &Pod, uid: String) {
        match failures::action(self.spec, pod) {
            Action::Ignore => return,
            Action::Count => {}
            Action::FailIndex => {
                own_pods::index(pod)
                    .into_iter()
                    .for_each(|index| self.failed_indexes.insert(index));
            }
            Action::FailJob(why) => self.verdict = Some(why),
        }
        self.uncounted_failed.push(uid);
        if let Some(limit) = self.spec.backoff_limit_per_index
            && let Some(index) = own_pods::index(pod)
            && own_pods::index_failures(pod) >= limit
        {
            self.failed_indexes.insert(index);
        }
    }

    /// Start time, and the condition `Suspended`.
    fn start(&mut self) {
        let was_suspended = is_true(&self.status, "Suspended").is_some();
        let noted = self.condition("Suspended").is_some();
        if self.is_suspended() {
            if !was_suspended && is_true(&self.status, "FailureTarget").is_none() {
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.report(EventKind::Normal, "Suspended", "Job suspended");
            }
            return;
        }
        if noted && was_suspended {
            self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
            self.report(EventKind::Normal, "Resumed", "Job resumed");
            self.status.start_time = Some(self.observed.now.clone());
        }
        self.status
            .start_time
            .get_or_insert_with(|| self.observed.now.clone());
    }

    /// Decides whether the job has failed or succeeded; what follows may take several more steps.
    fn detect_end(&mut self) {
        if self.condition("FailureTarget").is_some() || self.condition("SuccessCriteriaMet").is_some() {
            return;
        }
        if let Some((reason, message)) = self.failure() {
            self.set_condition("FailureTarget", "True", reason, &message);
        } else if let Some((reason, message)) = self.success() {
            self.set_condition("SuccessCriteriaMet", "True", reason, &message);
        }
    }

    fn failure(&mut self) -> Option<(&'static str, String)> {
        if let Some(why) = self.verdict.clone() {
            return Some(("PodFailurePolicy", why));
        }
        let limit = self.spec.backoff_limit.unwrap_or(6);
        let restarts = if self.spec.template.spec.as_ref()?.restart_policy.as_deref() == Some("OnFailure") {
            failures::restarts(self.active.iter().map(|pod| &**pod))
        } else {
            0
        };
        if self.failed() > limit || (restarts > 0 && restarts >= limit) {
            return Some((
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit".into(),
            ));
        }
        if let Some(seconds) = self.spec.active_deadline_seconds
            && let Some(start) = self.status.start_time.as_ref().filter(|_| !self.is_suspended())
        {
            let seconds = u64::try_from(seconds).unwrap_or_default();
            let deadline = keelson_api::time::after(start.0, Duration::from_secs(seconds));
            if deadline <= self.observed.now.0 {
                return Some((
                    "DeadlineExceeded",
                    "Job was active longer than specified deadline".into(),
                ));
            }
            self.look_again_at(deadline);
        }
        if self
            .spec
            .max_failed_indexes
            .is_some_and(|limit| self.failed_indexes.len() > limit)
        {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.into()));
        }
        let completions = self.spec.completions.unwrap_or_default();
        let all_ended = self.completed.len() + self.failed_indexes.len() >= completions;
        (self.failed_indexes.len() > 0 && all_ended)
            .then(|| ("FailedIndexes", "Job has failed indexes".into()))
    }

    fn success(&self) -> Option<(&'static str, String)> {
        let rules = self
            .spec
            .success_policy
            .as_ref()
            .map(|policy| policy.rules.as_slice())
            .unwrap_or_default();
        for (number, rule) in rules.iter().enumerate() {
            let completions = self.spec.completions.unwrap_or_default();
            let wanted = rule
                .succeeded_indexes
                .as_deref()
                .map(|text| Indexes::parse(text, completions));
            let done = wanted
                .as_ref()
                .map_or(self.completed.len(), |wanted| wanted.common(&self.completed));
            let needed = rule
                .succeeded_count
                .or_else(|| wanted.as_ref().map(Indexes::len))
                .unwrap_or(completions);
            if done >= needed {
                return Some(("SuccessPolicy", format!("Matched rules at index {number}")));
            }
        }
        let reached = match self.spec.completions {
            // A work queue: one success says that the work is done, the others are waited for.
            None => self.succeeded() > 0 && self.active.is_empty(),
            Some(completions) => self.succeeded() >= completions && self.active.is_empty(),
        };
        reached.then(|| {
            (
                "CompletionsReached",
                "Reached expected number of succeeded pods".to_owned(),
            )
        })
    }

    fn act(&mut self) {
        let failing = self.condition("FailureTarget").cloned();
        let succeeding = self.condition("SuccessCriteriaMet").cloned();
        if failing.is_some() || succeeding.is_some() {
            self.plan.delete = self.active.clone();
            let counted = self.uncounted_succeeded.is_empty() && self.uncounted_failed.is_empty();
            if !counted || !self.active.is_empty() || self.terminating > 0 || !self.plan.release.is_empty() {
                return;
            }
            match (failing, succeeding) {
                (Some(why), _) => {
                    let (reason, message) = (why.reason.unwrap_or_default(), why.message.unwrap_or_default());
                    self.set_condition("Failed", "True", &reason, &message);
                    self.report(EventKind::Warning, &reason, &message);
                }
                (None, Some(why)) => {
                    let (reason, message) = (why.reason.unwrap_or_default(), why.message.unwrap_or_default());
                    self.set_condition("Complete", "True", &reason, &message);
                    self.status.completion_time = Some(self.observed.now.clone());
                    self.report(EventKind::Normal, "Completed", "Job completed");
                }
                (None, None) => {}
            }
        } else if self.observed.may_write && self.observed.job.metadata.deletion_timestamp.is_none() {
            self.adjust();
        }
    }

    /// Brings the number of active pods to what is wanted.
    fn adjust(&mut self) {
        if self.is_suspended() {
            self.plan.delete = self.active.clone();
            return;
        }
        let mut useless = self.useless();
        let active = self.active.len();
        let parallelism = usize::try_from(self.spec.parallelism.unwrap_or(1)).unwrap_or_default();
        let succeeded = self.succeeded();
        let wanted = match self.spec.completions {
            None if succeeded > 0 => active.min(parallelism),
            None => parallelism,
            Some(completions) => {
                let ended = succeeded + self.failed_indexes.len();
                parallelism.min(usize::try_from(completions - ended).unwrap_or_default())
            }
        };
        let excess = (active - useless.len()).saturating_sub(wanted);
        if excess > 0 {
            let mut rest: Vec<Arc<Pod>> = self
                .active
                .iter()
                .filter(|pod| !useless.iter().any(|other| other.uid() == pod.uid()))
                .cloned()
                .collect();
            rank::sort(&mut rest, |_| 0, self.observed.now.0);
            useless.extend(rest.into_iter().take(excess));
        }
        self.plan.delete = useless;
        let staying = active - self.plan.delete.len();
        let in_the_way = if self.replaces_only_failed() {
            self.terminating
        } else {
            0
        };
        let missing = wanted.saturating_sub(staying + in_the_way).min(BURST);
        if missing > 0 {
            self.create(missing);
        }
    }

    /// Active pods of an indexed job whose index is done, not wanted, or taken by another.
    fn useless(&self) -> Vec<Arc<Pod>> {
        if !self.is_indexed() {
            return Vec::new();
        }
        let completions = self.spec.completions.unwrap_or_default();
        let mut taken = Indexes::default();
        let mut useless = Vec::new();
        for pod in &self.active {
            match own_pods::index(pod) {
                Some(index) if index < completions && !self.is_done(index) && !taken.contains(index) => {
                    taken.insert(index);
                }
                _ => useless.push(pod.clone()),
            }
        }
        useless
    }

    fn is_done(&self, index: i32) -> bool {
        self.completed.contains(index) || self.failed_indexes.contains(index)
    }

    fn create(&mut self, missing: usize) {
        let job = self.observed.job;
        if !self.is_indexed() {
            let ended = self
                .observed
                .pods
                .iter()
                .map(|pod| &**pod)
                .filter(|pod| pods::is_terminal(pod));
            match failures::next_attempt(ended).filter(|at| *at > self.observed.now.0) {
                Some(at) => self.look_again_at(at),
                None => self.plan.create.extend(
                    own_pods::new(job, None, None)
                        .map(|pod| vec![pod; missing])
                        .into_iter()
                        .flatten(),
                ),
            }
            return;
        }
        let in_the_way = |pod: &&Arc<Pod>| {
            pods::is_active(pod) || (self.replaces_only_failed() && pods::is_terminating(pod))
        };
        let taken: Indexes = self
            .observed
            .pods
            .iter()
            .filter(in_the_way)
            .filter_map(|pod| own_pods::index(pod))
            .collect();
        let completions = self.spec.completions.unwrap_or_default();
        let free: Vec<i32> = (0..completions)
            .filter(|index| !self.is_done(*index) && !taken.contains(*index))
            .collect();
        let per_index = self.spec.backoff_limit_per_index.is_some();
        for index in free {
            if self.plan.create.len() >= missing {
                break;
            }
            let ended = || {
                let all = self.observed.pods.iter().map(|pod| &**pod);
                all.filter(|pod| pods::is_terminal(pod))
                    .filter(move |pod| !per_index || own_pods::index(pod) == Some(index))
            };
            if let Some(at) = failures::next_attempt(ended()).filter(|at| *at > self.observed.now.0) {
                self.look_again_at(at);
                continue;
            }
            let failures = per_index.then(|| {
                ended()
                    .filter(|pod| pods::phase(pod) == pods::FAILED)
                    .map(|pod| own_pods::index_failures(pod) + 1)
                    .max()
            });
            let failures = failures.map(Option::unwrap_or_default);
            self.plan.create.extend(own_pods::new(job, Some(index), failures));
        }
    }

    fn finish(mut self) -> Plan {
        let planned = self.active.len() + self.plan.create.len() - self.plan.delete.len();
        let nonzero = |count: i32| Some(count).filter(|count| *count != 0);
        let list = |uids: Vec<String>| Some(uids).filter(|uids| !uids.is_empty());
        self.status.active = nonzero(count(planned));
        self.status.ready = Some(count(
            self.active.iter().filter(|pod| pods::is_ready(pod)).count(),
        ));
        self.status.terminating = Some(count(self.terminating));
        if self.is_indexed() {
            self.status.succeeded = nonzero(self.completed.len());
            self.status.completed_indexes = Some(self.completed.to_string()).filter(|text| !text.is_empty());
            if self.spec.backoff_limit_per_index.is_some() {
                self.status.failed_indexes = Some(self.failed_indexes.to_string());
            }
        }
        let uncounted = self.status.uncounted_terminated_pods.get_or_insert_default();
        uncounted.succeeded = list(self.uncounted_succeeded);
        uncounted.failed = list(self.uncounted_failed);
        let changed = self.observed.job.status.as_ref() != Some(&self.status);
        self.plan.status = changed.then_some(self.status);
        self.plan
    }

    fn condition(&self, kind: &str) -> Option<&JobCondition> {
        is_true(&self.status, kind)
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let conditions = self.status.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != kind);
        conditions.push(JobCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message.into()),
            last_probe_time: Some(self.observed.now.clone()),
            last_transition_time: Some(self.observed.now.clone()),
        });
    }

    fn report(&mut self, kind: EventKind, reason: &str, message: &str) {
        self.plan
            .events
            .push((kind, reason.to_owned(), message.to_owned()));
    }

    fn look_again_at(&mut self, at: jiff::Timestamp) {
        let nanos = at.as_nanosecond() - self.observed.now.0.as_nanosecond();
        let delay =
            Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()) + Duration::from_millis(10);
        self.plan.look_again = Some(self.plan.look_again.map_or(delay, |other| other.min(delay)));
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
