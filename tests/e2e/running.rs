//! Tutorials, section 2: `kubectl run` in all its forms, jobs by the clock and by hand, and staying in touch with what
//! runs.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::process::{eventually, output, run, text};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("a_pod_by_name", a_pod_by_name),
    ("a_pod_that_pings", a_pod_that_pings),
    ("a_pod_with_a_service", a_pod_with_a_service),
    ("a_pod_for_one_command", a_pod_for_one_command),
    ("jobs_and_cron_jobs", jobs_and_cron_jobs),
    ("attach_to_what_runs", attach_to_what_runs),
    ("a_port_of_a_service_forwarded", a_port_of_a_service_forwarded),
    ("copy_a_folder", copy_a_folder),
    ("logs_of_many_and_of_before", logs_of_many_and_of_before),
    (
        "pods_reach_each_other_by_address",
        pods_reach_each_other_by_address,
    ),
    ("a_pod_of_a_runtime_class", a_pod_of_a_runtime_class),
];

fn ready(stage: &Stage, pod: &str) -> Result<()> {
    stage
        .kubectl
        .run(&format!("wait --for=condition=Ready pod/{pod} --timeout=120s"))
        .map(drop)
}

fn a_pod_by_name(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!(
        "run hello-kubernetes --image={ECHO} --port=8080 --env=COLOR=green --labels=run=hello-kubernetes,tier=front"
    ))?;
    ready(stage, "hello-kubernetes")?;
    let pod = kubectl.json("get pod hello-kubernetes")?;
    let container = &pod["spec"]["containers"][0];
    ensure!(
        pod["metadata"]["labels"]["run"] == "hello-kubernetes"
            && container["name"] == "hello-kubernetes"
            && container["ports"][0]["containerPort"] == 8080
            && container["env"][0]["value"] == "green",
        "{pod}"
    );
    let overrides =
        r#"--overrides={"apiVersion":"v1","spec":{"hostname":"other","terminationGracePeriodSeconds":1}}"#;
    kubectl.args(&["run", "changed", &format!("--image={ECHO}"), overrides])?;
    ready(stage, "changed")?;
    ensure!(
        kubectl.path("get pod changed", "{.spec.hostname}")? == "other",
        "--overrides"
    );
    let twice = kubectl.refused(&format!("run changed --image={ECHO}"), None)?;
    ensure!(twice.contains("pods \"changed\" already exists"), "{twice}");
    kubectl.run("delete pod hello-kubernetes changed --now").map(drop)
}

fn a_pod_that_pings(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!(
        "create deployment pingpong --image={TOOLBOX} -- ping 127.0.0.1"
    ))?;
    kubectl.run("rollout status deployment/pingpong --timeout=120s")?;
    let lines = kubectl.until("logs deploy/pingpong --tail 1", |line| line.contains("seq="))?;
    ensure!(lines.lines().count() == 1, "{lines}");
    let mut follow = kubectl.start("logs deploy/pingpong --tail 1 --follow")?;
    let live: Vec<String> = BufReader::new(follow.stdout.take().context("output")?)
        .lines()
        .take(3)
        .collect::<std::io::Result<_>>()?;
    follow.kill()?;
    follow.wait()?;
    ensure!(live.iter().all(|line| line.contains("seq=")), "{live:?}");
    let recent = kubectl.run("logs deploy/pingpong --since=2s")?;
    ensure!((1..=4).contains(&recent.lines().count()), "{recent}");
    kubectl.run("scale deploy/pingpong --replicas 3")?;
    kubectl.run("rollout status deployment/pingpong --timeout=120s")?;
    kubectl.until("logs -l app=pingpong --tail 1", |lines| {
        lines.lines().count() == 3
    })?;
    kubectl.run("delete deployment pingpong").map(drop)
}

