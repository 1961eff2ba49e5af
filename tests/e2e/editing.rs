//! Making and changing objects: every `create`, `set`, `replace`, `patch`, `label`, and what is applied from folders and
//! addresses.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::{ECHO, TOOLBOX};
use keelson_tests::process::eventually;

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("every_create_command", every_create_command),
    ("every_set_command", every_set_command),
    ("replace_and_patch", replace_and_patch),
    ("labels_and_annotations", labels_and_annotations),
    ("waiting_for_things", waiting_for_things),
    (
        "apply_from_a_folder_with_kustomization",
        apply_from_a_folder_with_kustomization,
    ),
    ("apply_from_an_address", apply_from_an_address),
    ("what_was_applied_last", what_was_applied_last),
    ("applied_and_pruned", applied_and_pruned),
];

fn every_create_command(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("settings.env"), "COLOR=green\nSIZE=xl\n")?;
    std::fs::write(path("page.html"), "<p>hello</p>\n")?;
    let certificate = keelson_tests::process::run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            "/CN=web.test",
            "-days",
            "1",
            "-keyout",
            &path("tls.key"),
            "-out",
            &path("tls.crt"),
        ],
    );
    certificate?;
    let (env, page) = (path("settings.env"), path("page.html"));
    let commands = [
        format!("configmap env --from-env-file={env}"),
        format!("configmap files --from-file={page} --from-file=other={page}"),
        format!("secret generic keys --from-literal=a=b --from-file={page}"),
        format!(
            "secret tls web --cert={} --key={}",
            path("tls.crt"),
            path("tls.key")
        ),
        "secret docker-registry hub --docker-server=hub.test --docker-username=me --docker-password=pw"
            .to_owned(),
        "serviceaccount robot".to_owned(),
        "role reader --verb=get,list --resource=pods,pods/log".to_owned(),
        "rolebinding readers --role=reader --serviceaccount=default:robot".to_owned(),
        "quota small --hard=configmaps=50".to_owned(),
        "service clusterip one --tcp=80:8080".to_owned(),
        "service nodeport two --tcp=80:8080".to_owned(),
        "service loadbalancer three --tcp=80:8080".to_owned(),
        "service externalname four --external-name=example.test".to_owned(),
        format!("deployment web --image={ECHO} --replicas=0 --port=8080"),
        format!("job once --image={TOOLBOX} -- true"),
        format!("cronjob often --image={TOOLBOX} --schedule=*/5 * * * *"),
        "ingress edge --rule=web.test/*=one:80,tls=web".to_owned(),
        "poddisruptionbudget most --selector=app=web --min-available=1".to_owned(),
    ];
    for command in &commands {
        let arguments = arguments(command);
        let made = kubectl.args(&arguments)?;
        ensure!(made.contains(" created"), "{command}: {made}");
    }
    for command in [
        "clusterrole wide --verb=get --resource=nodes --dry-run=server",
        "clusterrolebinding wide --clusterrole=view --user=ann --dry-run=server",
        "priorityclass dear --value=1000 --dry-run=server",
        "namespace elsewhere --dry-run=server",
    ] {
        let made = kubectl.args(&arguments(command))?;
        ensure!(made.contains("(server dry run)"), "{command}: {made}");
    }
    ensure!(
        kubectl.path("get configmap env", "{.data.COLOR}{.data.SIZE}")? == "greenxl",
        "--from-env-file"
    );
    ensure!(
        kubectl.path("get configmap files", "{.data.other}")? == "<p>hello</p>\n",
        "--from-file"
    );
    ensure!(
        kubectl.path("get secret hub", "{.type}")? == "kubernetes.io/dockerconfigjson",
        "docker-registry"
    );
    ensure!(
        kubectl.run("describe ingress edge")?.contains("web.test"),
        "ingress"
    );
    kubectl.run("create job by-hand --from=cronjob/often")?;
    kubectl.run("wait --for=condition=complete job/once --timeout=120s")?;
    let again = kubectl.refused("create serviceaccount robot", None)?;
    ensure!(
        again.contains("serviceaccounts \"robot\" already exists"),
        "{again}"
    );
    kubectl
        .run("delete service,job,cronjob,deployment --all")
        .map(drop)
}

