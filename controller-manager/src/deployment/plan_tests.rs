use super::*;
use k8s_openapi::api::apps::v1::{
    DeploymentSpec, DeploymentStrategy, ReplicaSetStatus, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

fn at(second: i64) -> Time {
    Time(jiff::Timestamp::from_second(second).expect("a time"))
}

fn template(image: &str) -> PodTemplateSpec {
    PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some([("app".to_owned(), "web".to_owned())].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            containers: vec![Container {
                name: "c".into(),
                image: Some(image.into()),
                ..Container::default()
            }],
            ..PodSpec::default()
        }),
    }
}

fn deployment(image: &str, replicas: i32) -> Deployment {
    Deployment {
        metadata: ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            uid: Some("deployment".into()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(DeploymentSpec {
            replicas: Some(replicas),
            selector: LabelSelector {
                match_labels: Some([("app".to_owned(), "web".to_owned())].into()),
                ..LabelSelector::default()
            },
            template: template(image),
            progress_deadline_seconds: Some(600),
            revision_history_limit: Some(10),
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(1)),
                }),
            }),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

/// A cluster of one Deployment, in which ReplicaSets are obeyed at once.
struct World {
    deployment: Deployment,
    sets: Vec<Arc<ReplicaSet>>,
    /// Pods of templates with this image never become available.
    broken: &'static str,
    now: i64,
    steps: Vec<Vec<i32>>,
}

impl World {
    fn new(deployment: Deployment) -> Self {
        Self {
            deployment,
            sets: Vec::new(),
            broken: "none",
            now: 1000,
            steps: Vec::new(),
        }
    }

    /// One sync, after which the ReplicaSets have the pods they want.
    fn step(&mut self) -> bool {
        let observed = Observed {
            deployment: &self.deployment,
            replica_sets: self.sets.clone(),
            has_live_pods: &|_| false,
            now: at(self.now),
        };
        let plan = plan(&observed);
        let idle = plan.create.is_none()
            && plan.update.is_empty()
            && plan.status.is_none()
            && plan.delete.is_empty();
        self.now += 1;
        if let Some(set) = plan.create {
            let mut set = *set;
            set.metadata.uid = Some(format!("uid-{}", set.name()));
            set.metadata.creation_timestamp = Some(at(self.now));
            self.sets.push(Arc::new(set));
        }
        for update in plan.update {
            let index = self
                .sets
                .iter()
                .position(|set| set.name() == update.replica_set.name())
                .expect("a set");
            self.sets[index] = update.replica_set;
        }
        self.sets
            .retain(|set| !plan.delete.iter().any(|(name, _)| name == set.name()));
        if let Some(status) = plan.status {
            self.deployment = *status;
        }
        for set in &mut self.sets {
            let size = wanted(set);
            let image = set
                .spec
                .as_ref()
                .and_then(|spec| spec.template.as_ref()?.spec.as_ref()?.containers[0].image.clone());
            let available = if image.as_deref() == Some(self.broken) {
                0
            } else {
                size
            };
            Arc::make_mut(set).status = Some(ReplicaSetStatus {
                replicas: size,
                ready_replicas: Some(available),
                available_replicas: Some(available),
                terminating_replicas: Some(0),
                ..ReplicaSetStatus::default()
            });
        }
        self.steps.push(self.sizes());
        !idle
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.step() {
                return;
            }
        }
        panic!("it does not settle: {:?}", self.steps);
    }

    fn set_image(&mut self, image: &str) {
        self.edit(|spec| spec.template = template(image));
    }

    fn edit(&mut self, change: impl FnOnce(&mut DeploymentSpec)) {
        change(self.deployment.spec.as_mut().expect("a spec"));
        self.deployment.metadata.generation = Some(self.deployment.generation() + 1);
    }

    fn sizes(&self) -> Vec<i32> {
        self.sets.iter().map(|set| wanted(set)).collect()
    }

    fn reason(&self) -> Option<String> {
        self.deployment
            .status
            .as_ref()
            .and_then(conditions::progress_reason)
            .map(str::to_owned)
    }

    fn revisions(&self) -> Vec<i64> {
        self.sets.iter().map(|set| sets::revision(set)).collect()
    }
}

#[test]
fn the_first_release() {
    let mut world = World::new(deployment("one", 3));
    world.step();
    assert_eq!(world.sizes(), [3]);
    assert_eq!(world.reason().as_deref(), Some("NewReplicaSetCreated"));
    let set = &world.sets[0];
    assert_eq!(set.annotations()[labels::DEPLOYMENT_REVISION], "1");
    assert_eq!(set.annotations()[labels::DESIRED_REPLICAS], "3");
    assert_eq!(set.annotations()[labels::MAX_REPLICAS], "4");
    let hash = &set.labels()[labels::POD_TEMPLATE_HASH];
    assert_eq!(set.name(), format!("web-{hash}"));
    world.settle();
    assert_eq!(world.reason().as_deref(), Some("NewReplicaSetAvailable"));
    assert_eq!(world.deployment.annotations()[labels::DEPLOYMENT_REVISION], "1");
    let status = world.deployment.status.as_ref().expect("a status");
    assert_eq!(
        (
            status.replicas,
            status.available_replicas,
            status.unavailable_replicas
        ),
        (Some(3), Some(3), None)
    );
}

