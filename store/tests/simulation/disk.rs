//! A member's disk: what was synced stays, a crash tears what was being written.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::PathBuf;
use std::sync::Arc;

use keelson_store::persist::DiskRoom;
use keelson_store::wal::disk::{Disk, SegmentFile};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 64;

/// The disk of one member. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    random: StdRng,
    files: BTreeMap<u64, Vec<u8>>,
    /// Deleted, but not durably so.
    deleted: BTreeMap<u64, Vec<u8>>,
    segment_bytes: u64,
    spare: bool,
    full: bool,
    /// Operations until the machine fails; `None` is never.
    fails_in: Option<u32>,
    failed: bool,
    sync_micros: u64,
    /// Time spent waiting for the disk in this step.
    spent: u64,
}

/// Where in an operation the machine fails.
pub enum Moment {
    Not,
    Before,
    During,
    After,
}

fn crashed() -> Error {
    Error::new(ErrorKind::BrokenPipe, "the machine failed")
}

impl SimDisk {
    /// A disk with segments of this size: small, so that the log begins new ones all the time.
    pub fn new(seed: u64, segment_bytes: u64) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                random: StdRng::seed_from_u64(seed),
                segment_bytes,
                files: BTreeMap::new(),
                deleted: BTreeMap::new(),
                spare: true,
                full: false,
                fails_in: None,
                failed: false,
                sync_micros: 500,
                spent: 0,
            })),
        }
    }

    /// Another disk with the same on it.
    pub fn copy(&self) -> Self {
        let inner = self.inner.lock();
        let copy = Self::new(0, inner.segment_bytes);
        copy.inner.lock().files = inner.files.clone();
        copy
    }

    /// The machine fails at the `operations`-th write from now.
    pub fn fail_in(&self, operations: u32) {
        self.inner.lock().fails_in = Some(operations);
    }

    /// Whether the machine has failed.
    pub fn has_failed(&self) -> bool {
        self.inner.lock().failed
    }

    /// The machine is started again: what was deleted a moment ago may be back.
    pub fn restart(&self) {
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        inner.failed = false;
        inner.fails_in = None;
        for (sequence, content) in std::mem::take(&mut inner.deleted) {
            if inner.random.random_bool(0.5) {
                inner.files.insert(sequence, content);
            }
        }
    }

    pub fn set_sync_micros(&self, micros: u64) {
        self.inner.lock().sync_micros = micros;
    }

    pub fn set_full(&self, full: bool) {
        self.inner.lock().full = full;
    }

    /// Time spent waiting since the last call to [`Self::take_spent`].
    pub fn spent(&self) -> u64 {
        self.inner.lock().spent
    }

    pub fn take_spent(&self) -> u64 {
        std::mem::take(&mut self.inner.lock().spent)
    }

    /// One more write, and whether the machine fails at it.
    pub fn moment(&self) -> Moment {
        let mut inner = self.inner.lock();
        inner.moment()
    }
}

impl Inner {
    fn moment(&mut self) -> Moment {
        if self.failed {
            return Moment::Before;
        }

        let wait = self.sync_micros;
        self.spent += self.random.random_range(wait / 2..=wait * 2);
        let Some(left) = &mut self.fails_in else {
            return Moment::Not;
        };
        if *left > 1 {
            *left -= 1;
            return Moment::Not;
        }
        self.failed = true;
        match self.random.random_range(0..4) {
            0 => Moment::Before,
            1 => Moment::After,
            _ => Moment::During,
        }
    }
}

impl Disk for SimDisk {
    fn segments(&self) -> Result<Vec<u64>> {
        Ok(self.inner.lock().files.keys().copied().collect())
    }

    fn open(&self, sequence: u64) -> Result<Box<dyn SegmentFile>> {
        Ok(Box::new(SimFile {
            disk: self.clone(),
            sequence,
        }))
    }

    fn create(&self, sequence: u64) -> Result<Box<dyn SegmentFile>> {
        let mut inner = self.inner.lock();
        if !inner.spare && inner.full {
            return Err(ErrorKind::StorageFull.into());
        }
        let moment = inner.moment();
        if matches!(moment, Moment::Not | Moment::After | Moment::During) {
            inner.spare = false;
            let zeros = vec![0; inner.segment_bytes as usize];
            inner.files.insert(sequence, zeros);
        }
        // The folder is synced with it: deletions before are durable.
        if matches!(moment, Moment::Not | Moment::After) {
            inner.deleted.clear();
        }
        if !matches!(moment, Moment::Not) {
            return Err(crashed());
        }
        drop(inner);
        self.open(sequence)
    }

    fn remove(&self, sequence: u64) -> Result<()> {
        let mut inner = self.inner.lock();
        let moment = inner.moment();
        if !matches!(moment, Moment::Before)
            && let Some(content) = inner.files.remove(&sequence)
        {
            inner.deleted.insert(sequence, content);
        }
        if !matches!(moment, Moment::Not) {
            return Err(crashed());
        }
        Ok(())
    }

    fn has_spare(&self) -> bool {
        let mut inner = self.inner.lock();
        if !inner.full {
            inner.spare = true;
        }
        inner.spare
    }

    fn path(&self, sequence: u64) -> PathBuf {
        PathBuf::from(format!("{sequence}.wal"))
    }

    fn segment_bytes(&self) -> u64 {
        self.inner.lock().segment_bytes
    }
}

impl DiskRoom for SimDisk {
    fn free_bytes(&self) -> Option<u64> {
        Some(if self.inner.lock().full { 0 } else { 1 << 40 })
    }

    fn prepare_segment(&self) -> bool {
        self.has_spare()
    }
}

struct SimFile {
    disk: SimDisk,
    sequence: u64,
}

impl SimFile {
    fn with<T>(&self, work: impl FnOnce(&mut Inner, &mut Vec<u8>) -> Result<T>) -> Result<T> {
        let mut inner = self.disk.inner.lock();
        let mut content = inner.files.remove(&self.sequence).ok_or(ErrorKind::NotFound)?;
        let result = work(&mut inner, &mut content);
        inner.files.insert(self.sequence, content);
        result
    }
}

impl SegmentFile for SimFile {
    fn length(&self) -> Result<u64> {
        self.with(|_, content| Ok(content.len() as u64))
    }

    fn read_exact_at(&self, buffer: &mut [u8], at: u64) -> Result<()> {
        self.with(|_, content| {
            let at = at as usize;
            let part = content
                .get(at..at + buffer.len())
                .ok_or(ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })
    }

    fn write_and_sync(&self, data: &[u8], at: u64) -> Result<()> {
        self.with(|inner, content| {
            let at = at as usize;
            if content.len() < at + data.len() {
                content.resize(at + data.len(), 0);
            }
            let moment = inner.moment();
            match moment {
                Moment::Before => {}
                Moment::Not | Moment::After => content[at..at + data.len()].copy_from_slice(data),
                Moment::During => {
                    let mut start = at;
                    while start < at + data.len() {
                        let end = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(at + data.len());
                        if inner.random.random_bool(0.5) {
                            content[start..end].copy_from_slice(&data[start - at..end - at]);
                        }
                        start = end;
                    }
                }
            }
            match moment {
                Moment::Not => Ok(()),
                _ => Err(crashed()),
            }
        })
    }

    fn clear_from(&self, at: u64) -> Result<()> {
        self.with(|inner, content| {
            let moment = inner.moment();
            if !matches!(moment, Moment::Before) {
                content.truncate(at as usize);
                content.resize(inner.segment_bytes as usize, 0);
            }
            match moment {
                Moment::Not => Ok(()),
                _ => Err(crashed()),
            }
        })
    }
}
