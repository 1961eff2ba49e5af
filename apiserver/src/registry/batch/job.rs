//! Jobs.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, JobStatus, PodFailurePolicy, SuccessPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::conditions;
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use super::{indexes, job_status, status};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{NONE, cells, rules, selectors};
use crate::registry::core::pod::{defaults, spec_warnings, validation};
use crate::registry::strategy::{Column, Fields, OtherFields, RequestContext, ResourceInfo, Strategy};

const BACKOFF_LIMIT: i32 = 6;
const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";
/// The older names of the two labels, which people still select by.
const OLD_UID_LABEL: &str = "controller-uid";
const OLD_NAME_LABEL: &str = "job-name";
const INDEXED_PARALLELISM_MAX: i32 = 100_000;
const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// The kind's strategy.
pub struct JobKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "batch",
    kind: "Job",
    plural: "jobs",
    singular: "job",
    categories: &["all"],
    storage_prefix: "jobs",
    selectable_fields: &["status.successful"],
    other_fields: OtherFields::NotSupportedForKind,
    subresources: &[status("Job")],
    ..ResourceInfo::base()
};

impl Strategy for JobKind {
    type Object = Job;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, job: &mut Job) {
        default(job);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, job: &mut Job) {
        meta::first_generation(&mut job.metadata);
        job.status = Some(JobStatus::default());
        generate_selector(job);
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, job: &Job) -> Errors {
        validate(job)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Job, old: &Job) -> Errors {
        update(new, old)
    }

    fn validate_subresource_update(&self, _ctx: &RequestContext<'_>, new: &Job, old: &Job) -> Errors {
        job_status::validate(new, old)
    }

    fn warnings(&self, job: &Job, old: Option<&Job>) -> Vec<String> {
        let mut out = Vec::new();
        if job.name().contains('.') && old.is_none() {
            out.push("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]".to_owned());
        }
        let spec = job
            .spec
            .as_ref()
            .and_then(|s| s.template.spec.as_ref())
            .filter(|_| old.is_none());
        out.extend(
            spec.map(|spec| spec_warnings("spec.template.spec", spec))
                .unwrap_or_default(),
        );
        out
    }

    fn selectable_fields(&self, job: &Job) -> Fields {
        let succeeded = job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        vec![("status.successful", succeeded.to_string())]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Status", "Status of the job."),
            Column::new(
                "Completions",
                "How many pods have succeeded, and how many are wanted.",
            ),
            Column::new("Duration", "How long the job has been running, or ran."),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
            Column::new("Selector", "The labels of the pods that are counted.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, job: &Job, now: Timestamp) -> Vec<Value> {
        let none = JobSpec::default();
        let spec = job.spec.as_ref().unwrap_or(&none);
        let status = job.status.as_ref();
        let succeeded = status.and_then(|s| s.succeeded).unwrap_or(0);
        let parallelism = spec.parallelism.unwrap_or(0);
        let completions = match spec.completions {
            Some(wanted) => format!("{succeeded}/{wanted}"),
            None if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
            None => format!("{succeeded}/1"),
        };
        let times = (
            status.and_then(|s| s.start_time.as_ref()),
            status.and_then(|s| s.completion_time.as_ref()),
        );
        let duration = match times {
            (None, _) => String::new(),
            (Some(start), end) => {
                let end = end.map_or(now, |t| t.0);
                cells::human_duration(end.as_second() - start.0.as_second())
            }
        };
        let containers = spec
            .template
            .spec
            .as_ref()
            .map(|s| s.containers.as_slice())
            .unwrap_or(&[]);
        let [names, images] = cells::containers(containers);
        vec![
            cells::name(&job.metadata),
            word(job).into(),
            completions.into(),
            duration.into(),
            cells::age(&job.metadata, now),
            names,
            images,
            cells::selector(spec.selector.as_ref()).into(),
        ]
    }
}