/// The arguments of `kubectl create`; what follows `--schedule=` belongs together.
fn arguments(command: &str) -> Vec<&str> {
    let (words, schedule) = match command.split_once("--schedule=") {
        Some((words, _)) => (words, command.find("--schedule=").map(|at| &command[at..])),
        None => (command, None),
    };
    std::iter::once("create")
        .chain(words.split_whitespace())
        .chain(schedule)
        .collect()
}

fn every_set_command(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run(&format!("create deployment web --image={ECHO} --replicas=0"))?;
    kubectl.run("create service clusterip web --tcp=80:8080")?;
    kubectl.run("create serviceaccount robot")?;
    kubectl.run("create configmap settings --from-literal=COLOR=green")?;
    kubectl.run("create role reader --verb=get --resource=pods")?;
    kubectl.run("create rolebinding readers --role=reader --user=ann")?;
    kubectl.run(&format!("set image deployment/web echo={TOOLBOX}"))?;
    kubectl.run("set env deployment/web A=1 B=2")?;
    kubectl.run("set env deployment/web --from=configmap/settings --prefix=SET_")?;
    kubectl.run("set env deployment/web B-")?;
    kubectl.run("set resources deployment/web --requests=cpu=10m --limits=memory=64Mi")?;
    kubectl.run("set serviceaccount deployment/web robot")?;
    kubectl.run("set selector service/web tier=front")?;
    kubectl.run("set subject rolebinding readers --user=bob")?;
    let spec = kubectl.json("get deployment web")?["spec"]["template"]["spec"].take();
    let container = &spec["containers"][0];
    let env: Vec<&str> = container["env"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    ensure!(env == ["A", "SET_COLOR"], "{env:?}");
    ensure!(
        container["image"] == TOOLBOX
            && container["resources"]["requests"]["cpu"] == "10m"
            && container["resources"]["limits"]["memory"] == "64Mi"
            && spec["serviceAccountName"] == "robot",
        "{spec}"
    );
    ensure!(
        kubectl.run("set env deployment/web --list")?.contains("A=1"),
        "set env --list"
    );
    ensure!(
        kubectl.path("get service web", "{.spec.selector}")? == r#"{"tier":"front"}"#,
        "set selector"
    );
    ensure!(
        kubectl.path("get rolebinding readers", "{.subjects[*].name}")? == "ann bob",
        "set subject"
    );
    Ok(())
}

fn replace_and_patch(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap plain --from-literal=a=1 --from-literal=b=2")?;
    let mut object = kubectl.json("get configmap plain")?;
    object["data"] = serde_json::json!({"c": "3"});
    kubectl.feed("replace -f -", &object.to_string())?;
    let data = || kubectl.path("get configmap plain", "{.data}");
    ensure!(data()? == r#"{"c":"3"}"#, "{}", data()?);
    // What was read before it was replaced is too old by now.
    let stale = kubectl.refused("replace -f -", Some(&object.to_string()))?;
    ensure!(
        stale.contains("the object has been modified; please apply your changes to the latest version"),
        "{stale}"
    );
    let uid = kubectl.path("get configmap plain", "{.metadata.uid}")?;
    kubectl.feed(
        "replace --force -f -",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"plain"},"data":{"d":"4"}}"#,
    )?;
    ensure!(
        kubectl.path("get configmap plain", "{.metadata.uid}")? != uid,
        "--force made no new one"
    );
    kubectl.args(&[
        "patch",
        "configmap",
        "plain",
        "--type=merge",
        "-p",
        r#"{"data":{"d":null,"e":"5"}}"#,
    ])?;
    ensure!(data()? == r#"{"e":"5"}"#, "merge: {}", data()?);
    let operations =
        r#"[{"op":"test","path":"/data/e","value":"5"},{"op":"add","path":"/data/f","value":"6"}]"#;
    kubectl.args(&["patch", "configmap", "plain", "--type=json", "-p", operations])?;
    ensure!(data()? == r#"{"e":"5","f":"6"}"#, "json: {}", data()?);
    let mismatch = kubectl
        .args(&[
            "patch",
            "configmap",
            "plain",
            "--type=json",
            "-p",
            r#"[{"op":"remove","path":"/data/z"}]"#,
        ])
        .err()
        .context("a path that is not there was removed")?
        .to_string();
    ensure!(mismatch.contains("doc is missing path: /data/z"), "{mismatch}");

    kubectl.run(&format!("create deployment web --image={ECHO} --replicas=0"))?;
    let sidecar = format!(
        r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"side","image":"{TOOLBOX}"}}]}}}}}}}}"#
    );
    kubectl.args(&["patch", "deployment", "web", "-p", &sidecar])?;
    ensure!(
        kubectl.path("get deployment web", "{.spec.template.spec.containers[*].name}")? == "side echo",
        "strategic"
    );
    kubectl.args(&[
        "patch",
        "deployment",
        "web",
        "--subresource=scale",
        "--type=merge",
        "-p",
        r#"{"spec":{"replicas":1}}"#,
    ])?;
    ensure!(
        kubectl.path("get deployment web", "{.spec.replicas}")? == "1",
        "--subresource=scale"
    );
    kubectl.run("scale deployment web --current-replicas=1 --replicas=0")?;
    let refused = kubectl.refused("scale deployment web --current-replicas=5 --replicas=2", None)?;
    ensure!(refused.contains("Expected replicas to be 5, was 0"), "{refused}");
    kubectl.run("delete deployment web").map(drop)
}

