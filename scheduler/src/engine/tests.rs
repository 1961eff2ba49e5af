//! The engine as a whole: clusters change, pods go where they should.

use std::collections::HashMap;
use std::time::Duration;

use super::*;
use crate::plugins::default_profile;
use crate::testing::{NodeBuilder, PodBuilder, node, pod};

struct World {
    engine: Engine,
    now: Instant,
}

fn world(nodes: Vec<NodeBuilder>) -> World {
    let mut world = World {
        engine: Engine::new(vec![default_profile("default-scheduler", Vec::new())]),
        now: Instant::now(),
    };
    nodes.into_iter().for_each(|node| world.node(node));
    world
}

impl World {
    fn node(&mut self, node: NodeBuilder) {
        self.engine
            .apply(Change::Node(Event::Added(Arc::new(node.build()))), self.now);
    }

    fn pod(&mut self, pod: PodBuilder) {
        self.engine
            .apply(Change::Pod(Event::Added(Arc::new(pod.build()))), self.now);
    }

    fn delete(&mut self, pod: PodBuilder) {
        self.engine
            .apply(Change::Pod(Event::Deleted(Arc::new(pod.build()))), self.now);
    }

    fn after(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.engine.tick(self.now);
    }

    /// Places the next pod: its node, or why not.
    fn next(&mut self) -> Option<Result<Binding, String>> {
        Some(match self.engine.next(self.now)? {
            Decision::Bind { binding, .. } => Ok(binding),
            Decision::Unschedulable { message, .. } => Err(message),
        })
    }

    fn placed(&mut self) -> Binding {
        self.next().expect("a pod waits").expect("it fits")
    }

    fn refused(&mut self) -> String {
        self.next().expect("a pod waits").expect_err("it does not fit")
    }
}

#[test]
fn an_assumed_pod_takes_room_at_once() {
    let mut world = world(vec![node("a").offer("cpu", "1")]);
    world.pod(pod("first").request("cpu", "600m"));
    world.pod(pod("second").request("cpu", "600m"));
    assert_eq!(&*world.placed().node, "a");
    assert_eq!(
        world.refused(),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims \
         found for incoming pod."
    );
    assert!(world.next().is_none());
}

#[test]
fn every_nodes_reason_is_told() {
    let full = node("full").offer("cpu", "100m");
    let tainted = |name| node(name).taint("dedicated", "db", "NoSchedule");
    let mut world = world(vec![full, tainted("t1"), tainted("t2")]);
    world.pod(pod("p").request("cpu", "1"));
    assert_eq!(
        world.refused(),
        "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are \
         available: 3 Preemption is not helpful for scheduling."
    );
}

#[test]
fn without_nodes_that_is_the_reason() {
    let mut world = world(vec![]);
    world.pod(pod("p"));
    assert_eq!(world.refused(), "no nodes available to schedule pods");
    world.after(2);
    world.node(node("a"));
    assert_eq!(&*world.placed().node, "a");
}

#[test]
fn room_that_is_freed_wakes_who_waits_for_it() {
    let mut world = world(vec![node("a").offer("cpu", "1")]);
    world.pod(pod("there").request("cpu", "1").on("a"));
    world.pod(pod("waits").request("cpu", "1"));
    world.refused();
    world.after(2);
    assert!(world.next().is_none(), "nothing happened");
    world.delete(pod("there").request("cpu", "1").on("a"));
    assert_eq!(&*world.placed().node, "a");
}

#[test]
fn a_taint_wakes_nobody_whom_it_does_not_concern() {
    let mut world = world(vec![node("a").offer("cpu", "1")]);
    world.pod(pod("waits").request("cpu", "2"));
    world.refused();
    world.after(2);
    world.node(node("a").offer("cpu", "1").taint("x", "y", "PreferNoSchedule"));
    assert!(world.next().is_none());
    world.node(node("a").offer("cpu", "2"));
    assert_eq!(&*world.placed().node, "a");
}

