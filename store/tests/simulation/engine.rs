//! A member's applied state on its disk: batches are whole or not there.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use keelson_store::engine::memory::carry_out;
use keelson_store::engine::{Batch, Engine, EngineError, Pressure, Visitor};
use parking_lot::Mutex;

use crate::disk::{Moment, SimDisk};

type Map = BTreeMap<Vec<u8>, Bytes>;

/// The applied state of one member. Clones are the same state.
#[derive(Clone)]
pub struct SimEngine {
    disk: SimDisk,
    map: Arc<Mutex<Map>>,
    /// States received from other members and not yet put in place.
    prepared: Arc<Mutex<BTreeMap<PathBuf, Map>>>,
    /// How many of them were put in place.
    installed: Arc<AtomicU32>,
}

impl SimEngine {
    pub fn new(disk: SimDisk) -> Self {
        Self {
            disk,
            map: Arc::default(),
            prepared: Arc::default(),
            installed: Arc::default(),
        }
    }

    /// Keeps a received state until it is wanted.
    pub fn prepare(&self, path: &Path, state: SimEngine) {
        let map = std::mem::take(&mut *state.map.lock());
        self.prepared.lock().insert(path.to_owned(), map);
    }

    /// A crash forgets what was not in place, as a start of the real member does.
    pub fn restart(&self) {
        self.prepared.lock().clear();
    }

    /// How many states of others were put in place of this one.
    pub fn installed(&self) -> u32 {
        self.installed.load(Ordering::Relaxed)
    }

    fn crashed(&self, moment: &Moment) -> Result<(), EngineError> {
        if matches!(moment, Moment::Not) {
            return Ok(());
        }
        Err(EngineError {
            attempt: "writing",
            path: "simulated".into(),
            reason: "the machine failed".into(),
        })
    }
}

impl Engine for SimEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.map.lock().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        // A visitor may ask for other keys.
        let found: Vec<(Vec<u8>, Bytes)> = self
            .map
            .lock()
            .range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        for (key, value) in &found {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let moment = self.disk.moment();
        if !matches!(moment, Moment::Before) {
            carry_out(batch, &mut self.map.lock());
        }
        self.crashed(&moment)
    }

    fn trim(&self, _: Pressure) -> Result<(), EngineError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn replace(&self, with: &Path) -> Result<(), EngineError> {
        let moment = self.disk.moment();
        let prepared = self.prepared.lock().remove(with);
        if !matches!(moment, Moment::Before) {
            *self.map.lock() = prepared.ok_or_else(|| EngineError {
                attempt: "replacing",
                path: with.display().to_string(),
                reason: "it was not prepared".into(),
            })?;
            self.installed.fetch_add(1, Ordering::Relaxed);
        }
        self.crashed(&moment)
    }

    fn discard(&self, unwanted: &Path) {
        self.prepared.lock().remove(unwanted);
    }
}
