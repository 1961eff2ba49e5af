//! Tutorials, section 2: run, look, scale, heal.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::process::eventually;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("deploy_look_and_scale", deploy_look_and_scale),
    ("a_deleted_pod_is_replaced", a_deleted_pod_is_replaced),
    (
        "a_scaled_replica_set_is_put_back",
        a_scaled_replica_set_is_put_back,
    ),
    ("a_pod_too_many_is_removed", a_pod_too_many_is_removed),
    (
        "watch_prints_changes_as_they_come",
        watch_prints_changes_as_they_come,
    ),
    ("a_crashing_container_backs_off", a_crashing_container_backs_off),
    ("an_image_that_is_not_there", an_image_that_is_not_there),
    (
        "deleting_a_deployment_deletes_its_pods",
        deleting_a_deployment_deletes_its_pods,
    ),
    (
        "a_pod_too_big_for_the_node_waits",
        a_pod_too_big_for_the_node_waits,
    ),
];

fn deploy(stage: &Stage, name: &str, replicas: u32) -> Result<()> {
    stage.kubectl.run(&format!(
        "create deployment {name} --image={ECHO} --replicas={replicas} --port=8080"
    ))?;
    stage
        .kubectl
        .run(&format!("rollout status deployment/{name} --timeout=120s"))?;
    Ok(())
}

fn deploy_look_and_scale(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    deploy(stage, "hello", 1)?;
    let table = kubectl.run("get deployments")?;
    ensure!(
        table.contains("READY") && table.contains("hello") && table.contains("1/1"),
        "{table}"
    );
    let all = kubectl.run("get all")?;
    for kind in ["pod/hello-", "deployment.apps/hello", "replicaset.apps/hello-"] {
        ensure!(all.contains(kind), "{kind} is missing from {all}");
    }
    kubectl.run("scale deploy/hello --replicas 4")?;
    kubectl.run("rollout status deployment/hello --timeout=120s")?;
    ensure!(
        kubectl.path("get deploy/hello", "{.status.readyReplicas}")? == "4",
        "not four"
    );
    kubectl.run("scale --replicas=2 deployment hello")?;
    kubectl.until("get pods -o name", |pods| pods.lines().count() == 2)?;
    kubectl.until("describe deployment hello", |described| {
        described.contains("Scaled up replica set")
    })?;
    kubectl.run("label deployment hello tier=front")?;
    kubectl.run("annotate deployment hello note=first")?;
    ensure!(
        kubectl.run("get deploy -l tier=front -o name")?.contains("hello"),
        "the label selects nothing"
    );
    ensure!(
        kubectl.run("get deploy -l tier!=front -o name")?.is_empty(),
        "the label does not exclude"
    );
    ensure!(
        kubectl
            .run("get pods -l app=hello,pod-template-hash -o name")?
            .lines()
            .count()
            == 2,
        "labels"
    );
    Ok(())
}

fn a_deleted_pod_is_replaced(stage: &Stage) -> Result<()> {
    deploy(stage, "heal", 1)?;
    let before = stage.kubectl.run("get pods -o name")?;
    stage.kubectl.run(&format!("delete {}", before.trim()))?;
    stage
        .kubectl
        .run("rollout status deployment/heal --timeout=120s")?;
    stage.kubectl.until(
        "get pods -o name --field-selector=status.phase=Running",
        |after| !after.is_empty() && after != before,
    )?;
    Ok(())
}

fn a_scaled_replica_set_is_put_back(stage: &Stage) -> Result<()> {
    deploy(stage, "steady", 2)?;
    stage.kubectl.run("scale rs -l app=steady --replicas=3")?;
    stage
        .kubectl
        .until("get rs -o jsonpath={.items[0].spec.replicas}", |replicas| {
            replicas == "2"
        })?;
    Ok(())
}

fn a_pod_too_many_is_removed(stage: &Stage) -> Result<()> {
    let replica_set = format!(
        r#"{{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{{"name":"three"}},"spec":{{"replicas":3,
        "selector":{{"matchLabels":{{"app":"three"}}}},"template":{{"metadata":{{"labels":{{"app":"three"}}}},
        "spec":{{"containers":[{{"name":"echo","image":"{ECHO}"}}]}}}}}}}}"#
    );
    stage.kubectl.feed("apply -f -", &replica_set)?;
    stage
        .kubectl
        .until("get rs three -o jsonpath={.status.readyReplicas}", |ready| {
            ready == "3"
        })?;
    stage
        .kubectl
        .run(&format!("run fourth --image={ECHO} --labels=app=three"))?;
    stage
        .kubectl
        .until("get pods -l app=three -o name", |pods| pods.lines().count() == 3)?;
    let one = stage.kubectl.run("get pods -l app=three -o name")?;
    let one = one.lines().next().context("a pod")?;
    stage.kubectl.run(&format!("delete {one}"))?;
    stage
        .kubectl
        .until("get rs three -o jsonpath={.status.readyReplicas}", |ready| {
            ready == "3"
        })?;
    Ok(())
}

