//! Our own images: built from the static programs, or taken ready-made, and imported into the runtime.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::UnixStream;
use tokio::process::Command;

use crate::cluster::{Cluster, Paths};
use crate::system;

/// CRI's namespace in containerd.
const NAMESPACE: &str = "k8s.io";

/// The archives to be imported. Built here unless `ready_made` names a folder of archives.
pub(crate) async fn build(
    cluster: &Cluster,
    ready_made: Option<&Path>,
) -> anyhow::Result<(Vec<PathBuf>, String)> {
    let archives = match ready_made {
        Some(folder) => archives_in(folder)?,
        None => {
            let folder = cluster.paths.dir.join("images");
            crate::images::build_all(&cluster.parameters.image_bin_dir, &folder)?
        }
    };
    Ok((archives.clone(), names(&archives)))
}

/// Imports the archives once the runtime answers.
pub(crate) async fn import(
    paths: &Paths,
    archives: &[PathBuf],
    timeout: Duration,
) -> anyhow::Result<((), String)> {
    wait_for_runtime(paths, timeout).await?;
    for archive in archives {
        import_one(paths, archive).await?;
    }
    Ok(((), names(archives)))
}

/// Imports one archive and returns the names of its images.
pub(crate) async fn import_one(paths: &Paths, archive: &Path) -> anyhow::Result<Vec<String>> {
    let archive = archive.display().to_string();
    // --no-unpack would leave the unpacking to the first pod's start.
    let said = ctr(paths, &["images", "import", &archive]).await?;
    Ok(said
        .lines()
        .filter_map(|line| line.strip_prefix("unpacking "))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect())
}

/// Gives an image a further name.
pub(crate) async fn tag(paths: &Paths, image: &str, name: &str) -> anyhow::Result<()> {
    ctr(paths, &["images", "tag", "--force", image, name])
        .await
        .map(drop)
}

/// Runs containerd's client in CRI's namespace and returns what it printed.
pub(crate) async fn ctr(paths: &Paths, arguments: &[&str]) -> anyhow::Result<String> {
    let program = system::program("ctr").context("ctr is not installed (Debian package containerd)")?;
    let output = Command::new(program)
        .arg("--address")
        .arg(paths.runtime_socket())
        .args(["--namespace", NAMESPACE])
        .args(arguments)
        .output()
        .await
        .context("running ctr")?;
    if !output.status.success() {
        bail!(
            "ctr {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn wait_for_runtime(paths: &Paths, timeout: Duration) -> anyhow::Result<()> {
    let socket = paths.runtime_socket();
    let deadline = Instant::now() + timeout;
    loop {
        match UnixStream::connect(&socket).await {
            Ok(_) => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(error)
                    .with_context(|| format!("containerd does not answer at {}", socket.display()));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn archives_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let reading = || format!("reading the images in {}", folder.display());
    let mut archives: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(reading)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(reading)?;
    archives.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
    archives.sort();
    if archives.is_empty() {
        bail!("{} holds no image archives (*.tar)", folder.display());
    }
    Ok(archives)
}

fn names(archives: &[PathBuf]) -> String {
    let names: Vec<_> = archives
        .iter()
        .filter_map(|path| path.file_stem()?.to_str())
        .collect();
    names.join(", ")
}
