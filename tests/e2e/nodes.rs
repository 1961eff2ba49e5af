//! A node taken out of service and put back: cordon, drain, taints.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::ECHO;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_node_is_drained", a_node_is_drained),
    ("a_taint_on_a_node", a_taint_on_a_node),
];

fn node(stage: &Stage) -> Result<String> {
    let name = stage.kubectl.run("get nodes -o name")?;
    Ok(name.trim().strip_prefix("node/").context("one node")?.to_owned())
}

/// Only the story's own pods are evicted; others are here too.
fn a_node_is_drained(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let (node, app) = (node(stage)?, &stage.namespace);
    kubectl.run(&format!("create deployment {app} --image={ECHO} --replicas=2"))?;
    kubectl.run(&format!("rollout status deployment/{app} --timeout=120s"))?;
    let drain = format!("drain {node} --pod-selector=app={app} --ignore-daemonsets --grace-period=1");
    let before = kubectl.run("get pods -o name")?;
    let drained = kubectl.run(&format!("{drain} --timeout=60s"));
    let cordoned = kubectl.path(&format!("get node {node}"), "{.spec.unschedulable}");
    kubectl.run(&format!("uncordon {node}"))?;
    let drained = drained?;
    ensure!(drained.contains("evicted"), "{drained}");
    // The same story, told with another kubectl, may have put the node back already.
    let cordoned = cordoned?;
    ensure!(cordoned.is_empty() || cordoned == "true", "{cordoned}");
    kubectl.run(&format!("rollout status deployment/{app} --timeout=120s"))?;
    let after = kubectl.run("get pods -o name")?;
    ensure!(
        before.lines().all(|pod| !after.contains(pod)),
        "{before} is still among {after}"
    );
    kubectl.run(&format!("delete deployment {app}")).map(drop)
}

fn a_taint_on_a_node(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let (node, key) = (node(stage)?, &stage.namespace);
    // One that nobody else's pods are kept away by.
    kubectl.run(&format!("taint nodes {node} {key}=soft:PreferNoSchedule"))?;
    let described = kubectl.run(&format!("describe node {node}"))?;
    let refused = kubectl.refused(&format!("taint nodes {node} {key}=other:PreferNoSchedule"), None);
    kubectl.run(&format!("taint nodes {node} {key}:PreferNoSchedule-"))?;
    ensure!(
        described.contains(&format!("{key}=soft:PreferNoSchedule")),
        "{described}"
    );
    let refused = refused?;
    ensure!(refused.contains("already has"), "{refused}");
    let bad = kubectl.refused(&format!("taint nodes {node} {key}=x:Never"), None)?;
    ensure!(bad.contains("invalid taint effect: Never"), "{bad}");
    Ok(())
}