fn watch_prints_changes_as_they_come(stage: &Stage) -> Result<()> {
    // What is printed first tells that the watch has begun.
    stage
        .kubectl
        .run("run first --image=keelson.local/no-such-image:1 --image-pull-policy=Never")?;
    let mut watch = stage.kubectl.start("get pods -w")?;
    let output = BufReader::new(watch.stdout.take().context("the watch's output")?);
    let (sender, lines) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut seen: Vec<String> = Vec::new();
    let mut until = |pod: &str, state: &str| -> Result<()> {
        let holds = |line: &String| line.starts_with(pod) && line.contains(state);
        while !seen.iter().any(holds) {
            let line = lines
                .recv_timeout(Duration::from_secs(60))
                .with_context(|| format!("no {state} of {pod} in {seen:#?}"))?;
            seen.push(line);
        }
        Ok(())
    };
    until("first", "")?;
    stage.kubectl.run(&format!("run seen --image={ECHO}"))?;
    stage
        .kubectl
        .run("wait --for=condition=Ready pod/seen --timeout=120s")?;
    stage.kubectl.run("delete pod seen --grace-period=1")?;
    let told = ["Pending", "ContainerCreating", "Running", "Terminating"]
        .into_iter()
        .try_for_each(|state| until("seen", state));
    watch.kill()?;
    watch.wait()?;
    drop(lines);
    let _ended = reader.join();
    told
}

fn a_crashing_container_backs_off(stage: &Stage) -> Result<()> {
    stage.kubectl.args(&[
        "run",
        "crash",
        &format!("--image={TOOLBOX}"),
        "--command",
        "--",
        "sh",
        "-c",
        "exit 3",
    ])?;
    eventually("CrashLoopBackOff", Duration::from_secs(90), || {
        let table = stage.kubectl.run("get pod crash")?;
        ensure!(table.contains("CrashLoopBackOff"), "{table}");
        Ok(())
    })?;
    let restarts = stage
        .kubectl
        .path("get pod crash", "{.status.containerStatuses[0].restartCount}")?;
    ensure!(restarts.parse::<u32>()? >= 1, "{restarts} restarts");
    stage.kubectl.until("describe pod crash", |described| {
        described.contains("Back-off restarting failed container")
    })?;
    Ok(())
}

fn an_image_that_is_not_there(stage: &Stage) -> Result<()> {
    stage
        .kubectl
        .run("run missing --image=keelson.local/no-such-image:1 --image-pull-policy=Never")?;
    stage
        .kubectl
        .until("get pod missing", |table| table.contains("ErrImageNeverPull"))?;
    stage
        .kubectl
        .run("run nowhere --image=localhost:9/no-such-image:1")?;
    stage.kubectl.until("get pod nowhere", |table| {
        table.contains("ErrImagePull") || table.contains("ImagePullBackOff")
    })?;
    Ok(())
}

fn deleting_a_deployment_deletes_its_pods(stage: &Stage) -> Result<()> {
    deploy(stage, "gone", 2)?;
    stage.kubectl.run("expose deployment gone --port=8080")?;
    stage.kubectl.run("delete deployment,service gone")?;
    stage
        .kubectl
        .until("get all -o name", |all| all.trim().is_empty())?;
    Ok(())
}

fn a_pod_too_big_for_the_node_waits(stage: &Stage) -> Result<()> {
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"huge"}},"spec":{{"containers":[{{"name":"c",
        "image":"{ECHO}","resources":{{"requests":{{"memory":"900Gi"}}}}}}]}}}}"#
    );
    stage.kubectl.feed("create -f -", &pod)?;
    let condition = "get pod huge -o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}";
    stage.kubectl.until(condition, |message| {
        message.contains("0/1 nodes are available: 1 Insufficient memory")
    })?;
    stage.kubectl.until("describe pod huge", |described| {
        described.contains("FailedScheduling")
    })?;
    Ok(())
}
