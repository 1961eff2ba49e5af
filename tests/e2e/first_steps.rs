//! Tutorials, section 1: looking around.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::process::eventually;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("versions_and_cluster_info", versions_and_cluster_info),
    ("nodes_in_every_spelling", nodes_in_every_spelling),
    ("what_there_is", what_there_is),
    ("explain", explain),
    ("describe_a_node", describe_a_node),
    (
        "the_control_plane_shows_in_kube_system",
        the_control_plane_shows_in_kube_system,
    ),
];

fn versions_and_cluster_info(stage: &Stage) -> Result<()> {
    let version = stage.kubectl.json("version")?;
    ensure!(
        version["serverVersion"]["major"] == "1" && version["serverVersion"]["minor"] == "36",
        "{version}"
    );
    let info = stage.kubectl.run("cluster-info")?;
    ensure!(
        info.contains("is running at") && info.contains("https://"),
        "{info}"
    );
    let dump = stage.kubectl.run("cluster-info dump")?;
    ensure!(dump.contains("\"kind\": \"NodeList\""), "no nodes in the dump");
    Ok(())
}

fn nodes_in_every_spelling(stage: &Stage) -> Result<()> {
    let names = |spelling: &str| stage.kubectl.run(&format!("get {spelling} -o name"));
    let no = names("no")?;
    ensure!(no.lines().count() == 1 && no.starts_with("node/"), "{no}");
    ensure!(
        no == names("node")? && no == names("nodes")?,
        "the three spellings differ"
    );

    let wide = stage.kubectl.run("get nodes -o wide")?;
    for column in ["INTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"] {
        ensure!(wide.contains(column), "{column} is missing from {wide}");
    }
    ensure!(
        wide.contains(" Ready ") && wide.contains("containerd://"),
        "{wide}"
    );
    ensure!(
        stage.kubectl.run("get nodes -o yaml")?.contains("kind: List"),
        "YAML is not a List"
    );
    let list = stage.kubectl.json("get nodes")?;
    let capacity = &list["items"][0]["status"]["capacity"];
    for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
        ensure!(capacity[resource].is_string(), "no {resource} in {capacity}");
    }
    ensure!(
        stage.kubectl.run("get nodes --help")?.contains("Examples:"),
        "help without examples"
    );
    Ok(())
}

fn what_there_is(stage: &Stage) -> Result<()> {
    let resources = stage.kubectl.run("api-resources")?;
    for line in [
        "deployments",
        "replicasets",
        "configmaps",
        "endpointslices",
        "leases",
    ] {
        ensure!(resources.contains(line), "{line} is missing from {resources}");
    }
    ensure!(
        stage.kubectl.run("api-versions")?.contains("apps/v1"),
        "no apps/v1"
    );
    let namespaces = stage.kubectl.run("get ns -o name")?;
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        ensure!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
    }
    let service = stage.kubectl.run("get svc -n default")?;
    ensure!(
        service.contains("kubernetes") && service.contains("10.96.0.1") && service.contains("443/TCP"),
        "{service}"
    );
    Ok(())
}

fn explain(stage: &Stage) -> Result<()> {
    let pod = stage.kubectl.run("explain pod")?;
    ensure!(
        pod.contains("KIND:") && pod.contains("Pod") && pod.contains("spec"),
        "{pod}"
    );
    let field = stage
        .kubectl
        .run("explain deployment.spec.strategy.rollingUpdate.maxSurge")?;
    ensure!(field.contains("maxSurge"), "{field}");
    let recursive = stage.kubectl.run("explain svc --recursive")?;
    ensure!(recursive.contains("clusterIP"), "{recursive}");
    Ok(())
}

fn describe_a_node(stage: &Stage) -> Result<()> {
    let name = stage.kubectl.run("get nodes -o name")?;
    let name = name.trim();
    let described = stage.kubectl.run(&format!("describe {name}"))?;
    for part in [
        "Capacity:",
        "Allocatable:",
        "System Info:",
        "Conditions:",
        "Allocated resources:",
        "KubeletReady",
    ] {
        ensure!(described.contains(part), "{part} is missing from {described}");
    }
    let words = name.replace('/', " ");
    ensure!(
        stage
            .kubectl
            .run(&format!("describe {words}"))?
            .contains("Capacity:"),
        "describe {words}"
    );
    Ok(())
}

fn the_control_plane_shows_in_kube_system(stage: &Stage) -> Result<()> {
    let system = stage.kubectl.in_namespace("kube-system");
    let daemons = [
        "kube-store",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kube-proxy",
    ];
    let runs = |table: &str, daemon: &str| {
        table.lines().any(|line| {
            line.contains(&format!("{daemon}-")) && line.contains("1/1") && line.contains("Running")
        })
    };
    let all_run = |table: &str| daemons.iter().all(|daemon| runs(table, daemon));
    system.until("get pods", all_run)?;
    stage.kubectl.until("get pods --all-namespaces", all_run)?;
    // The same story, told with another kubectl, may just have deleted what is looked at here.
    eventually("a look at the scheduler", Duration::from_secs(60), || {
        let log = system.run("logs -l component=kube-scheduler,tier=control-plane --tail=3")?;
        ensure!((1..=3).contains(&log.lines().count()), "{log}");
        let described = system.run("describe pods -l component=kube-scheduler")?;
        ensure!(
            described.contains("Controlled By:")
                && described.contains("Node/")
                && described.contains("process://"),
            "{described}"
        );
        Ok(())
    })?;
    // The pod only shows what runs: without it everything goes on, and it comes back.
    let life = "get pods -l component=kube-scheduler -o \
                jsonpath={.items[0].metadata.uid}/{.items[0].status.containerStatuses[0]['containerID','restartCount']}";
    let before = system.until(life, |life| life.contains("process://"))?;
    let (uid, container) = before.split_once('/').context("a uid")?;
    system.run("delete pods -l component=kube-scheduler --wait=false")?;
    system.until(life, |life| {
        life.split_once('/')
            .is_some_and(|(now, same)| now != uid && same == container)
    })?;
    Ok(())
}
