//! The applied state in sled, with the longer values in files beside it ([`super::values`]).
//!
//! sled 1.0.0-alpha.124 never lets go of a leaf that was written since it was opened (its eviction after a
//! flush looks at a mark that the flush has just cleared), so memory would grow with everything ever written.
//! The engine therefore opens the database again once enough has been written. Nobody who reads waits for that: it is
//! opened a second time in a folder of its own with the same files ([`generations`]), readers move over, and the first
//! is closed when the last of them has left.
//!
//! A failed flush leaves sled unusable. The caller checks for free space before it commits.

pub mod generations;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::values::append::Append;
use super::values::record::{self, Place, Stored};
use super::values::{TALLIES, Tally, Values};
use super::{Batch, Engine, EngineError, Pressure, Visitor, Write};
use generations::Generation;

/// Records in a leaf, sled's unit of reading and writing. With values elsewhere a leaf is some KiB; what compressing one
/// costs beside its bytes counts for more than they do. sled's cache keeps at least one leaf in each of its 256 shards,
/// so this also bounds what reading costs in memory.
const LEAF_FANOUT: usize = 128;

/// The same in states of earlier versions, which are written anew when they are opened.
const FORMER_LEAF_FANOUT: usize = 64;

/// In the state's folder, beside sled's: the files of values.
const VALUES_FOLDER: &str = "values";

/// How often a value is looked for that is moved by the time it is read.
const LOOKS: usize = 10;

/// Memory for leaves that were read. The apiserver reads through its own cache; this serves its start.
const CACHE_BYTES: usize = 4 << 20;

/// Fast; the applied state is read back rarely and mostly as a whole.
const COMPRESSION_LEVEL: i32 = 1;

/// sled flushes when told to, not by its own clock. (No clock at all would make it flush whenever a handle
/// is dropped.)
const FLUSH_NEVER_MS: usize = u32::MAX as usize;

/// Written bytes that make opening again worth the work while there is other work.
const RECYCLE_BUSY_BYTES: usize = 24 << 20;
/// Written and read bytes that make it worth it while there is none.
const RECYCLE_IDLE_BYTES: usize = 2 << 20;

/// Handles for concurrent readers; a handle itself serves one thread at a time. More than there are long ranges read at
/// a time, so that a short one does not wait for them.
const READERS: usize = 8;

/// How long it is waited before looking again whether readers have left.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// sled moves leaves of a file that is emptier than this to its front, whenever it flushes, and it flushes when it is
/// closed. A database that is closed while another one has the same files must not touch them, so it never moves any;
/// free places are used again from the front.
const LEAVE_LEAVES: f32 = 0.0;

type Db = sled::Db<LEAF_FANOUT>;

/// The applied state in a folder.
pub struct SledEngine {
    path: PathBuf,
    /// Held for a moment, but by [`Engine::replace`]. Whoever reads takes the handles along.
    handles: RwLock<Option<Arc<Handles>>>,
    /// One changes files at a time.
    changing: Mutex<()>,
    next_reader: AtomicUsize,
    written: AtomicUsize,
    read: AtomicUsize,
    disk_bytes: AtomicU64,
}

struct Handles {
    writer: Mutex<Db>,
    readers: Vec<Mutex<Db>>,
    values: Arc<Values>,
    generation: Generation,
}

impl SledEngine {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// When sled refuses it or it is damaged.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let engine = Self {
            path: path.to_owned(),
            handles: RwLock::new(Some(Arc::new(open_newest(path)?))),
            changing: Mutex::new(()),
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

    fn handles(&self, attempt: &'static str) -> Result<Arc<Handles>, EngineError> {
        let handles = self.handles.read().clone();
        handles.ok_or_else(|| self.fail(attempt, "the state is closed"))
    }

    fn with_reader<T>(
        &self,
        attempt: &'static str,
        read: impl FnOnce(&Db, &Arc<Values>) -> std::io::Result<T>,
    ) -> Result<T, EngineError> {
        let handles = self.handles(attempt)?;
        let start = self.next_reader.fetch_add(1, Ordering::Relaxed);
        // A reader that is free, or else the one whose turn it is.
        let reader = (0..READERS)
            .find_map(|offset| handles.readers[(start + offset) % READERS].try_lock())
            .unwrap_or_else(|| handles.readers[start % READERS].lock());
        guarded(|| read(&reader, &handles.values)).map_err(|error| self.fail(attempt, error))
    }

