//! The applied state in sled.
//!
//! sled 1.0.0-alpha.124 never lets go of a leaf that was written since it was opened (its eviction after a
//! flush looks at a mark that the flush has just cleared), so memory would grow with everything ever written.
//! The engine therefore closes and opens the database again once enough has been written: that costs
//! milliseconds, and only readers of old records wait for it.
//!
//! A failed flush leaves sled unusable. The caller checks for free space before it commits.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::{Batch, Engine, EngineError, Pressure, Visitor};

/// Records in a leaf, sled's unit of reading and writing. A leaf of pods is then about 80 KiB: small enough to
/// be read for one record, large enough to compress and to keep the tree's own index small. sled's cache keeps
/// at least one leaf in each of its 256 shards, so this also bounds what reading costs in memory.
const LEAF_FANOUT: usize = 16;

/// Memory for leaves that were read. The apiserver reads through its own cache; this serves its start.
const CACHE_BYTES: usize = 4 << 20;

/// Fast; the applied state is read back rarely and mostly as a whole.
const COMPRESSION_LEVEL: i32 = 1;

/// sled flushes when told to, not by its own clock. (No clock at all would make it flush whenever a handle
/// is dropped.)
const FLUSH_NEVER_MS: usize = u32::MAX as usize;

/// Written bytes that make opening again worth the pause while there is work.
const RECYCLE_BUSY_BYTES: usize = 24 << 20;
/// Written and read bytes that make it worth it while there is none.
const RECYCLE_IDLE_BYTES: usize = 2 << 20;

/// Handles for concurrent readers; a handle itself serves one thread at a time.
const READERS: usize = 2;

type Db = sled::Db<LEAF_FANOUT>;

/// The applied state in a folder.
pub struct SledEngine {
    path: PathBuf,
    handles: RwLock<Option<Handles>>,
    next_reader: AtomicUsize,
    written: AtomicUsize,
    read: AtomicUsize,
    disk_bytes: AtomicU64,
}

struct Handles {
    writer: Mutex<Db>,
    readers: Vec<Mutex<Db>>,
}

