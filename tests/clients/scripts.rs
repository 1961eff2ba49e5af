//! The libraries of other languages: their stories are scripts and programs beside this file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::cluster::binaries;
use keelson_tests::process::{output, succeed, text};

use crate::{Stage, Story};

/// Names another interpreter that has Python's library, of another version for instance.
const PYTHON: &str = "KEELSON_TEST_PYTHON";
/// Debian's interpreter, which knows of Debian's libraries.
const DEBIANS_PYTHON: &str = "/usr/bin/python3";

const PYTHON_STORIES: &[&str] = &[
    "pods",
    "tunnels",
    "deployments",
    "watches",
    "applying",
    "custom",
    "leaders",
    "leases",
    "documents",
];
const NODE_STORIES: &[&str] = &[
    "pods",
    "tunnels",
    "deployments",
    "informers",
    "applying",
    "custom",
    "leases",
];

const OPERATOR_STORIES: &[&str] = &[
    "reconciling",
    "electing",
    "patching",
    "statuses",
    "paging",
    "kinds",
    "refusals",
];

fn beside(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(file)
}

/// A folder for what is downloaded and built once.
fn kept(name: &str) -> Result<PathBuf> {
    let programs = binaries()?;
    Ok(programs.parent().context("the build's folder")?.join(name))
}

/// Where the packages of JavaScript's library are kept.
fn packages() -> Result<PathBuf> {
    kept("client-node")
}

pub fn python() -> Vec<Story> {
    let tell = |story: &str, stage: &Stage| {
        let python = std::env::var_os(PYTHON).unwrap_or_else(|| DEBIANS_PYTHON.into());
        let mut command = Command::new(python);
        command
            .arg("-B")
            .arg(beside("stories.py"))
            .args([story, &stage.namespace])
            .arg(&stage.kubeconfig);
        succeed(command, None).map(drop)
    };
    of("python", PYTHON_STORIES, tell)
}

pub fn node() -> Vec<Story> {
    let tell = |story: &str, stage: &Stage| {
        let script = packages()?.join("stories.mjs");
        let mut command = Command::new("node");
        command
            .arg(script)
            .args([story, &stage.namespace])
            .arg(&stage.kubeconfig);
        succeed(command, None).map(drop)
    };
    of("node", NODE_STORIES, tell)
}

/// An operator written with client-go that speaks protobuf.
pub fn operator() -> Vec<Story> {
    let tell = |story: &str, stage: &Stage| {
        let mut command = Command::new(kept("client-go")?.join("operator"));
        command.args([story, &stage.namespace]).arg(&stage.kubeconfig);
        succeed(command, None).map(drop)
    };
    of("operator", OPERATOR_STORIES, tell)
}

fn of(
    language: &str,
    stories: &'static [&'static str],
    tell: impl Fn(&str, &Stage) -> Result<()> + Copy + Send + 'static,
) -> Vec<Story> {
    stories
        .iter()
        .map(|story| {
            let told = Box::new(move |stage: &Stage| tell(story, stage));
            (
                format!("{language}::{story}"),
                told as Box<dyn Fn(&Stage) -> Result<()> + Send>,
            )
        })
        .collect()
}

/// Installs JavaScript's library, as its lock file says, beside a copy of the script: that is where node looks for it.
pub fn fetch_packages() -> Result<()> {
    let folder = packages()?;
    std::fs::create_dir_all(&folder)?;
    std::fs::copy(beside("stories.mjs"), folder.join("stories.mjs"))?;
    let lock = std::fs::read(beside("package-lock.json"))?;
    if std::fs::read(folder.join("installed-lock.json")).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(beside(file), folder.join(file))?;
    }
    let mut command = Command::new("npm");
    command
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
            "--prefix",
        ])
        .arg(&folder);
    succeed(command, None)
        .context("installing JavaScript's library with npm (Debian packages nodejs, npm)")?;
    std::fs::write(folder.join("installed-lock.json"), lock)?;
    Ok(())
}

/// Builds the operator; whether it could be. Its libraries are those of Debian's source package of Kubernetes, which not
/// every mirror of packages has.
pub fn build_operator() -> Result<bool> {
    const NO_SOURCES: i32 = 75;
    let mut command = Command::new(beside("operator/build"));
    command.arg(kept("client-go")?);
    let built = output(command, None)?;
    let said = text(&built.stderr);
    if built.status.code() == Some(NO_SOURCES) {
        eprintln!("without the stories of client-go: its sources cannot be downloaded here: {said}");
        return Ok(false);
    }
    ensure!(
        built.status.success(),
        "building the operator with Go (Debian package golang-go): {said}"
    );
    Ok(true)
}
