//! The folders of sled's files, of which one is in use.
//!
//! sled locks its folder, so that nobody else opens it. To open a database a second time while the first is still read
//! from, a [`twin`] of its folder is made: a folder of its own in which the same files have a second name each. As long
//! as nothing is committed the two say the same, in files that both may read:
//!
//! - The slots that hold leaves are the same in both. A free slot, which is not a leaf's in either, may be written by
//!   the younger one; a slot that it frees and uses again may not as long as the older one is read from.
//! - Logs and snapshots of where the leaves are grow, come and go in one folder only: sled begins a new log when it
//!   opens, and writes snapshots under new names.
//!
//! The youngest folder counts. After a crash the others are deleted.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The first folder; its twins have a number behind.
const NAME: &str = "index";
/// A twin that may not be complete.
const UNFINISHED: &str = "index-unfinished";

/// What sled is just writing; not part of the database yet.
const TEMPORARY: &str = "tmp";

/// How often a twin is tried to be made while sled rewrites its snapshot, and how long it is waited in between.
const ATTEMPTS: usize = 50;
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Number of a folder; the youngest has the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Generation(u64);

impl Generation {
    /// Its folder in that of the applied state.
    #[must_use]
    pub fn folder(self, state: &Path) -> PathBuf {
        match self.0 {
            0 => state.join(NAME),
            number => state.join(format!("{NAME}-{number}")),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        match name.strip_prefix(NAME)? {
            "" => Some(Self(0)),
            number => number.strip_prefix('-')?.parse().ok().map(Self),
        }
    }
}

/// The generation that counts. Others, and what is left of unfinished ones, are deleted.
///
/// # Errors
/// When the system refuses.
pub fn newest(state: &Path) -> io::Result<Generation> {
    let mut found = BTreeSet::new();
    if state.exists() {
        for entry in std::fs::read_dir(state)? {
            found.extend(entry?.file_name().to_str().and_then(Generation::parse));
        }
        remove_if_there(&state.join(UNFINISHED))?;
    }
    let newest = found.pop_last().unwrap_or_default();
    for old in found {
        remove_if_there(&old.folder(state))?;
    }
    Ok(newest)
}

/// Makes the next generation, which says what this one does. Nothing may be committed meanwhile. `None`: sled did not
/// stop rewriting its snapshot; try again later.
///
/// # Errors
/// When the system refuses, because the file system knows no hard links, say.
pub fn twin(state: &Path, generation: Generation) -> io::Result<Option<Generation>> {
    let unfinished = state.join(UNFINISHED);
    for _ in 0..ATTEMPTS {
        remove_if_there(&unfinished)?;
        if link(&generation.folder(state), &unfinished)? {
            return finished(state, generation).map(Some);
        }
        std::thread::sleep(AGAIN_AFTER);
    }
    remove_if_there(&unfinished)?;
    Ok(None)
}

/// Makes the next generation of what `write` writes into a folder that is not there yet, and forgets this one.
///
/// # Errors
/// When `write` fails or the system refuses; this one counts then.
pub fn rewritten(
    state: &Path,
    generation: Generation,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<Generation> {
    let unfinished = state.join(UNFINISHED);
    remove_if_there(&unfinished)?;
    write(&unfinished)?;
    sync_all(&unfinished)?;
    let next = finished(state, generation)?;
    remove(state, generation)?;
    Ok(next)
}

/// What was unfinished becomes the generation after this one, and counts when this returns.
fn finished(state: &Path, generation: Generation) -> io::Result<Generation> {
    let next = Generation(generation.0 + 1);
    std::fs::rename(state.join(UNFINISHED), next.folder(state))?;
    File::open(state)?.sync_all()?;
    Ok(next)
}

/// Brings a folder and the files in it to the disk.
///
/// # Errors
/// When the system refuses.
pub fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sync_all(&path)?;
        } else {
            File::open(path)?.sync_all()?;
        }
    }
    File::open(folder)?.sync_all()
}

/// Takes a generation back that is not wanted after all: it does not count any more when this returns.
///
/// # Errors
/// When the system refuses.
pub fn take_back(state: &Path, generation: Generation) -> io::Result<()> {
    let unfinished = state.join(UNFINISHED);
    remove_if_there(&unfinished)?;
    std::fs::rename(generation.folder(state), &unfinished)?;
    File::open(state)?.sync_all()?;
    remove_if_there(&unfinished)
}

/// Deletes a generation that does not count any more.
///
/// # Errors
/// When the system refuses; the next start tries again.
pub fn remove(state: &Path, generation: Generation) -> io::Result<()> {
    remove_if_there(&generation.folder(state))
}

/// Gives the files of a folder, and those of the folders in it, a second name below `to`. `false`: files came or went
/// meanwhile.
fn link(from: &Path, to: &Path) -> io::Result<bool> {
    std::fs::create_dir(to)?;
    let names = list(from)?;
    for name in &names {
        let (from, to) = (from.join(name), to.join(name));
        let linked = if from.is_dir() {
            link(&from, &to)?
        } else {
            match std::fs::hard_link(&from, &to) {
                Ok(()) => true,
                Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                Err(error) => return Err(error),
            }
        };
        if !linked {
            return Ok(false);
        }
    }
    File::open(to)?.sync_all()?;
    Ok(list(from)? == names)
}

fn list(folder: &Path) -> io::Result<BTreeSet<OsString>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name();
        if Path::new(&name)
            .extension()
            .is_none_or(|extension| extension != TEMPORARY)
        {
            names.insert(name);
        }
    }
    Ok(names)
}

fn remove_if_there(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
