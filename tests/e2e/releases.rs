//! Tutorials, section 5: releases.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::cluster::ECHO;
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
