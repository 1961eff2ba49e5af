//! One step of a cron job, as data.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use keelson_api::object::{Object as _, ObjectKey};
use keelson_api::owners::new_controller_ref;
use keelson_client::EventKind;

use super::schedule::Schedule;
use crate::job::finished;

/// The time a job was made for, as an annotation.
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// What there is.
pub struct Observed<'a> {
    /// The cron job.
    pub cron: &'a CronJob,
    /// The jobs it controls.
    pub jobs: &'a [Arc<Job>],
    /// Uids of jobs in its status that are known not to exist.
    pub gone: &'a [String],
    /// The present.
    pub now: Time,
}

/// What to do about it, in this order.
#[derive(Debug, Default)]
pub struct Plan {
    /// Jobs to delete: names and uids.
    pub delete: Vec<(String, String)>,
    /// The job of the time that has come.
    pub create: Option<Box<Job>>,
    /// The new status, if it changed. The job to create is not in it.
    pub status: Option<CronJobStatus>,
    /// What to report.
    pub events: Vec<(EventKind, &'static str, String)>,
    /// When to look again.
    pub look_again: Option<Duration>,
}

/// Plans the next step.
#[must_use]
pub fn plan(observed: &Observed<'_>) -> Plan {
    let mut planner = Planner {
        observed,
        status: observed.cron.status.clone().unwrap_or_default(),
        plan: Plan::default(),
    };
    planner.take_stock();
    if observed.cron.metadata.deletion_timestamp.is_none() {
        planner.forget_history();
        planner.start();
    }
    let changed = observed.cron.status.clone().unwrap_or_default() != planner.status;
    planner.plan.status = changed.then_some(planner.status);
    planner.plan
}

struct Planner<'a> {
    observed: &'a Observed<'a>,
    status: CronJobStatus,
    plan: Plan,
}

impl Planner<'_> {
    fn report(&mut self, kind: EventKind, reason: &'static str, message: String) {
        self.plan.events.push((kind, reason, message));
    }

    fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    fn is_active(&self, uid: &str) -> bool {
        self.active().iter().any(|job| job.uid.as_deref() == Some(uid))
    }

    fn drop_active(&mut self, uid: &str) {
        if let Some(active) = &mut self.status.active {
            active.retain(|job| job.uid.as_deref() != Some(uid));
        }
        self.status.active = self.status.active.take().filter(|active| !active.is_empty());
    }

    /// Brings the list of active jobs up to date.
    fn take_stock(&mut self) {
        for job in self.observed.jobs {
            let ended = job.status.as_ref().and_then(finished);
            let listed = self.is_active(job.uid());
            match ended {
                None if !listed => {
                    let message = format!(
                        "Saw a job that the controller did not create or forgot: {}",
                        job.name()
                    );
                    self.report(EventKind::Warning, "UnexpectedJob", message);
                }
                None => {}
                Some(condition) => {
                    if listed {
                        self.drop_active(job.uid());
                        let message = format!(
                            "Saw completed job: {}, condition: {}",
                            job.name(),
                            condition.type_
                        );
                        self.report(EventKind::Normal, "SawCompletedJob", message);
                    }
                    let at = job
                        .status
                        .as_ref()
                        .and_then(|status| status.completion_time.clone());
                    if condition.type_ == "Complete" && at > self.status.last_successful_time {
                        self.status.last_successful_time = at;
                    }
                }
            }
        }
        for uid in self.observed.gone {
            if let Some(job) = self.active().iter().find(|job| job.uid.as_ref() == Some(uid)) {
                let message = format!(
                    "Active job went missing: {}",
                    job.name.as_deref().unwrap_or_default()
                );
                self.report(EventKind::Normal, "MissingJob", message);
                self.drop_active(uid);
            }
        }
    }

    /// Deletes ended jobs beyond the numbers to keep, oldest first.
    fn forget_history(&mut self) {
        let spec = &self.observed.cron.spec;
        let limits = [
            ("Complete", spec.successful_jobs_history_limit),
            ("Failed", spec.failed_jobs_history_limit),
        ];
        for (kind, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
                continue;
            };
            let mut ended: Vec<&Arc<Job>> = self
                .observed
                .jobs
                .iter()
                .filter(|job| {
                    job.status
                        .as_ref()
                        .and_then(finished)
                        .is_some_and(|ended| ended.type_ == kind)
                })
                .filter(|job| job.metadata.deletion_timestamp.is_none())
                .collect();
            ended.sort_by(|a, b| started(a).cmp(&started(b)).then_with(|| a.name().cmp(b.name())));
            let excess = ended.len().saturating_sub(limit);
            let names: Vec<_> = ended
                .into_iter()
                .take(excess)
                .map(|job| (job.name().to_owned(), job.uid().to_owned()))
                .collect();
            self.plan.delete.extend(names);
        }
    }

    fn start(&mut self) {
        let cron = self.observed.cron;
        let now = self.observed.now.0;
        if cron.spec.suspend.unwrap_or_default() {
            return;
        }
        let zone = match zone(cron) {
            Ok(zone) => zone,
            Err(message) => return self.report(EventKind::Warning, "UnknownTimeZone", message),
        };
        let schedule: Schedule = match cron.spec.schedule.parse() {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: \"{}\" : {error}", cron.spec.schedule);
                return self.report(EventKind::Warning, "UnparseableSchedule", message);
            }
        };
        let next = schedule.next(now, &zone).map(keelson_api::time::until);
        // Timestamps are whole seconds: a little later, so that the second has come.
        self.plan.look_again = next.map(|wait| wait + Duration::from_millis(100));
        let Some((at, missed)) = schedule.latest(self.earliest(), now, &zone) else {
            return;
        };
        if missed > 100 {
            let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.report(EventKind::Warning, "TooManyMissedTimes", message.into());
        }
        if self
            .deadline()
            .is_some_and(|deadline| keelson_api::time::after(at, deadline) < now)
        {
            let message = format!("Missed scheduled time to start a job: {at}");
            return self.report(EventKind::Warning, "MissSchedule", message);
        }
        let name = job_name(cron, at);
        if self.active().iter().any(|job| job.name.as_ref() == Some(&name))
            || self
                .status
                .last_schedule_time
                .as_ref()
                .is_some_and(|last| last.0 == at)
        {
            return;
        }
        match cron.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.active().is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.report(EventKind::Normal, "JobAlreadyActive", message.into());
            }
            Some("Replace") => {
                let active = self.status.active.take().unwrap_or_default();
                let keys = active
                    .into_iter()
                    .map(|job| (job.name.unwrap_or_default(), job.uid.unwrap_or_default()));
                self.plan.delete.extend(keys);
            }
            _ => {}
        }
        self.status.last_schedule_time = Some(Time(at));
        self.plan.create = Some(Box::new(job(cron, name, at, &zone)));
    }

    fn deadline(&self) -> Option<Duration> {
        let seconds = self.observed.cron.spec.starting_deadline_seconds?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or_default()))
    }

    /// Times before this are not made up for.
    fn earliest(&self) -> Timestamp {
        let cron = self.observed.cron;
        let now = self.observed.now.0;
        let last = self
            .status
            .last_schedule_time
            .as_ref()
            .or(cron.metadata.creation_timestamp.as_ref());
        let last = last.map_or(now, |time| time.0);
        let deadline = self
            .deadline()
            .and_then(|deadline| now.checked_sub(deadline).ok());
        deadline.map_or(last, |deadline| deadline.max(last))
    }
}