impl SledEngine {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// When sled refuses it or it is damaged.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let engine = Self {
            path: path.to_owned(),
            handles: RwLock::new(Some(open_handles(path)?)),
            next_reader: AtomicUsize::new(0),
            written: AtomicUsize::new(0),
            read: AtomicUsize::new(0),
            disk_bytes: AtomicU64::new(0),
        };
        engine.measure();
        Ok(engine)
    }

    fn fail(&self, attempt: &'static str, reason: impl ToString) -> EngineError {
        EngineError {
            attempt,
            path: self.path.display().to_string(),
            reason: reason.to_string(),
        }
    }

    fn with_reader<T>(
        &self,
        attempt: &'static str,
        read: impl FnOnce(&Db) -> std::io::Result<T>,
    ) -> Result<T, EngineError> {
        let handles = self.handles.read();
        let handles = handles
            .as_ref()
            .ok_or_else(|| self.fail(attempt, "the state is closed"))?;
        let start = self.next_reader.fetch_add(1, Ordering::Relaxed);
        // A reader that is free, or else the one whose turn it is.
        let reader = (0..READERS)
            .find_map(|offset| handles.readers[(start + offset) % READERS].try_lock())
            .unwrap_or_else(|| handles.readers[start % READERS].lock());
        guarded(|| read(&reader)).map_err(|error| self.fail(attempt, error))
    }

    fn measure(&self) {
        if let Some(handles) = self.handles.read().as_ref()
            && let Ok(bytes) = handles.writer.lock().size_on_disk()
        {
            self.disk_bytes.store(bytes, Ordering::Relaxed);
        }
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value = self.with_reader("reading a record", |db| Ok(db.get(key)?.map(Bytes::from_owner)))?;
        if let Some(value) = &value {
            self.read.fetch_add(value.len(), Ordering::Relaxed);
        }
        Ok(value)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        self.with_reader("reading records", |db| {
            for record in db.range::<&[u8], _>(from..to) {
                let (key, value) = record?;
                if visit(&key, &value).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        const ATTEMPT: &str = "writing the applied state";
        let bytes = batch.bytes();
        let mut changes = sled::Batch::default();
        for (key, value) in batch.writes {
            match value {
                Some(value) => changes.insert(key, &value[..]),
                None => changes.remove(key),
            }
        }
        {
            let handles = self.handles.read();
            let handles = handles
                .as_ref()
                .ok_or_else(|| self.fail(ATTEMPT, "the state is closed"))?;
            let writer = handles.writer.lock();
            guarded(|| {
                writer
                    .apply_batch(changes)
                    .and_then(|()| writer.flush().map(drop))
            })
            .map_err(|error| self.fail(ATTEMPT, error))?;
        }
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.measure();
        Ok(())
    }

    fn trim(&self, pressure: Pressure) -> Result<(), EngineError> {
        let written = self.written.load(Ordering::Relaxed);
        let read = self.read.load(Ordering::Relaxed);
        let worth = match pressure {
            Pressure::Busy => written >= RECYCLE_BUSY_BYTES,
            Pressure::Idle => written + read >= RECYCLE_IDLE_BYTES,
        };
        if !worth {
            return Ok(());
        }
        let mut handles = self.handles.write();
        drop(handles.take());
        *handles = Some(open_handles(&self.path)?);
        self.written.store(0, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    fn replace(&self, with: &Path) -> Result<(), EngineError> {
        const ATTEMPT: &str = "replacing the applied state by a snapshot";
        let mut handles = self.handles.write();
        drop(handles.take());
        let old = self.path.with_extension("old");
        let exchange = || -> std::io::Result<()> {
            if old.exists() {
                std::fs::remove_dir_all(&old)?;
            }
            std::fs::rename(&self.path, &old)?;
            std::fs::rename(with, &self.path)?;
            if let Some(parent) = self.path.parent() {
                std::fs::File::open(parent)?.sync_all()?;
            }
            std::fs::remove_dir_all(&old)
        };
        exchange().map_err(|error| self.fail(ATTEMPT, error))?;
        *handles = Some(open_handles(&self.path)?);
        self.written.store(0, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// sled answers damage with panics in places; to its user they are errors like others.
fn guarded<T>(work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(std::io::Error::other("the files are damaged")))
}

fn open_handles(path: &Path) -> Result<Handles, EngineError> {
    let fail = |reason: String| EngineError {
        attempt: "opening the applied state",
        path: path.display().to_string(),
        reason,
    };
    let config = sled::Config::new()
        .path(path)
        .cache_capacity_bytes(CACHE_BYTES)
        .zstd_compression_level(COMPRESSION_LEVEL)
        .flush_every_ms(Some(FLUSH_NEVER_MS));
    let mut attempts = 0;
    let writer = loop {
        match guarded(|| config.open::<LEAF_FANOUT>()) {
            Ok(db) => break db,
            // The lock of the instance that was just closed may live a moment longer.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && attempts < 100 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(fail(error.to_string())),
        }
    };
    let readers = (0..READERS).map(|_| Mutex::new(writer.clone())).collect();
    Ok(Handles {
        writer: Mutex::new(writer),
        readers,
    })
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;

    fn batch(range: std::ops::Range<u32>, size: usize) -> Batch {
        let mut batch = Batch::default();
        for number in range {
            batch.put(
                number.to_be_bytes().to_vec(),
                Bytes::from(vec![number as u8; size]),
            );
        }
        batch
    }

    /// Damage anywhere is noticed, or does not matter; it never makes other records of what was committed.
    #[test]
    fn damage_is_noticed_or_does_no_harm() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        {
            let engine = SledEngine::open(&path)?;
            engine.commit(batch(0..100, 300))?;
            engine.commit(batch(50..200, 100))?;
        }
        type Records = Vec<(Vec<u8>, Vec<u8>)>;
        let all = |path: &Path| -> Result<Records, EngineError> {
            let mut all = Records::new();
            SledEngine::open(path)?.scan(&[0], &[0xff; 5], &mut |key, value| {
                all.push((key.to_vec(), value.to_vec()));
                ControlFlow::Continue(())
            })?;
            Ok(all)
        };
        let whole = all(&path)?;
        let mut files = Vec::new();
        let mut folders = vec![path.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                match entry.file_type()?.is_dir() {
                    true => folders.push(entry.path()),
                    false => files.push(entry.path()),
                }
            }
        }
        let (mut noticed, mut lost) = (0, 0);
        for file in files {
            let content = std::fs::read(&file)?;
            let places = content.iter().enumerate().filter(|(_, byte)| **byte != 0);
            let places: Vec<usize> = places.map(|(place, _)| place).collect();
            for place in places.iter().step_by(places.len().div_ceil(12).max(1)) {
                let copy = folder.path().join("copy");
                let status = std::process::Command::new("cp")
                    .arg("-r")
                    .arg(&path)
                    .arg(&copy)
                    .status()?;
                assert!(status.success());
                let mut damaged = content.clone();
                damaged[*place] ^= 0x40;
                std::fs::write(copy.join(file.strip_prefix(&path)?), damaged)?;
                match all(&copy) {
                    Err(_) => noticed += 1,
                    Ok(found) if found == whole => {}
                    // An older state, or none: the log, which goes on later, shows that.
                    Ok(found) => {
                        lost += 1;
                        assert!(
                            found.is_empty() || found.len() == 100,
                            "damage of {file:?} at {place}"
                        );
                    }
                }
                std::fs::remove_dir_all(copy)?;
            }
        }
        println!("{noticed} noticed, {lost} fell back");
        assert!(noticed > 0);
        Ok(())
    }

    #[test]
    fn what_was_committed_is_there_after_opening_again() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        {
            let engine = SledEngine::open(&path)?;
            engine.commit(batch(0..1000, 2000))?;
            let mut more = batch(1000..1001, 5);
            more.remove(7_u32.to_be_bytes().to_vec());
            engine.commit(more)?;
            engine.trim(Pressure::Idle)?;
            assert_eq!(engine.get(&1000_u32.to_be_bytes())?.map(|v| v.len()), Some(5));
        }
        let engine = SledEngine::open(&path)?;
        assert_eq!(engine.get(&7_u32.to_be_bytes())?, None);
        let mut seen = 0;
        engine.scan(&[0], &[0xff; 5], &mut |_, _| {
            seen += 1;
            ControlFlow::Continue(())
        })?;
        assert_eq!(seen, 1000);
        Ok(())
    }
}
