//! The cluster's folders.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::Context;

use crate::cluster::Paths;
use crate::commands::down::Files;

pub(crate) async fn remove(paths: &Paths, keep: Files) -> anyhow::Result<((), String)> {
    remove_folder(&paths.run_dir)?;
    if keep == Files::Keep {
        return Ok(((), format!("kept in {}", paths.dir.display())));
    }
    // Only what is ours: --dir may name a folder that holds other things, too.
    for name in OWN {
        remove_folder(&paths.dir.join(name))?;
    }
    for name in ["cluster.json", "admin.kubeconfig"] {
        match std::fs::remove_file(paths.dir.join(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing {name} in {}", paths.dir.display()));
            }
            _ => {}
        }
    }
    let empty = std::fs::remove_dir(&paths.dir).is_ok();
    Ok((
        (),
        format!(
            "{} {}",
            paths.dir.display(),
            if empty { "removed" } else { "emptied" }
        ),
    ))
}

/// Every folder that a cluster makes in its own.
const OWN: [&str; 10] = [
    "pki",
    "kubeconfig",
    "config",
    "images",
    "store",
    "containerd",
    "cni",
    "kubelet",
    "pod-logs",
    "logs",
];

fn remove_folder(folder: &Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", folder.display()))
        }
        _ => Ok(()),
    }
}