fn started(job: &Job) -> Option<Timestamp> {
    job.status.as_ref()?.start_time.as_ref().map(|time| time.0)
}

fn zone(cron: &CronJob) -> Result<TimeZone, String> {
    match cron.spec.time_zone.as_deref() {
        None => Ok(TimeZone::UTC),
        Some(name) => TimeZone::get(name).map_err(|error| format!("invalid timeZone: \"{name}\": {error}")),
    }
}

/// The same name for the same time: a job that was created but not noted is not created twice.
fn job_name(cron: &CronJob, at: Timestamp) -> String {
    format!("{}-{}", cron.name(), at.as_second() / 60)
}

fn job(cron: &CronJob, name: String, at: Timestamp, zone: &TimeZone) -> Job {
    let template = &cron.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let local = if zone == &TimeZone::UTC {
        keelson_api::time::rfc3339(at)
    } else {
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    };
    annotations.insert(SCHEDULED_AT.into(), local);
    Job {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: cron.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            creation_timestamp: Some(Time(at)),
            owner_references: Some(vec![new_controller_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// How the status refers to a job that has been created.
#[must_use]
pub fn reference(job: &Job) -> ObjectReference {
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        namespace: job.metadata.namespace.clone(),
        name: job.metadata.name.clone(),
        uid: job.metadata.uid.clone(),
        resource_version: job.metadata.resource_version.clone(),
        ..ObjectReference::default()
    }
}

/// The keys of active jobs that are not among `jobs`, with their uids.
#[must_use]
pub fn unaccounted(cron: &CronJob, jobs: &[Arc<Job>]) -> Vec<(ObjectKey, String)> {
    active_jobs(cron)
        .iter()
        .filter(|job| !jobs.iter().any(|known| Some(known.uid()) == job.uid.as_deref()))
        .map(|job| {
            let key = ObjectKey::new(cron.namespace(), job.name.clone().unwrap_or_default());
            (key, job.uid.clone().unwrap_or_default())
        })
        .collect()
}

/// Whether a job goes on that the status does not list: the status that was read may be older than the job.
pub fn unexpected(cron: &CronJob, jobs: &[Arc<Job>]) -> bool {
    let listed = |job: &Job| {
        let mut active = active_jobs(cron).iter();
        active.any(|known| known.uid.as_deref() == Some(job.uid()))
    };
    let goes_on = |job: &Job| job.status.as_ref().and_then(finished).is_none();
    jobs.iter().any(|job| goes_on(job) && !listed(job))
}

fn active_jobs(cron: &CronJob) -> &[ObjectReference] {
    let active = cron.status.as_ref().and_then(|status| status.active.as_deref());
    active.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::batch::v1::{CronJobSpec, JobCondition, JobStatus};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn cron(policy: &str) -> CronJob {
        CronJob {
            metadata: ObjectMeta {
                name: Some("tick".into()),
                namespace: Some("n".into()),
                creation_timestamp: Some(Time(at("2026-07-09T10:00:30Z"))),
                ..ObjectMeta::default()
            },
            spec: CronJobSpec {
                schedule: "*/5 * * * *".into(),
                concurrency_policy: Some(policy.into()),
                successful_jobs_history_limit: Some(1),
                ..CronJobSpec::default()
            },
            status: None,
        }
    }

    fn step(cron: &CronJob, jobs: &[Arc<Job>], now: &str) -> Plan {
        plan(&Observed {
            cron,
            jobs,
            gone: &[],
            now: Time(at(now)),
        })
    }

    fn with_active(mut cron: CronJob, name: &str) -> CronJob {
        let job = ObjectReference {
            name: Some(name.into()),
            uid: Some(name.into()),
            ..ObjectReference::default()
        };
        cron.status.get_or_insert_default().active = Some(vec![job]);
        cron
    }

    #[test]
    fn a_job_that_goes_on_is_expected_once_the_status_lists_it() {
        let mut going = Job::clone(&ended("tick-1", 1));
        going.status = None;
        let jobs = [ended("tick-0", 0), Arc::new(going)];
        assert!(unexpected(&cron("Allow"), &jobs));
        assert!(!unexpected(&with_active(cron("Allow"), "tick-1"), &jobs));
        assert!(!unexpected(&cron("Allow"), &jobs[..1]));
    }

    fn ended(name: &str, minute: i64) -> Arc<Job> {
        let condition = JobCondition {
            type_: "Complete".into(),
            status: "True".into(),
            ..JobCondition::default()
        };
        let time = Some(Time(Timestamp::from_second(minute * 60).expect("a time")));
        Arc::new(Job {
            metadata: ObjectMeta {
                name: Some(name.into()),
                uid: Some(name.into()),
                ..ObjectMeta::default()
            },
            status: Some(JobStatus {
                conditions: Some(vec![condition]),
                start_time: time.clone(),
                completion_time: time,
                ..JobStatus::default()
            }),
            ..Job::default()
        })
    }

    #[test]
    fn a_job_for_each_time() {
        let cron = cron("Allow");
        assert!(step(&cron, &[], "2026-07-09T10:04:00Z").create.is_none());
        let plan = step(&cron, &[], "2026-07-09T10:05:01Z");
        let job = plan.create.expect("a job");
        assert_eq!(
            job.name(),
            format!("tick-{}", at("2026-07-09T10:05:00Z").as_second() / 60)
        );
        assert_eq!(job.annotations()[SCHEDULED_AT], "2026-07-09T10:05:00Z");
        let noted = CronJob {
            status: plan.status,
            ..cron
        };
        assert!(step(&noted, &[], "2026-07-09T10:05:02Z").create.is_none());
        assert!(step(&noted, &[], "2026-07-09T10:10:00Z").create.is_some());
    }

    #[test]
    fn concurrency_is_as_the_policy_says() {
        let now = "2026-07-09T10:05:01Z";
        let forbidden = step(&with_active(cron("Forbid"), "other"), &[], now);
        assert!(forbidden.create.is_none() && forbidden.events[0].1 == "JobAlreadyActive");
        let replaced = step(&with_active(cron("Replace"), "other"), &[], now);
        assert!(replaced.create.is_some());
        assert_eq!(replaced.delete, [("other".to_owned(), "other".to_owned())]);
        assert!(
            step(&with_active(cron("Allow"), "other"), &[], now)
                .create
                .is_some()
        );
    }

    #[test]
    fn ended_jobs_are_noted_and_the_oldest_go() {
        let cron = with_active(cron("Allow"), "b");
        let plan = step(&cron, &[ended("a", 1), ended("b", 2)], "2026-07-09T10:04:00Z");
        assert_eq!(plan.delete, [("a".to_owned(), "a".to_owned())]);
        let status = plan.status.expect("a status");
        assert_eq!(status.active, None);
        assert_eq!(
            status.last_successful_time.map(|time| time.0.as_second()),
            Some(120)
        );
    }

    #[test]
    fn too_late_is_not_made_up_for() {
        let mut cron = cron("Allow");
        cron.spec.schedule = "0 10 * * *".into();
        cron.metadata.creation_timestamp = Some(Time(at("2026-07-09T09:00:00Z")));
        cron.spec.starting_deadline_seconds = Some(60);
        assert!(step(&cron, &[], "2026-07-09T10:00:30Z").create.is_some());
        assert!(step(&cron, &[], "2026-07-09T10:02:00Z").create.is_none());
    }
}
