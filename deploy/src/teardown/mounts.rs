//! Mounts below the cluster's folders: root file systems, volumes, shared memory of pods.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use nix::mount::{MntFlags, umount2};

use crate::cluster::Paths;

pub(crate) async fn remove(paths: &Paths) -> anyhow::Result<((), String)> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").context("reading /proc/self/mountinfo")?;
    let mounts = below(&table, &[&paths.dir, &paths.run_dir]);
    let mut failed = Vec::new();
    for mount in &mounts {
        if let Err(error) = umount2(mount, MntFlags::MNT_DETACH)
            // Unmounting its parent took it away.
            && error != nix::errno::Errno::EINVAL
            && error != nix::errno::Errno::ENOENT
        {
            failed.push(format!("{}: {error}", mount.display()));
        }
    }
    if !failed.is_empty() {
        bail!("unmounting: {}", failed.join("; "));
    }
    Ok((
        (),
        if mounts.is_empty() {
            "none".into()
        } else {
            format!("{} unmounted", mounts.len())
        },
    ))
}

/// Mount points at or below `folders`, the last mounted first.
fn below(table: &str, folders: &[&Path]) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(unescape(escaped)))
        .filter(|point| {
            folders
                .iter()
                .any(|folder| point.starts_with(folder) && point != folder)
        })
        .collect();
    found.reverse();
    found
}

/// Spaces and the like are octal in the table, proc(5).
fn unescape(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (code, character)| {
            text.replace(code, character)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mounts_below_the_folders_are_found() {
        let table = "30 1 8:1 / / rw - ext4 /dev/a rw\n\
                     31 30 0:30 / /var/lib/keelson/a\\040b rw - tmpfs tmpfs rw\n\
                     32 31 0:31 / /var/lib/keelson/a\\040b/c rw - tmpfs tmpfs rw\n\
                     33 30 0:32 / /var/lib/keelson-two/x rw - tmpfs tmpfs rw\n\
                     34 30 0:33 / /var/lib/keelson rw - ext4 /dev/b rw\n";
        let found = below(table, &[Path::new("/var/lib/keelson")]);
        assert_eq!(
            found,
            [
                Path::new("/var/lib/keelson/a b/c"),
                Path::new("/var/lib/keelson/a b")
            ]
        );
    }
}
