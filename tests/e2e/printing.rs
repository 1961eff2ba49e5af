//! Everything `kubectl get` can print, and in which order.

use std::io::{BufRead, BufReader};

use anyhow::{Context as _, Result, ensure};

use crate::{Stage, Story};

pub const STORIES: &[Story] = &[
    ("every_output_format", every_output_format),
    ("choosing_and_sorting", choosing_and_sorting),
    ("watching_events", watching_events),
];

fn three_maps(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    for (name, size, tier) in [("a", "3", "front"), ("b", "1", "back"), ("c", "2", "front")] {
        kubectl.run(&format!("create configmap {name} --from-literal=size={size}"))?;
        kubectl.run(&format!("label configmap {name} tier={tier}"))?;
    }
    Ok(())
}

fn every_output_format(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    three_maps(stage)?;
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.display().to_string())
    };
    let go = file("template", "{{range .items}}{{.data.size}};{{end}}")?;
    let path = file("path", "{range .items[*]}{.data.size};{end}")?;
    let columns = file("columns", "NAME          SIZE\n.metadata.name .data.size\n")?;
    let only = "-l tier";
    let get = |output: &str| kubectl.args(&["get", "configmaps", "-l", "tier", "-o", output]);

    let json: serde_json::Value = serde_json::from_str(&get("json")?)?;
    ensure!(
        json["kind"] == "List" && json["items"].as_array().is_some_and(|items| items.len() == 3),
        "{json}"
    );
    ensure!(get("yaml")?.contains("kind: ConfigMap"), "yaml");
    ensure!(get("name")? == "configmap/a\nconfigmap/b\nconfigmap/c\n", "name");
    ensure!(get("wide")?.starts_with("NAME"), "wide");
    for output in [
        "go-template={{range .items}}{{.data.size}};{{end}}".to_owned(),
        "jsonpath={range .items[*]}{.data.size};{end}".to_owned(),
        format!("go-template-file={go}"),
        format!("templatefile={go}"),
        format!("jsonpath-file={path}"),
    ] {
        let printed = get(&output)?;
        ensure!(printed == "3;1;2;", "{output}: {printed}");
    }
    let array: serde_json::Value = serde_json::from_str(&get("jsonpath-as-json={.items[*].data.size}")?)?;
    ensure!(array == serde_json::json!(["3", "1", "2"]), "{array}");
    for output in [
        "custom-columns=NAME:.metadata.name,SIZE:.data.size".to_owned(),
        format!("custom-columns-file={columns}"),
    ] {
        let printed = get(&output)?;
        let rows: Vec<Vec<&str>> = printed
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        ensure!(
            rows == [["NAME", "SIZE"], ["a", "3"], ["b", "1"], ["c", "2"]],
            "{output}: {printed}"
        );
    }
    let managed = kubectl.run(&format!("get configmaps {only} -o yaml --show-managed-fields"))?;
    ensure!(
        managed.contains("managedFields:") && !get("yaml")?.contains("managedFields:"),
        "{managed}"
    );
    Ok(())
}

fn choosing_and_sorting(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    three_maps(stage)?;
    let names = |words: &str| -> Result<Vec<String>> {
        let printed = kubectl.run(&format!("get configmaps {words} --no-headers"))?;
        Ok(printed
            .lines()
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect())
    };
    for (words, wanted) in [
        ("-l tier --sort-by=.data.size", "b c a"),
        ("-l tier --sort-by={.metadata.name}", "a b c"),
        ("-l tier=front", "a c"),
        ("-l tier==front", "a c"),
        ("-l tier!=front,tier", "b"),
        ("--field-selector=metadata.name=b", "b"),
        ("--field-selector=metadata.name!=b -l tier", "a c"),
        ("-l tier --chunk-size=1", "a b c"),
        ("-l tier --server-print=false", "a b c"),
        ("a c", "a c"),
    ] {
        let printed = names(words)?.join(" ");
        ensure!(printed == wanted, "{words}: {printed}, not {wanted}");
    }
    let within = kubectl.args(&["get", "configmaps", "-o", "name", "-l", "tier in (front, middle)"])?;
    ensure!(within == "configmap/a\nconfigmap/c\n", "{within}");
    let notin = kubectl.args(&[
        "get",
        "configmaps",
        "-o",
        "name",
        "-l",
        "tier,tier notin (front, middle)",
    ])?;
    ensure!(notin == "configmap/b\n", "{notin}");
    let labels = kubectl.run("get configmaps a --show-labels")?;
    ensure!(
        labels.contains("LABELS") && labels.contains("tier=front"),
        "{labels}"
    );
    let column = kubectl.run("get configmaps b -L tier")?;
    ensure!(column.contains("TIER") && column.contains("back"), "{column}");
    let kinds = kubectl.run("get configmaps/a serviceaccounts/default --show-kind")?;
    ensure!(
        kinds.contains("configmap/a") && kinds.contains("serviceaccount/default"),
        "{kinds}"
    );
    let all = kubectl.run("get configmaps -A")?;
    ensure!(
        all.contains("NAMESPACE") && all.contains(&stage.namespace),
        "{all}"
    );
    let absent = kubectl.run("get configmap nobody --ignore-not-found")?;
    ensure!(absent.is_empty(), "{absent}");
    let refused = kubectl.refused("get configmap nobody", None)?;
    ensure!(
        refused.contains("Error from server (NotFound): configmaps \"nobody\" not found"),
        "{refused}"
    );
    ensure!(kubectl.run("get --raw /healthz")? == "ok", "--raw");
    let file = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#;
    ensure!(kubectl.feed("get -o name -f -", file)? == "configmap/c\n", "-f");
    let refused = kubectl.refused("get", None)?;
    ensure!(
        refused.contains("You must specify the type of resource to get"),
        "{refused}"
    );
    Ok(())
}

fn watching_events(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    kubectl.run("create configmap seen --from-literal=a=1")?;
    let mut watch =
        kubectl.start("get configmaps --field-selector=metadata.name=seen --output-watch-events -w")?;
    let mut lines = BufReader::new(watch.stdout.take().context("the watch's output")?).lines();
    let told = (|| -> Result<()> {
        let mut next = || {
            lines
                .next()
                .context("the watch ended")?
                .context("the watch's output")
        };
        ensure!(next()?.starts_with("EVENT"), "no column for events");
        ensure!(next()?.contains("ADDED"), "nothing added");
        kubectl.run("annotate configmap seen note=one")?;
        ensure!(next()?.contains("MODIFIED"), "nothing changed");
        kubectl.run("label configmap seen note=two")?;
        ensure!(next()?.contains("MODIFIED"), "nothing changed");
        kubectl.run("delete configmap seen")?;
        ensure!(next()?.contains("DELETED"), "nothing deleted");
        Ok(())
    })();
    watch.kill()?;
    watch.wait()?;
    told
}
