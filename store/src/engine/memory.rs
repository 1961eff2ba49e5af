//! An engine in memory, for tests and simulations: durable for as long as the value lives.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, EngineError, Pressure, Visitor};

/// An ordered map behind a lock.
#[derive(Debug, Default)]
pub struct MemoryEngine {
    map: RwLock<BTreeMap<Vec<u8>, Bytes>>,
}

impl Engine for MemoryEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        Ok(self.map.read().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError> {
        if from >= to {
            return Ok(());
        }
        let map = self.map.read();
        for (key, value) in map.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn commit(&self, batch: Batch) -> Result<(), EngineError> {
        let mut map = self.map.write();
        for (key, value) in batch.writes {
            match value {
                Some(value) => map.insert(key, value),
                None => map.remove(&key),
            };
        }
        Ok(())
    }

    fn trim(&self, _pressure: Pressure) -> Result<(), EngineError> {
        Ok(())
    }

    fn disk_bytes(&self) -> u64 {
        0
    }

    fn replace(&self, with: &Path) -> Result<(), EngineError> {
        Err(EngineError {
            attempt: "replacing the applied state",
            path: with.display().to_string(),
            reason: "an engine in memory has no files".into(),
        })
    }
}
