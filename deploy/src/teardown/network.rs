//! Network rules, pods' interfaces and namespaces.

use anyhow::{Context, bail};
use tokio::process::Command;

use crate::cluster::Paths;
use crate::system;

pub(crate) async fn remove(paths: &Paths) -> anyhow::Result<((), String)> {
    let Some(cluster) = paths.load()? else {
        return Ok(((), "unknown cluster".into()));
    };
    let proxy = cluster.parameters.bin_dir.join("kube-proxy");
    if !paths.config("kube-proxy.yaml").exists() || !proxy.exists() {
        return Ok(((), "never configured".into()));
    }
    // kube-proxy knows best what it made.
    let output = Command::new(&proxy)
        .args(["--cleanup", "--config"])
        .arg(paths.config("kube-proxy.yaml"))
        .env(
            "PATH",
            format!(
                "{}:{}",
                std::env::var("PATH").unwrap_or_default(),
                system::SYSTEM_FOLDERS.join(":")
            ),
        )
        .output()
        .await
        .with_context(|| format!("running {}", proxy.display()))?;
    if !output.status.success() {
        bail!(
            "{} --cleanup: {}",
            proxy.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    super::hostports::remove().await?;
    crate::kernel::restore(paths)?;
    // The CNI library's notes of pods, which are gone; other runtimes' notes keep the folder.
    for folder in ["/var/lib/cni/results", "/var/lib/cni"] {
        let _ = std::fs::remove_dir(folder);
    }
    Ok(((), "rules, routes, CNI and kernel settings undone".into()))
}
