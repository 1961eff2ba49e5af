//! hostPath: a file or folder of the node itself.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use crate::volumes::VolumeError;

/// Checks that the path is what it should be, making it where the type says so.
///
/// # Errors
/// When it is not. The texts are upstream's.
pub fn setup(source: &HostPathVolumeSource) -> Result<PathBuf, VolumeError> {
    let path = PathBuf::from(&source.path);
    let kind = source.type_.as_deref().unwrap_or_default();
    let not = |what: &str| {
        Err(VolumeError::HostPath(format!(
            "hostPath type check failed: {} is not {what}",
            path.display()
        )))
    };
    let found = fs::metadata(&path).ok().map(|metadata| metadata.file_type());
    match kind {
        // Without a type nothing is checked; a folder is made where there is nothing, as runtimes do.
        "" if found.is_none() => make_folder(&path)?,
        "DirectoryOrCreate" if found.is_none() => make_folder(&path)?,
        "FileOrCreate" if found.is_none() => make_file(&path)?,
        "Directory" | "DirectoryOrCreate" if !found.is_some_and(|found| found.is_dir()) => {
            return not("a directory");
        }
        "File" | "FileOrCreate" if !found.is_some_and(|found| found.is_file()) => return not("a file"),
        "Socket" if !found.is_some_and(|found| found.is_socket()) => return not("a socket file"),
        "CharDevice" if !found.is_some_and(|found| found.is_char_device()) => {
            return not("a character device");
        }
        "BlockDevice" if !found.is_some_and(|found| found.is_block_device()) => return not("a block device"),
        _ => {}
    }
    Ok(path)
}

fn wrap(path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    move |source| VolumeError::Io {
        path: path.into(),
        source,
    }
}

fn make_folder(path: &Path) -> Result<(), VolumeError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(wrap(path))
}

fn make_file(path: &Path) -> Result<(), VolumeError> {
    fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o644)
        .open(path)
        .map(drop)
        .map_err(wrap(path))
}
