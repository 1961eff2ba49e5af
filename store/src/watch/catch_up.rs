//! Changes from before a watch was in step.

use std::ops::ControlFlow;

use crate::error::StoreError;
use crate::mvcc::read::fetch_record;
use crate::mvcc::recent::Record;
use crate::mvcc::revision::Revision;
use crate::mvcc::schema;
use crate::state::State;
use crate::watch::hub::Wanted;

/// Changes read for a watch at a time.
const STEP_RECORDS: usize = 1000;
/// Bytes of values read for a watch at a time.
const STEP_BYTES: usize = 1 << 20;
/// Metadata looked at for a watch at a time, whether wanted or not.
const STEP_SCANNED: usize = 20_000;

/// A piece of the history.
#[derive(Debug)]
pub struct Piece {
    /// The changes that the watch wants, in order; whole revisions.
    pub records: Vec<Record>,
    /// The first revision that was not looked at.
    pub next: i64,
}

/// Why there is no piece.
#[derive(Debug)]
pub enum CatchUpError {
    /// The history begins later than the watch wants; the revision where it does.
    Compacted(i64),
    /// The engine failed.
    Store(StoreError),
}

impl From<StoreError> for CatchUpError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Reads the next piece from revision `next` on; `next` of the piece is behind the newest revision when there
/// is nothing more.
///
/// # Errors
/// When the history is not there any more, or cannot be read.
pub fn read(state: &State, wanted: &Wanted, next: i64) -> Result<Piece, CatchUpError> {
    // What is in memory is copied under the lock; what is not is read from the engine without it.
    let from_memory = state.read(|inner| {
        let mvcc = &inner.mvcc;
        if next < mvcc.compacted {
            return Err(CatchUpError::Compacted(mvcc.compacted));
        }
        let first = mvcc.recent.first_revision();
        if next < first {
            return Ok(Err(first));
        }
        let mut piece = Piece {
            records: Vec::new(),
            next,
        };
        let mut bytes = 0;
        for change in mvcc.recent.since(next) {
            if piece.records.len() >= STEP_RECORDS || bytes >= STEP_BYTES {
                return Ok(Ok(piece));
            }
            for record in change.records.iter().filter(|record| wanted.wants(record)) {
                bytes += record.value.len();
                piece.records.push(record.clone());
            }
            piece.next = change.revision + 1;
        }
        piece.next = piece.next.max(mvcc.current + 1);
        Ok(Ok(piece))
    })?;
    match from_memory {
        Ok(piece) => Ok(piece),
        Err(first) => from_engine(state, wanted, next, first),
    }
}

fn from_engine(state: &State, wanted: &Wanted, next: i64, until: i64) -> Result<Piece, CatchUpError> {
    let mut metas = Vec::new();
    let mut scanned = 0;
    let mut reached = until;
    let mut last = next - 1;
    let mut damaged = false;
    let from = schema::meta_key(Revision::start_of(next));
    let to = schema::meta_key(Revision::start_of(until));
    state
        .engine()
        .scan(&from, &to, &mut |key, value| {
            let Some(meta) = schema::decode_meta(key, value) else {
                damaged = true;
                return ControlFlow::Break(());
            };
            let main = meta.stamp.revision.main;
            let enough = metas.len() >= STEP_RECORDS || scanned >= STEP_SCANNED;
            if enough && main != last {
                reached = main;
                return ControlFlow::Break(());
            }
            last = main;
            scanned += 1;
            let kind = if meta.stamp.deleted {
                !wanted.filter.no_delete
            } else {
                !wanted.filter.no_put
            };
            if kind && wanted.range.contains(&meta.key) {
                metas.push(meta);
            }
            ControlFlow::Continue(())
        })
        .map_err(StoreError::from)?;
    if damaged {
        return Err(StoreError::Corrupt.into());
    }
    let mut records = Vec::with_capacity(metas.len());
    let mut bytes = 0;
    for meta in metas {
        let revision = meta.stamp.revision;
        let previous = records.last().map(|record: &Record| record.revision.main);
        if bytes >= STEP_BYTES && previous != Some(revision.main) {
            reached = revision.main;
            break;
        }
        let record = fetch_record(state.engine(), &meta.key, revision)?;
        let Some(record) = record else {
            // Dropped while it was read: the history begins later by now.
            return Err(CatchUpError::Compacted(state.read(|inner| inner.mvcc.compacted)));
        };
        bytes += record.value.len();
        records.push(record);
    }
    // Had history been dropped during the scan, changes could be missing from it.
    let compacted = state.read(|inner| inner.mvcc.compacted);
    if next < compacted {
        return Err(CatchUpError::Compacted(compacted));
    }
    Ok(Piece {
        records,
        next: reached,
    })
}
