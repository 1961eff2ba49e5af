//! What the conformance suite asks of kubectl and no tutorial does: replication controllers, a pod changed in place, the
//! proxy, and an application of several parts.

use std::io::{BufRead as _, BufReader};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::{ECHO, ECHO_AGAIN};
use keelson_tests::process::{eventually, output, run, text};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("replication_controllers", replication_controllers),
    ("a_pod_changed_in_place", a_pod_changed_in_place),
    (
        "a_proxy_on_a_port_and_on_a_socket",
        a_proxy_on_a_port_and_on_a_socket,
    ),
    ("a_guest_book", a_guest_book),
    ("what_the_server_says_of_itself", what_the_server_says_of_itself),
];

const GUESTBOOK: &str = include_str!("../manifests/guestbook.yaml");
const SOON: Duration = Duration::from_secs(30);

fn ask(url: &str) -> Result<String> {
    eventually(url, SOON, || run("curl", &["-fsS", "--max-time", "5", url]))
}

/// Waits until as many of the controller's pods run, and no other.
fn pods_that_run(stage: &Stage, count: usize) -> Result<()> {
    let template = "--template={{range .items}}{{if eq .status.phase \"Running\"}}{{if not .metadata.deletionTimestamp}}\
                    {{.metadata.name}} {{end}}{{end}}{{end}}";
    eventually("pods that run", Duration::from_secs(120), || {
        let names = stage
            .kubectl
            .args(&["get", "pods", "-l", "role=primary", "-o", "template", template])?;
        ensure!(names.split_whitespace().count() == count, "running: {names}");
        Ok(())
    })
}

fn described(stage: &Stage, what: &str, parts: &[&str]) -> Result<()> {
    let shown = stage.kubectl.run(&format!("describe {what}"))?;
    // Columns differ in width from version to version.
    let lines: Vec<String> = shown
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for part in parts {
        ensure!(
            lines.iter().any(|line| line.contains(part)),
            "describe {what}: {part} is missing from {shown}"
        );
    }
    Ok(())
}

fn replication_controllers(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let controller = format!(
        r#"{{"apiVersion":"v1","kind":"ReplicationController","metadata":{{"name":"primary","labels":{{"app":"echo","role":"primary"}}}},
        "spec":{{"replicas":2,"selector":{{"app":"echo","role":"primary"}},
        "template":{{"metadata":{{"labels":{{"app":"echo","role":"primary"}}}},"spec":{{"terminationGracePeriodSeconds":1,
        "containers":[{{"name":"echo","image":"{ECHO}","ports":[{{"name":"http","containerPort":8080}}]}}]}}}}}}}}"#
    );
    kubectl.feed("create -f -", &controller)?;
    pods_that_run(stage, 2)?;
    kubectl.run("scale rc primary --replicas=1 --timeout=5m")?;
    pods_that_run(stage, 1)?;
    kubectl.run("scale rc primary --replicas=2 --timeout=5m")?;
    pods_that_run(stage, 2)?;
    kubectl.until("get rc primary -o jsonpath={.status.readyReplicas}", |ready| {
        ready == "2"
    })?;

    let pods = kubectl.run("get pods -l role=primary -o jsonpath={.items[*].metadata.name}")?;
    for pod in pods.split_whitespace() {
        kubectl.args(&[
            "patch",
            "pod",
            pod,
            "-p",
            r#"{"metadata":{"annotations":{"x":"y"}}}"#,
        ])?;
    }
    let notes = kubectl.run("get pods -l role=primary -o jsonpath={.items[*].metadata.annotations.x}")?;
    ensure!(notes == "y y", "{notes}");

    // A service of the controller, and another of that service.
    kubectl.run("expose rc primary --name=second --port=1234 --target-port=8080")?;
    kubectl.run("expose service second --name=third --port=2345 --target-port=http")?;
    for (service, port) in [("second", 1234), ("third", 2345)] {
        let address = kubectl.path(&format!("get service {service}"), "{.spec.clusterIP}")?;
        let answer = ask(&format!("http://{address}:{port}/"))?;
        ensure!(answer.contains("Hostname: primary-"), "{answer}");
        let endpoints = format!("get endpoints {service} -o jsonpath={{.subsets[*].ports[*].port}}");
        kubectl.until(&endpoints, |ports| ports == "8080")?;
    }
    describe_all_of_it(stage)?;

    kubectl.run("delete rc primary --timeout=60s")?;
    kubectl
        .until("get pods -l role=primary -o name", |pods| pods.is_empty())
        .map(drop)
}

