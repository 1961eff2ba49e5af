//! emptyDir: a folder that lives as long as its pod, on disk or in memory.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use nix::mount::{MntFlags, MsFlags};

/// Makes a folder on disk that everybody may use.
///
/// # Errors
/// Those of the file system.
pub fn on_disk(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    open_to_all(path)
}

fn open_to_all(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    if metadata.permissions().mode() & 0o777 != 0o777 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
    }
    Ok(())
}

/// Makes a folder in memory, of at most `size` bytes if that is given. One that is there already stays.
///
/// # Errors
/// Those of mounting.
pub fn in_memory(path: &Path, size: Option<i64>) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
    if !is_mount_point(path) {
        let options = size.filter(|size| *size > 0).map(|size| format!("size={size}"));
        nix::mount::mount(
            Some("tmpfs"),
            path,
            Some("tmpfs"),
            MsFlags::empty(),
            options.as_deref(),
        )?;
    }
    open_to_all(path)
}

/// Is another file system mounted here?
pub fn is_mount_point(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Some(parent) = path.parent() else { return true };
    match (fs::symlink_metadata(path), fs::metadata(parent)) {
        (Ok(own), Ok(parent)) => own.dev() != parent.dev(),
        _ => false,
    }
}

/// Takes away whatever is mounted in a folder, and then the folder.
///
/// # Errors
/// Those of the file system. A folder that is not there is no error.
pub fn remove(folder: &Path) -> io::Result<()> {
    unmount_below(folder)?;
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn unmount_below(folder: &Path) -> io::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut below: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|path| Path::new(path).starts_with(folder))
        .collect();
    // The deepest first.
    below.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for path in below {
        nix::mount::umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}
