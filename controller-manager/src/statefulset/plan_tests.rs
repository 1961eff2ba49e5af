use super::*;
use k8s_openapi::api::apps::v1::{
    RollingUpdateStatefulSetStrategy, StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

struct World {
    set: StatefulSet,
    pods: Vec<Arc<Pod>>,
    update: &'static str,
    log: Vec<String>,
}

impl World {
    fn new(replicas: i32, policy: &str) -> Self {
        let set = StatefulSet {
            metadata: ObjectMeta {
                name: Some("db".into()),
                ..ObjectMeta::default()
            },
            spec: Some(StatefulSetSpec {
                replicas: Some(replicas),
                pod_management_policy: Some(policy.into()),
                ..StatefulSetSpec::default()
            }),
            status: None,
        };
        Self {
            set,
            pods: Vec::new(),
            update: "one",
            log: Vec::new(),
        }
    }

    fn edit(&mut self, change: impl FnOnce(&mut StatefulSetSpec)) {
        change(self.set.spec.as_mut().expect("a spec"));
    }

    /// One sync, after which pods are gone or running.
    fn step(&mut self) -> bool {
        let current = self
            .set
            .status
            .as_ref()
            .and_then(|status| status.current_revision.clone());
        let current = current.unwrap_or_else(|| self.update.to_owned());
        let observed = Observed {
            set: &self.set,
            pods: &self.pods,
            current: &current,
            update: self.update,
            now: keelson_api::time::now(),
        };
        let plan = plan(&observed);
        let idle = plan.create.is_empty() && plan.delete.is_empty();
        for gone in &plan.delete {
            self.log.push(format!("-{}", gone.name()));
            self.pods.retain(|pod| pod.name() != gone.name());
        }
        for creation in plan.create {
            let revision = if creation.updated { self.update } else { &current };
            let mut pod =
                identity::new_pod(&self.set, &PodTemplateSpec::default(), revision, creation.ordinal);
            self.log.push(format!("+{}", pod.name()));
            pod.status = pods::testing::pod("x", "Running", true).status;
            self.pods.push(Arc::new(pod));
        }
        self.set.status = Some(plan.status);
        !idle
    }

    fn settle(&mut self) -> String {
        self.log.clear();
        for _ in 0..50 {
            if !self.step() {
                self.step();
                return self.log.join(" ");
            }
        }
        panic!("it does not settle: {:?}", self.log);
    }

    fn status(&self) -> &StatefulSetStatus {
        self.set.status.as_ref().expect("a status")
    }
}

#[test]
fn up_in_order_and_down_in_reverse() {
    let mut world = World::new(3, "OrderedReady");
    assert!(world.step() && world.log == ["+db-0"]);
    assert_eq!(world.settle(), "+db-1 +db-2");
    assert_eq!(
        (world.status().replicas, world.status().ready_replicas),
        (3, Some(3))
    );
    world.edit(|spec| spec.replicas = Some(1));
    assert_eq!(world.settle(), "-db-2 -db-1");
}

#[test]
fn in_order_means_waiting_for_the_one_before() {
    let mut world = World::new(3, "OrderedReady");
    world.step();
    let status = Arc::make_mut(&mut world.pods[0])
        .status
        .as_mut()
        .expect("a status");
    status.conditions = None;
    assert!(!world.step());
    let mut world = World::new(3, "Parallel");
    world.step();
    assert_eq!(world.log, ["+db-0", "+db-1", "+db-2"]);
}

#[test]
fn scaling_down_waits_for_all_but_the_lowest_to_be_well() {
    let mut world = World::new(3, "OrderedReady");
    world.settle();
    for (uid, pod) in ["a", "b", "c"].into_iter().zip(&mut world.pods) {
        let pod = Arc::make_mut(pod);
        pod.metadata.uid = Some(uid.into());
        pod.status.as_mut().expect("a status").conditions = None;
    }
    world.edit(|spec| spec.replicas = Some(0));
    assert_eq!(world.settle(), "");
    let well = pods::testing::pod("x", "Running", true).status;
    for pod in &mut world.pods[1..] {
        Arc::make_mut(pod).status.clone_from(&well);
    }
    assert_eq!(world.settle(), "-db-2 -db-1 -db-0");
}

#[test]
fn an_update_goes_from_the_top() {
    let mut world = World::new(3, "OrderedReady");
    world.settle();
    world.update = "two";
    assert_eq!(world.settle(), "-db-2 +db-2 -db-1 +db-1 -db-0 +db-0");
    let status = world.status();
    assert_eq!(
        (status.updated_replicas, status.current_revision.as_deref()),
        (Some(3), Some("two"))
    );
}

#[test]
fn a_partition_stops_it() {
    let mut world = World::new(3, "OrderedReady");
    world.edit(|spec| {
        spec.update_strategy = Some(StatefulSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateStatefulSetStrategy {
                partition: Some(2),
                max_unavailable: None,
            }),
        });
    });
    world.settle();
    world.update = "two";
    assert_eq!(world.settle(), "-db-2 +db-2");
    let status = world.status();
    assert_eq!(
        (status.updated_replicas, status.current_replicas),
        (Some(1), Some(2))
    );
    assert_eq!(status.current_revision.as_deref(), Some("one"));
    // One below the partition comes back as it was.
    world.pods.retain(|pod| pod.name() != "db-0");
    assert_eq!(world.settle(), "+db-0");
    assert_eq!(world.status().current_replicas, Some(2));
}

#[test]
fn a_pod_that_ended_is_made_again() {
    let mut world = World::new(2, "OrderedReady");
    world.settle();
    let status = Arc::make_mut(&mut world.pods[0])
        .status
        .as_mut()
        .expect("a status");
    status.phase = Some("Failed".into());
    assert_eq!(world.settle(), "-db-0 +db-0");
}
