//! A root file system as a tar. The same contents give the same bytes, and so the same digest, every time.

use std::collections::BTreeSet;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// A layer being written.
pub struct Layer {
    tar: Builder<Vec<u8>>,
    folders: BTreeSet<String>,
}

impl Default for Layer {
    fn default() -> Self {
        Self::new()
    }
}

impl Layer {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self {
            tar: Builder::new(Vec::new()),
            folders: BTreeSet::new(),
        }
    }

    /// Adds a file, and the folders above it.
    ///
    /// # Errors
    /// When the path does not fit into a tar.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) -> std::io::Result<()> {
        self.parents(path)?;
        let mut header = header(EntryType::Regular, mode);
        header.set_size(contents.len() as u64);
        self.tar.append_data(&mut header, path, contents)
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// When the path does not fit into a tar.
    pub fn folder(&mut self, path: &str, mode: u32) -> std::io::Result<()> {
        self.parents(path)?;
        if self.folders.insert(path.to_owned()) {
            let mut header = header(EntryType::Directory, mode);
            self.tar
                .append_data(&mut header, format!("{path}/"), std::io::empty())?;
        }
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// When the path does not fit into a tar.
    pub fn link(&mut self, path: &str, target: &str) -> std::io::Result<()> {
        self.parents(path)?;
        let mut header = header(EntryType::Symlink, 0o777);
        self.tar.append_link(&mut header, path, target)
    }

    /// The tar.
    ///
    /// # Errors
    /// Never in memory; the tar writer's signature has one.
    pub fn finish(self) -> std::io::Result<Vec<u8>> {
        self.tar.into_inner()
    }

    fn parents(&mut self, path: &str) -> std::io::Result<()> {
        match Path::new(path).parent().and_then(Path::to_str) {
            None | Some("") => Ok(()),
            Some(parent) => self.folder(parent, 0o755),
        }
    }
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
