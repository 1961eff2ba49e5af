//! Files that change all at once: a program that reads several of them never sees half an update.
//!
//! The files are in a folder of their own whose name is a time; `..data` is a link to it, and every name the
//! program sees is a link through `..data`. An update writes a new folder and moves one link.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// One file to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its contents.
    pub data: Vec<u8>,
    /// Its permissions.
    pub mode: u32,
    /// Its owner, where it is not root.
    pub owner: Option<u32>,
}

/// Files by path below the volume.
pub type Payload = BTreeMap<PathBuf, File>;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Makes `folder` hold exactly `payload`. Does nothing if it already does.
///
/// # Errors
/// Those of the file system. The old files are then still in place.
pub fn write(folder: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    let data = folder.join(DATA);
    let old = fs::read_link(&data).ok();
    if old.is_some() && is_current(&data, payload) {
        return Ok(());
    }
    let fresh = format!(
        "..{}.{:09}",
        Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"),
        rand::random_range(0..1_000_000_000u32)
    );
    let fresh_path = folder.join(&fresh);
    folder_with_mode(&fresh_path)?;
    for (path, file) in payload {
        let target = fresh_path.join(path);
        if let Some(parent) = target.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        fs::write(&target, &file.data)?;
        let owner = file.owner.map(Into::into);
        nix::unistd::chown(&target, owner, group.map(Into::into))?;
        // A group of the pod's own may read what it could read as root.
        let for_group = if group.is_some() {
            0o040 | ((file.mode & 0o100) >> 3)
        } else {
            0
        };
        fs::set_permissions(&target, fs::Permissions::from_mode(file.mode | for_group))?;
    }
    if group.is_some() {
        nix::unistd::chown(&fresh_path, None, group.map(Into::into))?;
    }
    let next = folder.join(DATA_NEXT);
    let _ = fs::remove_file(&next);
    symlink(&fresh, &next)?;
    fs::rename(&next, &data)?;
    link_names(folder, payload)?;
    if let Some(old) = old {
        fs::remove_dir_all(folder.join(old))?;
    }
    Ok(())
}

fn folder_with_mode(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

fn is_current(data: &Path, payload: &Payload) -> bool {
    let same =
        |(path, file): (&PathBuf, &File)| fs::read(data.join(path)).is_ok_and(|bytes| bytes == file.data);
    payload.iter().all(same) && count_files(data) == payload.len()
}

fn count_files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .map(|entry| {
            if entry.path().is_dir() {
                count_files(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

/// The names at the top: one link for the first part of every path.
fn link_names(folder: &Path, payload: &Payload) -> io::Result<()> {
    let names: std::collections::BTreeSet<&std::ffi::OsStr> = payload
        .keys()
        .filter_map(|path| path.components().next())
        .map(|part| part.as_os_str())
        .collect();
    for name in &names {
        let link = folder.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new(DATA).join(name), &link)?;
        }
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("..") && !names.contains(name.as_os_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, text)| {
                (
                    PathBuf::from(path),
                    File {
                        data: text.as_bytes().into(),
                        mode: 0o644,
                        owner: None,
                    },
                )
            })
            .collect()
    }

    #[test]
    fn updates_move_one_link() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        write(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).expect("written");
        assert_eq!((at("a").as_deref(), at("d/b").as_deref()), (Some("1"), Some("2")));
        let first = fs::read_link(dir.path().join(DATA)).expect("a link");
        write(dir.path(), &payload(&[("a", "1"), ("d/b", "2")]), None).expect("unchanged");
        assert_eq!(fs::read_link(dir.path().join(DATA)).expect("a link"), first);
        write(dir.path(), &payload(&[("a", "3")]), None).expect("written");
        assert_eq!((at("a").as_deref(), at("d/b")), (Some("3"), None));
        assert!(!dir.path().join(first).exists());
        assert!(fs::symlink_metadata(dir.path().join("d")).is_err());
    }
}
