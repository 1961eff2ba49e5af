//! Tutorials, section 3: services and their addresses.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::isolation::NODE_IP;
use keelson_tests::process::{eventually, run};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    (
        "a_cluster_ip_spreads_over_all_pods",
        a_cluster_ip_spreads_over_all_pods,
    ),
    ("a_node_port_answers_on_the_node", a_node_port_answers_on_the_node),
    (
        "the_api_answers_at_its_service_address",
        the_api_answers_at_its_service_address,
    ),
    ("headless_and_external_name", headless_and_external_name),
    (
        "a_health_check_tells_balancers_where_pods_are",
        a_health_check_tells_balancers_where_pods_are,
    ),
];

fn deploy(stage: &Stage, replicas: u32) -> Result<()> {
    stage.kubectl.run(&format!(
        "create deployment elastic --image={ECHO} --replicas={replicas}"
    ))?;
    stage
        .kubectl
        .run("rollout status deployment/elastic --timeout=120s")?;
    Ok(())
}

/// Asks an address until it answers, from the node.
fn ask(url: &str) -> Result<String> {
    eventually(url, Duration::from_secs(20), || {
        run("curl", &["-sS", "--max-time", "3", url])
    })
}

fn a_cluster_ip_spreads_over_all_pods(stage: &Stage) -> Result<()> {
    deploy(stage, 3)?;
    stage
        .kubectl
        .run("expose deploy/elastic --port 9200 --target-port 8080")?;
    let ip = stage.kubectl.args(&[
        "get",
        "svc",
        "elastic",
        "-o",
        "go-template",
        "--template",
        "{{ .spec.clusterIP }}",
    ])?;
    ensure!(ip.starts_with("10."), "{ip}");
    let url = format!("http://{ip}:9200/");
    ask(&url)?;
    let pods: BTreeSet<String> = stage
        .kubectl
        .run("get pods -o name")?
        .lines()
        .map(str::to_owned)
        .collect();
    let mut answered = BTreeSet::new();
    eventually("every pod answers", Duration::from_secs(30), || {
        let answer = ask(&url)?;
        answered.extend(
            pods.iter()
                .filter(|pod| answer.contains(pod.trim_start_matches("pod/")))
                .cloned(),
        );
        ensure!(answered == pods, "only {answered:?} of {pods:?}");
        Ok(())
    })?;
    stage.kubectl.run(&format!(
        "run client --image={TOOLBOX} --restart=Never --command -- sleep 600"
    ))?;
    stage
        .kubectl
        .run("wait --for=condition=Ready pod/client --timeout=120s")?;
    let inside = stage.kubectl.run(&format!("exec client -- wget -q -O - {url}"))?;
    ensure!(inside.contains("elastic-"), "{inside}");
    let slices = stage.kubectl.run("get endpointslices")?;
    ensure!(slices.contains("8080"), "{slices}");
    Ok(())
}

fn a_node_port_answers_on_the_node(stage: &Stage) -> Result<()> {
    deploy(stage, 1)?;
    stage
        .kubectl
        .run("expose deploy/elastic --port=80 --target-port=8080 --type=NodePort")?;
    let port = stage
        .kubectl
        .path("get svc elastic", "{.spec.ports[0].nodePort}")?;
    ensure!((30000..=32767).contains(&port.parse::<u16>()?), "{port}");
    ensure!(
        ask(&format!("http://{NODE_IP}:{port}/"))?.contains("elastic-"),
        "another answer"
    );
    Ok(())
}

fn the_api_answers_at_its_service_address(stage: &Stage) -> Result<()> {
    let code = [
        "-k",
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--max-time",
        "5",
        "https://10.96.0.1",
    ];
    let code = eventually("10.96.0.1", Duration::from_secs(20), || run("curl", &code))?;
    ensure!(code == "401" || code == "403", "{code}");
    stage.kubectl.run(&format!(
        "run client --image={TOOLBOX} --restart=Never --command -- sleep 600"
    ))?;
    stage
        .kubectl
        .run("wait --for=condition=Ready pod/client --timeout=120s")?;
    let refused = stage.kubectl.refused(
        "exec client -- wget -q -O - --no-check-certificate https://10.96.0.1",
        None,
    )?;
    ensure!(refused.contains("401") || refused.contains("403"), "{refused}");
    Ok(())
}

fn headless_and_external_name(stage: &Stage) -> Result<()> {
    stage
        .kubectl
        .run("create service clusterip quiet --clusterip=None --tcp=80:8080")?;
    stage
        .kubectl
        .run("create service externalname elsewhere --external-name=example.test")?;
    let table = stage.kubectl.run("get svc")?;
    ensure!(
        table.contains("None") && table.contains("ExternalName") && table.contains("example.test"),
        "{table}"
    );
    Ok(())
}

fn a_health_check_tells_balancers_where_pods_are(stage: &Stage) -> Result<()> {
    deploy(stage, 2)?;
    stage
        .kubectl
        .run("expose deploy/elastic --port=80 --target-port=8080 --type=LoadBalancer")?;
    stage.kubectl.args(&[
        "patch",
        "service",
        "elastic",
        "-p",
        r#"{"spec":{"externalTrafficPolicy":"Local"}}"#,
    ])?;
    let port = stage
        .kubectl
        .path("get svc elastic", "{.spec.healthCheckNodePort}")?;
    let url = format!("http://{NODE_IP}:{port}/healthz");
    let told = |wanted: &str| {
        eventually(&url, Duration::from_secs(60), || {
            let answer = run("curl", &["-sS", "-i", "--max-time", "3", &url])?;
            ensure!(answer.contains(wanted), "{answer}");
            Ok(answer)
        })
    };
    let answer = told("\"localEndpoints\":2")?;
    ensure!(
        answer.contains(" 200 ") && answer.contains("\"name\":\"elastic\""),
        "{answer}"
    );
    stage.kubectl.run("scale deploy/elastic --replicas=0")?;
    let answer = told("\"localEndpoints\":0")?;
    ensure!(answer.contains(" 503 "), "{answer}");
    Ok(())
}