fn labels_and_annotations(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap one")?;
    kubectl.run("create configmap two")?;
    kubectl.run("label configmap one two tier=front")?;
    let refused = kubectl.refused("label configmap one tier=back", None)?;
    ensure!(
        refused.contains("'tier' already has a value (front), and --overwrite is false"),
        "{refused}"
    );
    kubectl.run("label configmap one tier=back --overwrite")?;
    ensure!(
        kubectl.run("label configmap one --list")?.contains("tier=back"),
        "--list"
    );
    kubectl.run("label configmap -l tier owner=us")?;
    kubectl.run("label configmap two tier-")?;
    ensure!(
        kubectl.path("get configmap two", "{.metadata.labels}")? == r#"{"owner":"us"}"#,
        "not removed"
    );
    let version = kubectl.path("get configmap one", "{.metadata.resourceVersion}")?;
    kubectl.run(&format!(
        "annotate configmap one note=1 --resource-version={version}"
    ))?;
    let stale = kubectl.refused(
        &format!("annotate configmap one note=2 --overwrite --resource-version={version}"),
        None,
    )?;
    ensure!(stale.contains("the object has been modified"), "{stale}");
    kubectl.run("annotate configmap one note-")?;
    let left = kubectl.path("get configmap one", "{.metadata.annotations}")?;
    ensure!(left.is_empty(), "annotations are left: {left}");
    let bad = kubectl.refused("label configmap one _bad_=x", None)?;
    ensure!(
        bad.contains("name part must consist of alphanumeric characters"),
        "{bad}"
    );
    Ok(())
}

fn waiting_for_things(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let late = kubectl.refused("wait --for=condition=Ready pod/nobody --timeout=1s", None)?;
    ensure!(late.contains("pods \"nobody\" not found"), "{late}");
    kubectl.run(&format!("run web --image={ECHO} --labels=app=web"))?;
    kubectl.run("wait --for=condition=Ready pod -l app=web --timeout=120s")?;
    kubectl.run("wait --for=jsonpath={.status.phase}=Running pod/web --timeout=60s")?;
    let late = kubectl.refused("wait --for=delete pod/web --timeout=1s", None)?;
    ensure!(late.contains("timed out waiting for the condition"), "{late}");
    let mut gone = kubectl.start("wait --for=delete pod/web --timeout=60s")?;
    kubectl.run("delete pod web --grace-period=1")?;
    ensure!(gone.wait()?.success(), "wait --for=delete");
    Ok(())
}