fn describe_all_of_it(stage: &Stage) -> Result<()> {
    let namespace = &stage.namespace;
    let (named, image) = (format!("Namespace: {namespace}"), format!("Image: {ECHO}"));
    described(
        stage,
        "pods -l role=primary",
        &[
            "Name: primary-",
            &named,
            "Node:",
            "Labels: app=echo",
            "role=primary",
            "Annotations: x: y",
            "Status: Running",
            "IP:",
            "Controlled By: ReplicationController/primary",
            &image,
            "State: Running",
            "QoS Class: BestEffort",
        ],
    )?;
    described(
        stage,
        "rc primary",
        &[
            "Name: primary",
            &named,
            "Selector: app=echo,role=primary",
            "Labels: app=echo",
            "Annotations:",
            "Replicas: 2 current / 2 desired",
            "Pods Status: 2 Running / 0 Waiting / 0 Succeeded / 0 Failed",
            "Pod Template:",
            &image,
            "Events:",
            "SuccessfulCreate",
        ],
    )?;
    described(
        stage,
        "service third",
        &[
            "Name: third",
            &named,
            "Labels: app=echo",
            "Annotations:",
            "Selector: app=echo,role=primary",
            "Type: ClusterIP",
            "IP:",
            "Port: <unset> 2345/TCP",
            "TargetPort: http/TCP",
            ":8080",
            "Session Affinity: None",
        ],
    )?;
    described(
        stage,
        &format!("namespace {namespace}"),
        &[
            &format!("Name: {namespace}"),
            "Labels:",
            "Annotations:",
            "Status: Active",
        ],
    )
}

fn a_pod_changed_in_place(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("run web --image={ECHO} --restart=Never"))?;
    kubectl.run("wait --for=condition=Ready pod/web --timeout=120s")?;
    let image = || kubectl.path("get pod web", "{.spec.containers[*].image}");
    ensure!(image()? == ECHO, "run: {}", image()?);

    kubectl.run("label pods web testing-label=testing-label-value")?;
    let labelled = kubectl.run("get pod web -L testing-label")?;
    ensure!(labelled.contains("testing-label-value"), "{labelled}");
    kubectl.run("label pods web testing-label-")?;
    let selected = kubectl.run("get pods -l testing-label -o name")?;
    ensure!(selected.is_empty(), "{selected}");

    let other = format!(r#"{{"spec":{{"containers":[{{"name":"web","image":"{ECHO_AGAIN}"}}]}}}}"#);
    let tried = kubectl.args(&["patch", "pod", "web", "-p", &other, "--dry-run=server"])?;
    ensure!(tried.contains("pod/web patched"), "{tried}");
    ensure!(image()? == ECHO, "a dry run changed it: {}", image()?);

    let changed = kubectl.run("get pod web -o json")?.replace(ECHO, ECHO_AGAIN);
    kubectl.feed("replace -f -", &changed)?;
    ensure!(image()? == ECHO_AGAIN, "replace: {}", image()?);
    let (before, spec) = (
        kubectl.path("get pod web", "{.metadata.uid}")?,
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web"}},"spec":{{"containers":[{{"name":"web","image":"{ECHO}"}}]}}}}"#
        ),
    );
    kubectl.feed("replace --force --grace-period=1 -f -", &spec)?;
    ensure!(
        kubectl.path("get pod web", "{.metadata.uid}")? != before && image()? == ECHO,
        "replace --force made no new pod"
    );

    kubectl.run(&format!("create deployment shown --image={ECHO} --replicas=0"))?;
    let declared = kubectl
        .run("get deployment shown -o yaml")?
        .replace(ECHO, ECHO_AGAIN);
    let diff = output(kubectl.command(&["diff", "-f", "-"]), Some(&declared))?;
    let lines = text(&diff.stdout);
    let has = |sign: char, image: &str| {
        let wanted = format!("image: {image}");
        lines
            .lines()
            .any(|line| line.starts_with(sign) && line.contains(&wanted))
    };
    ensure!(
        diff.status.code() == Some(1) && has('-', ECHO) && has('+', ECHO_AGAIN),
        "{diff:?}"
    );
    kubectl.run("delete pod web --now").map(drop)
}

