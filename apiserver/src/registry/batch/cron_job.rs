//! CronJobs.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus};
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use super::{job, schedule, status};
use crate::registry::common::defaults::fill;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{cells, rules};
use crate::registry::core::pod::{defaults, spec_warnings};
use crate::registry::strategy::{Column, OtherFields, RequestContext, ResourceInfo, Strategy};

const SUCCESSFUL_HISTORY: i32 = 3;
const FAILED_HISTORY: i32 = 1;
/// Names of jobs add eleven characters to the cron job's, and must be labels.
const NAME_MAX: usize = 52;

/// The kind's strategy.
pub struct CronJobKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "batch",
    kind: "CronJob",
    plural: "cronjobs",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    storage_prefix: "cronjobs",
    other_fields: OtherFields::NotSupportedForKind,
    subresources: &[status("CronJob")],
    ..ResourceInfo::base()
};

impl Strategy for CronJobKind {
    type Object = CronJob;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, cron: &mut CronJob) {
        let spec = &mut cron.spec;
        fill(&mut spec.concurrency_policy, "Allow");
        spec.suspend.get_or_insert(false);
        spec.successful_jobs_history_limit
            .get_or_insert(SUCCESSFUL_HISTORY);
        spec.failed_jobs_history_limit.get_or_insert(FAILED_HISTORY);
        spec.job_template.metadata.get_or_insert_default();
        defaults::pod_template(&mut spec.job_template.spec.get_or_insert_default().template);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, cron: &mut CronJob) {
        meta::first_generation(&mut cron.metadata);
        cron.status = Some(CronJobStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, cron: &CronJob) -> Errors {
        let mut errors = validate(cron);
        if cron.name().len() > NAME_MAX {
            let detail = format!("must be no more than {NAME_MAX} characters");
            errors.push(Loc::new("metadata.name").invalid(cron.name(), detail));
        }
        errors
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &CronJob, _old: &CronJob) -> Errors {
        validate(new)
    }

    fn warnings(&self, cron: &CronJob, old: Option<&CronJob>) -> Vec<String> {
        let template = cron.spec.job_template.spec.as_ref().filter(|_| old.is_none());
        let spec = template.and_then(|t| t.template.spec.as_ref());
        spec.map(|spec| spec_warnings("spec.jobTemplate.spec.template.spec", spec))
            .unwrap_or_default()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Schedule", "When jobs are started."),
            Column::new("Timezone", "The time zone of the schedule."),
            Column::new("Suspend", "Whether no jobs are started for now.").of("boolean"),
            Column::new("Active", "The number of running jobs.").of("integer"),
            Column::new("Last Schedule", "When a job was last started."),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
            Column::new("Selector", "The labels of the pods that are counted.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, cron: &CronJob, now: Timestamp) -> Vec<Value> {
        let spec = &cron.spec;
        let status = cron.status.as_ref();
        let template = spec.job_template.spec.as_ref();
        let containers = template
            .and_then(|t| t.template.spec.as_ref())
            .map(|s| s.containers.as_slice());
        let [names, images] = cells::containers(containers.unwrap_or(&[]));
        let last = status.and_then(|s| s.last_schedule_time.as_ref());
        let last = last.map_or_else(|| cells::NONE.to_owned(), |at| cells::since(Some(at), now));
        vec![
            cells::name(&cron.metadata),
            spec.schedule.as_str().into(),
            cells::or_none(spec.time_zone.as_deref()),
            if spec.suspend.unwrap_or(false) {
                "True"
            } else {
                "False"
            }
            .into(),
            status.and_then(|s| s.active.as_ref()).map_or(0, Vec::len).into(),
            last.into(),
            cells::age(&cron.metadata, now),
            names,
            images,
            cells::selector(template.and_then(|t| t.selector.as_ref())).into(),
        ]
    }
}

fn validate(cron: &CronJob) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let spec = &cron.spec;
    times(&mut errors, &at, spec);
    rules::not_negative(
        &mut errors,
        &at.child("startingDeadlineSeconds"),
        spec.starting_deadline_seconds,
    );
    rules::one_of(
        &mut errors,
        &at.child("concurrencyPolicy"),
        spec.concurrency_policy.as_deref(),
        &["Allow", "Forbid", "Replace"],
    );
    let at_template = at.child("jobTemplate");
    if let Some(metadata) = &spec.job_template.metadata {
        if let Some(map) = &metadata.labels {
            rules::labels(&mut errors, &at_template.child("labels"), map);
        }
        if let Some(map) = &metadata.annotations {
            rules::annotations(&mut errors, &at_template.child("annotations"), map);
        }
    }
    if let Some(template) = &spec.job_template.spec {
        let at = at_template.child("spec");
        job::validate_spec(&mut errors, &at, template);
        if template.manual_selector == Some(true) {
            errors.push(at.child("manualSelector").not_supported(true, &["nil", "false"]));
        }
    }
    rules::not_negative(
        &mut errors,
        &at.child("successfulJobsHistoryLimit"),
        spec.successful_jobs_history_limit,
    );
    rules::not_negative(
        &mut errors,
        &at.child("failedJobsHistoryLimit"),
        spec.failed_jobs_history_limit,
    );
    errors
}

fn times(errors: &mut Errors, at: &Loc<'_>, spec: &CronJobSpec) {
    let text = spec.schedule.as_str();
    let at_schedule = at.child("schedule");
    if text.is_empty() {
        errors.push(at_schedule.required(""));
    } else if text.contains("TZ") {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        errors.push(at_schedule.invalid(text, detail));
    } else if let Err(why) = schedule::check(text) {
        errors.push(at_schedule.invalid(text, why));
    }
    let Some(zone) = spec.time_zone.as_deref() else {
        return;
    };
    let at_zone = at.child("timeZone");
    if zone.is_empty() {
        errors.push(at_zone.invalid("", "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        errors.push(at_zone.invalid(
            zone,
            "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
        ));
    } else if jiff::tz::TimeZone::get(zone).is_err() {
        errors.push(at_zone.invalid(zone, format!("unknown time zone {zone}")));
    }
}