#[test]
fn a_rolling_update_keeps_within_its_limits() {
    let mut world = World::new(deployment("one", 4));
    world.settle();
    world.set_image("two");
    world.steps.clear();
    world.settle();
    assert_eq!(world.sizes(), [0, 4]);
    assert_eq!(world.revisions(), [1, 2]);
    for sizes in &world.steps {
        let total: i32 = sizes.iter().sum();
        assert!((3..=5).contains(&total), "{:?}", world.steps);
    }
    assert_eq!(world.reason().as_deref(), Some("NewReplicaSetAvailable"));
}

#[test]
fn a_broken_release_stops_and_times_out() {
    let mut world = World::new(deployment("one", 4));
    world.settle();
    world.broken = "two";
    world.set_image("two");
    world.settle();
    assert_eq!(world.sizes(), [3, 2]);
    world.now += 700;
    world.settle();
    assert_eq!(world.reason().as_deref(), Some("ProgressDeadlineExceeded"));
    let status = world.deployment.status.clone().expect("a status");
    let progressing = conditions::get(&status, conditions::PROGRESSING).expect("a condition");
    assert!(
        progressing
            .message
            .as_deref()
            .is_some_and(|message| message.ends_with("has timed out progressing."))
    );
    // Going back: the old ReplicaSet becomes the newest revision.
    world.set_image("one");
    world.settle();
    assert_eq!(world.sizes(), [4, 0]);
    assert_eq!(world.revisions(), [3, 2]);
    assert_eq!(
        world.sets[0].annotations()[labels::DEPLOYMENT_REVISION_HISTORY],
        "1"
    );
}

#[test]
fn a_recreation_has_a_gap() {
    let mut one = deployment("one", 3);
    if let Some(spec) = &mut one.spec {
        spec.strategy = Some(DeploymentStrategy {
            type_: Some("Recreate".into()),
            rolling_update: None,
        });
    }
    let mut world = World::new(one);
    world.settle();
    world.set_image("two");
    world.steps.clear();
    world.settle();
    assert_eq!(world.steps[0], [0]);
    assert_eq!(world.sizes(), [0, 3]);
}

#[test]
fn a_paused_rollout_scales_in_proportion() {
    let mut world = World::new(deployment("one", 10));
    world.edit(|spec| {
        if let Some(rolling) = spec
            .strategy
            .as_mut()
            .and_then(|strategy| strategy.rolling_update.as_mut())
        {
            rolling.max_surge = Some(IntOrString::Int(3));
            rolling.max_unavailable = Some(IntOrString::Int(2));
        }
    });
    world.settle();
    world.broken = "two";
    world.set_image("two");
    world.settle();
    assert_eq!(world.sizes(), [8, 5]);
    world.edit(|spec| spec.replicas = Some(15));
    world.settle();
    assert_eq!(world.sizes(), [11, 7]);
}

#[test]
fn pausing_and_resuming_are_noted() {
    let mut world = World::new(deployment("one", 2));
    world.settle();
    world.edit(|spec| spec.paused = Some(true));
    world.settle();
    assert_eq!(world.reason().as_deref(), Some("DeploymentPaused"));
    world.set_image("two");
    world.settle();
    assert_eq!(world.sizes(), [2]);
    world.edit(|spec| spec.paused = Some(false));
    world.settle();
    assert_eq!(world.sizes(), [0, 2]);
    assert_eq!(world.reason().as_deref(), Some("NewReplicaSetAvailable"));
}

#[test]
fn old_releases_beyond_the_limit_go() {
    let mut world = World::new(deployment("one", 1));
    world.edit(|spec| spec.revision_history_limit = Some(1));
    for image in ["one", "two", "three"] {
        world.set_image(image);
        world.settle();
    }
    assert_eq!(world.revisions(), [2, 3]);
}

#[test]
fn a_scaled_replica_set_is_put_back() {
    let mut world = World::new(deployment("one", 3));
    world.settle();
    if let Some(spec) = &mut Arc::make_mut(&mut world.sets[0]).spec {
        spec.replicas = Some(7);
    }
    world.settle();
    assert_eq!(world.sizes(), [3]);
}

#[test]
fn annotations_follow_but_not_all() {
    let mut world = World::new(deployment("one", 1));
    let annotations = [
        ("kubernetes.io/change-cause", "because"),
        (labels::LAST_APPLIED, "{}"),
    ];
    world.deployment.metadata.annotations = Some(
        annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    );
    world.settle();
    assert_eq!(
        world.sets[0].annotations()["kubernetes.io/change-cause"],
        "because"
    );
    assert!(!world.sets[0].annotations().contains_key(labels::LAST_APPLIED));
}
