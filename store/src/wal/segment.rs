//! One file of the log.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;

use super::WalError;
use super::record::{self, Found, Record};

/// Size of a segment. With its spare the log of an idle store takes twice this.
pub const SEGMENT_BYTES: u64 = 8 << 20;

/// Kept free in the last segment of a full disk for what Raft itself has to write.
pub const RESERVE_BYTES: u64 = 512 << 10;

/// Read at a time.
const WINDOW_BYTES: usize = 128 << 10;

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
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .map_err(io("opening the segment", path))?;
        let length = file.metadata().map_err(io("reading the segment", path))?.len();
        let mut window = Window {
            file: &file,
            buffer: Vec::new(),
            taken: 0,
            start: 0,
            length,
        };
        let mut last_index = 0;
        let torn = loop {
            window.fill(8).map_err(io("reading the segment", path))?;
            // A record that claims to be longer than the file is found invalid with what there is.
            let want = record::claimed_bytes(window.bytes());
            window.fill(want).map_err(io("reading the segment", path))?;
            match record::decode(sequence, window.bytes()) {
                Found::Record(record, bytes) => {
                    if let Record::Entry(entry) = &record {
                        last_index = entry.index;
                    }
                    take(record);
                    window.advance(bytes);
                }
                Found::End => break None,
                Found::Invalid(reason) => break Some(reason),
            }
        };
        let at = window.start;
        if let Some(reason) = torn
            && !last
        {
            return Err(WalError::Damaged {
                path: path.to_owned(),
                offset: at,
                reason: reason.into(),
            });
        }
        if last {
            if let Some(reason) = torn {
                tracing::warn!(segment = %path.display(), offset = at, reason, "cutting off the torn end of the log");
            }
            // Zeros behind the last record, whatever stood there, so that it stays the last.
            let clean = window.rest_is_zero().map_err(io("reading the segment", path))?;
            if !clean || length < SEGMENT_BYTES {
                file.set_len(at).map_err(io("cutting the segment", path))?;
                allocate(&file).map_err(io("allocating the segment", path))?;
                file.sync_all().map_err(io("syncing the segment", path))?;
            }
        }
        Ok(Self {
            sequence,
            path: path.to_owned(),
            bytes: at,
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

/// A segment being read, a piece in memory at a time.
struct Window<'a> {
    file: &'a File,
    buffer: Vec<u8>,
    /// Where in the buffer the part begins that was not taken yet.
    taken: usize,
    /// Where in the file that is.
    start: u64,
    length: u64,
}

impl Window<'_> {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.taken..]
    }

    /// Has at least `want` bytes in memory, or all there are.
    fn fill(&mut self, want: usize) -> std::io::Result<()> {
        let have = self.bytes().len();
        let end = self.start + have as u64;
        if have >= want || end >= self.length {
            return Ok(());
        }
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let missing = (want - have).max(WINDOW_BYTES) as u64;
        let more = missing.min(self.length - end) as usize;
        self.buffer.resize(have + more, 0);
        self.file.read_exact_at(&mut self.buffer[have..], end)
    }

    fn advance(&mut self, bytes: usize) {
        self.taken += bytes;
        self.start += bytes as u64;
    }

    fn rest_is_zero(&mut self) -> std::io::Result<bool> {
        loop {
            self.fill(1)?;
            if self.bytes().is_empty() {
                return Ok(true);
            }
            if self.bytes().iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            self.advance(self.bytes().len());
        }
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
    slot: Mutex<Slot>,
}

#[derive(Default)]
struct Slot {
    file: Option<File>,
    /// When the disk had no room for one.
    failed: Option<Instant>,
}

/// How long a disk that had no room is not asked again.
const ASK_AGAIN: Duration = Duration::from_millis(300);

impl SpareSlot {
    /// An empty slot.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            slot: Mutex::default(),
        }
    }

    /// Makes a spare if there is none, and says whether there is one then. A disk that had no room a moment
    /// ago is not asked again.
    pub fn ensure(&self) -> bool {
        let mut slot = self.slot.lock();
        if slot.file.is_some() {
            return true;
        }
        if slot.failed.is_some_and(|failed| failed.elapsed() < ASK_AGAIN) {
            return false;
        }
        match self.make() {
            Ok(file) => {
                slot.file = Some(file);
                slot.failed = None;
                true
            }
            Err(error) => {
                tracing::debug!(%error, "no room for the next segment");
                slot.failed = Some(Instant::now());
                false
            }
        }
    }

    fn take(&self) -> Result<File, WalError> {
        match self.slot.lock().file.take() {
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
