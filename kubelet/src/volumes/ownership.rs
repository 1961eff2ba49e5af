//! Who may use a volume.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use crate::objects::PodExt;

/// The group that the pod's volumes belong to.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    pod.spec()
        .security_context
        .as_ref()?
        .fs_group
        .and_then(|group| u32::try_from(group).ok())
}

/// The one user that all containers run as, if there is one.
pub fn only_user(pod: &Pod) -> Option<u32> {
    let of_pod = pod
        .spec()
        .security_context
        .as_ref()
        .and_then(|context| context.run_as_user);
    let mut users = pod
        .init_containers()
        .iter()
        .chain(pod.containers())
        .map(|container| {
            container
                .security_context
                .as_ref()
                .and_then(|context| context.run_as_user)
                .or(of_pod)
        });
    let first = users.next()??;
    users.all(|user| user == Some(first)).then_some(())?;
    u32::try_from(first).ok()
}

/// Gives a folder and everything in it to a group, which may then read and write. A folder that is already the
/// group's is taken to be done, as with `fsGroupChangePolicy: OnRootMismatch`.
///
/// # Errors
/// Those of the file system.
pub fn give_to_group(folder: &Path, group: u32) -> io::Result<()> {
    let metadata = fs::metadata(folder)?;
    if metadata.gid() == group && metadata.mode() & 0o2070 == 0o2070 {
        return Ok(());
    }
    give(folder, group)
}

fn give(path: &Path, group: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    nix::unistd::chown(path, None, Some(group.into()))?;
    let more = if metadata.is_dir() { 0o2070 } else { 0o060 };
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | more))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), group)?;
        }
    }
    Ok(())
}
