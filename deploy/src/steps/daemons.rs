//! The supervisor and with it every process of the cluster.

use std::fs::OpenOptions;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::preflight::Machine;
use crate::cluster::Cluster;
use crate::supervisor::{self, Verb};
use crate::{system, units};

/// How long the supervisor may take to answer; it starts processes and does not wait for them.
const SUPERVISOR_START: Duration = Duration::from_secs(10);

pub(crate) async fn run(cluster: &Cluster, machine: &Machine) -> anyhow::Result<((), String)> {
    let paths = &cluster.paths;
    crate::kernel::remember(paths)?;
    let units = units::write(cluster, &machine.containerd.display().to_string())?;
    let own = std::env::current_exe().context("finding keeladm itself")?;
    let log_path = paths.log("supervisor");
    if let Some(folder) = log_path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&log_path)
        .with_context(|| format!("opening {}", log_path.display()))?;
    let mut child = tokio::process::Command::new(own)
        .arg("supervise")
        .args(["--name", &cluster.parameters.name])
        .arg("--dir")
        .arg(&paths.dir)
        .arg("--run-dir")
        .arg(&paths.run_dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("sharing the log file")?)
        .stderr(log)
        .env("PATH", path_with_system_folders())
        .spawn()
        .context("starting the supervisor")?;
    let deadline = Instant::now() + SUPERVISOR_START;
    while !supervisor::running(paths).await {
        if let Some(status) = child.try_wait().context("waiting for the supervisor")? {
            bail!("the supervisor ended with {status}; see {}", log_path.display());
        }
        if Instant::now() > deadline {
            bail!("the supervisor does not answer; see {}", log_path.display());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    supervisor::ask(paths, Verb::Status, &[]).await?;
    Ok(((), format!("{} processes started", units.len())))
}

/// The runtime and CNI plugins call runc, mount, iptables by name.
fn path_with_system_folders() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let mut folders: Vec<&str> = own.split(':').filter(|folder| !folder.is_empty()).collect();
    for folder in system::SYSTEM_FOLDERS.iter().copied().chain(["/usr/bin", "/bin"]) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders.join(":")
}
