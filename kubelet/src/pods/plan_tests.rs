use super::*;
use crate::pods::backoff::CRASH_LOOP;
use crate::pods::runtime::Sandbox;
use serde_json::{Value, json};

const SECOND: Nanos = 1_000_000_000;

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}))
        .expect("a pod")
}

fn sandbox(ready: bool, attempt: u32, created_at: Nanos) -> Sandbox {
    Sandbox {
        id: format!("s{attempt}"),
        ready,
        created_at,
        attempt,
        ips: vec!["10.0.0.1".into()],
        host_network: false,
    }
}

fn view(name: &str, activity: Activity, exit_code: i32, at: Nanos) -> ContainerView {
    ContainerView {
        id: format!("{name}-{at}"),
        name: name.into(),
        activity,
        created_at: at,
        started_at: at,
        finished_at: at,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: String::new(),
        image_id: String::new(),
        restart_count: 0,
        hash: String::new(),
        log_path: String::new(),
    }
}

struct World {
    pod: Pod,
    runtime: PodRuntime,
    verdicts: HashMap<String, Verdicts>,
    backoff: BackoffMap<String>,
}

impl World {
    fn new(spec: Value) -> Self {
        Self {
            pod: pod(spec),
            runtime: PodRuntime::default(),
            verdicts: HashMap::new(),
            backoff: BackoffMap::new(CRASH_LOOP),
        }
    }

    fn up(spec: Value, containers: Vec<ContainerView>) -> Self {
        let mut world = Self::new(spec);
        world.runtime.sandboxes.push(sandbox(true, 0, 1));
        world.runtime.containers = containers;
        world
    }

    fn plan(&self) -> Plan {
        plan(&Inputs {
            pod: &self.pod,
            runtime: &self.runtime,
            verdicts: &self.verdicts,
            backoff: &self.backoff,
            now: 100 * SECOND,
        })
    }
}

fn starts(plan: &Plan) -> Vec<(&str, u32)> {
    plan.start
        .iter()
        .map(|start| (start.container.name.as_str(), start.attempt))
        .collect()
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]})
}

#[test]
fn a_new_pod_gets_a_sandbox_and_its_containers() {
    let plan = World::new(one("Always")).plan();
    assert_eq!((plan.kill_pod, plan.create_sandbox), (false, Some(0)));
    assert_eq!(starts(&plan), [("c", 0)]);
}

#[test]
fn what_runs_is_left_alone() {
    let mut running = view("c", Activity::Running, 0, 5);
    running.hash = labels::container_hash(&pod(one("Always")).containers()[0]);
    let plan = World::up(one("Always"), vec![running]).plan();
    assert!(plan.is_empty() && plan.hold.is_empty(), "{plan:?}");
}

#[test]
fn policies_decide_on_restarts() {
    let after =
        |policy: &str, code| World::up(one(policy), vec![view("c", Activity::Exited, code, 5)]).plan();
    assert_eq!(starts(&after("Always", 0)), [("c", 1)]);
    assert_eq!(starts(&after("OnFailure", 1)), [("c", 1)]);
    assert!(after("OnFailure", 0).kill_pod);
    assert!(after("Never", 1).kill_pod && after("Never", 1).start.is_empty());
}

#[test]
fn a_crash_loop_waits() {
    let mut world = World::up(one("Always"), vec![view("c", Activity::Exited, 1, 95 * SECOND)]);
    world.backoff.next(&"c".into(), 90 * SECOND, 91 * SECOND);
    let plan = world.plan();
    assert!(plan.start.is_empty() && !plan.kill_pod);
    assert_eq!(plan.hold.len(), 1);
    assert_eq!(
        (plan.hold[0].wait, plan.hold[0].remaining),
        (Duration::from_secs(10), Duration::from_secs(5))
    );
}

#[test]
fn a_dead_sandbox_is_replaced_with_everything_in_it() {
    let mut world = World::up(one("Always"), vec![view("c", Activity::Exited, 137, 5)]);
    world.runtime.sandboxes[0].ready = false;
    let plan = world.plan();
    assert_eq!((plan.kill_pod, plan.create_sandbox), (true, Some(1)));
    assert_eq!(starts(&plan), [("c", 1)]);

    world.pod = pod(one("Never"));
    let plan = world.plan();
    assert_eq!((plan.kill_pod, plan.create_sandbox), (true, None));
}

#[test]
fn init_containers_go_one_by_one() {
    let spec = |policy: &str| {
        json!({"restartPolicy": policy, "initContainers": [{"name": "a"}, {"name": "b"}],
        "containers": [{"name": "c"}]})
    };
    assert_eq!(starts(&World::new(spec("Always")).plan()), [("a", 0)]);
    let done = view("a", Activity::Exited, 0, 5);
    assert_eq!(
        starts(&World::up(spec("Always"), vec![done.clone()]).plan()),
        [("b", 0)]
    );
    let failed = view("b", Activity::Exited, 1, 6);
    assert_eq!(
        starts(&World::up(spec("Always"), vec![failed.clone(), done.clone()]).plan()),
        [("b", 1)]
    );
    assert!(
        World::up(spec("Never"), vec![failed, done.clone()])
            .plan()
            .kill_pod
    );
    let both = vec![view("b", Activity::Exited, 0, 6), done];
    assert_eq!(starts(&World::up(spec("Always"), both).plan()), [("c", 0)]);
}

#[test]
fn a_sidecar_must_have_started_before_the_next() {
    let spec = json!({"initContainers": [{"name": "s", "restartPolicy": "Always", "startupProbe": {"exec": {}}}],
        "containers": [{"name": "c"}]});
    let sidecar = view("s", Activity::Running, 0, 5);
    let mut world = World::up(spec.clone(), vec![sidecar.clone()]);
    assert!(world.plan().start.is_empty());
    let verdicts = Verdicts {
        startup: Some(Verdict::Success),
        ..Default::default()
    };
    world.verdicts.insert(sidecar.id.clone(), verdicts);
    assert_eq!(starts(&world.plan()), [("c", 0)]);

    // Once the pod's purpose is over, so is the sidecar's.
    let mut over = World::up(spec, vec![view("c", Activity::Exited, 0, 7), sidecar]);
    over.pod.spec.as_mut().expect("a spec").restart_policy = Some("Never".into());
    assert!(over.plan().kill_pod);
}

#[test]
fn failed_probes_end_a_container() {
    let running = view("c", Activity::Running, 0, 5);
    let mut world = World::up(one("Always"), vec![running.clone()]);
    world.verdicts.insert(
        running.id.clone(),
        Verdicts {
            liveness: Some(Verdict::Failure),
            ..Default::default()
        },
    );
    assert_eq!(world.plan().kill, [(running.id, KillReason::Unhealthy)]);
}

#[test]
fn a_changed_image_ends_a_container() {
    let mut running = view("c", Activity::Running, 0, 5);
    running.hash = "another".into();
    let plan = World::up(one("Always"), vec![running.clone()]).plan();
    assert_eq!(plan.kill, [(running.id, KillReason::SpecChanged)]);
}

#[test]
fn a_container_made_but_not_started_is_made_anew() {
    let created = view("c", Activity::Created, 0, 5);
    let plan = World::up(one("Always"), vec![created.clone()]).plan();
    assert_eq!(plan.remove, [created.id]);
    assert_eq!(starts(&plan), [("c", 0)]);
}
