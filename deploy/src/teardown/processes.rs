//! Processes: asked to stop through the supervisor, and those that nobody supervises any more by their ids.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::Paths;
use crate::supervisor::{self, Verb};
use crate::units::{DAEMONS, RUNTIME};

/// How long what was killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops all but the runtime, which is still needed to remove pods.
pub(crate) async fn stop_daemons(paths: &Paths) -> anyhow::Result<((), String)> {
    if !supervisor::running(paths).await {
        return Ok(((), "not running".into()));
    }
    // The kubelet first: it would start again what is removed.
    let names: Vec<String> = DAEMONS.iter().rev().map(|name| (*name).to_owned()).collect();
    supervisor::ask(paths, Verb::Stop, &names).await?;
    Ok(((), format!("{} daemons stopped", names.len())))
}

/// Ends the supervisor and with it the runtime.
pub(crate) async fn stop_supervisor(paths: &Paths) -> anyhow::Result<((), String)> {
    if !supervisor::running(paths).await {
        return Ok(((), "not running".into()));
    }
    supervisor::ask(paths, Verb::Shutdown, &[]).await?;
    let deadline = Instant::now() + PATIENCE;
    // It answers, then ends.
    while supervisor::running(paths).await && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(((), "stopped".into()))
}

/// Kills daemons that lost their supervisor, the runtime's shims, and what runs in containers still.
pub(crate) async fn kill_leftovers(paths: &Paths) -> anyhow::Result<((), String)> {
    let deadline = Instant::now() + PATIENCE;
    let mut killed = 0;
    // What was asked to end may still be at it.
    for _ in 0..10 {
        if leftovers(paths).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    loop {
        let left = leftovers(paths);
        if left.is_empty() {
            let said = if killed == 0 {
                "none".into()
            } else {
                format!("{killed} processes killed")
            };
            return Ok(((), said));
        }
        if Instant::now() > deadline {
            bail!("these processes of the cluster do not end: {left:?}");
        }
        for pid in &left {
            if kill(Pid::from_raw(*pid), Signal::SIGKILL).is_ok() {
                killed += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Processes whose command line names a file of this cluster the way only its own processes do.
pub(crate) fn leftovers(paths: &Paths) -> Vec<i32> {
    let own = std::process::id();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| u32::try_from(*pid).is_ok_and(|pid| pid != own))
        .filter(|pid| belongs(*pid, paths))
        .collect()
}

fn belongs(pid: i32, paths: &Paths) -> bool {
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<String> = command
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    is_ours(&arguments, paths)
}

fn is_ours(arguments: &[String], paths: &Paths) -> bool {
    let program = arguments
        .first()
        .and_then(|path| Path::new(path).file_name())
        .and_then(|name| name.to_str());
    let follows = |flag: &str, value: &Path| {
        arguments
            .windows(2)
            .any(|pair| pair[0] == flag && Path::new(&pair[1]) == value)
    };
    match program {
        Some("containerd-shim-runc-v2") => follows("-address", &paths.runtime_socket()),
        Some(RUNTIME) => follows("--config", &paths.config("containerd.toml")),
        Some("keeladm") => {
            arguments.get(1).is_some_and(|verb| verb == "supervise") && follows("--dir", &paths.dir)
        }
        Some(daemon) if DAEMONS.contains(&daemon) => {
            follows("--config", &paths.config(&format!("{daemon}.yaml")))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_clusters_processes_are_killed() {
        let paths = Paths {
            dir: "/var/lib/keelson".into(),
            run_dir: "/run/keelson".into(),
        };
        let command = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let ours = [
            "/x/kubelet --config /var/lib/keelson/config/kubelet.yaml",
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address /run/keelson/containerd/containerd.sock",
        ];
        let others = [
            "/x/kubelet --config /var/lib/keelson-two/config/kubelet.yaml",
            "/usr/bin/containerd-shim-runc-v2 -namespace k8s.io -id 1 -address /run/containerd/containerd.sock",
            "less /var/lib/keelson/config/kubelet.yaml",
            "/usr/bin/containerd",
        ];
        assert!(ours.iter().all(|line| is_ours(&command(line), &paths)));
        assert!(!others.iter().any(|line| is_ours(&command(line), &paths)));
    }
}
