//! An engine in memory, for tests and simulations: durable for as long as the value lives.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;

use bytes::Bytes;
use parking_lot::RwLock;

use super::{Batch, Engine, EngineError, Pressure, Visitor, Write};

/// What a batch makes of a map. In a debug build it panics if a key is added that is there.
pub fn carry_out(batch: Batch, map: &mut BTreeMap<Vec<u8>, Bytes>) {
    for (key, write) in batch.writes {
        match write {
            Write::Add(value) => {
                let before = map.insert(key, value);
                debug_assert!(before.is_none(), "a key is added that is there");
            }
            Write::Put(value) => drop(map.insert(key, value)),
            Write::Remove => drop(map.remove(&key)),
        }
    }
}

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
        carry_out(batch, &mut self.map.write());
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
