use super::*;
use crate::pods::runtime::Sandbox;
use serde_json::{Value, json};

fn view(name: &str, activity: Activity, exit_code: i32) -> ContainerView {
    ContainerView {
        id: format!("id-{name}"),
        name: name.into(),
        activity,
        created_at: 5,
        started_at: 6_000_000_000,
        finished_at: 7_000_000_000,
        exit_code,
        reason: String::new(),
        message: String::new(),
        image: "registry/i:1".into(),
        image_id: "sha256:1".into(),
        restart_count: 2,
        hash: String::new(),
        log_path: String::new(),
    }
}

fn of(spec: Value, views: Vec<ContainerView>, waiting: &[(&str, &str)], stopped: bool) -> PodStatus {
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec}),
    )
    .expect("a pod");
    let sandbox = Sandbox {
        id: "s".into(),
        ready: !stopped,
        created_at: 1,
        attempt: 0,
        ips: vec!["10.0.0.1".into()],
        host_network: false,
    };
    let runtime = PodRuntime {
        sandboxes: vec![sandbox],
        containers: views,
    };
    let waiting = waiting
        .iter()
        .map(|(name, reason)| {
            (
                (*name).to_owned(),
                Waiting {
                    reason: (*reason).into(),
                    message: "m".into(),
                },
            )
        })
        .collect();
    status(&Inputs {
        pod: &pod,
        runtime: &runtime,
        verdicts: &HashMap::new(),
        waiting: &waiting,
        failed: None,
        stopped,
        runtime_name: "containerd",
        host_ips: &["192.168.0.1".into()],
        start_time: Timestamp::UNIX_EPOCH,
        now: Timestamp::UNIX_EPOCH,
    })
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "c", "image": "i"}]})
}

fn condition(status: &PodStatus, kind: &str) -> (String, String) {
    let all = status.conditions.as_deref().unwrap_or_default();
    let found = all
        .iter()
        .find(|condition| condition.type_ == kind)
        .expect("a condition");
    (found.status.clone(), found.reason.clone().unwrap_or_default())
}

#[test]
fn a_running_pod_is_ready() {
    let status = of(one("Always"), vec![view("c", Activity::Running, 0)], &[], false);
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(condition(&status, "Ready").0, "True");
    let container = &status.container_statuses.expect("containers")[0];
    assert_eq!(container.container_id.as_deref(), Some("containerd://id-c"));
    assert_eq!(
        (container.ready, container.started, container.restart_count),
        (true, Some(true), 2)
    );
    assert_eq!(container.image, "registry/i:1");
}

#[test]
fn a_crash_loop_shows_why_and_how_it_ended() {
    let status = of(
        one("Always"),
        vec![view("c", Activity::Exited, 3)],
        &[("c", "CrashLoopBackOff")],
        false,
    );
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(
        condition(&status, "ContainersReady"),
        ("False".into(), "ContainersNotReady".into())
    );
    let container = &status.container_statuses.expect("containers")[0];
    let waiting = container
        .state
        .clone()
        .and_then(|state| state.waiting)
        .expect("it waits");
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    let last = container
        .last_state
        .clone()
        .and_then(|state| state.terminated)
        .expect("it ended");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
}

#[test]
fn ends() {
    let phase =
        |policy, code, stopped| of(one(policy), vec![view("c", Activity::Exited, code)], &[], stopped).phase;
    assert_eq!(phase("Never", 0, false).as_deref(), Some("Succeeded"));
    assert_eq!(phase("Never", 1, false).as_deref(), Some("Failed"));
    assert_eq!(phase("OnFailure", 1, false).as_deref(), Some("Running"));
    assert_eq!(phase("Always", 0, true).as_deref(), Some("Succeeded"));
    assert_eq!(phase("Always", 143, true).as_deref(), Some("Failed"));
    let done = of(one("Never"), vec![view("c", Activity::Exited, 0)], &[], true);
    assert_eq!(condition(&done, "Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(
        condition(&done, "Initialized"),
        ("True".into(), "PodCompleted".into())
    );
}

#[test]
fn init_containers_hold_the_pod_back() {
    let spec =
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]});
    let status = of(spec, vec![view("i", Activity::Running, 0)], &[], false);
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        condition(&status, "Initialized"),
        ("False".into(), "ContainersNotInitialized".into())
    );
    let waiting = status.container_statuses.expect("containers")[0]
        .state
        .clone()
        .and_then(|state| state.waiting);
    assert_eq!(
        waiting.expect("it waits").reason.as_deref(),
        Some("PodInitializing")
    );
}
