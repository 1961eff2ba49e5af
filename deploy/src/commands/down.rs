//! `keeladm down`.

use std::process::ExitCode;

use crate::cluster::Paths;
use crate::progress::{Progress, human};
use crate::teardown::{cgroups, files, mounts, network, pods, processes};

/// Whether the cluster's data goes too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Files {
    /// Everything is removed.
    Remove,
    /// Objects, certificates and images stay for the next `up`.
    Keep,
}

/// Undoes what it finds, whatever state it is in: a second `down` finds nothing and says so.
pub(crate) async fn run(paths: Paths, keep: Files) -> anyhow::Result<ExitCode> {
    let exists = paths.load()?.is_some() || paths.run_dir.exists();
    if !exists {
        println!("no cluster in {}", paths.dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    if !nix::unistd::geteuid().is_root() {
        anyhow::bail!("taking a cluster down needs root: run this as root, for instance with sudo");
    }
    let progress = Progress::start(&format!("Taking down the cluster in {}", paths.dir.display()));
    progress
        .step("control plane", processes::stop_daemons(&paths))
        .await?;
    progress.step("pods", pods::remove(&paths)).await?;
    progress
        .step("containerd", processes::stop_supervisor(&paths))
        .await?;
    progress
        .step("leftovers", processes::kill_leftovers(&paths))
        .await?;
    progress.step("network", network::remove(&paths)).await?;
    progress.step("mounts", mounts::remove(&paths)).await?;
    progress.step("cgroups", cgroups::remove(&paths)).await?;
    progress.step("files", files::remove(&paths, keep)).await?;
    println!("\nIt took {}.", human(progress.elapsed()));
    Ok(ExitCode::SUCCESS)
}