#[test]
fn a_failed_binding_gives_the_room_back() {
    let mut world = world(vec![node("a").offer("cpu", "1")]);
    world.pod(pod("p").request("cpu", "1"));
    let binding = world.placed();
    world.engine.not_bound(&binding, world.now);
    assert!(world.next().is_none(), "it backs off");
    world.after(1);
    assert_eq!(&*world.placed().node, "a");
}

#[test]
fn a_pod_deleted_while_it_is_bound_is_forgotten() {
    let mut world = world(vec![node("a").offer("cpu", "1")]);
    world.pod(pod("p").request("cpu", "1"));
    let binding = world.placed();
    world.delete(pod("p"));
    world.engine.not_bound(&binding, world.now);
    world.after(60);
    assert!(world.next().is_none());
    world.pod(pod("q").request("cpu", "1"));
    assert_eq!(&*world.placed().node, "a");
}

#[test]
fn others_pods_are_left_to_others() {
    let mut world = world(vec![node("a")]);
    let mut foreign = pod("p").build();
    foreign.spec.get_or_insert_default().scheduler_name = Some("mine".into());
    world
        .engine
        .apply(Change::Pod(Event::Added(Arc::new(foreign))), world.now);
    assert!(world.next().is_none());
}

#[test]
fn a_daemons_pod_goes_to_its_node_or_says_why_not() {
    let mut world = world(vec![node("a"), node("b").offer("cpu", "100m"), node("c")]);
    world.pod(pod("on-a").require_name("a"));
    assert_eq!(&*world.placed().node, "a");
    world.pod(pod("on-b").require_name("b").request("cpu", "1"));
    let message = world.refused();
    assert!(
        message.starts_with(
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]."
        ),
        "{message}"
    );
}

#[test]
fn shared_verdicts_follow_what_others_take() {
    // Two kinds of pods in turn on nodes of different sizes: no node may be overcommitted, none refused in vain.
    let mut world = world(
        (1..=4)
            .map(|n| node(&format!("n{n}")).offer("cpu", &n.to_string()))
            .collect(),
    );
    for number in 0..24 {
        let cpu = if number % 2 == 0 { "300m" } else { "700m" };
        world.pod(pod(&format!("p{number}")).request("cpu", cpu));
    }
    let mut free: HashMap<String, i64> = (1..=4).map(|n| (format!("n{n}"), n * 1000)).collect();
    for number in 0..24 {
        let wanted = if number % 2 == 0 { 300 } else { 700 };
        match world.next().expect("24 pods wait") {
            Ok(binding) => *free.get_mut(&*binding.node).expect("a known node") -= wanted,
            Err(message) => assert!(free.values().all(|free| *free < wanted), "{message} {free:?}"),
        }
    }
    assert!(free.values().all(|free| *free >= 0), "{free:?}");
}

/// CPU time of this thread so far.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split(' ').next().and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or_default())
}

/// The burst the scheduler is built for. Prints what it costs; the budget is 200 µs a pod in a release build.
#[test]
fn three_thousand_pods_on_five_hundred_nodes() {
    const NODES: usize = 500;
    const PODS: usize = 3000;
    let mut world = world((0..NODES).map(|n| node(&format!("node-{n}"))).collect());
    let before = cpu_time();
    for number in 0..PODS {
        world.pod(
            pod(&format!("web-{number}"))
                .app("web")
                .request("cpu", "100m")
                .request("memory", "128Mi"),
        );
    }
    let queued = cpu_time();
    let mut per_node: HashMap<Arc<str>, usize> = HashMap::new();
    while let Some(decision) = world.next() {
        let binding = decision.expect("there is room for all");
        world.engine.bound(&binding.pod);
        *per_node.entry(binding.node).or_default() += 1;
    }
    let placed = cpu_time();
    println!(
        "{PODS} pods on {NODES} nodes: queueing {:?}, placing {:?} ({:?} a pod)",
        queued - before,
        placed - queued,
        (placed - before) / PODS as u32
    );
    assert_eq!(per_node.values().sum::<usize>(), PODS);
    assert_eq!(per_node.len(), NODES);
    let (fewest, most) = (per_node.values().min(), per_node.values().max());
    assert_eq!((fewest, most), (Some(&6), Some(&6)), "spread evenly");
}
