//! One file of the log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;

use super::WalError;
use super::record::{self, Found, Record};

/// Size of a segment. With its spare the log of an idle store takes twice this.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// Kept free in the last segment of a full disk for what Raft itself has to write.
pub const RESERVE_BYTES: u64 = 512 << 10;

const EXTENSION: &str = "wal";
const SPARE_NAME: &str = "spare";

/// An open segment.
pub struct Segment {
    /// Number of the segment, counted from 1.
    pub sequence: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes written so far.
    pub bytes: u64,
    /// Index of the last entry in it or before it.
    pub last_index: u64,
    file: File,
}

impl Segment {
    /// Takes the spare file, or makes one, and gives it its name.
    ///
    /// # Errors
    /// When the disk has no room for it.
    pub fn create(folder: &Path, sequence: u64, spare: &SpareSlot) -> Result<Self, WalError> {
        let file = spare.take()?;
        let path = folder.join(format!("{sequence:016x}.{EXTENSION}"));
        std::fs::rename(folder.join(SPARE_NAME), &path)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(io("beginning the segment", &path))?;
        Ok(Self {
            sequence,
            path,
            bytes: 0,
            last_index: 0,
            file,
        })
    }

    /// Reads a segment from its start. In the `last` one, what is not a whole record is cut off.
    ///
    /// # Errors
    /// When it cannot be read, or is damaged and not the last.
    pub fn replay(
        path: &Path,
        sequence: u64,
        last: bool,
        take: &mut dyn FnMut(Record),
    ) -> Result<Self, WalError> {
        let content = std::fs::read(path).map_err(io("reading the segment", path))?;
        let mut at = 0;
        let mut last_index = 0;
        let torn = loop {
            match record::decode(sequence, &content[at..]) {
                Found::Record(record, bytes) => {
                    if let Record::Entry(entry) = &record {
                        last_index = entry.index;
                    }
                    take(record);
                    at += bytes;
                }
                Found::End => break None,
                Found::Invalid(reason) => break Some(reason),
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io("opening the segment", path))?;
        if let Some(reason) = torn
            && !last
        {
            return Err(WalError::Damaged {
                path: path.to_owned(),
                offset: at as u64,
                reason: reason.into(),
            });
        }
        if last {
            if let Some(reason) = torn {
                tracing::warn!(segment = %path.display(), offset = at, reason, "cutting off the torn end of the log");
            }
            // Zeros behind the last record, whatever stood there, so that it stays the last.
            let clean = content[at..].iter().all(|byte| *byte == 0);
            if !clean || (content.len() as u64) < SEGMENT_BYTES {
                file.set_len(at as u64).map_err(io("cutting the segment", path))?;
                allocate(&file).map_err(io("allocating the segment", path))?;
                file.sync_all().map_err(io("syncing the segment", path))?;
            }
        }
        Ok(Self {
            sequence,
            path: path.to_owned(),
            bytes: at as u64,
            last_index,
            file,
        })
    }

    /// Whether nothing has been written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Appends and waits for the disk.
    ///
    /// # Errors
    /// When the system refused.
    pub fn write(&mut self, data: &[u8]) -> Result<(), WalError> {
        self.file
            .write_all_at(data, self.bytes)
            .and_then(|()| self.file.sync_data())
            .map_err(io("writing the segment", &self.path))?;
        self.bytes += data.len() as u64;
        Ok(())
    }
}

/// The segments of a folder by number.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(folder: &Path) -> Result<Vec<(u64, PathBuf)>, WalError> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(folder).map_err(io("listing", folder))?;
    for entry in entries {
        let path = entry.map_err(io("listing", folder))?.path();
        if path.extension().is_none_or(|extension| extension != EXTENSION) {
            continue;
        }
        let sequence = path
            .file_stem()
            .and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
        if let Some(sequence) = sequence {
            found.push((sequence, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The next segment, allocated before it is needed: whoever has it can go on writing on a full disk, and a
/// writer does not wait for the file system to find room.
pub struct SpareSlot {
    folder: PathBuf,
    file: Mutex<Option<File>>,
}

impl SpareSlot {
    /// An empty slot.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            file: Mutex::new(None),
        }
    }

    /// Whether a spare is there.
    #[must_use]
    pub fn is_full(&self) -> bool {
        // While it is being filled the lock is held and the answer is no.
        self.file.try_lock().is_some_and(|file| file.is_some())
    }

    /// Makes a spare if there is none.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn fill(&self) -> Result<(), WalError> {
        let mut slot = self.file.lock();
        if slot.is_none() {
            *slot = Some(self.make()?);
        }
        Ok(())
    }

    fn take(&self) -> Result<File, WalError> {
        match self.file.lock().take() {
            Some(file) => Ok(file),
            None => self.make(),
        }
    }

    fn make(&self) -> Result<File, WalError> {
        let path = self.folder.join(SPARE_NAME);
        let make = || {
            let file = OpenOptions::new()
                .create(true)
                .truncate(true)
                .read(true)
                .write(true)
                .open(&path)?;
            allocate(&file)?;
            file.sync_all()?;
            Ok(file)
        };
        make().map_err(|error: std::io::Error| {
            // A half-made file would only hold on to the room that is missing.
            let _ = std::fs::remove_file(&path);
            io("allocating", &path)(error)
        })
    }
}

fn allocate(file: &File) -> std::io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, SEGMENT_BYTES as i64) {
        Ok(()) => Ok(()),
        // File systems without preallocation: a sparse file at least keeps its length.
        Err(nix::errno::Errno::EOPNOTSUPP) => file.set_len(SEGMENT_BYTES),
        Err(errno) => Err(errno.into()),
    }
}

fn io<'a>(attempt: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> WalError + 'a {
    move |source| WalError::Io {
        attempt,
        path: path.to_owned(),
        source,
    }
}