/// How the job is doing, in one word.
fn word(job: &Job) -> &'static str {
    let is = |kind: &str| conditions::is_true(job.status.as_ref().and_then(|s| s.conditions.as_ref()), kind);
    if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if job.metadata.deletion_timestamp.is_some() {
        "Terminating"
    } else if is("Suspended") {
        "Suspended"
    } else if is("FailureTarget") {
        "FailureTarget"
    } else if is("SuccessCriteriaMet") {
        "SuccessCriteriaMet"
    } else {
        "Running"
    }
}

fn default(job: &mut Job) {
    let spec = job.spec.get_or_insert_default();
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    let limit = if spec.backoff_limit_per_index.is_some() {
        i32::MAX
    } else {
        BACKOFF_LIMIT
    };
    spec.backoff_limit.get_or_insert(limit);
    spec.completion_mode
        .get_or_insert_with(|| "NonIndexed".to_owned());
    spec.suspend.get_or_insert(false);
    spec.manual_selector.get_or_insert(false);
    let replace = if spec.pod_failure_policy.is_some() {
        "Failed"
    } else {
        "TerminatingOrFailed"
    };
    spec.pod_replacement_policy
        .get_or_insert_with(|| replace.to_owned());
    for pattern in spec
        .pod_failure_policy
        .iter_mut()
        .flat_map(|p| p.rules.iter_mut())
        .flat_map(|r| r.on_pod_conditions.iter_mut().flatten())
    {
        pattern.status.get_or_insert_with(|| "True".to_owned());
    }
    defaults::pod_template(&mut spec.template);
    let labels = spec
        .template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.as_ref())
        .filter(|l| !l.is_empty());
    if let Some(labels) = labels
        && job.metadata.labels.as_ref().is_none_or(BTreeMap::is_empty)
    {
        job.metadata.labels = Some(labels.clone());
    }
}

/// A job selects its pods by its own uid, unless its author takes care of that.
fn generate_selector(job: &mut Job) {
    let (uid, name) = (job.uid().to_owned(), job.name().to_owned());
    let Some(spec) = &mut job.spec else { return };
    let manual = spec.manual_selector == Some(true);
    let labels = spec
        .template
        .metadata
        .get_or_insert_default()
        .labels
        .get_or_insert_default();
    if manual {
        return;
    }
    // Labels that somebody else has set stay, and are complained about.
    for (key, value) in [
        (OLD_NAME_LABEL, &name),
        (NAME_LABEL, &name),
        (OLD_UID_LABEL, &uid),
        (UID_LABEL, &uid),
    ] {
        labels.entry(key.to_owned()).or_insert_with(|| value.clone());
    }
    let selector = spec.selector.get_or_insert_with(LabelSelector::default);
    selector
        .match_labels
        .get_or_insert_default()
        .entry(UID_LABEL.to_owned())
        .or_insert(uid);
}

fn validate(job: &Job) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &job.spec else {
        return vec![at.required("")];
    };
    generated(&mut errors, job, spec);
    validate_spec(&mut errors, &at, spec);
    match &spec.selector {
        None => errors.push(at.child("selector").required("")),
        Some(selector) => {
            selectors::label_selector(&mut errors, &at.child("selector"), selector);
            let labels = spec
                .template
                .metadata
                .as_ref()
                .and_then(|m| m.labels.as_ref())
                .unwrap_or(&NONE);
            if !selectors::matches(selector, labels) {
                let detail = "`selector` does not match template `labels`";
                errors.push(
                    at.child("template.metadata.labels")
                        .invalid(rules::shown(labels), detail),
                );
            }
        }
    }
    errors
}

/// What the server puts in must be what is there.
fn generated(errors: &mut Errors, job: &Job, spec: &JobSpec) {
    if spec.manual_selector == Some(true) {
        return;
    }
    let labels = spec
        .template
        .metadata
        .as_ref()
        .and_then(|m| m.labels.as_ref())
        .unwrap_or(&NONE);
    let at = Loc::new("spec.template.metadata.labels");
    for (key, expected) in [(UID_LABEL, job.uid()), (NAME_LABEL, job.name())] {
        match labels.get(key) {
            Some(found) if found == expected || expected.is_empty() => {}
            found => {
                let shown = found.map(String::as_str).unwrap_or("");
                errors.push(at.key(key).invalid(shown, format!("must be '{expected}'")));
            }
        }
    }
}

