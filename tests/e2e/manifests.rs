//! Tutorials, section 4: the manifests the tutorials print, verbatim.

use anyhow::{Result, ensure};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("the_tutorials_manifests", the_tutorials_manifests),
    (
        "broken_indentation_names_the_line",
        broken_indentation_names_the_line,
    ),
    ("a_node_port_out_of_range", a_node_port_out_of_range),
    ("apply_edit_and_apply_again", apply_edit_and_apply_again),
    ("yaml_json_and_several_documents", yaml_json_and_several_documents),
];

const NGX_DEPLOYMENT: &str = include_str!("../manifests/ngx-deployment.yaml");
const NGX_SERVICE: &str = include_str!("../manifests/ngx-service.yaml");
const HELLO_NODE: &str = include_str!("../manifests/hello-node-pod.yaml");
const MISINDENTED: &str = include_str!("../manifests/hello-node-pod-misindented.yaml");
const RAILSAPP: &str = include_str!("../manifests/railsapp-service.yaml");

fn the_tutorials_manifests(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.feed("apply -f -", NGX_DEPLOYMENT)?;
    kubectl.feed("apply -f -", NGX_SERVICE)?;
    kubectl.feed("apply -f -", HELLO_NODE)?;
    let deployment = kubectl.json("get deployment ngx")?;
    ensure!(
        deployment["apiVersion"] == "apps/v1",
        "{}",
        deployment["apiVersion"]
    );
    kubectl.until("get pods -l run=ngx -o name", |pods| pods.lines().count() == 1)?;
    ensure!(
        kubectl.path("get svc ngx", "{.spec.ports[0].targetPort}")? == "80",
        "the service's port"
    );
    ensure!(
        kubectl.path("get pod hello-node", "{.spec.containers[0].image}")? == "hello-node:v1",
        "the pod's image"
    );
    Ok(())
}

fn broken_indentation_names_the_line(stage: &Stage) -> Result<()> {
    let refused = stage.kubectl.refused("create -f -", Some(MISINDENTED))?;
    ensure!(refused.contains("line 2"), "{refused}");
    Ok(())
}

fn a_node_port_out_of_range(stage: &Stage) -> Result<()> {
    let refused = stage.kubectl.refused("create -f -", Some(RAILSAPP))?;
    let wanted = "spec.ports[0].nodePort: Invalid value: 36000: provided port is not in the valid range. \
                  The range of valid ports is 30000-32767";
    ensure!(refused.contains(wanted), "{refused}");
    let given = RAILSAPP.replace("36000", "0");
    stage.kubectl.feed("create -f -", &given)?;
    Ok(())
}

fn apply_edit_and_apply_again(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.feed("apply -f -", NGX_SERVICE)?;
    let again = kubectl.feed("apply -f -", NGX_SERVICE)?;
    ensure!(again.contains("unchanged"), "{again}");
    let changed = kubectl.feed("apply -f -", &NGX_SERVICE.replace("port: 80\n", "port: 81\n"))?;
    ensure!(changed.contains("configured"), "{changed}");
    ensure!(
        kubectl.path("get svc ngx", "{.spec.ports[*].port}")? == "81",
        "the port list was not merged by key"
    );

    let mut edit = kubectl.command(&["edit", "service", "ngx"]);
    edit.env("EDITOR", "sed -i s/port:\\ 81/port:\\ 82/");
    keelson_tests::process::succeed(edit, None)?;
    ensure!(
        kubectl.path("get svc ngx", "{.spec.ports[*].port}")? == "82",
        "the edit was lost"
    );
    let labelled =
        NGX_SERVICE
            .replace("port: 80\n", "port: 82\n")
            .replacen("run: ngx", "run: ngx\n    tier: front", 1);
    let diff = keelson_tests::process::output(kubectl.command(&["diff", "-f", "-"]), Some(&labelled))?;
    let shown = keelson_tests::process::text(&diff.stdout);
    ensure!(
        diff.status.code() == Some(1) && shown.contains("+    tier: front"),
        "diff: {diff:?}"
    );
    Ok(())
}

fn yaml_json_and_several_documents(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let two = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {a: \"1\"}\n---\n\
               apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\ndata: {a: \"2\"}\n";
    kubectl.feed("apply -f -", two)?;
    let folder = tempfile::tempdir()?;
    std::fs::write(
        folder.path().join("three.json"),
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"three"},"data":{"a":"3"}}"#,
    )?;
    std::fs::write(
        folder.path().join("four.yaml"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: four}\nstringData: {a: b}\n",
    )?;
    kubectl.run(&format!("apply -f {}", folder.path().display()))?;
    for (name, value) in [("one", "1"), ("two", "2"), ("three", "3")] {
        ensure!(
            kubectl.path(&format!("get configmap {name}"), "{.data.a}")? == value,
            "{name}"
        );
    }
    ensure!(
        kubectl.path("get secret four", "{.data.a}")? == "Yg==",
        "stringData"
    );
    kubectl.run("delete configmap one two three")?;
    Ok(())
}
