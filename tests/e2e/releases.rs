//! Tutorials, section 5: releases.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::cluster::{ECHO, ECHO_AGAIN};
use keelson_tests::process::{eventually, run};

use crate::{Stage, Story};

/// Requests to make while a release is rolled out.
const ENOUGH: usize = 50;

pub const STORIES: &[Story] = &[
    ("history_undo_pause_and_resume", history_undo_pause_and_resume),
    (
        "a_rolling_update_loses_no_request",
        a_rolling_update_loses_no_request,
    ),
    ("a_new_image", a_new_image),
    ("an_image_that_does_not_come", an_image_that_does_not_come),
    ("blue_green_and_canary", blue_green_and_canary),
    ("recreated_at_once", recreated_at_once),
];

fn history_undo_pause_and_resume(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create deployment mydeploy --image={ECHO} --replicas=2"))?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    kubectl.run("set env deployment/mydeploy RELEASE=two")?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    let history = kubectl.run("rollout history deployment/mydeploy")?;
    ensure!(
        history
            .lines()
            .filter(|line| line.starts_with(['1', '2']))
            .count()
            == 2,
        "{history}"
    );
    let second = kubectl.run("rollout history deployment/mydeploy --revision=2")?;
    ensure!(second.contains("RELEASE"), "{second}");

    kubectl.run("rollout undo deployment/mydeploy")?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    ensure!(
        kubectl
            .path("get deploy mydeploy", "{.spec.template.spec.containers[0].env}")?
            .is_empty(),
        "not undone"
    );
    let history = kubectl.run("rollout history deployment/mydeploy")?;
    ensure!(history.lines().any(|line| line.starts_with('3')), "{history}");

    kubectl.run("rollout pause deployment/mydeploy")?;
    kubectl.run("set env deployment/mydeploy RELEASE=four")?;
    kubectl.until(
        "get deploy mydeploy -o jsonpath={.status.conditions[?(@.type==\"Progressing\")].reason}",
        |reason| reason == "DeploymentPaused",
    )?;
    ensure!(
        kubectl.run("get rs -o name")?.lines().count() == 2,
        "a paused deployment made a replica set"
    );
    kubectl.run("rollout resume deployment/mydeploy")?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    ensure!(
        kubectl.run("get rs -o name")?.lines().count() == 3,
        "no third replica set"
    );
    kubectl.run("rollout restart deployment/mydeploy")?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    Ok(())
}