fn a_pod_with_a_service(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("run hello --image={ECHO} --port=8080 --expose"))?;
    ready(stage, "hello")?;
    let service = kubectl.json("get service hello")?;
    ensure!(
        service["spec"]["ports"][0]["port"] == 8080 && service["spec"]["selector"]["run"] == "hello",
        "{service}"
    );
    let url = format!(
        "http://{}:8080/",
        kubectl.path("get svc hello", "{.spec.clusterIP}")?
    );
    let answer = eventually(&url, Duration::from_secs(20), || {
        run("curl", &["-sS", "--max-time", "3", &url])
    })?;
    ensure!(answer.contains("hello"), "{answer}");
    kubectl.run("delete pod,service hello --now").map(drop)
}

fn a_pod_for_one_command(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let mut command = kubectl.command(&[
        "run",
        "sum",
        &format!("--image={TOOLBOX}"),
        "--restart=Never",
        "--rm",
        "-i",
    ]);
    command.args(["--quiet", "--", "sh", "-c", "sleep 1; cat; exit 4"]);
    let ended = output(command, Some("fed to it\n"))?;
    ensure!(
        text(&ended.stdout).contains("fed to it"),
        "{}{}",
        text(&ended.stdout),
        text(&ended.stderr)
    );
    ensure!(ended.status.code() == Some(4), "{:?}", ended.status);
    kubectl.until("get pods -o name", |pods| !pods.contains("pod/sum"))?;
    let typed = format!(
        "{} run typed --image={TOOLBOX} --restart=Never --rm -it -- sh -c 'sleep 2; tty; stty size'",
        kubectl.program()
    );
    let shown = run("script", &["-qec", &typed, "/dev/null"])?;
    ensure!(shown.contains("/dev/pts/"), "not a terminal: {shown}");
    Ok(())
}

fn jobs_and_cron_jobs(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create job once --image={TOOLBOX} -- echo done"))?;
    kubectl.run("wait --for=condition=complete job/once --timeout=120s")?;
    ensure!(kubectl.run("logs job/once")? == "done\n", "its output");
    let table = kubectl.run("get jobs")?;
    ensure!(table.contains("1/1"), "{table}");
    kubectl.run(&format!("create job never --image={TOOLBOX} -- false"))?;
    kubectl.args(&[
        "patch",
        "job",
        "never",
        "-p",
        r#"{"spec":{"activeDeadlineSeconds":3}}"#,
    ])?;
    kubectl.run("wait --for=condition=failed job/never --timeout=120s")?;
    kubectl.args(&[
        "create",
        "cronjob",
        "often",
        &format!("--image={TOOLBOX}"),
        "--schedule=0 3 1 1 *",
        "--",
        "echo",
        "by hand",
    ])?;
    kubectl.run("create job started --from=cronjob/often")?;
    kubectl.run("wait --for=condition=complete job/started --timeout=120s")?;
    ensure!(kubectl.run("logs job/started")? == "by hand\n", "its output");
    let table = kubectl.run("get cronjobs")?;
    ensure!(table.contains("0 3 1 1 *") && table.contains("False"), "{table}");
    let bad = kubectl
        .args(&[
            "create",
            "cronjob",
            "bad",
            &format!("--image={TOOLBOX}"),
            "--schedule=every day",
        ])
        .err()
        .context("a schedule that is none was taken")?;
    ensure!(
        format!("{bad:#}").contains("spec.schedule: Invalid value: \"every day\""),
        "{bad:#}"
    );
    kubectl.run("delete cronjob often")?;
    kubectl.run("delete jobs --all")?;
    kubectl
        .until("get pods -o name", |pods| pods.trim().is_empty())
        .map(drop)
}

