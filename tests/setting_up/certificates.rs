//! Certificates that expire while the cluster runs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::kubectl::{Kubectl, versions};
use keelson_tests::process::{eventually, output};

use crate::{keeladm, nothing_runs};

/// How long certificates are good for in this story: renewed after two thirds of it, and clients may take half a minute
/// to notice.
const VALIDITY: Duration = Duration::from_secs(150);

pub fn certificates_are_renewed_before_they_expire() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let validity = format!("{}s", VALIDITY.as_secs());
    let up = keeladm("up", &dir, &["--certificate-validity", &validity])?;
    ensure!(up.code == Some(0), "{}{}", up.output, up.errors);
    let begun = Instant::now();
    let told = renewed(&dir, begun);
    let down = keeladm("down", &dir, &[])?;
    told?;
    ensure!(down.code == Some(0), "{}", down.errors);
    nothing_runs()
}

fn renewed(dir: &std::path::Path, begun: Instant) -> Result<()> {
    let current = dir.join("admin.kubeconfig");
    let first = dir.join("first.kubeconfig");
    std::fs::copy(&current, &first)?;
    let version = versions()?.pop().context("no kubectl")?;
    let kubectl = Kubectl::new(version.clone(), &current);
    let outdated = Kubectl::new(version, &first);
    kubectl.run(&format!("create deployment steady --image={ECHO} --replicas=1"))?;
    kubectl.run("rollout status deployment/steady --timeout=120s")?;
    let life = "{.items[*].status.containerStatuses[0]['containerID','restartCount']}";
    let before = kubectl.path("get pods -l app=steady", life)?;
    let ready = "{.items[*].status.conditions[?(@.type==\"Ready\")]['status','lastTransitionTime']}";
    let node = kubectl.path("get nodes", ready)?;
    let status = restarts(dir)?;
    outdated.run("get nodes")?;

    // Past the end of the first certificates.
    std::thread::sleep((VALIDITY + Duration::from_secs(15)).saturating_sub(begun.elapsed()));
    let refused = output(outdated.command(&["get", "nodes"]), None)?;
    ensure!(!refused.status.success(), "an expired certificate is taken");
    ensure!(
        kubectl.path("get nodes", ready)? == node,
        "the node was not ready for a while"
    );
    ensure!(
        restarts(dir)? == status,
        "daemons were restarted: {}",
        restarts(dir)?
    );
    ensure!(
        kubectl.path("get pods -l app=steady", life)? == before,
        "the pod was replaced"
    );
    // Every daemon's client and server: controllers, scheduler, kubelet, proxy, and the apiserver's way to the kubelet.
    kubectl.run("scale deployment steady --replicas=2")?;
    kubectl.run("rollout status deployment/steady --timeout=120s")?;
    kubectl.run(&format!(
        "run caller --image={TOOLBOX} --restart=Never --command -- sleep 600"
    ))?;
    kubectl.run("wait --for=condition=Ready pod/caller --timeout=120s")?;
    kubectl.run("expose deployment steady --port=80 --target-port=8080")?;
    let ip = kubectl.path("get svc steady", "{.spec.clusterIP}")?;
    eventually("the service's answer", Duration::from_secs(30), || {
        kubectl.run(&format!("exec caller -- wget -q -T 3 -O - http://{ip}/"))
    })?;
    kubectl.run("logs deployment/steady")?;
    Ok(())
}

/// How often each process was started again.
fn restarts(dir: &std::path::Path) -> Result<String> {
    let status = keeladm("status", dir, &[])?;
    ensure!(
        status.code == Some(0),
        "not everything is ready: {}",
        status.output
    );
    Ok(status
        .output
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            Some(format!("{}={} ", words.first()?, words.get(3)?))
        })
        .collect())
}
