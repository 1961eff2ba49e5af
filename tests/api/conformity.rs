//! schemathesis on the OpenAPI documents: what it makes of them is sent, and every answer has to be what the documents
//! say, or a `Status` that says the same as the code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use keelson_tests::cluster::binaries;
use keelson_tests::control_plane::ControlPlane;
use keelson_tests::process::{output, succeed, text};

/// As much of the documents is tried as this time is enough for.
const SECONDS: &str = "60";
const PACKAGE: &str = "schemathesis==4.32.5";

/// The interpreter of an environment that has schemathesis; `None` where no packages can be had.
fn python() -> Result<Option<PathBuf>> {
    let programs = binaries()?;
    let folder = programs
        .parent()
        .context("the build's folder")?
        .join("schemathesis");
    let python = folder.join("bin/python");
    let mut asked = Command::new(&python);
    asked.args(["-c", "import schemathesis"]);
    if python.exists() && output(asked, None)?.status.success() {
        return Ok(Some(python));
    }
    let mut made = Command::new("/usr/bin/python3");
    made.args(["-m", "venv"]).arg(&folder);
    succeed(made, None).context("making an environment for Python (Debian package python3-venv)")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--retries=1", PACKAGE]);
    let installed = output(pip, None)?;
    if installed.status.success() {
        return Ok(Some(python));
    }
    let why = text(&installed.stderr);
    // What pip says when no index of packages answers.
    if why.contains("NewConnectionError") || why.contains("Temporary failure in name resolution") {
        eprintln!("skipped: {PACKAGE} cannot be downloaded here: {why}");
        return Ok(None);
    }
    bail!("installing {PACKAGE}: {why}");
}

#[test]
fn answers_are_what_the_documents_say() -> Result<()> {
    let Some(python) = python()? else {
        return Ok(());
    };
    let plane = ControlPlane::up(|_, _| Ok(Vec::new()))?;
    let mut command = Command::new(python);
    command
        .arg("-B")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("api/conformity.py"))
        .arg(format!("https://127.0.0.1:{}", plane.port))
        .args(["ca.crt", "admin.crt", "admin.key"].map(|name| plane.path(name)))
        .arg(SECONDS)
        // Elsewhere than in the sources, where the tests are run.
        .env("HYPOTHESIS_STORAGE_DIRECTORY", plane.path("hypothesis"));
    println!("{}", succeed(command, None)?);
    Ok(())
}
