//! The node's disk fills up.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::{ECHO, Setting, TOOLBOX};
use keelson_tests::process::{eventually, run};

use crate::Stage;
use crate::kills::Application;

/// The disk's size, and how much of it has to be free; in mebibytes.
const DISK: u64 = 1024;
const THRESHOLD: u64 = 200;
/// Size of an image that nobody uses.
const IMAGE: u64 = 80;
const UNUSED: &str = "images.test/unused:1";
/// The node is looked at every ten seconds, and tells how it is as often.
const NOTICED: Duration = Duration::from_secs(90);
/// Long enough for the pressure to be seen from outside.
const TRANSITION: &str = "25s";

/// Where the stories of this file are told.
pub fn setting() -> Setting {
    Setting {
        disk: Some(DISK),
        flags: vec![
            format!(
                "kubelet.eviction-hard=memory.available<50Mi,nodefs.available<{THRESHOLD}Mi,imagefs.available<{THRESHOLD}Mi"
            ),
            format!("kubelet.eviction-pressure-transition-period={TRANSITION}"),
            // Images go because of the pressure, or not at all.
            "kubelet.image-gc-high-threshold=100".to_owned(),
        ],
        ..Setting::default()
    }
}

/// What is free on the cluster's disk, in mebibytes.
fn available(stage: &Stage) -> Result<u64> {
    let disk = nix::sys::statvfs::statvfs(stage.cluster.directory())?;
    Ok((disk.blocks_available() * disk.fragment_size()) >> 20)
}

/// An image of one file of noise, in the format of `docker save`.
fn import_unused(stage: &Stage) -> Result<()> {
    // Not on the disk that is short.
    let folder = tempfile::Builder::new().tempdir_in("/dev/shm")?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    run(
        "dd",
        &[
            "if=/dev/urandom",
            &format!("of={}", at("noise")),
            "bs=1M",
            &format!("count={IMAGE}"),
        ],
    )?;
    let tar = |archive: &str, names: &[&str]| {
        let (archive, place) = (at(archive), folder.path().display().to_string());
        run("tar", &[&["-cf", &archive, "-C", &place], names].concat())
    };
    tar("layer.tar", &["noise"])?;
    let digest = run("sha256sum", &[at("layer.tar")])?;
    let digest = digest.split_whitespace().next().context("a digest")?;
    let write =
        |name: &str, value: serde_json::Value| std::fs::write(folder.path().join(name), value.to_string());
    write(
        "config.json",
        serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}}),
    )?;
    write(
        "manifest.json",
        serde_json::json!([{"Config": "config.json", "RepoTags": [UNUSED], "Layers": ["layer.tar"]}]),
    )?;
    std::fs::remove_file(Path::new(&at("noise")))?;
    tar("image.tar", &["manifest.json", "config.json", "layer.tar"])?;
    stage.cluster.images(&["import", &at("image.tar")]).map(drop)
}

fn has_image(stage: &Stage) -> Result<bool> {
    Ok(stage
        .cluster
        .images(&["list", "-q"])?
        .lines()
        .any(|name| name == UNUSED))
}

/// Lets the pod write until so much is free, in mebibytes.
fn write_until_free(stage: &Stage, file: &str, left: u64) -> Result<()> {
    let free = available(stage)?;
    let count = free
        .checked_sub(left)
        .with_context(|| format!("only {free} MiB are free"))?;
    stage
        .kubectl
        .run(&format!(
            "exec greedy -- dd if=/dev/zero of=/data/{file} bs=1M count={count}"
        ))
        .map(drop)
}

pub fn a_full_disk_is_emptied(stage: &Stage) -> Result<()> {
    let kubectl = &stage.kubectl;
    let application = Application::start(stage, "modest")?;
    let pod = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"greedy"}},"spec":{{"terminationGracePeriodSeconds":1,
        "containers":[{{"name":"c","image":"{TOOLBOX}","command":["sleep","3600"],
        "volumeMounts":[{{"name":"data","mountPath":"/data"}}]}}],"volumes":[{{"name":"data","emptyDir":{{}}}}]}}}}"#
    );
    kubectl.feed("create -f -", &pod)?;
    kubectl.run("wait --for=condition=Ready pod/greedy --timeout=120s")?;
    import_unused(stage)?;
    ensure!(has_image(stage)?, "{UNUSED} was not imported");
    ensure!(
        available(stage)? > THRESHOLD + IMAGE,
        "the disk is too small: {} MiB are free",
        available(stage)?
    );

    // Less is missing than the image takes: it goes, and every pod stays.
    write_until_free(stage, "first", THRESHOLD - IMAGE / 2)?;
    eventually("the image's end", NOTICED, || {
        ensure!(!has_image(stage)?, "{UNUSED} is still there");
        Ok(())
    })?;
    eventually("room", Duration::from_secs(10), || {
        let free = available(stage)?;
        ensure!(free > THRESHOLD, "only {free} MiB are free");
        Ok(())
    })?;
    let pressure = "get nodes -o jsonpath={.items[0].status.conditions[?(@.type==\"DiskPressure\")].status}";
    kubectl.until(pressure, |status| status == "False")?;
    ensure!(
        kubectl.path("get pod greedy", "{.status.phase}")? == "Running",
        "a pod was evicted though there was an image to remove"
    );

    // Now there is nothing but pods that takes room.
    write_until_free(stage, "second", THRESHOLD - 50)?;
    kubectl.until(
        "get pod greedy -o jsonpath={.status.phase}/{.status.reason}",
        |status| status == "Failed/Evicted",
    )?;
    let message = kubectl.path("get pod greedy", "{.status.message}")?;
    ensure!(
        message.starts_with("The node was low on resource: ephemeral-storage. Threshold quantity: "),
        "{message}"
    );
    kubectl.until(pressure, |status| status == "True")?;
    let taints = "get nodes -o jsonpath={.items[0].spec.taints[*].key}";
    kubectl.until(taints, |keys| keys.contains("node.kubernetes.io/disk-pressure"))?;
    kubectl.run(&format!("run late --image={ECHO}"))?;
    kubectl.until(
        "get pod late -o jsonpath={.status.conditions[?(@.type==\"PodScheduled\")].message}",
        |message| message.contains("had untolerated taint"),
    )?;
    // Its volume went with it, and so the pressure goes.
    kubectl.until(pressure, |status| status == "False")?;
    kubectl.until(taints, |keys| !keys.contains("disk-pressure"))?;
    kubectl.run("wait --for=condition=Ready pod/late --timeout=120s")?;
    application.still_the_same("modest")?;
    kubectl.run("delete deployment,service modest")?;
    kubectl.run("delete pod greedy late --now").map(drop)
}
