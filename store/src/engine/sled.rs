//! The applied state in sled, with the longer values in files beside it ([`super::values`]).
//!
//! sled 1.0.0-alpha.124 never lets go of a leaf that was written since it was opened (its eviction after a
//! flush looks at a mark that the flush has just cleared), so memory would grow with everything ever written.
//! The engine therefore closes and opens the database again once enough has been written: that costs
//! milliseconds, and only readers of old records wait for it.
//!
//! A failed flush leaves sled unusable. The caller checks for free space before it commits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::values::append::Append;
use super::values::record::{self, Place, Stored};
use super::values::{TALLIES, Tally, Values};
use super::{Batch, Engine, EngineError, Pressure, Visitor};

/// Records in a leaf, sled's unit of reading and writing. With values elsewhere a leaf is some KiB. sled's cache keeps
/// at least one leaf in each of its 256 shards, so this also bounds what reading costs in memory.
const LEAF_FANOUT: usize = 64;

/// In the state's folder: sled's files, and the files of values.
const SLED_FOLDER: &str = "index";
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
    values: Arc<Values>,
}

impl SledEngine {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// When sled refuses it or it is damaged.
    pub fn open(path: &Path) -> Result<Self, EngineError> {
        let engine = Self {
            path: path.to_owned(),
            handles: RwLock::new(Some(open_handles(path, None)?)),
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
        read: impl FnOnce(&Db, &Arc<Values>) -> std::io::Result<T>,
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
        guarded(|| read(&reader, &handles.values)).map_err(|error| self.fail(attempt, error))
    }

    fn measure(&self) {
        if let Some(handles) = self.handles.read().as_ref()
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
            let handles = self.handles.read();
            let handles = handles
                .as_ref()
                .ok_or_else(|| self.fail(ATTEMPT, "the state is closed"))?;
            // A later change of a key wins, so the last is the one whose value is wanted.
            let writes: BTreeMap<Vec<u8>, Option<Bytes>> = batch.writes.into_iter().collect();
            self.write(handles, ATTEMPT, &mut |db, append, change| {
                for (key, value) in &writes {
                    if let Some(place) = place_of(db, key)? {
                        append.release(place);
                    }
                    let stored = match value {
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
            let handles = self.handles.read();
            let handles = handles
                .as_ref()
                .ok_or_else(|| self.fail(ATTEMPT, "the state is closed"))?;
            let piece = handles.values.next_piece();
            let Some(piece) = piece.map_err(|error| self.fail(ATTEMPT, error))? else {
                return Ok(false);
            };
            self.write(handles, ATTEMPT, &mut |db, append, change| {
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
        let mut handles = self.handles.write();
        // The files of values stay open: they hold on to no memory.
        let values = handles.take().map(|handles| handles.values);
        *handles = Some(open_handles(&self.path, values)?);
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
        *handles = Some(open_handles(&self.path, None)?);
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

fn open_handles(path: &Path, values: Option<Arc<Values>>) -> Result<Handles, EngineError> {
    let fail = |reason: String| EngineError {
        attempt: "opening the applied state",
        path: path.display().to_string(),
        reason,
    };
    let config = sled::Config::new()
        .path(path.join(SLED_FOLDER))
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
    let values = match values {
        Some(values) => values,
        None => {
            let open = || -> std::io::Result<Values> {
                let mut tallies = BTreeMap::new();
                for record in writer.range::<&[u8], _>(&TALLIES[..]..) {
                    let (key, tally) = record?;
                    let (file, tally) = Tally::decode(&key, &tally)?;
                    tallies.insert(file, tally);
                }
                Values::open(&path.join(VALUES_FOLDER), &tallies)
            };
            Arc::new(guarded(open).map_err(|error| fail(error.to_string()))?)
        }
    };
    Ok(Handles {
        writer: Mutex::new(writer),
        readers,
        values,
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

    fn value(number: u32, round: u32) -> Bytes {
        Bytes::from(format!("{round}.{number} ").repeat(1000))
    }

    fn all_values(engine: &SledEngine, keys: u32, round: impl Fn(u32) -> u32) -> Result<(), EngineError> {
        let names: Vec<Vec<u8>> = (0..keys).map(|number| number.to_be_bytes().to_vec()).collect();
        for (number, found) in (0..).zip(engine.get_all(&names)?) {
            assert!(found == Some(value(number, round(number))), "{number}");
        }
        Ok(())
    }

    #[test]
    fn files_of_which_little_is_wanted_are_emptied_and_deleted() -> Result<(), Box<dyn std::error::Error>> {
        const KEYS: u32 = 3000;
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        let engine = SledEngine::open(&path)?;
        let put = |round: u32, wanted: &dyn Fn(u32) -> bool| {
            let mut batch = Batch::default();
            for number in (0..KEYS).filter(|number| wanted(*number)) {
                batch.put(number.to_be_bytes().to_vec(), value(number, round));
            }
            engine.commit(batch)
        };
        put(0, &|_| true)?;
        let once = engine.disk_bytes();
        // Every third key keeps its first value: no file is without any that is wanted.
        for round in 1..6 {
            put(round, &|number| number % 3 != 0)?;
        }
        let grown = engine.disk_bytes();
        assert!(grown > 2 * once, "{once} {grown}");
        let mut pieces = 0;
        while engine.collect()? {
            pieces += 1;
        }
        assert!(pieces > 0);
        assert!(engine.disk_bytes() < 2 * once, "{once} {}", engine.disk_bytes());
        let round = |number: u32| if number.is_multiple_of(3) { 0 } else { 5 };
        all_values(&engine, KEYS, round)?;
        drop(engine);
        let engine = SledEngine::open(&path)?;
        all_values(&engine, KEYS, round)?;
        assert!(!engine.collect()?);
        Ok(())
    }

    /// What a crash leaves behind the last batch, in a file of values or as a file, is not taken for anything.
    #[test]
    fn values_that_were_not_committed_are_cut_off() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("state");
        {
            let engine = SledEngine::open(&path)?;
            engine.commit(batch(0..10, 1000))?;
        }
        let values = path.join(VALUES_FOLDER);
        let file = values.join("1");
        let committed = std::fs::read(&file)?;
        std::fs::write(&file, [&committed[..], b"half a record"].concat())?;
        std::fs::write(values.join("2"), b"a file that sled was never told of")?;
        {
            let engine = SledEngine::open(&path)?;
            assert_eq!(std::fs::read(&file)?, committed);
            assert!(!values.join("2").exists());
            engine.commit(batch(10..20, 1000))?;
        }
        let engine = SledEngine::open(&path)?;
        for number in 0..20_u32 {
            let found = engine.get(&number.to_be_bytes())?;
            assert_eq!(found.map(|value| value.to_vec()), Some(vec![number as u8; 1000]));
        }
        drop(engine);
        std::fs::write(&file, &committed[..100])?;
        assert!(SledEngine::open(&path).is_err(), "a file that is too short");
        std::fs::remove_file(&file)?;
        assert!(SledEngine::open(&path).is_err(), "a file that is missing");
        Ok(())
    }

    #[test]
    fn readers_find_values_that_are_moved() -> Result<(), Box<dyn std::error::Error>> {
        const KEYS: u32 = 300;
        let folder = tempfile::tempdir()?;
        let engine = SledEngine::open(&folder.path().join("state"))?;
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| -> Result<(), EngineError> {
                while !stop.load(Ordering::Acquire) {
                    engine.get_all(&[7_u32.to_be_bytes().to_vec(), 9_u32.to_be_bytes().to_vec()])?;
                    engine.scan(&[0], &[0xff; 5], &mut |_, value| {
                        assert!(value.len() > 100);
                        ControlFlow::Continue(())
                    })?;
                }
                Ok(())
            });
            for round in 0..40 {
                let mut batch = Batch::default();
                for number in (0..KEYS).filter(|number| round == 0 || number % 7 != 0) {
                    batch.put(
                        number.to_be_bytes().to_vec(),
                        value(number, round).repeat(8).into(),
                    );
                }
                engine.commit(batch)?;
                while engine.collect()? {}
            }
            stop.store(true, Ordering::Release);
            reader.join().map_err(|_| "the reader failed")??;
            Ok(())
        })
    }
}
