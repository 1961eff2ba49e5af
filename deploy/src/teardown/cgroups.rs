//! The control groups that pods ran in.

use std::path::{Path, PathBuf};

/// The kubelet's top group.
const PODS: &str = "kubepods";
const MOUNT: &str = "/sys/fs/cgroup";

/// Removes the groups that nothing runs in; another cluster's stay because they are in use.
pub(crate) async fn remove() -> anyhow::Result<((), String)> {
    // Version 1 has a tree for each controller, version 2 a single one.
    let mut roots = vec![PathBuf::from(MOUNT)];
    roots.extend(
        std::fs::read_dir(MOUNT)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    let removed: usize = roots.iter().map(|root| remove_tree(&root.join(PODS))).sum();
    Ok((
        (),
        if removed == 0 {
            "none".into()
        } else {
            format!("{removed} removed")
        },
    ))
}

fn remove_tree(group: &Path) -> usize {
    let inner: usize = std::fs::read_dir(group)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| remove_tree(&entry.path()))
        .sum();
    inner + usize::from(std::fs::remove_dir(group).is_ok())
}