fn a_rolling_update_loses_no_request(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let deployment = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"web"}},"spec":{{"replicas":3,
        "selector":{{"matchLabels":{{"app":"web"}}}},"strategy":{{"rollingUpdate":{{"maxUnavailable":0,"maxSurge":1}}}},
        "template":{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"echo","image":"{ECHO}",
        "readinessProbe":{{"httpGet":{{"path":"/","port":8080}},"periodSeconds":1}},
        "lifecycle":{{"preStop":{{"sleep":{{"seconds":5}}}}}}}}]}}}}}}}}"#
    );
    kubectl.feed("apply -f -", &deployment)?;
    kubectl.run("rollout status deployment/web --timeout=120s")?;
    kubectl.run("expose deployment web --port=80 --target-port=8080")?;
    let url = format!("http://{}/", kubectl.path("get svc web", "{.spec.clusterIP}")?);
    eventually("the service", Duration::from_secs(20), || {
        run("curl", &["-sS", "--max-time", "2", &url])
    })?;

    let (stop, asked, lost) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| -> Result<()> {
        scope.spawn(|| {
            // However fast the rollout is, enough requests are made to tell.
            while !stop.load(Ordering::Relaxed) || asked.load(Ordering::Relaxed) < ENOUGH {
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = run("curl", &["-sS", "--max-time", "5", &url]) {
                    lost.fetch_add(1, Ordering::Relaxed);
                    eprintln!("lost: {error:#}");
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let rolled = kubectl
            .run("set env deployment/web RELEASE=two")
            .and_then(|_| kubectl.run("rollout status deployment/web --timeout=180s"));
        stop.store(true, Ordering::Relaxed);
        rolled.map(|_| ())
    })?;
    let (asked, lost) = (asked.into_inner(), lost.into_inner());
    ensure!(lost == 0, "{lost} of {asked} requests were lost");
    Ok(())
}

fn a_new_image(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create deployment mydeploy --image={ECHO} --replicas=3"))?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    kubectl.run(&format!("set image deployment mydeploy echo={ECHO_AGAIN}"))?;
    kubectl.run("annotate deployment mydeploy kubernetes.io/change-cause=again")?;
    let told = kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    ensure!(told.contains("successfully rolled out"), "{told}");
    kubectl.until(
        "get pods -l app=mydeploy -o jsonpath={.items[*].spec.containers[0].image}",
        |images| images.split(' ').collect::<Vec<_>>() == [ECHO_AGAIN; 3],
    )?;
    let history = kubectl.run("rollout history deployment/mydeploy")?;
    ensure!(history.contains("again"), "{history}");
    kubectl.run("rollout undo deployment/mydeploy --to-revision=1")?;
    kubectl.run("rollout status deployment/mydeploy --timeout=120s")?;
    ensure!(
        kubectl.path(
            "get deployment mydeploy",
            "{.spec.template.spec.containers[0].image}"
        )? == ECHO,
        "not undone"
    );
    // The old replica sets stay, empty: they are the history.
    let sizes = kubectl.path("get rs -l app=mydeploy", "{.items[*].spec.replicas}")?;
    let mut sizes: Vec<&str> = sizes.split(' ').collect();
    sizes.sort_unstable();
    ensure!(sizes == ["0", "3"], "{sizes:?}");
    let none = kubectl.refused("rollout undo deployment/mydeploy --to-revision=9", None)?;
    ensure!(
        none.contains("unable to find specified revision 9 in history"),
        "{none}"
    );
    kubectl.run("delete deployment mydeploy").map(drop)
}

fn an_image_that_does_not_come(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create deployment careful --image={ECHO} --replicas=2"))?;
    kubectl.run("rollout status deployment/careful --timeout=120s")?;
    kubectl.args(&[
        "patch",
        "deployment",
        "careful",
        "-p",
        r#"{"spec":{"progressDeadlineSeconds":5}}"#,
    ])?;
    kubectl.run("set image deployment careful *=localhost:9/no-such-image:1")?;
    let stuck = kubectl.refused("rollout status deployment/careful --timeout=60s", None)?;
    ensure!(
        stuck.contains("deployment \"careful\" exceeded its progress deadline"),
        "{stuck}"
    );
    ensure!(
        kubectl.path("get deployment careful", "{.status.availableReplicas}")? == "2",
        "those that run were not left alone"
    );
    kubectl.run("rollout undo deployment/careful")?;
    kubectl.run("rollout status deployment/careful --timeout=120s")?;
    kubectl.run("delete deployment careful").map(drop)
}

/// Who answers at an address: the releases that are found in a number of answers.
fn answering(url: &str) -> Result<BTreeSet<String>> {
    const ASKED: usize = 30;
    let mut releases = BTreeSet::new();
    for _ in 0..ASKED {
        let answer = run("curl", &["-sS", "--max-time", "5", url])?;
        releases.extend(
            ["blue-release", "green-release"]
                .into_iter()
                .filter(|release| answer.contains(release))
                .map(str::to_owned),
        );
    }
    Ok(releases)
}

fn blue_green_and_canary(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    for colour in ["blue", "green"] {
        let deployment = format!(
            r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"{colour}"}},"spec":{{"replicas":1,
            "selector":{{"matchLabels":{{"app":"web","colour":"{colour}"}}}},
            "template":{{"metadata":{{"labels":{{"app":"web","colour":"{colour}"}}}},"spec":{{"containers":[{{"name":"echo",
            "image":"{ECHO}","env":[{{"name":"MESSAGE","value":"{colour}-release"}}]}}]}}}}}}}}"#
        );
        kubectl.feed("create -f -", &deployment)?;
        kubectl.run(&format!("rollout status deployment/{colour} --timeout=120s"))?;
    }
    kubectl.run(
        "expose deployment blue --name=web --port=80 --target-port=8080 --selector=app=web,colour=blue",
    )?;
    let url = format!("http://{}/", kubectl.path("get svc web", "{.spec.clusterIP}")?);
    let all = |wanted: &[&str]| {
        eventually(&format!("answers of {wanted:?}"), Duration::from_secs(30), || {
            let releases = answering(&url)?;
            ensure!(
                releases.iter().map(String::as_str).eq(wanted.iter().copied()),
                "{releases:?}"
            );
            Ok(())
        })
    };
    all(&["blue-release"])?;
    // Blue, then green, and both for a canary.
    kubectl.run("set selector service web app=web,colour=green")?;
    all(&["green-release"])?;
    kubectl.run("set selector service web app=web")?;
    all(&["blue-release", "green-release"])?;
    kubectl.run("scale deployment green --replicas=0")?;
    all(&["blue-release"])?;
    kubectl
        .run("delete deployment,service blue green web --ignore-not-found")
        .map(drop)
}

fn recreated_at_once(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let deployment = format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"alone"}},"spec":{{"replicas":2,
        "strategy":{{"type":"Recreate"}},"selector":{{"matchLabels":{{"app":"alone"}}}},
        "template":{{"metadata":{{"labels":{{"app":"alone"}}}},"spec":{{"terminationGracePeriodSeconds":1,
        "containers":[{{"name":"echo","image":"{ECHO}"}}]}}}}}}}}"#
    );
    kubectl.feed("create -f -", &deployment)?;
    kubectl.run("rollout status deployment/alone --timeout=120s")?;
    kubectl.run(&format!("set image deployment alone echo={ECHO_AGAIN}"))?;
    kubectl.run("rollout status deployment/alone --timeout=120s")?;
    // No new container began before the last old pod was told to go.
    let events =
        kubectl.json("get events --field-selector=involvedObject.name=alone,reason=ScalingReplicaSet")?;
    let messages: Vec<&str> = events["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|event| event["message"].as_str())
        .collect();
    ensure!(
        messages.iter().any(|message| message.starts_with("Scaled down replica set") && message.ends_with("from 2 to 0")),
        "{messages:?}"
    );
    kubectl.run("delete deployment alone").map(drop)
}
