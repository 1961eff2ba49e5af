use super::*;
use k8s_openapi::api::apps::v1::{DaemonSetSpec, DaemonSetUpdateStrategy, RollingUpdateDaemonSet};
use k8s_openapi::api::core::v1::{NodeSpec, PodSpec, PodTemplateSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

fn set() -> DaemonSet {
    DaemonSet {
        metadata: ObjectMeta {
            name: Some("log".into()),
            uid: Some("set".into()),
            ..ObjectMeta::default()
        },
        spec: Some(DaemonSetSpec {
            template: PodTemplateSpec {
                spec: Some(PodSpec::default()),
                ..PodTemplateSpec::default()
            },
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(RollingUpdateDaemonSet::default()),
            }),
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn node(name: &str, taints: &[(&str, &str)]) -> Arc<Node> {
    let taint = |(key, effect): &(&str, &str)| Taint {
        key: (*key).into(),
        effect: (*effect).into(),
        ..Taint::default()
    };
    Arc::new(Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints.iter().map(taint).collect()),
            ..NodeSpec::default()
        }),
        ..Node::default()
    })
}

struct World {
    set: DaemonSet,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Arc<Pod>>,
    hash: &'static str,
    older: HashSet<String>,
    held: HashMap<String, Duration>,
    created: usize,
    /// The fewest available pods seen.
    fewest: usize,
}

impl World {
    fn new(nodes: &[Arc<Node>]) -> Self {
        Self {
            set: set(),
            nodes: nodes.to_vec(),
            pods: Vec::new(),
            hash: "one",
            older: HashSet::new(),
            held: HashMap::new(),
            created: 0,
            fewest: usize::MAX,
        }
    }

    /// New pods come before old ones go, one more at a time.
    fn surge(&mut self) {
        let strategy = self
            .set
            .spec
            .as_mut()
            .and_then(|spec| spec.update_strategy.as_mut())
            .expect("a strategy");
        strategy.rolling_update = Some(RollingUpdateDaemonSet {
            max_surge: Some(IntOrString::Int(1)),
            max_unavailable: Some(IntOrString::Int(0)),
        });
    }

    fn step(&mut self) -> DaemonSetStatus {
        let now = keelson_api::time::now();
        let observed = Observed {
            set: &self.set,
            pods: &self.pods,
            nodes: &self.nodes,
            hash: self.hash,
            older: &self.older,
            may_write: true,
            held: &self.held,
            now,
        };
        let plan = plan(&observed);
        self.pods
            .retain(|pod| !plan.delete.iter().any(|gone| gone.name() == pod.name()));
        self.fewest = self.fewest.min(self.pods.len());
        for node in plan.create {
            self.created += 1;
            let mut pod = own_pods::new(&self.set, &node, self.hash).expect("a pod");
            let made = pods::testing::pod(&format!("p{}", self.created), "Running", true);
            pod.metadata.name = made.metadata.name;
            pod.status = made.status;
            pod.spec.get_or_insert_default().node_name = Some(node);
            self.pods.push(Arc::new(pod));
        }
        plan.status
    }

    fn settle(&mut self) -> DaemonSetStatus {
        for _ in 0..20 {
            self.step();
        }
        self.step()
    }
}

#[test]
fn one_pod_on_each_node_that_is_open() {
    let nodes = [
        node("a", &[]),
        node("b", &[("mine", "NoSchedule")]),
        node("c", &[("node.kubernetes.io/unreachable", "NoExecute")]),
    ];
    let mut world = World::new(&nodes);
    let status = world.settle();
    assert_eq!(
        (status.desired_number_scheduled, status.number_available),
        (2, Some(2))
    );
    let mut on: Vec<_> = world.pods.iter().filter_map(|pod| own_pods::node(pod)).collect();
    on.sort_unstable();
    assert_eq!(on, ["a", "c"]);
    // A taint that keeps new pods away leaves the old one; one that evicts does not.
    world.nodes[0] = node("a", &[("mine", "NoSchedule")]);
    assert_eq!((world.settle().number_misscheduled, world.pods.len()), (1, 2));
    world.nodes[0] = node("a", &[("mine", "NoExecute")]);
    world.settle();
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn pods_are_replaced_one_by_one() {
    let mut world = World::new(&[node("a", &[]), node("b", &[]), node("c", &[])]);
    world.settle();
    world.hash = "two";
    world.fewest = usize::MAX;
    let status = world.settle();
    assert_eq!(status.updated_number_scheduled, Some(3));
    assert_eq!((world.fewest, world.created), (2, 6));
}

#[test]
fn with_surge_none_is_missing() {
    let mut world = World::new(&[node("a", &[]), node("b", &[])]);
    world.surge();
    world.settle();
    world.hash = "two";
    world.fewest = usize::MAX;
    let status = world.settle();
    assert_eq!(
        (status.updated_number_scheduled, world.pods.len(), world.fewest),
        (Some(2), 2, 2)
    );
}

#[test]
fn a_closed_node_without_a_pod_does_not_hold_a_rollout_up() {
    let mut world = World::new(&[
        node("a", &[]),
        node("b", &[]),
        node("c", &[("mine", "NoSchedule")]),
    ]);
    world.settle();
    world.hash = "two";
    assert_eq!(world.settle().updated_number_scheduled, Some(2));
}

#[test]
fn a_failed_pod_stays_while_its_node_is_held() {
    let mut world = World::new(&[node("a", &[]), node("b", &[])]);
    world.settle();
    for pod in &mut world.pods {
        let status = Arc::make_mut(pod).status.get_or_insert_default();
        status.phase = Some(pods::FAILED.into());
    }
    world.held.insert("a".into(), Duration::from_secs(5));
    let observed = Observed {
        set: &world.set,
        pods: &world.pods,
        nodes: &world.nodes,
        hash: world.hash,
        older: &world.older,
        may_write: true,
        held: &world.held,
        now: keelson_api::time::now(),
    };
    let plan = plan(&observed);
    assert_eq!(
        (plan.delete.len(), plan.failed_on, plan.look_again),
        (1, vec!["b".to_owned()], Some(Duration::from_secs(5)))
    );
    assert!(
        plan.ended[0].1.ends_with("on node b, will try to kill it"),
        "{:?}",
        plan.ended
    );
}

#[test]
fn a_pod_whose_revision_is_forgotten_is_known_by_its_generation() {
    let mut world = World::new(&[node("a", &[])]);
    let annotations = world.set.metadata.annotations.get_or_insert_default();
    annotations.insert("deprecated.daemonset.template.generation".into(), "3".into());
    world.settle();
    world.hash = "again";
    assert_eq!(world.settle().updated_number_scheduled, Some(1));
    assert_eq!(world.created, 1);
    // What is known to be another template is replaced.
    world.older.insert("one".into());
    world.settle();
    assert_eq!(world.created, 2);
}

#[test]
fn with_surge_an_old_pod_that_is_not_ready_makes_room() {
    let mut world = World::new(&[node("a", &[])]);
    world.surge();
    world.settle();
    world.hash = "two";
    world.step();
    assert_eq!(world.pods.len(), 2);
    // The new one is not available yet: the old one stays as long as it is ready.
    let not_ready = |pod: &mut Arc<Pod>| {
        let status = pods::testing::pod("x", "Running", false).status;
        Arc::make_mut(pod).status = status;
    };
    not_ready(&mut world.pods[1]);
    world.step();
    assert_eq!(world.pods.len(), 2);
    not_ready(&mut world.pods[0]);
    world.step();
    assert_eq!((world.pods.len(), world.pods[0].name()), (1, "p2"));
}