    /// Closes the database and opens it, without anyone who reads waiting for it.
    fn open_anew(&self) -> Result<(), EngineError> {
        const ATTEMPT: &str = "giving back memory of the applied state";
        let _turn = self.changing.lock();
        let began = Instant::now();
        let old = self.handles(ATTEMPT)?;
        if self.open_again(&old)? {
            let opened = began.elapsed();
            // New readers have the new handles. Only when the last has left the old ones may what those see be changed.
            let old = sole(old);
            let generation = old.generation;
            drop(old);
            if let Err(error) = generations::remove(&self.path, generation) {
                tracing::warn!(%error, state = %self.path.display(), "deleting a folder of sled's that is not needed");
            }
            tracing::debug!(
                opened_ms = opened.as_millis() as u64,
                closed_ms = (began.elapsed() - opened).as_millis() as u64,
                "opened the applied state again to give back memory"
            );
        }
        self.written.store(0, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        Ok(())
    }

    /// Opens the database a second time and has readers use that from now on. If that does not work, a full disk may be
    /// why, they keep the first. Whether it did.
    fn open_again(&self, old: &Handles) -> Result<bool, EngineError> {
        const ATTEMPT: &str = "opening the applied state again";
        let twin = match generations::twin(&self.path, old.generation) {
            Ok(Some(twin)) => twin,
            Ok(None) => return Ok(false),
            Err(error) => {
                tracing::warn!(%error, state = %self.path.display(), "{ATTEMPT}");
                return Ok(false);
            }
        };
        match open_sled(&self.path, twin) {
            Ok(db) => {
                let new = handles(db, old.values.clone(), twin);
                *self.handles.write() = Some(Arc::new(new));
                Ok(true)
            }
            Err(error) => {
                tracing::warn!(%error, state = %self.path.display(), "{ATTEMPT}");
                generations::take_back(&self.path, twin).map_err(|error| self.fail(ATTEMPT, error))?;
                Ok(false)
            }
        }
    }

    fn measure(&self) {
        if let Some(handles) = self.handles.read().clone()
            && let Ok(bytes) = handles.writer.lock().size_on_disk()
        {
            self.disk_bytes
                .store(bytes + handles.values.disk_bytes(), Ordering::Relaxed);
        }
    }

    /// Looks several keys up; those that are elsewhere are read by the caller, without the lock of a handle.
    fn look_up(
        &self,
        keys: &[Vec<u8>],
        positions: &[usize],
        found: &mut [Option<Bytes>],
    ) -> Result<LookedUp, EngineError> {
        self.with_reader("reading records", |db, values| {
            let mut apart = Vec::new();
            let mut bytes = 0;
            for &position in positions {
                let Some(stored) = db.get(&keys[position])? else {
                    continue;
                };
                bytes += stored.len();
                match record::stored(&stored)? {
                    Stored::Inline => found[position] = Some(Bytes::from_owner(stored).slice(1..)),
                    Stored::Apart(place) => apart.push((place, position)),
                }
            }
            self.read.fetch_add(bytes, Ordering::Relaxed);
            Ok(LookedUp {
                apart,
                values: values.clone(),
            })
        })
    }

    /// Puts a batch and what it does to the files of values on disk.
    fn write(
        &self,
        handles: &Handles,
        attempt: &'static str,
        gather: &mut Gather<'_>,
    ) -> Result<(), EngineError> {
        let writer = handles.writer.lock();
        let mut written = 0;
        guarded(|| {
            let mut changes = sled::Batch::default();
            let mut append = handles.values.begin();
            gather(&writer, &mut append, &mut |key, stored| {
                written += key.len() + stored.as_ref().map_or(0, Vec::len);
                match stored {
                    Some(stored) => changes.insert(key, stored),
                    None => changes.remove(key),
                }
            })?;
            for (key, tally) in append.sync()? {
                match tally {
                    Some(tally) => changes.insert(key, tally),
                    None => changes.remove(key),
                }
            }
            writer.apply_batch(changes)?;
            writer.flush()?;
            append.settle();
            Ok(())
        })
        .map_err(|error| self.fail(attempt, error))?;
        self.written.fetch_add(written, Ordering::Relaxed);
        Ok(())
    }
}

/// Keys whose values are elsewhere, by their positions, and where.
struct LookedUp {
    apart: Vec<(Place, usize)>,
    values: Arc<Values>,
}

/// Is given sled, the files of values and where changes go.
type Gather<'g> =
    dyn FnMut(&Db, &mut Append<'_>, &mut dyn FnMut(Vec<u8>, Option<Vec<u8>>)) -> std::io::Result<()> + 'g;

/// Where a key's value is, if it is not in sled itself.
fn place_of(db: &Db, key: &[u8]) -> std::io::Result<Option<Place>> {
    match db.get(key)? {
        Some(stored) => match record::stored(&stored)? {
            Stored::Inline => Ok(None),
            Stored::Apart(place) => Ok(Some(place)),
        },
        None => Ok(None),
    }
}

impl Engine for SledEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.get_all(&[key.to_vec()])?.pop().flatten())
    }

    fn get_all(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, EngineError> {
        const ATTEMPT: &str = "reading records";
        let mut found = vec![None; keys.len()];
        let mut positions: Vec<usize> = (0..keys.len()).collect();
        for _ in 0..LOOKS {
            let LookedUp { mut apart, values } = self.look_up(keys, &positions, &mut found)?;
            if apart.is_empty() {
                return Ok(found);
            }
            values
                .read(&mut apart, keys, &mut found)
                .map_err(|error| self.fail(ATTEMPT, error))?;
            positions = apart
                .into_iter()
                .map(|(_, position)| position)
                .filter(|position| found[*position].is_none())
                .collect();
            if positions.is_empty() {
                return Ok(found);
            }
        }
        Err(self.fail(ATTEMPT, "a value is not where it should be"))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        let to = to.min(&TALLIES);
        if from >= to {
            return Ok(());
        }
        self.with_reader("reading records", |db, values| {
            for record in db.range::<&[u8], _>(from..to) {
                let (key, stored) = record?;
                let flow = match record::stored(&stored)? {
                    Stored::Inline => visit(&key, &stored[1..]),
                    Stored::Apart(_) => match scanned(db, values, &key)? {
                        Some(value) => visit(&key, &value),
                        None => continue,
                    },
                };
                if flow.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        const ATTEMPT: &str = "writing the applied state";
        {
            let _turn = self.changing.lock();
            let handles = self.handles(ATTEMPT)?;
            let mut writes = batch.writes;
            writes.sort_by(|(one, _), (other, _)| one.cmp(other));
            self.write(&handles, ATTEMPT, &mut |db, append, change| {
                for (position, (key, write)) in writes.iter().enumerate() {
                    // A later change of a key wins, so the last is the one whose value is wanted.
                    if writes.get(position + 1).is_some_and(|(next, _)| next == key) {
                        continue;
                    }
                    if !matches!(write, Write::Add(_))
                        && let Some(place) = place_of(db, key)?
                    {
                        append.release(place);
                    }
                    let stored = match write.value() {
                        Some(value) if value.len() > record::INLINE_BYTES => {
                            Some(record::apart(append.add(key, value)?))
                        }
                        Some(value) => Some(record::inline(value)),
                        None => None,
                    };
                    change(key.clone(), stored);
                }
                Ok(())
            })?;
        }
        self.measure();
        Ok(())
    }

    fn collect(&self) -> Result<bool, EngineError> {
        const ATTEMPT: &str = "giving back room of the applied state";
        {
            let _turn = self.changing.lock();
            let handles = self.handles(ATTEMPT)?;
            let piece = handles.values.next_piece();
            let Some(piece) = piece.map_err(|error| self.fail(ATTEMPT, error))? else {
                return Ok(false);
            };
            self.write(&handles, ATTEMPT, &mut |db, append, change| {
                for (key, value, place) in &piece.records {
                    if place_of(db, key)? == Some(*place) {
                        append.release(*place);
                        change(key.to_vec(), Some(record::apart(append.add(key, value)?)));
                    }
                }
                append.emptied(&piece);
                Ok(())
            })?;
        }
        self.measure();
        Ok(true)
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
        self.open_anew()
    }

    fn disk_bytes(&self) -> u64 {
        self.disk_bytes.load(Ordering::Relaxed)
    }

    fn replace(&self, with: &Path) -> Result<(), EngineError> {
        const ATTEMPT: &str = "replacing the applied state by a snapshot";
        let _turn = self.changing.lock();
        let mut handles = self.handles.write();
        if let Some(handles) = handles.take() {
            drop(sole(handles));
        }
        let old = self.path.with_extension("old");
        let exchange = || -> std::io::Result<()> {
            if old.exists() {
                std::fs::remove_dir_all(&old)?;
            }
            std::fs::rename(&self.path, &old)?;
            std::fs::rename(with, &self.path)?;
            if let Some(parent) = self.path.parent() {
                File::open(parent)?.sync_all()?;
            }
            std::fs::remove_dir_all(&old)
        };
        exchange().map_err(|error| self.fail(ATTEMPT, error))?;
        *handles = Some(Arc::new(open_newest(&self.path)?));
        self.written.store(0, Ordering::Relaxed);
        self.read.store(0, Ordering::Relaxed);
        Ok(())
    }
}

/// A value met in a scan; `None` if its key is gone meanwhile.
fn scanned(db: &Db, values: &Values, key: &[u8]) -> std::io::Result<Option<Bytes>> {
    let keys = [key.to_vec()];
    let mut found = [None];
    for _ in 0..LOOKS {
        let Some(place) = place_of(db, key)? else {
            return Ok(None);
        };
        values.read(&mut [(place, 0)], &keys, &mut found)?;
        if let [Some(value)] = &mut found {
            return Ok(Some(std::mem::take(value)));
        }
    }
    Err(record::damaged("a value is not where it should be"))
}

/// sled answers damage with panics in places; to its user they are errors like others.
fn guarded<T>(work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(std::io::Error::other("the files are damaged")))
}

/// Waits until nobody else has it.
fn sole<T>(mut shared: Arc<T>) -> T {
    loop {
        match Arc::try_unwrap(shared) {
            Ok(value) => return value,
            Err(still_shared) => shared = still_shared,
        }
        std::thread::sleep(LOOK_AGAIN_AFTER);
    }
}

fn open_newest(path: &Path) -> Result<Handles, EngineError> {
    let open = || -> std::io::Result<Handles> {
        let mut generation = generations::newest(path)?;
        let fresh = !generation.folder(path).exists();
        let db = match open_sled(path, generation) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                generation = with_larger_leaves(path, generation)?;
                open_sled(path, generation)?
            }
            opened => opened?,
        };
        if fresh {
            // sled does not sync the file that says how many records a leaf has.
            generations::sync_all(&generation.folder(path))?;
        }
        let mut tallies = BTreeMap::new();
        for record in db.range::<&[u8], _>(&TALLIES[..]..) {
            let (key, tally) = record?;
            let (file, tally) = Tally::decode(&key, &tally)?;
            tallies.insert(file, tally);
        }
        let values = Values::open(&path.join(VALUES_FOLDER), &tallies)?;
        Ok(handles(db, Arc::new(values), generation))
    };
    guarded(open).map_err(|error| EngineError {
        attempt: "opening the applied state",
        path: path.display().to_string(),
        reason: error.to_string(),
    })
}