fn attach_to_what_runs(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.args(&[
        "run",
        "reader",
        &format!("--image={TOOLBOX}"),
        "--stdin",
        "--attach=false",
        "--command",
        "--",
        "sh",
        "-c",
        "while read line; do echo got $line; done; sleep 600",
    ])?;
    ready(stage, "reader")?;
    let mut attached = kubectl.command(&["attach", "-i", "reader"]);
    attached
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped());
    let mut child = attached.spawn().context("kubectl attach")?;
    let mut stdin = child.stdin.take().context("input")?;
    std::io::Write::write_all(&mut stdin, b"one\ntwo\n")?;
    let lines: Vec<String> = BufReader::new(child.stdout.take().context("output")?)
        .lines()
        .take(2)
        .collect::<std::io::Result<_>>()?;
    drop(stdin);
    child.kill()?;
    child.wait()?;
    ensure!(lines == ["got one", "got two"], "{lines:?}");
    kubectl.until("logs reader", |log| log.contains("got two"))?;
    kubectl.run(&format!("create deployment web --image={TOOLBOX} -- sleep 600"))?;
    kubectl.run("rollout status deployment/web --timeout=120s")?;
    ensure!(
        kubectl.run("exec deploy/web -- echo in")? == "in\n",
        "exec deploy/web"
    );
    let absent = kubectl.refused("exec reader -- /no/such/program", None)?;
    ensure!(absent.contains("no such file or directory"), "{absent}");
    kubectl.run("delete pod reader --now")?;
    kubectl.run("delete deployment web").map(drop)
}

fn a_port_of_a_service_forwarded(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create deployment web --image={ECHO}"))?;
    kubectl.run("expose deployment web --port=80 --target-port=8080")?;
    kubectl.run("rollout status deployment/web --timeout=120s")?;
    for target in ["service/web :80", "deployment/web :8080"] {
        let mut forward = kubectl.start(&format!("port-forward {target}"))?;
        // Kept open: it goes on to tell of each connection.
        let mut output = BufReader::new(forward.stdout.take().context("output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let told = line
            .split_once("127.0.0.1:")
            .and_then(|(_, rest)| rest.split_once(' '))
            .with_context(|| format!("no port in {line:?}"))
            .and_then(|(port, _)| {
                let url = format!("http://127.0.0.1:{port}/");
                // More than one connection, one after the other.
                (0..3).try_for_each(|_| {
                    let answer = run("curl", &["-sS", "--max-time", "5", &url])?;
                    ensure!(answer.contains("web-"), "{answer}");
                    Ok(())
                })
            });
        forward.kill()?;
        forward.wait()?;
        told.with_context(|| target)?;
    }
    // Through the API itself.
    let path = format!("/api/v1/namespaces/{}/services/web:80/proxy/", stage.namespace);
    let answer = kubectl.run(&format!("get --raw {path}"))?;
    ensure!(answer.contains("web-"), "{answer}");
    for (asked, why) in [
        ("web:81", "no service port 81 found for service \"web\""),
        ("web:http", "no endpoints available for service \"web:http\""),
        ("ftp:web:80", "invalid service request \"ftp:web:80\""),
    ] {
        let path = format!("/api/v1/namespaces/{}/services/{asked}/proxy/", stage.namespace);
        let refused = kubectl.refused(&format!("get --raw {path}"), None)?;
        ensure!(refused.contains(why), "{asked}: {refused}");
    }
    kubectl.run("delete deployment,service web").map(drop)
}

fn copy_a_folder(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("run box --image={TOOLBOX} --command -- sleep 600"))?;
    ready(stage, "box")?;
    let folder = tempfile::tempdir()?;
    let (here, back) = (folder.path().join("here"), folder.path().join("back"));
    std::fs::create_dir_all(here.join("inner"))?;
    std::fs::write(here.join("one"), "1")?;
    std::fs::write(here.join("inner/two"), vec![0u8; 3 << 20])?;
    kubectl.run(&format!("cp {} box:/tmp/there", here.display()))?;
    ensure!(
        kubectl.run("exec box -- cat /tmp/there/one")? == "1",
        "a file of the folder"
    );
    kubectl.run(&format!(
        "cp {}/box:/tmp/there {}",
        stage.namespace,
        back.display()
    ))?;
    ensure!(
        std::fs::read(back.join("inner/two"))? == vec![0u8; 3 << 20],
        "what came back differs"
    );
    kubectl.run("delete pod box --now").map(drop)
}

fn logs_of_many_and_of_before(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"pair","labels":{{"app":"pair"}}}},"spec":{{
        "initContainers":[{{"name":"first","image":"{TOOLBOX}","command":["echo","begun"]}}],
        "containers":[{{"name":"steady","image":"{TOOLBOX}","command":["sh","-c","echo steady; sleep 600"]}},
        {{"name":"again","image":"{TOOLBOX}","command":["sh","-c","echo life $(cat /count/n 2>/dev/null || echo 0); if [ ! -e /count/n ]; then echo 1 > /count/n; exit 1; fi; sleep 600"],
          "volumeMounts":[{{"name":"count","mountPath":"/count"}}]}}],
        "volumes":[{{"name":"count","emptyDir":{{}}}}]}}}}"#
    );
    kubectl.feed("create -f -", &pod)?;
    kubectl.until("logs pair -c again", |log| log.contains("life 1"))?;
    ensure!(
        kubectl.run("logs pair -c again --previous")? == "life 0\n",
        "--previous"
    );
    ensure!(
        kubectl.run("logs pair -c first")? == "begun\n",
        "an init container's"
    );
    let all = kubectl.run("logs pair --all-containers --prefix")?;
    for line in [
        "[pod/pair/first] begun",
        "[pod/pair/steady] steady",
        "[pod/pair/again] life 1",
    ] {
        ensure!(all.contains(line), "{line} is missing from {all}");
    }
    let bytes = kubectl.run("logs pair -c steady --limit-bytes=3")?;
    ensure!(bytes == "ste", "{bytes:?}");
    let since = kubectl.run("logs pair -c steady --since-time=2100-01-01T00:00:00Z")?;
    ensure!(since.is_empty(), "{since}");
    let none = kubectl.refused("logs pair -c steady --previous", None)?;
    ensure!(
        none.contains("previous terminated container \"steady\" in pod \"pair\" not found"),
        "{none}"
    );
    kubectl.run("delete pod pair --now").map(drop)
}

