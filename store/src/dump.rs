//! The whole state as a stream of records, for members that are too far behind.
//!
//! The store's own format, between members; backups for people are [`crate::backup`].

use std::ops::ControlFlow;
use std::path::Path;

use bytes::{Buf, Bytes, BytesMut};
use raft::eraftpb::ConfState;

use crate::engine::sled::SledEngine;
use crate::engine::{Batch, Engine, EngineError};
use crate::error::StoreError;
use crate::history::History;
use crate::mvcc::schema;
use crate::state::{Applied, State};

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes written to the engine at a time.
const LOAD_BYTES: usize = 4 << 20;
/// Nothing in the state is longer; a length beyond it is damage.
const MAX_FIELD_BYTES: usize = 64 << 20;

/// Writes the whole state, in chunks, until the taker breaks off. Returns where in
/// the log it is and who votes there; `None` if the taker broke off.
///
/// # Errors
/// When the engine fails.
pub fn write(
    state: &State,
    take: &mut dyn FnMut(Bytes) -> ControlFlow<()>,
) -> Result<Option<(Applied, ConfState)>, StoreError> {
    let history = History::capture(state);
    let mut writer = ChunkWriter {
        buffer: BytesMut::with_capacity(CHUNK_BYTES * 2),
        take,
        stopped: false,
    };
    writer.record(schema::STATE_KEY, &history.encoded);
    for (id, ttl) in &history.leases {
        writer.record(&schema::lease_key(*id), &ttl.to_be_bytes());
    }
    history.records(&|_| true, &mut |record| {
        writer.record(&schema::meta_key(record.revision), &schema::encode_meta(record));
        if !record.deleted {
            writer.record(&schema::value_key(record.revision), &record.value);
        }
        writer.flow()
    })?;
    writer.flush();
    Ok((!writer.stopped).then(|| (history.applied, history.conf_state.clone())))
}

struct ChunkWriter<'a> {
    buffer: BytesMut,
    take: &'a mut dyn FnMut(Bytes) -> ControlFlow<()>,
    stopped: bool,
}

impl ChunkWriter<'_> {
    /// Whether to go on.
    fn flow(&self) -> ControlFlow<()> {
        if self.stopped {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        if self.stopped {
            return;
        }
        for field in [key, value] {
            self.buffer.extend_from_slice(&(field.len() as u32).to_be_bytes());
            self.buffer.extend_from_slice(field);
        }
        if self.buffer.len() >= CHUNK_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.stopped && !self.buffer.is_empty() {
            let chunk = std::mem::take(&mut self.buffer).freeze();
            self.stopped = (self.take)(chunk).is_break();
        }
    }
}

/// Why a dump cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It is not a dump, or it is damaged or cut short.
    #[error("the snapshot is damaged: {0}")]
    Damaged(&'static str),
}

/// Builds an applied state from a dump.
pub struct Loader<E> {
    engine: E,
    pending: BytesMut,
    batch: Batch,
    complete: bool,
}

impl Loader<SledEngine> {
    /// An empty state at `path`, which must not exist.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(path: &Path) -> Result<Self, LoadError> {
        Ok(Self::into_engine(SledEngine::open(path)?))
    }
}

impl<E: Engine> Loader<E> {
    /// An empty state in `engine`.
    pub fn into_engine(engine: E) -> Self {
        Self {
            engine,
            pending: BytesMut::new(),
            batch: Batch::default(),
            complete: false,
        }
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// When they make no sense, or the engine fails.
    pub fn take(&mut self, data: &[u8]) -> Result<(), LoadError> {
        self.pending.extend_from_slice(data);
        while let Some((key, value)) = next_record(&mut self.pending)? {
            self.complete |= key.as_ref() == schema::STATE_KEY;
            self.batch.put(key.to_vec(), value);
            if self.batch.bytes() >= LOAD_BYTES {
                self.engine.commit(std::mem::take(&mut self.batch))?;
                self.engine.trim(crate::engine::Pressure::Busy)?;
            }
        }
        Ok(())
    }

    /// Everything was taken in; it is on disk when this returns.
    ///
    /// # Errors
    /// When something is missing, or the engine fails.
    pub fn finish(mut self) -> Result<E, LoadError> {
        if !self.pending.is_empty() {
            return Err(LoadError::Damaged("it ends in the middle of a record"));
        }
        if !self.complete {
            return Err(LoadError::Damaged("it does not hold the state's head"));
        }
        self.engine.commit(std::mem::take(&mut self.batch))?;
        Ok(self.engine)
    }
}

fn next_record(pending: &mut BytesMut) -> Result<Option<(Bytes, Bytes)>, LoadError> {
    let length = |at: usize| -> Option<usize> {
        let field: [u8; 4] = pending.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_be_bytes(field)).ok()
    };
    let Some(key) = length(0) else {
        return Ok(None);
    };
    if key > MAX_FIELD_BYTES {
        return Err(LoadError::Damaged("a key is longer than possible"));
    }
    let Some(value) = length(4 + key) else {
        return Ok(None);
    };
    if value > MAX_FIELD_BYTES {
        return Err(LoadError::Damaged("a value is longer than possible"));
    }
    if pending.len() < 8 + key + value {
        return Ok(None);
    }
    pending.advance(4);
    let key = pending.split_to(key).freeze();
    pending.advance(4);
    let value = pending.split_to(value).freeze();
    Ok(Some((key, value)))
}