fn apply_from_a_folder_with_kustomization(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let folder = tempfile::tempdir()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
    write(
        "kustomization.yaml",
        "resources: [map.yaml]\nnamePrefix: my-\ncommonLabels: {part: all}\nconfigMapGenerator:\n\
         - name: made\n  literals: [a=1]\n",
    )?;
    write(
        "map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: given}\n",
    )?;
    let shown = folder.path().display();
    kubectl.run(&format!("apply -k {shown}"))?;
    let names = kubectl.run("get configmaps -l part=all -o name")?;
    ensure!(
        names.contains("configmap/my-given\n") && names.contains("configmap/my-made-"),
        "{names}"
    );
    kubectl.run(&format!("delete -k {shown}"))?;
    ensure!(
        kubectl.run("get configmaps -l part=all -o name")?.is_empty(),
        "something is left"
    );
    // A folder in a folder.
    let inner = folder.path().join("inner");
    std::fs::create_dir(&inner)?;
    std::fs::write(
        inner.join("deep.json"),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"deep"}}"#,
    )?;
    std::fs::remove_file(folder.path().join("kustomization.yaml"))?;
    kubectl.run(&format!("apply -R -f {shown}"))?;
    kubectl.run("get configmap given deep")?;
    kubectl.run(&format!("delete -R -f {shown}")).map(drop)
}

/// Serves one document over HTTP to each caller until `what` has ended.
fn serving<T>(document: &str, what: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/manifest.yaml", listener.local_addr()?);
    listener.set_nonblocking(true)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let Ok((mut stream, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(20));
                    continue;
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/yaml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{document}",
                    document.len()
                );
                // Who goes away half-way has failed by itself.
                let _told = stream
                    .set_nonblocking(false)
                    .and_then(|()| stream.read(&mut [0; 4096]))
                    .and_then(|_| stream.write_all(answer.as_bytes()));
            }
        });
        let done = what(&url);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        done
    })
}

fn apply_from_an_address(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let document = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: far}\ndata: {a: \"1\"}\n---\n\
                    apiVersion: v1\nkind: ConfigMap\nmetadata: {name: farther}\n";
    serving(document, |url| {
        let applied = kubectl.run(&format!("apply -f {url}"))?;
        ensure!(
            applied == "configmap/far created\nconfigmap/farther created\n",
            "{applied}"
        );
        let again = kubectl.run(&format!("apply -f {url}"))?;
        ensure!(
            again == "configmap/far unchanged\nconfigmap/farther unchanged\n",
            "{again}"
        );
        kubectl.run(&format!("delete -f {url}")).map(drop)
    })
}

fn what_was_applied_last(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let first =
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m"},"data":{"a":"early","b":"2"}}"#;
    kubectl.feed("create --save-config -f -", first)?;
    let last = kubectl.run("apply view-last-applied configmap m -o json")?;
    ensure!(last.contains("\"b\": \"2\""), "{last}");
    // What somebody else added stays, what was left out goes.
    kubectl.args(&[
        "patch",
        "configmap",
        "m",
        "--type=merge",
        "-p",
        r#"{"data":{"theirs":"x"}}"#,
    ])?;
    kubectl.feed("apply -f -", &first.replace(",\"b\":\"2\"", ""))?;
    ensure!(
        kubectl.path("get configmap m", "{.data}")? == r#"{"a":"early","theirs":"x"}"#,
        "{}",
        kubectl.path("get configmap m", "{.data}")?
    );
    let mut edit = kubectl.command(&["apply", "edit-last-applied", "configmap/m"]);
    edit.env("EDITOR", "sed -i s/early/late/");
    keelson_tests::process::succeed(edit, None)?;
    ensure!(
        kubectl
            .run("apply view-last-applied configmap m")?
            .contains("late"),
        "edit-last-applied"
    );
    Ok(())
}

fn applied_and_pruned(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let map = |name: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: ours}}}}\n---\n")
    };
    let both = map("stays") + &map("goes");
    kubectl.feed("apply -f -", &both)?;
    let pruned = kubectl.feed(
        "apply --prune -l set=ours --prune-allowlist=core/v1/ConfigMap -f -",
        &map("stays"),
    )?;
    ensure!(pruned.contains("configmap/goes pruned"), "{pruned}");
    eventually("pruning", Duration::from_secs(10), || {
        let names = kubectl.run("get configmaps -l set=ours -o name")?;
        ensure!(names == "configmap/stays\n", "{names}");
        Ok(())
    })
}