fn pods_reach_each_other_by_address(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("run server --image={ECHO}"))?;
    kubectl.run(&format!("run caller --image={TOOLBOX} --command -- sleep 600"))?;
    ready(stage, "server")?;
    ready(stage, "caller")?;
    let address = |pod: &str| kubectl.path(&format!("get pod {pod}"), "{.status.podIP}");
    let (server, caller) = (address("server")?, address("caller")?);
    // Each knows its own address, and the other sees that very address: nothing is translated between them.
    let own = kubectl.run("exec caller -- hostname -i")?;
    ensure!(own.trim() == caller, "{own} is not {caller}");
    let answer = kubectl.run(&format!("exec caller -- wget -q -O - http://{server}:8080/"))?;
    ensure!(
        answer.contains(&caller) && answer.contains("server"),
        "no {caller} in {answer}"
    );
    kubectl.run("delete pod server caller --now").map(drop)
}

fn a_pod_of_a_runtime_class(stage: &Stage) -> Result<()> {
    let (kubectl, class) = (&stage.kubectl, &stage.namespace);
    let of_runc = format!(
        r#"{{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {{"name": "{class}"}},
            "handler": "runc", "overhead": {{"podFixed": {{"cpu": "10m"}}}}}}"#
    );
    kubectl.feed("create -f -", &of_runc)?;
    let overrides = format!(r#"--overrides={{"apiVersion":"v1","spec":{{"runtimeClassName":"{class}"}}}}"#);
    kubectl.args(&["run", "classed", &format!("--image={ECHO}"), &overrides])?;
    ready(stage, "classed")?;
    let overhead = kubectl.path("get pod classed", "{.spec.overhead.cpu}")?;
    ensure!(overhead == "10m", "{overhead}");
    kubectl.run("delete pod classed --now")?;
    kubectl.run(&format!("delete runtimeclass {class}")).map(drop)
}
