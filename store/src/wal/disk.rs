//! Where the log's segments are: a folder, or what a simulation puts in its place.
//!
//! - [`Disk`], [`SegmentFile`]: what the log needs
//! - [`FolderDisk`]: files of a fixed size, allocated ahead, so that a full disk cannot stop a write half way

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use parking_lot::Mutex;

use super::SyncTimes;

/// Size of a segment in a folder. With its spare the log of an idle store takes twice this.
pub const SEGMENT_BYTES: u64 = 8 << 20;

const EXTENSION: &str = "wal";
const SPARE_NAME: &str = "spare";

/// A sync that takes longer than this is worth a line in the log.
const SLOW_SYNC: Duration = Duration::from_secs(1);

/// A folder of numbered segments.
pub trait Disk: Send {
    /// The numbers of the segments that are there, in order.
    ///
    /// # Errors
    /// When the folder cannot be read.
    fn segments(&self) -> std::io::Result<Vec<u64>>;

    /// Opens a segment.
    ///
    /// # Errors
    /// When it cannot be opened.
    fn open(&self, sequence: u64) -> std::io::Result<Box<dyn SegmentFile>>;

    /// Begins a segment of zeros; its name is on disk when this returns.
    ///
    /// # Errors
    /// When there is no room for it.
    fn create(&self, sequence: u64) -> std::io::Result<Box<dyn SegmentFile>>;

    /// Deletes a segment. It may come back after a crash.
    ///
    /// # Errors
    /// When the system refuses.
    fn remove(&self, sequence: u64) -> std::io::Result<()>;

    /// Whether [`Self::create`] has what it needs; makes it if it can.
    fn has_spare(&self) -> bool;

    /// What a segment is called in messages.
    fn path(&self, sequence: u64) -> PathBuf;

    /// Size of a segment.
    fn segment_bytes(&self) -> u64;
}

/// A segment's file.
pub trait SegmentFile: Send {
    /// Its length.
    ///
    /// # Errors
    /// When the system refuses.
    fn length(&self) -> std::io::Result<u64>;

    /// Fills the buffer from `at` on.
    ///
    /// # Errors
    /// When it ends before, or cannot be read.
    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<()>;

    /// Writes, and waits until it is on disk.
    ///
    /// # Errors
    /// When the system refuses; any part may or may not be on disk then.
    fn write_and_sync(&self, data: &[u8], at: u64) -> std::io::Result<()>;

    /// Makes everything from `at` on zeros, on disk.
    ///
    /// # Errors
    /// When the system refuses.
    fn clear_from(&self, at: u64) -> std::io::Result<()>;
}

/// Segments in a folder.
pub struct FolderDisk {
    folder: PathBuf,
    spare: Arc<SpareSlot>,
    syncs: Arc<SyncTimes>,
}

impl FolderDisk {
    /// The segments in `folder`, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(folder: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            spare: Arc::new(SpareSlot::new(folder)),
            syncs: Arc::default(),
        })
    }

    /// The slot for the next segment, to be refilled outside the thread that appends.
    #[must_use]
    pub fn spare(&self) -> Arc<SpareSlot> {
        self.spare.clone()
    }

    /// How long syncs take.
    #[must_use]
    pub fn syncs(&self) -> Arc<SyncTimes> {
        self.syncs.clone()
    }

    fn file(&self, file: File) -> Box<dyn SegmentFile> {
        Box::new(FolderFile {
            file,
            syncs: self.syncs.clone(),
        })
    }
}

impl Disk for FolderDisk {
    fn segments(&self) -> std::io::Result<Vec<u64>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let sequence = path
                .file_stem()
                .and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
            found.extend(sequence);
        }
        found.sort_unstable();
        Ok(found)
    }

    fn open(&self, sequence: u64) -> std::io::Result<Box<dyn SegmentFile>> {
        let path = self.path(sequence);
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(self.file(file))
    }

    fn create(&self, sequence: u64) -> std::io::Result<Box<dyn SegmentFile>> {
        let file = self.spare.take()?;
        std::fs::rename(self.folder.join(SPARE_NAME), self.path(sequence))?;
        File::open(&self.folder)?.sync_all()?;
        Ok(self.file(file))
    }

    fn remove(&self, sequence: u64) -> std::io::Result<()> {
        std::fs::remove_file(self.path(sequence))
    }

    fn has_spare(&self) -> bool {
        self.spare.ensure()
    }

    fn path(&self, sequence: u64) -> PathBuf {
        self.folder.join(format!("{sequence:016x}.{EXTENSION}"))
    }

    fn segment_bytes(&self) -> u64 {
        SEGMENT_BYTES
    }
}

struct FolderFile {
    file: File,
    syncs: Arc<SyncTimes>,
}

impl SegmentFile for FolderFile {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, at)
    }

    fn write_and_sync(&self, data: &[u8], at: u64) -> std::io::Result<()> {
        let started = Instant::now();
        self.file.write_all_at(data, at)?;
        self.file.sync_data()?;
        let took = started.elapsed();
        self.syncs.observe(took);
        if took > SLOW_SYNC {
            tracing::warn!(
                took_ms = took.as_millis() as u64,
                bytes = data.len(),
                "slow fdatasync: the disk of the write-ahead log holds every write up"
            );
        }
        Ok(())
    }

    fn clear_from(&self, at: u64) -> std::io::Result<()> {
        self.file.set_len(at)?;
        allocate(&self.file)?;
        self.file.sync_all()
    }
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

    fn take(&self) -> std::io::Result<File> {
        match self.slot.lock().file.take() {
            Some(file) => Ok(file),
            None => self.make(),
        }
    }

    fn make(&self) -> std::io::Result<File> {
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
        make().inspect_err(|_: &std::io::Error| {
            // A half-made file would only hold on to the room that is missing.
            let _ = std::fs::remove_file(&path);
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