/// Rewrites a state whose leaves have the size of earlier versions.
fn with_larger_leaves(path: &Path, generation: Generation) -> std::io::Result<Generation> {
    tracing::info!(state = %path.display(), "writing the applied state anew, with larger leaves");
    let old = config(&generation.folder(path)).open::<FORMER_LEAF_FANOUT>()?;
    generations::rewritten(path, generation, move |folder| {
        let new: Db = config(folder).open()?;
        for record in old.iter() {
            let (key, stored) = record?;
            new.insert(key, stored)?;
        }
        new.flush().map(drop)
    })
}

fn config(folder: &Path) -> sled::Config {
    let mut config = sled::Config::new()
        .path(folder)
        .cache_capacity_bytes(CACHE_BYTES)
        .zstd_compression_level(COMPRESSION_LEVEL)
        .flush_every_ms(Some(FLUSH_NEVER_MS));
    config.target_heap_file_fill_ratio = LEAVE_LEAVES;
    config
}

fn open_sled(path: &Path, generation: Generation) -> std::io::Result<Db> {
    let config = config(&generation.folder(path));
    let mut attempts = 0;
    loop {
        match guarded(|| config.open::<LEAF_FANOUT>()) {
            // The lock of an instance that was just closed may live a moment longer.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock && attempts < 100 => {
                attempts += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => return opened,
        }
    }
}

fn handles(db: Db, values: Arc<Values>, generation: Generation) -> Handles {
    Handles {
        readers: (0..READERS).map(|_| Mutex::new(db.clone())).collect(),
        writer: Mutex::new(db),
        values,
        generation,
    }
}

#[cfg(test)]
mod tests;
