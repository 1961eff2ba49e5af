//! What the status of a Job may say. Most is asked only of what has changed: a status from before a rule stays writable.

use std::collections::BTreeSet;

use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus};
use keelson_api::conditions;
use keelson_api::field::{Detail, Error, Errors};

use super::indexes;
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

/// What is wrong with a new status.
pub fn validate(new: &Job, old: &Job) -> Errors {
    let none = (JobSpec::default(), JobStatus::default());
    let spec = new.spec.as_ref().unwrap_or(&none.0);
    let now = new.status.as_ref().unwrap_or(&none.1);
    let was = old.status.as_ref().unwrap_or(&none.1);
    let mut change = Change {
        spec,
        now,
        was,
        errors: Errors::new(),
    };
    change.counts();
    change.ends();
    change.finished();
    change.indexes();
    change.goes_on();
    change.errors
}

struct Change<'j> {
    spec: &'j JobSpec,
    now: &'j JobStatus,
    was: &'j JobStatus,
    errors: Errors,
}

fn is(status: &JobStatus, kind: &str) -> bool {
    conditions::is_true(status.conditions.as_ref(), kind)
}

fn is_finished(status: &JobStatus) -> bool {
    is(status, "Complete") || is(status, "Failed")
}

static STATUS: Loc<'static> = Loc::new("status");