/// The spec of a job, also of one in a CronJob's template.
pub fn validate_spec(errors: &mut Errors, at: &Loc<'_>, spec: &JobSpec) {
    for (field, value) in [
        ("parallelism", spec.parallelism.map(i64::from)),
        ("completions", spec.completions.map(i64::from)),
        ("activeDeadlineSeconds", spec.active_deadline_seconds),
        ("backoffLimit", spec.backoff_limit.map(i64::from)),
        (
            "ttlSecondsAfterFinished",
            spec.ttl_seconds_after_finished.map(i64::from),
        ),
        (
            "backoffLimitPerIndex",
            spec.backoff_limit_per_index.map(i64::from),
        ),
        ("maxFailedIndexes", spec.max_failed_indexes.map(i64::from)),
    ] {
        rules::not_negative(errors, &at.child(field), value);
    }
    if let Some(manager) = &spec.managed_by
        && !manager.contains('/')
    {
        let detail = "a domain-prefixed path (such as \"acme.io/foo\") is required";
        errors.push(at.child("managedBy").invalid(manager.as_str(), detail));
    }
    indexed(errors, at, spec);
    let at_template = at.child("template");
    validation::pod_template(errors, &at_template, &spec.template);
    let policy = spec
        .template
        .spec
        .as_ref()
        .and_then(|s| s.restart_policy.as_deref())
        .unwrap_or("");
    let at_policy = at_template.child("spec.restartPolicy");
    match policy {
        "OnFailure" | "Never" => {}
        "Always" | "" => errors.push(at_policy.required("valid values: \"OnFailure\", \"Never\"")),
        other => errors.push(at_policy.not_supported(other, &["OnFailure", "Never"])),
    }
    if let Some(failure) = &spec.pod_failure_policy {
        if policy != "Never" {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(at_policy.invalid(policy, detail));
        }
        failure_policy(errors, &at.child("podFailurePolicy"), failure, spec);
    }
    if let Some(success) = &spec.success_policy {
        success_policy(errors, &at.child("successPolicy"), success, spec);
    }
    let replacement = spec.pod_replacement_policy.as_deref();
    let supported: &[&str] = if spec.pod_failure_policy.is_some() {
        &["Failed"]
    } else {
        &["Failed", "TerminatingOrFailed"]
    };
    rules::optional_one_of(errors, &at.child("podReplacementPolicy"), replacement, supported);
}

fn indexed(errors: &mut Errors, at: &Loc<'_>, spec: &JobSpec) {
    let mode = spec.completion_mode.as_deref();
    rules::optional_one_of(
        errors,
        &at.child("completionMode"),
        mode,
        &["Indexed", "NonIndexed"],
    );
    if mode == Some("Indexed") {
        if spec.completions.is_none() {
            let detail = "when completion mode is Indexed";
            errors.push(at.child("completions").required(detail));
        }
        if let Some(parallelism) = spec.parallelism
            && parallelism > INDEXED_PARALLELISM_MAX
        {
            let detail = format!(
                "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
            );
            errors.push(at.child("parallelism").invalid(parallelism, detail));
        }
    } else {
        if spec.backoff_limit_per_index.is_some() {
            let detail = "requires indexed completion mode";
            errors.push(
                at.child("backoffLimitPerIndex")
                    .invalid(spec.backoff_limit_per_index, detail),
            );
        }
        if spec.success_policy.is_some() {
            let detail = "requires indexed completion mode";
            errors.push(
                at.child("successPolicy")
                    .invalid(rules::shown(&spec.success_policy), detail),
            );
        }
    }
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        let detail = "when maxFailedIndexes is specified";
        errors.push(at.child("backoffLimitPerIndex").required(detail));
    }
}

