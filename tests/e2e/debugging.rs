//! `kubectl debug`: a container more in a pod that runs, a copy of a pod to try things with, and a look at the node.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::process::run;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_debugger_joins_a_running_pod", a_debugger_joins_a_running_pod),
    ("a_terminal_in_a_debugger", a_terminal_in_a_debugger),
    ("a_copy_of_a_pod_to_debug", a_copy_of_a_pod_to_debug),
    ("a_debugger_on_the_node", a_debugger_on_the_node),
];

/// Which of a pod's ephemeral containers run, by name.
const RUNNING: &str = "{range.status.ephemeralContainerStatuses[*]}{.name}={.state.running.startedAt},{end}";

fn application(stage: &Stage, name: &str) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("run {name} --image={ECHO} --port=8080"))?;
    kubectl
        .run(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"))
        .map(drop)
}

fn a_debugger_joins_a_running_pod(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    application(stage, "app")?;
    let before = kubectl.path("get pod app", "{.status.containerStatuses[0].containerID}")?;
    // There is no shell in it.
    kubectl.refused("exec app -- sh -c true", None)?;

    kubectl.run(&format!(
        "debug app --image={TOOLBOX} --target=app --container=looker --attach=false -- sleep 600"
    ))?;
    kubectl.until(&format!("get pod app -o jsonpath={RUNNING}"), |running| {
        running.starts_with("looker=2")
    })?;
    // It is in the target's process namespace, sees its files, and the pod's network.
    let processes = kubectl.run("exec app -c looker -- ps -o comm")?;
    ensure!(
        processes.lines().any(|line| line.trim() == "echo"),
        "the target's process is not to be seen: {processes}"
    );
    kubectl.run("exec app -c looker -- ls /proc/1/root/echo")?;
    let answer = kubectl.run("exec app -c looker -- wget -q -O - http://127.0.0.1:8080/")?;
    ensure!(answer.contains("app"), "{answer}");
    let described = kubectl.run("describe pod app")?;
    ensure!(
        described.contains("Ephemeral Containers:") && described.contains("looker:"),
        "{described}"
    );
    ensure!(
        kubectl.path("get pod app", "{.status.containerStatuses[0].containerID}")? == before,
        "the application was started again"
    );

    // A second one without a target sees nobody else's processes, and its output is to be had when it has ended.
    kubectl.args(&[
        "debug",
        "app",
        &format!("--image={TOOLBOX}"),
        "--container=brief",
        "--attach=false",
        "--",
        "sh",
        "-c",
        "ps -o comm; echo that is all",
    ])?;
    let told = kubectl.until("logs app -c brief", |told| told.contains("that is all"))?;
    ensure!(!told.lines().any(|line| line.trim() == "echo"), "{told}");
    kubectl.until(
        "get pod app -o jsonpath={.status.ephemeralContainerStatuses[?(@.name==\"brief\")].state.terminated.reason}",
        |reason| reason == "Completed",
    )?;
    // Neither may be changed or taken away again.
    let pod = kubectl.json("get pod app")?;
    let mut without = pod.clone();
    without["spec"]["ephemeralContainers"] = serde_json::json!([]);
    let path = format!(
        "/api/v1/namespaces/{}/pods/app/ephemeralcontainers",
        stage.namespace
    );
    let refused = kubectl.refused(&format!("replace --raw {path} -f -"), Some(&without.to_string()))?;
    ensure!(
        refused.contains("existing ephemeral containers \\\"looker\\\" may not be removed")
            || refused.contains("existing ephemeral containers \"looker\" may not be removed"),
        "{refused}"
    );
    kubectl.run("delete pod app --grace-period=1").map(drop)
}

fn a_terminal_in_a_debugger(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    application(stage, "app")?;
    let typed = format!(
        "{} debug -it app --image={TOOLBOX} --target=app --container=typing -- sh -c 'sleep 2; tty; echo done'",
        kubectl.program()
    );
    let shown = run("script", &["-qec", &typed, "/dev/null"])?;
    ensure!(
        shown.contains("/dev/pts/") && shown.contains("done"),
        "not a terminal: {shown}"
    );
    // An end of input would end the connection: the container's own goes on.
    let mut command = kubectl.command(&["debug", "-i", "app", "--container=reading"]);
    command.args([&format!("--image={TOOLBOX}"), "--", "sh"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().context("kubectl debug")?;
    let mut stdin = child.stdin.take().context("input")?;
    stdin.write_all(b"sleep 1; echo $((6 * 7))\n")?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("output")?).read_line(&mut line)?;
    stdin.write_all(b"exit\n")?;
    let ended = child.wait()?;
    ensure!(line == "42\n" && ended.success(), "{line:?}, {ended}");
    kubectl.run("delete pod app --grace-period=1").map(drop)
}

fn a_copy_of_a_pod_to_debug(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    application(stage, "app")?;
    kubectl.run(&format!(
        "debug app --image={TOOLBOX} --copy-to=twin --share-processes --container=shell --attach=false -- sleep 600"
    ))?;
    kubectl.run("wait --for=condition=Ready pod/twin --timeout=120s")?;
    let processes = kubectl.run("exec twin -c shell -- ps -o comm")?;
    ensure!(
        processes.lines().any(|line| line.trim() == "echo"),
        "processes are not shared: {processes}"
    );
    // Another command in place of the one that is to be looked at, and another image in place of every one.
    kubectl.run(&format!(
        "debug app --copy-to=other --container=app --set-image=*={TOOLBOX} --attach=false -- sleep 600"
    ))?;
    kubectl.run("wait --for=condition=Ready pod/other --timeout=120s")?;
    kubectl.run("exec other -- sh -c true")?;
    let containers = "{.spec.containers[*].name}";
    ensure!(
        kubectl.path("get pod app", containers)? == "app"
            && kubectl.path("get pod twin", containers)? == "app shell"
            && kubectl.path("get pod other", containers)? == "app",
        "the containers of the copies"
    );
    kubectl
        .run("delete pod app twin other --grace-period=1")
        .map(drop)
}

fn a_debugger_on_the_node(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let node = kubectl.run("get nodes -o name")?;
    let said = kubectl.run(&format!(
        "debug {} --image={TOOLBOX} --attach=false -- sleep 600",
        node.trim()
    ))?;
    // "Creating debugging pod node-debugger-NODE-xxxxx with container debugger on node NODE."
    let pod = said
        .split_whitespace()
        .find(|word| word.starts_with("node-debugger-"))
        .map(str::to_owned)
        .or_else(|| {
            Some(
                kubectl
                    .run("get pods -o name")
                    .ok()?
                    .trim()
                    .trim_start_matches("pod/")
                    .to_owned(),
            )
        })
        .context("a pod")?;
    kubectl.run(&format!("wait --for=condition=Ready pod/{pod} --timeout=120s"))?;
    // The node's files and its processes.
    kubectl.run(&format!("exec {pod} -- cat /host/etc/os-release"))?;
    let processes = kubectl.run(&format!("exec {pod} -- ps -o comm"))?;
    ensure!(
        processes.lines().any(|line| line.trim() == "kubelet"),
        "{processes}"
    );
    kubectl
        .run(&format!("delete pod {pod} --grace-period=1"))
        .map(drop)
}