impl Change<'_> {
    /// Whether one of these conditions has changed.
    fn turned(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| is(self.now, kind) != is(self.was, kind))
    }

    /// Refuses what the conditions say together; they are not shown.
    fn conditions(&mut self, wrong: bool, detail: impl Into<Detail>) {
        if wrong {
            let shown = STATUS.child("conditions").invalid((), detail);
            self.errors.push(Error { value: None, ..shown });
        }
    }

    fn counts(&mut self) {
        let now = self.now;
        for (field, value) in [
            ("active", now.active),
            ("succeeded", now.succeeded),
            ("failed", now.failed),
            ("ready", now.ready),
            ("terminating", now.terminating),
        ] {
            rules::not_negative(&mut self.errors, &STATUS.child(field), value);
        }
        let mut seen = BTreeSet::new();
        let at = STATUS.child("uncountedTerminatedPods");
        let pods = now.uncounted_terminated_pods.as_ref();
        let succeeded = pods
            .and_then(|pods| pods.succeeded.as_deref())
            .unwrap_or_default();
        let failed = pods.and_then(|pods| pods.failed.as_deref()).unwrap_or_default();
        for (field, uids) in [("succeeded", succeeded), ("failed", failed)] {
            let at = at.child(field);
            for (i, uid) in uids.iter().enumerate() {
                if uid.is_empty() {
                    self.errors.push(at.index(i).invalid("", "must not be empty"));
                } else if !seen.insert(uid) {
                    self.errors.push(at.index(i).duplicate(uid.as_str()));
                }
            }
        }
    }

    /// What the end of a job goes with.
    fn ends(&mut self) {
        let (now, was) = (self.now, self.was);
        let (complete, failed) = (is(now, "Complete"), is(now, "Failed"));
        let (failing, met) = (is(now, "FailureTarget"), is(now, "SuccessCriteriaMet"));
        self.conditions(
            self.turned(&["Complete", "Failed"]) && complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        );
        self.conditions(
            self.turned(&["Complete", "FailureTarget"]) && complete && failing,
            "cannot set Complete=True and FailureTarget=true conditions",
        );
        let at = STATUS.child("completionTime");
        if self.turned(&["Complete"]) || now.completion_time != was.completion_time {
            if now.completion_time.is_some() && !complete {
                let detail = "cannot set completionTime when there is no Complete=True condition";
                self.errors
                    .push(at.invalid(rules::shown(&now.completion_time), detail));
            } else if now.completion_time.is_none() && complete {
                self.errors
                    .push(at.required("completionTime is required for Complete jobs"));
            }
        }
        let times_changed = now.start_time != was.start_time || now.completion_time != was.completion_time;
        if let (Some(start), Some(end)) = (&now.start_time, &now.completion_time)
            && times_changed
            && end < start
        {
            let detail = "completionTime cannot be set before startTime";
            self.errors
                .push(at.invalid(rules::shown(&now.completion_time), detail));
        }
        self.conditions(
            self.turned(&["Failed", "FailureTarget"]) && failed && !failing,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        );
        self.conditions(
            self.turned(&["Complete", "SuccessCriteriaMet"]) && complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
        self.conditions(
            met && failed,
            "cannot set SuccessCriteriaMet=True and Failed=true conditions",
        );
        self.conditions(
            met && failing,
            "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
        );
        self.conditions(
            self.spec.success_policy.is_some() && complete && !met,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        );
    }

    /// What a finished job has none of, and what it has.
    fn finished(&mut self) {
        let (now, was) = (self.now, self.was);
        let ended = is_finished(now) != is_finished(was);
        let finished = is_finished(now);
        let active = now.active.unwrap_or(0);
        let active_changed = active != was.active.unwrap_or(0);
        if finished && active > 0 && (ended || active_changed) {
            self.errors.push(
                STATUS
                    .child("active")
                    .invalid(active, "active>0 is invalid for finished job"),
            );
        }
        if finished && now.start_time.is_none() && (ended || was.start_time.is_some()) {
            self.errors.push(
                STATUS
                    .child("startTime")
                    .required("startTime is required for finished job"),
            );
        }
        let pods = &now.uncounted_terminated_pods;
        let uncounted = pods.iter().any(|pods| {
            let any = |uids: &Option<Vec<String>>| uids.as_ref().is_some_and(|uids| !uids.is_empty());
            any(&pods.succeeded) || any(&pods.failed)
        });
        if finished && uncounted && (ended || *pods != was.uncounted_terminated_pods) {
            let detail = "uncountedTerminatedPods needs to be empty for finished job";
            self.errors.push(
                STATUS
                    .child("uncountedTerminatedPods")
                    .invalid(rules::shown(pods), detail),
            );
        }
        let terminating = now.terminating.unwrap_or(0);
        if finished && terminating > 0 && (ended || now.terminating != was.terminating) {
            self.errors.push(
                STATUS
                    .child("terminating")
                    .invalid(terminating, "terminating>0 is invalid for finished job"),
            );
        }
        let ready = now.ready.unwrap_or(0);
        if ready > active && (active_changed || now.ready != was.ready) {
            self.errors.push(
                STATUS
                    .child("ready")
                    .invalid(ready, "cannot set more ready pods than active"),
            );
        }
    }

    /// Indexes that have completed, and others that have failed.
    fn indexes(&mut self) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let completed = text(&self.now.completed_indexes);
        let completed_changed = completed != text(&self.was.completed_indexes);
        let failed = self.now.failed_indexes.as_deref();
        let failed_changed = failed != self.was.failed_indexes.as_deref();
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let limit = self.spec.completions;
        let (at_completed, at_failed) = (STATUS.child("completedIndexes"), STATUS.child("failedIndexes"));
        if completed_changed {
            if let Some(Err(why)) = limit.map(|limit| indexes::intervals(&completed, limit)) {
                let detail = format!("error parsing completedIndexes: {why}");
                self.errors.push(at_completed.invalid(completed.as_str(), detail));
            }
            if !completed.is_empty() && self.spec.completion_mode.as_deref() != Some("Indexed") {
                let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
                self.errors.push(at_completed.invalid(completed.as_str(), detail));
            }
        }
        let Some(failed) = failed else { return };
        if failed_changed
            && per_index
            && let Some(Err(why)) = limit.map(|limit| indexes::intervals(failed, limit))
        {
            let detail = format!("error parsing failedIndexes: {why}");
            self.errors.push(at_failed.invalid(failed, detail));
        }
        if failed_changed && !per_index {
            let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            self.errors.push(at_failed.invalid(failed, detail));
        }
        if (failed_changed || completed_changed)
            && let Some(limit) = limit
            && let (Ok(ours), Ok(theirs)) = (
                indexes::intervals(failed, limit),
                indexes::intervals(&completed, limit),
            )
            && let Some(index) = indexes::common(&ours, &theirs)
        {
            let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
            self.errors.push(at_failed.invalid(failed, detail));
        }
    }

    /// What only goes in one direction.
    fn goes_on(&mut self) {
        let (now, was) = (self.now, self.was);
        for kind in ["Failed", "Complete", "FailureTarget"] {
            self.conditions(
                is(was, kind) && !is(now, kind),
                format!("cannot disable the terminal {kind}=True condition"),
            );
        }
        let indexed = self.spec.completion_mode.as_deref() == Some("Indexed");
        // Such a job can be scaled down.
        let elastic = indexed && self.spec.completions == self.spec.parallelism;
        for (field, now, was, may_fall) in [
            ("failed", now.failed, was.failed, false),
            ("succeeded", now.succeeded, was.succeeded, elastic),
        ] {
            let now = now.unwrap_or(0);
            if now < was.unwrap_or(0) && !may_fall {
                let detail = format!("cannot decrease the {field} counter");
                self.errors.push(STATUS.child(field).invalid(now, detail));
            }
        }
        if now.completion_time.is_some()
            && was.completion_time.is_some()
            && now.completion_time != was.completion_time
        {
            self.errors.push(STATUS.child("completionTime").invalid(
                rules::shown(&now.completion_time),
                "completionTime cannot be mutated",
            ));
        }
        let suspended = self.spec.suspend == Some(true);
        if was.start_time.is_some() && now.start_time != was.start_time && !suspended {
            self.errors.push(
                STATUS
                    .child("startTime")
                    .required("startTime cannot be removed for unsuspended job"),
            );
        }
        let [met_before, met_now] = [was, now].map(|status| is(status, "SuccessCriteriaMet"));
        self.conditions(
            met_before && !met_now,
            "cannot disable the SuccessCriteriaMet=True condition",
        );
        self.conditions(
            is(was, "Complete") && !met_before && met_now,
            "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const START: &str = "2026-01-01T00:00:00Z";

    fn job(spec: &Value, status: &Value) -> Job {
        serde_json::from_value(json!({"metadata": {"name": "j"}, "spec": spec, "status": status}))
            .expect("a job")
    }

    fn texts(spec: Value, old: Value, new: Value) -> Vec<String> {
        let errors = validate(&job(&spec, &new), &job(&spec, &old));
        errors.iter().map(ToString::to_string).collect()
    }

    fn set(kinds: &[&str]) -> Value {
        let one = |kind: &&str| json!({"type": kind, "status": "True"});
        kinds.iter().map(one).collect()
    }

    #[test]
    fn a_job_ends_in_order() {
        let plain = json!({"template": {}, "completions": 1});
        let running = json!({"startTime": START, "active": 1});
        let done = |kinds: &[&str]| {
            json!({"startTime": START, "completionTime": "2026-01-01T00:00:05Z", "succeeded": 1,
                "conditions": set(kinds)})
        };
        let proper = done(&["SuccessCriteriaMet", "Complete"]);
        assert_eq!(texts(plain.clone(), running.clone(), proper.clone()), [""; 0]);
        assert_eq!(
            texts(
                plain.clone(),
                running.clone(),
                json!({"startTime": START, "active": 1, "conditions": set(&["Complete"])})
            ),
            [
                "status.completionTime: Required value: completionTime is required for Complete jobs",
                "status.conditions: Invalid value: cannot set Complete=True condition without the \
                 SuccessCriteriaMet=true condition",
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
            ]
        );
        assert_eq!(
            texts(
                plain.clone(),
                running.clone(),
                json!({"startTime": START, "conditions": set(&["Failed"])})
            ),
            [
                "status.conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition"
            ]
        );
        // Ended under older rules, and written again.
        let old = done(&["Complete"]);
        assert_eq!(texts(plain.clone(), old.clone(), old.clone()), [""; 0]);
        let mut again = proper.clone();
        again["completionTime"] = json!("2026-01-01T00:00:06Z");
        assert_eq!(
            texts(plain.clone(), proper.clone(), again),
            [
                "status.completionTime: Invalid value: \"2026-01-01T00:00:06Z\": completionTime cannot be mutated"
            ]
        );
        let mut reopened = proper.clone();
        reopened["conditions"] = json!([]);
        reopened["completionTime"] = Value::Null;
        assert_eq!(
            texts(plain, proper, reopened),
            [
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ]
        );
    }

    #[test]
    fn counts_and_indexes_are_held_against_each_other() {
        let plain = json!({"template": {}, "completions": 3});
        let indexed = json!({"template": {}, "completions": 3, "parallelism": 1, "completionMode": "Indexed",
            "backoffLimitPerIndex": 1});
        for (spec, old, new, wanted) in [
            (
                &plain,
                json!({"active": 1}),
                json!({"active": 1, "ready": 9}),
                "status.ready: Invalid value: 9: cannot set more ready pods than active",
            ),
            (
                &plain,
                json!({}),
                json!({"completedIndexes": "1"}),
                "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed \
                 completion mode",
            ),
            (
                &plain,
                json!({}),
                json!({"failedIndexes": "1"}),
                "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when \
                 backoffLimitPerIndex is null",
            ),
            (
                &indexed,
                json!({}),
                json!({"completedIndexes": "2,1"}),
                "status.completedIndexes: Invalid value: \"2,1\": error parsing completedIndexes: non-increasing order, \
                 previous: 2, current: 1",
            ),
            (
                &indexed,
                json!({}),
                json!({"completedIndexes": "0-1", "failedIndexes": "1-2"}),
                "status.failedIndexes: Invalid value: \"1-2\": failedIndexes and completedIndexes overlap at index: 1",
            ),
            (
                &plain,
                json!({"succeeded": 2}),
                json!({"succeeded": 1}),
                "status.succeeded: Invalid value: 1: cannot decrease the succeeded counter",
            ),
            (
                &plain,
                json!({"startTime": START}),
                json!({}),
                "status.startTime: Required value: startTime cannot be removed for unsuspended job",
            ),
            (
                &plain,
                json!({}),
                json!({"uncountedTerminatedPods": {"succeeded": ["a"], "failed": ["a"]}}),
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            ),
        ] {
            assert_eq!(texts(spec.clone(), old, new), [wanted]);
        }
    }
}