fn failure_policy(errors: &mut Errors, at: &Loc<'_>, policy: &PodFailurePolicy, spec: &JobSpec) {
    let all = at.child("rules");
    if policy.rules.len() > FAILURE_RULES_MAX {
        errors.push(all.too_many(policy.rules.len(), FAILURE_RULES_MAX));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = all.index(i);
        let at_action = at.child("action");
        rules::one_of(
            errors,
            &at_action,
            Some(&rule.action),
            &["Count", "FailIndex", "FailJob", "Ignore"],
        );
        if rule.action == "FailIndex" && spec.backoff_limit_per_index.is_none() {
            errors.push(at_action.invalid(
                rule.action.as_str(),
                "requires the backoffLimitPerIndex to be set",
            ));
        }
        let conditions = rule.on_pod_conditions.as_deref().unwrap_or(&[]);
        match (&rule.on_exit_codes, conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                errors.push(at.invalid(rules::shown(rule), detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                errors.push(at.invalid(rules::shown(rule), detail));
            }
            _ => {}
        }
        if let Some(codes) = &rule.on_exit_codes {
            let at = at.child("onExitCodes");
            rules::one_of(
                errors,
                &at.child("operator"),
                Some(&codes.operator),
                &["In", "NotIn"],
            );
            let at_values = at.child("values");
            if codes.values.is_empty() {
                errors.push(at_values.invalid(rules::shown(&codes.values), "at least one value is required"));
            } else if codes.values.len() > EXIT_CODES_MAX {
                errors.push(at_values.too_many(codes.values.len(), EXIT_CODES_MAX));
            }
            for (j, value) in codes.values.iter().enumerate() {
                if codes.operator == "In" && *value == 0 {
                    errors.push(at_values.index(j).invalid(0, "must not be 0 for the In operator"));
                }
                if codes.values[..j].contains(value) {
                    errors.push(at_values.index(j).duplicate(*value));
                }
            }
            if codes.values.windows(2).any(|pair| pair[0] > pair[1]) {
                errors.push(at_values.invalid(rules::shown(&codes.values), "must be ordered"));
            }
            if let Some(name) = &codes.container_name {
                let pod = spec.template.spec.as_ref();
                let mut known = pod
                    .into_iter()
                    .flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
                if !known.any(|c| c.name == *name) {
                    let detail = "must be one of the container or initContainer names in the pod template";
                    errors.push(at.child("containerName").invalid(name.as_str(), detail));
                }
            }
        }
        let at_conditions = at.child("onPodConditions");
        for (j, pattern) in conditions.iter().enumerate() {
            let at = at_conditions.index(j);
            rules::qualified_name(errors, &at.child("type"), &pattern.type_);
            rules::one_of(
                errors,
                &at.child("status"),
                pattern.status.as_deref(),
                &["False", "True", "Unknown"],
            );
        }
    }
}

fn success_policy(errors: &mut Errors, at: &Loc<'_>, policy: &SuccessPolicy, spec: &JobSpec) {
    let all = at.child("rules");
    if policy.rules.is_empty() {
        errors.push(all.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if policy.rules.len() > FAILURE_RULES_MAX {
        errors.push(all.too_many(policy.rules.len(), FAILURE_RULES_MAX));
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        let at = all.index(i);
        if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
            errors.push(at.required("at least one of succeededCount or succeededIndexes must be specified"));
        }
        if let Some(count) = rule.succeeded_count {
            let at = at.child("succeededCount");
            rules::not_negative(errors, &at, Some(count));
            if let Some(completions) = spec.completions
                && count > completions
            {
                let detail = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                errors.push(at.invalid(count, detail));
            }
        }
        let limit = spec.completions.unwrap_or(0);
        if let Some(text) = &rule.succeeded_indexes
            && let Err(why) = indexes::intervals(text, limit)
        {
            let detail = format!("error parsing succeededIndexes: {why}");
            errors.push(at.child("succeededIndexes").invalid(text.as_str(), detail));
        }
    }
}

fn update(new: &Job, old: &Job) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let (Some(now), Some(before)) = (&new.spec, &old.spec) else {
        return validate(new);
    };
    // What a template says is held against today's rules only when it changes.
    if now.template != before.template || now != before {
        validate_spec(&mut errors, &at, now);
    }
    let indexed = now.completion_mode.as_deref() == Some("Indexed");
    let elastic = indexed && now.completions == now.parallelism && before.completions == before.parallelism;
    if !elastic || now.completions.is_none() {
        rules::immutable(
            &mut errors,
            &at.child("completions"),
            &now.completions,
            &before.completions,
        );
    }
    rules::immutable(
        &mut errors,
        &at.child("selector"),
        &now.selector,
        &before.selector,
    );
    template_kept(&mut errors, &at, now, before, old);
    rules::immutable(
        &mut errors,
        &at.child("completionMode"),
        &now.completion_mode,
        &before.completion_mode,
    );
    rules::immutable(
        &mut errors,
        &at.child("podFailurePolicy"),
        &now.pod_failure_policy,
        &before.pod_failure_policy,
    );
    let limits = (&now.backoff_limit_per_index, &before.backoff_limit_per_index);
    rules::immutable(&mut errors, &at.child("backoffLimitPerIndex"), limits.0, limits.1);
    rules::immutable(
        &mut errors,
        &at.child("managedBy"),
        &now.managed_by,
        &before.managed_by,
    );
    rules::immutable(
        &mut errors,
        &at.child("successPolicy"),
        &now.success_policy,
        &before.success_policy,
    );
    errors
}

/// While a job is suspended and has never started, its pods may still be sent elsewhere.
fn template_kept(errors: &mut Errors, at: &Loc<'_>, new: &JobSpec, old: &JobSpec, job: &Job) {
    let waiting = old.suspend == Some(true) && job.status.as_ref().is_none_or(|s| s.start_time.is_none());
    let mut munged = new.template.clone();
    if waiting && let (Some(now), Some(before)) = (&mut munged.spec, &old.template.spec) {
        now.node_selector.clone_from(&before.node_selector);
        now.tolerations.clone_from(&before.tolerations);
        now.affinity.clone_from(&before.affinity);
        now.scheduling_gates.clone_from(&before.scheduling_gates);
        munged.metadata.clone_from(&old.template.metadata);
        for (now, before) in now.containers.iter_mut().zip(&before.containers) {
            now.resources.clone_from(&before.resources);
        }
    }
    rules::immutable(errors, &at.child("template"), &munged, &old.template);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(change: fn(&mut Value)) -> Job {
        let mut value = json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}});
        change(&mut value);
        let mut job = serde_json::from_value(value).expect("a job");
        default(&mut job);
        generate_selector(&mut job);
        job
    }

    #[test]
    fn jobs_select_their_own_pods() {
        let job = job(|_| {});
        assert_eq!(validate(&job), []);
        let spec = serde_json::to_value(&job.spec).expect("json");
        assert_eq!(
            spec["selector"],
            json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
        );
        assert_eq!(
            (
                &spec["completions"],
                &spec["parallelism"],
                &spec["backoffLimit"],
                &spec["completionMode"]
            ),
            (&json!(1), &json!(1), &json!(6), &json!("NonIndexed"))
        );
        assert_eq!(spec["template"]["metadata"]["labels"]["job-name"], "j");
    }

    #[test]
    fn mistakes_are_named() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 4] = [
            (
                |j| j["spec"]["template"]["spec"]["restartPolicy"] = json!("Always"),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                |j| j["spec"]["completions"] = json!(-1),
                "spec.completions: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                |j| j["spec"]["completionMode"] = json!("Sorted"),
                "spec.completionMode: Unsupported value: \"Sorted\": supported values: \"Indexed\", \"NonIndexed\"",
            ),
            (
                |j| j["spec"]["backoffLimitPerIndex"] = json!(1),
                "spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode",
            ),
        ];
        for (change, text) in cases {
            let found: Vec<String> = validate(&job(change)).iter().map(ToString::to_string).collect();
            assert_eq!(found, [text]);
        }
        let old = job(|_| {});
        let new = job(|j| j["spec"]["template"]["spec"]["containers"][0]["image"] = json!("k"));
        assert!(update(&new, &old)[0].to_string().ends_with("field is immutable"));
        assert_eq!(
            update(
                &job(|j| j["spec"]["parallelism"] = json!(3)),
                &job(|j| j["spec"]["parallelism"] = json!(2))
            ),
            []
        );
    }
}
