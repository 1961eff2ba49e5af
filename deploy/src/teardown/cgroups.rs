//! The control groups that pods ran in.

use std::path::{Path, PathBuf};

use crate::cluster::Paths;

/// The kubelet's top group.
const PODS: &str = "kubepods";
const MOUNT: &str = "/sys/fs/cgroup";

/// Removes the cluster's groups, which are empty by now.
pub(crate) async fn remove(paths: &Paths) -> anyhow::Result<((), String)> {
    let root = paths.cgroup_root();
    let own = root.trim_start_matches('/');
    // Version 1 has a tree for each controller, version 2 a single one.
    let mut hierarchies = vec![PathBuf::from(MOUNT)];
    hierarchies.extend(
        std::fs::read_dir(MOUNT)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path()),
    );
    let removed: usize = hierarchies
        .iter()
        .map(|hierarchy| {
            remove_tree(&if own.is_empty() {
                hierarchy.join(PODS)
            } else {
                hierarchy.join(own)
            })
        })
        .sum();
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
