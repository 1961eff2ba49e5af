//! Inputs that are kept: one file each, in a folder of their decoder.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// All inputs of a folder, in the order of their names. A folder that is not there has none.
///
/// # Panics
/// When a file cannot be read.
#[must_use]
pub fn read(folder: &Path) -> Vec<Vec<u8>> {
    let Ok(files) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    let read = |path: PathBuf| match std::fs::read(&path) {
        Ok(input) => input,
        Err(error) => panic!("reading {}: {error}", path.display()),
    };
    paths.into_iter().map(read).collect()
}

/// Adds an input under a name made of its content, and returns where it is.
///
/// # Panics
/// When it cannot be written.
pub fn keep(folder: &Path, why: &str, input: &[u8]) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let path = folder.join(format!("{why}-{:016x}", hasher.finish()));
    let written = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&path, input));
    if let Err(error) = written {
        panic!("keeping {input:?} as {}: {error}", path.display());
    }
    path
}
