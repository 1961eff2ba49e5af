use super::*;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStatus, PodSpec, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn job(parallelism: i32, completions: Option<i32>) -> Job {
    Job {
        metadata: ObjectMeta {
            name: Some("pi".into()),
            uid: Some("job".into()),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            parallelism: Some(parallelism),
            completions,
            backoff_limit: Some(2),
            template: PodTemplateSpec {
                spec: Some(PodSpec::default()),
                ..PodTemplateSpec::default()
            },
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// A cluster of one job, in which pods do as they are told.
struct World {
    job: Job,
    pods: Vec<Arc<Pod>>,
    now: i64,
    created: usize,
    events: Vec<String>,
}

impl World {
    fn new(job: Job) -> Self {
        Self {
            job,
            pods: Vec::new(),
            now: 1000,
            created: 0,
            events: Vec::new(),
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut JobSpec)) {
        change(self.job.spec.as_mut().expect("a spec"));
    }

    fn step(&mut self) {
        let now = Time(jiff::Timestamp::from_second(self.now).expect("a time"));
        let plan = plan(&Observed {
            job: &self.job,
            pods: &self.pods,
            may_write: true,
            now,
        });
        for mut pod in plan.create {
            self.created += 1;
            pod.metadata.uid = Some(format!("pod-{}", self.created));
            pod.metadata.name = Some(format!("pi-{}", self.created));
            self.pods.push(Arc::new(pod));
        }
        self.pods
            .retain(|pod| !plan.delete.iter().any(|gone| gone.uid() == pod.uid()));
        for pod in &mut self.pods {
            if plan.release.iter().any(|released| released.uid() == pod.uid()) {
                Arc::make_mut(pod).metadata.finalizers = None;
            }
        }
        if let Some(status) = plan.status {
            self.job.status = Some(status);
        }
        self.events
            .extend(plan.events.into_iter().map(|(_, reason, _)| reason));
    }

    fn settle(&mut self) {
        for _ in 0..6 {
            self.step();
        }
    }

    /// Ends every running pod with an exit code.
    fn end_all(&mut self, code: i32) {
        let finished_at = Some(Time(jiff::Timestamp::from_second(self.now).expect("a time")));
        for pod in self.pods.iter_mut().filter(|pod| pods::is_active(pod)) {
            let status = Arc::make_mut(pod).status.get_or_insert_default();
            status.phase = Some(if code == 0 { "Succeeded" } else { "Failed" }.into());
            let terminated = ContainerStateTerminated {
                exit_code: code,
                finished_at: finished_at.clone(),
                ..ContainerStateTerminated::default()
            };
            let state = ContainerState {
                terminated: Some(terminated),
                ..ContainerState::default()
            };
            let container = ContainerStatus {
                name: "c".into(),
                state: Some(state),
                ..ContainerStatus::default()
            };
            status.container_statuses = Some(vec![container]);
        }
    }

    fn active(&self) -> usize {
        self.pods.iter().filter(|pod| pods::is_active(pod)).count()
    }

    fn status(&self) -> &JobStatus {
        self.job.status.as_ref().expect("a status")
    }

    fn outcome(&self) -> Option<(&str, &str)> {
        let condition = finished(self.status())?;
        Some((&condition.type_, condition.reason.as_deref().unwrap_or_default()))
    }
}

#[test]
fn it_runs_to_completion() {
    let mut world = World::new(job(2, Some(5)));
    world.settle();
    assert_eq!((world.active(), world.status().active), (2, Some(2)));
    for _ in 0..3 {
        world.end_all(0);
        world.settle();
    }
    assert_eq!(world.outcome(), Some(("Complete", "CompletionsReached")));
    assert_eq!(
        (
            world.status().succeeded,
            world.status().failed,
            world.status().active
        ),
        (Some(5), None, None)
    );
    assert_eq!(world.created, 5);
    assert_eq!(world.events, ["Completed"]);
    assert!(world.pods.iter().all(|pod| !is_tracked(pod)));
}

#[test]
fn it_gives_up_after_its_limit() {
    let mut world = World::new(job(1, Some(1)));
    world.settle();
    for _ in 0..3 {
        world.end_all(1);
        world.settle();
        assert_eq!(world.active(), 0, "it waits before it tries again");
        world.now += 700;
        world.settle();
    }
    assert_eq!(world.outcome(), Some(("Failed", "BackoffLimitExceeded")));
    assert_eq!((world.status().failed, world.created), (Some(3), 3));
}

#[test]
fn each_index_completes_once() {
    let mut world = World::new(job(3, Some(3)));
    world.edit(|spec| spec.completion_mode = Some("Indexed".into()));
    world.settle();
    let indexes: Vec<_> = world.pods.iter().filter_map(|pod| own_pods::index(pod)).collect();
    assert_eq!(indexes, [0, 1, 2]);
    world.end_all(0);
    world.settle();
    assert_eq!(world.outcome(), Some(("Complete", "CompletionsReached")));
    assert_eq!(world.status().completed_indexes.as_deref(), Some("0-2"));
    assert_eq!(world.status().succeeded, Some(3));
}

#[test]
fn a_failed_index_does_not_stop_the_others() {
    let mut world = World::new(job(2, Some(2)));
    world.edit(|spec| {
        spec.completion_mode = Some("Indexed".into());
        spec.backoff_limit = Some(100);
        spec.backoff_limit_per_index = Some(0);
    });
    world.settle();
    let first = world.pods.remove(0);
    world.end_all(1);
    world.pods.push(first);
    world.settle();
    assert_eq!(world.outcome(), None);
    assert_eq!(world.status().failed_indexes.as_deref(), Some("1"));
    world.end_all(0);
    world.settle();
    assert_eq!(world.outcome(), Some(("Failed", "FailedIndexes")));
}

#[test]
fn a_suspended_job_has_no_pods() {
    let mut world = World::new(job(2, Some(2)));
    world.edit(|spec| spec.suspend = Some(true));
    world.settle();
    assert_eq!((world.created, world.status().start_time.is_some()), (0, false));
    world.edit(|spec| spec.suspend = Some(false));
    world.settle();
    assert_eq!(world.active(), 2);
    world.edit(|spec| spec.suspend = Some(true));
    world.settle();
    assert_eq!(world.active(), 0);
    assert_eq!(world.events, ["Suspended", "Resumed", "Suspended"]);
}

#[test]
fn it_ends_at_its_deadline() {
    let mut world = World::new(job(1, Some(1)));
    world.edit(|spec| spec.active_deadline_seconds = Some(30));
    world.settle();
    world.now += 31;
    world.settle();
    assert_eq!(world.outcome(), Some(("Failed", "DeadlineExceeded")));
    assert_eq!(world.active(), 0);
}
