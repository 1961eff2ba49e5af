//! Reaching into pods: logs, exec, cp, port-forward.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::process::{eventually, run};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("logs", logs),
    (
        "exec_with_and_without_a_terminal",
        exec_with_and_without_a_terminal,
    ),
    ("copy_in_and_out", copy_in_and_out),
    ("forward_a_port", forward_a_port),
    (
        "configuration_reaches_the_container",
        configuration_reaches_the_container,
    ),
];

fn pod(stage: &Stage, name: &str, command: &str) -> Result<()> {
    stage.kubectl.args(&[
        "run",
        name,
        &format!("--image={TOOLBOX}"),
        "--restart=Never",
        "--command",
        "--",
        "sh",
        "-c",
        command,
    ])?;
    stage
        .kubectl
        .run(&format!("wait --for=condition=Ready pod/{name} --timeout=120s"))?;
    Ok(())
}

fn logs(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    pod(
        stage,
        "talker",
        "i=0; while true; do echo line-$i; i=$((i+1)); sleep 0.2; done",
    )?;
    kubectl.until("logs talker", |lines| lines.contains("line-3"))?;
    ensure!(
        kubectl.run("logs talker --tail 1")?.lines().count() == 1,
        "--tail"
    );
    ensure!(
        kubectl.run("logs -l run=talker --tail 2")?.lines().count() == 2,
        "-l"
    );
    ensure!(
        kubectl.run("logs talker --since=1h")?.contains("line-0"),
        "--since"
    );
    let stamped = kubectl.run("logs talker --timestamps --tail=1")?;
    ensure!(
        stamped.starts_with("20") && stamped.contains("Z line-"),
        "{stamped}"
    );
    let mut follow = kubectl.start("logs talker --tail=1 --follow")?;
    let lines = BufReader::new(follow.stdout.take().context("output")?).lines();
    let live: Vec<String> = lines.take(4).collect::<std::io::Result<_>>()?;
    follow.kill()?;
    follow.wait()?;
    ensure!(live.len() == 4 && live[0] != live[3], "{live:?}");
    ensure!(
        kubectl
            .refused("logs talker -c other", None)?
            .contains("container other is not valid for pod talker"),
        "-c"
    );
    Ok(())
}

fn exec_with_and_without_a_terminal(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    pod(stage, "shell", "sleep 600")?;
    ensure!(kubectl.run("exec shell -- echo hello")? == "hello\n", "exec");
    ensure!(
        kubectl.feed("exec -i shell -- cat", "through a pipe\n")? == "through a pipe\n",
        "piped stdin"
    );
    let code = keelson_tests::process::output(
        kubectl.command(&["exec", "shell", "--", "sh", "-c", "exit 7"]),
        None,
    )?;
    ensure!(code.status.code() == Some(7), "{code:?}");
    let typed = format!("{} exec -it shell -- tty", kubectl.program());
    let terminal = run("script", &["-qec", &typed, "/dev/null"])?;
    ensure!(terminal.contains("/dev/pts/"), "not a terminal: {terminal}");
    Ok(())
}

fn copy_in_and_out(stage: &Stage) -> Result<()> {
    pod(stage, "box", "sleep 600")?;
    let folder = tempfile::tempdir()?;
    let (here, back) = (folder.path().join("here"), folder.path().join("back"));
    let content: String = (0..20_000).map(|line| format!("line {line}\n")).collect();
    std::fs::write(&here, &content)?;
    stage
        .kubectl
        .run(&format!("cp {} box:/tmp/there", here.display()))?;
    stage
        .kubectl
        .run(&format!("cp box:/tmp/there {}", back.display()))?;
    ensure!(
        std::fs::read_to_string(&back)? == content,
        "what came back differs"
    );
    Ok(())
}

fn forward_a_port(stage: &Stage) -> Result<()> {
    stage
        .kubectl
        .run(&format!("run web --image={ECHO} --port=8080"))?;
    stage
        .kubectl
        .run("wait --for=condition=Ready pod/web --timeout=120s")?;
    let mut forward = stage.kubectl.start("port-forward web :8080")?;
    let mut output = BufReader::new(forward.stdout.take().context("output")?);
    let mut line = String::new();
    output.read_line(&mut line)?;
    let port = line
        .split_once("127.0.0.1:")
        .and_then(|(_, rest)| rest.split_once(' '))
        .map(|(port, _)| port.to_owned());
    let answered = port
        .clone()
        .with_context(|| format!("no port in {line:?}"))
        .and_then(|port| {
            let url = format!("http://127.0.0.1:{port}/");
            eventually(&url, Duration::from_secs(10), || {
                run("curl", &["-sS", "--max-time", "3", &url])
            })
        });
    forward.kill()?;
    forward.wait()?;
    let mut rest = String::new();
    if let Some(mut errors) = forward.stderr.take() {
        errors.read_to_string(&mut rest)?;
    }
    ensure!(answered.with_context(|| rest)?.contains("web"), "another answer");
    Ok(())
}

fn configuration_reaches_the_container(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap settings --from-literal=color=green --from-literal=size=xl")?;
    kubectl.run("create secret generic keys --from-literal=password=s3cret")?;
    let manifest = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"reader","labels":{{"app":"reader"}}}},"spec":{{"restartPolicy":"Never",
        "containers":[{{"name":"c","image":"{TOOLBOX}","command":["sleep","600"],
        "env":[{{"name":"COLOR","valueFrom":{{"configMapKeyRef":{{"name":"settings","key":"color"}}}}}},
               {{"name":"PASSWORD","valueFrom":{{"secretKeyRef":{{"name":"keys","key":"password"}}}}}},
               {{"name":"POD","valueFrom":{{"fieldRef":{{"fieldPath":"metadata.name"}}}}}},
               {{"name":"BOTH","value":"$(COLOR)-$(POD)"}}],
        "volumeMounts":[{{"name":"settings","mountPath":"/etc/settings"}},{{"name":"info","mountPath":"/etc/info"}},
                        {{"name":"scratch","mountPath":"/scratch"}}]}}],
        "volumes":[{{"name":"settings","configMap":{{"name":"settings"}}}},
                   {{"name":"info","downwardAPI":{{"items":[{{"path":"labels","fieldRef":{{"fieldPath":"metadata.labels"}}}}]}}}},
                   {{"name":"scratch","emptyDir":{{}}}}]}}}}"#
    );
    kubectl.feed("create -f -", &manifest)?;
    kubectl.run("wait --for=condition=Ready pod/reader --timeout=120s")?;
    let shell = |script: &str| kubectl.args(&["exec", "reader", "--", "sh", "-c", script]);
    ensure!(
        shell("echo $COLOR $PASSWORD $BOTH")? == "green s3cret green-reader\n",
        "environment"
    );
    ensure!(shell("cat /etc/settings/size")? == "xl", "configMap volume");
    ensure!(
        shell("cat /etc/info/labels")?.contains("app=\"reader\""),
        "downward API volume"
    );
    ensure!(
        shell("echo x > /scratch/file && cat /scratch/file")? == "x\n",
        "emptyDir volume"
    );
    let token = shell("cat /var/run/secrets/kubernetes.io/serviceaccount/token")?;
    ensure!(token.split('.').count() == 3, "no service account token: {token}");
    ensure!(
        shell("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace")? == stage.namespace,
        "namespace file"
    );
    Ok(())
}
