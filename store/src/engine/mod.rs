//! Where the applied state is kept on disk, behind one trait.
//!
//! - [`sled`]: the one that is used; [`values`]: the files beside it, with everything that is not short
//! - [`memory`]: for tests and simulations
//!
//! The engine lags behind the Raft log and is replayed from it; what [`Engine::commit`] returned for is durable.

pub mod memory;
pub mod sled;
pub mod values;

use std::ops::ControlFlow;

use bytes::Bytes;

/// Why the engine failed. It must not be used any more after an error of `commit`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{attempt} in {path}: {reason}")]
pub struct EngineError {
    /// What was attempted.
    pub attempt: &'static str,
    /// Where the state is kept.
    pub path: String,
    /// What went wrong.
    pub reason: String,
}

impl From<EngineError> for crate::error::StoreError {
    fn from(error: EngineError) -> Self {
        Self::Storage(error.to_string())
    }
}

/// What becomes of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// It is not there yet and gets this value.
    Add(Bytes),
    /// It has this value from now on, whatever it had.
    Put(Bytes),
    /// It is gone.
    Remove,
}

impl Write {
    /// The value the key has then.
    #[must_use]
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Add(value) | Self::Put(value) => Some(value),
            Self::Remove => None,
        }
    }
}

/// Changes that happen together or not at all.
#[derive(Debug, Default)]
pub struct Batch {
    /// The changes; a later one wins over an earlier one of the same key.
    pub writes: Vec<(Vec<u8>, Write)>,
    bytes: usize,
}

impl Batch {
    /// Sets a key that is not there yet. It costs less than [`Self::put`]: nothing is looked for that has to be given up.
    /// Keys of one kind in their order cost the least.
    pub fn add(&mut self, key: Vec<u8>, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.writes.push((key, Write::Add(value)));
    }

    /// Sets a key.
    pub fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.bytes += key.len() + value.len();
        self.writes.push((key, Write::Put(value)));
    }

    /// Removes a key.
    pub fn remove(&mut self, key: Vec<u8>) {
        self.bytes += key.len();
        self.writes.push((key, Write::Remove));
    }

    /// Size of the keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Is shown a key and its value, and says whether to go on.
pub type Visitor<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// An ordered map from bytes to bytes on disk.
pub trait Engine: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The values of several keys, in the order of the keys.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn get_all(&self, keys: &[Vec<u8>]) -> Result<Vec<Option<Bytes>>, EngineError> {
        keys.iter().map(|key| self.get(key)).collect()
    }

    /// Visits the keys of `[from, to)` in order until the visitor breaks off.
    ///
    /// # Errors
    /// When the state cannot be read.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut Visitor<'_>) -> Result<(), EngineError>;

    /// Carries out a batch as one; it is on disk when this returns. One caller at a time.
    ///
    /// # Errors
    /// When it could not be written; the engine must not be used after that.
    fn commit(&self, batch: Batch) -> Result<(), EngineError>;

    /// Gives back memory that holds nothing which is not on disk, if it pays.
    ///
    /// # Errors
    /// When the state could not be opened again.
    fn trim(&self, pressure: Pressure) -> Result<(), EngineError>;

    /// Gives back a piece of the disk that holds what is not wanted any more. Whether there may be more to do. As
    /// for [`Self::commit`], one caller at a time.
    ///
    /// # Errors
    /// When it could not be done; the engine must not be used after that.
    fn collect(&self) -> Result<bool, EngineError> {
        Ok(false)
    }

    /// Bytes on disk.
    fn disk_bytes(&self) -> u64;

    /// Closes the state and puts in its place the one that was prepared at `with`.
    ///
    /// # Errors
    /// When the exchange did not work; the engine must not be used after that.
    fn replace(&self, with: &std::path::Path) -> Result<(), EngineError>;

    /// Forgets a state that was prepared at `unwanted`.
    fn discard(&self, unwanted: &std::path::Path) {
        if let Err(error) = std::fs::remove_dir_all(unwanted) {
            tracing::warn!(%error, folder = %unwanted.display(), "deleting a snapshot that is not needed");
        }
    }
}

/// How much a caller wants memory back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pressure {
    /// In the middle of work: only if there is a lot to gain.
    Busy,
    /// Nothing else to do: if there is something to gain.
    Idle,
}