/// The first line a proxy prints, once it listens.
fn begun(proxy: &mut Child) -> Result<String> {
    let mut line = String::new();
    let printed = proxy.stdout.as_mut().context("output")?;
    BufReader::new(printed).read_line(&mut line)?;
    Ok(line)
}

fn a_proxy_on_a_port_and_on_a_socket(stage: &Stage) -> Result<()> {
    let versions = |answer: &str| {
        let found: serde_json::Value = serde_json::from_str(answer)?;
        ensure!(found["versions"][0] == "v1", "{answer}");
        Ok(())
    };
    let mut proxy = stage.kubectl.start("proxy --port=0 --disable-filter")?;
    let told = begun(&mut proxy).and_then(|line| {
        let (_, address) = line.trim().rsplit_once(' ').context(line.clone())?;
        versions(&ask(&format!("http://{address}/api/"))?)
    });
    proxy.kill()?;
    proxy.wait()?;
    told?;

    let folder = tempfile::tempdir()?;
    let socket = folder.path().join("test").display().to_string();
    let mut proxy = stage.kubectl.start(&format!("proxy --unix-socket={socket}"))?;
    let told = begun(&mut proxy).and_then(|line| {
        ensure!(line.contains(&socket), "{line}");
        let asked = [
            "-fsS",
            "--max-time",
            "5",
            "--unix-socket",
            &socket,
            "http://localhost/api/",
        ];
        versions(&run("curl", &asked)?)
    });
    proxy.kill()?;
    proxy.wait()?;
    told
}

fn a_guest_book(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.feed("create -f -", GUESTBOOK)?;
    for part in ["store-primary", "store-replica", "frontend"] {
        kubectl.run(&format!("rollout status deployment/{part} --timeout=120s"))?;
    }
    let address = kubectl.path("get service frontend", "{.spec.clusterIP}")?;
    let written = ask(&format!("http://{address}/cgi-bin/set?TestEntry"))?;
    ensure!(written == "Updated\n", "{written}");
    // Both copies have it before long, whichever is asked.
    eventually("the entry is read back", SOON, || {
        for _ in 0..4 {
            let read = run(
                "curl",
                &[
                    "-fsS",
                    "--max-time",
                    "5",
                    &format!("http://{address}/cgi-bin/get"),
                ],
            )?;
            ensure!(read == "TestEntry\n", "{read}");
        }
        Ok(())
    })?;
    kubectl.feed("delete -f -", GUESTBOOK)?;
    kubectl
        .until("get all -o name", |all| all.trim().is_empty())
        .map(drop)
}

fn what_the_server_says_of_itself(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let shown = kubectl.run("version")?;
    ensure!(
        shown.contains("Client Version: ") && shown.contains("Server Version: "),
        "{shown}"
    );
    let version = &kubectl.json("version")?["serverVersion"];
    for field in [
        "major",
        "minor",
        "gitVersion",
        "gitCommit",
        "gitTreeState",
        "buildDate",
        "goVersion",
        "compiler",
        "platform",
    ] {
        ensure!(
            version[field].as_str().is_some_and(|text| !text.is_empty()),
            "no {field} in {version}"
        );
    }
    let versions = kubectl.run("api-versions")?;
    ensure!(versions.lines().any(|line| line == "v1"), "{versions}");
    let info = kubectl.run("cluster-info")?;
    ensure!(
        info.contains("Kubernetes control plane") && info.contains("is running at"),
        "{info}"
    );
    Ok(())
}
