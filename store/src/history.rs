//! The whole history at one moment, read without stopping anything: records never change, the newest ones and
//! everything else are captured under the lock, and history is not dropped while it is read.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::store::StoredMember;
use raft::eraftpb::ConfState;

use crate::error::StoreError;
use crate::mvcc::recent::{Change, Record};
use crate::mvcc::revision::Revision;
use crate::mvcc::schema::{self, Meta};
use crate::state::{Applied, Pin, State, encode_state};

/// Records whose values are read together.
const STEP_RECORDS: usize = 64;
/// Keys looked at under one lock.
const STEP_KEYS: usize = 4096;

/// A captured state. While it lives, no history is dropped.
pub struct History<'s> {
    state: &'s State,
    _pin: Pin<'s>,
    /// The newest revision.
    pub current: i64,
    /// Revision of the last compaction.
    pub compacted: i64,
    /// Where in the log this is.
    pub applied: Applied,
    /// Who votes there.
    pub conf_state: ConfState,
    /// The members.
    pub members: Vec<StoredMember>,
    /// The group.
    pub cluster: u64,
    /// Everything that is neither key nor lease, as it is stored.
    pub encoded: Bytes,
    /// Leases and their times to live in seconds.
    pub leases: Vec<(i64, i64)>,
    stored: i64,
    newest: Vec<Arc<Change>>,
}

impl<'s> History<'s> {
    /// Captures a state as it is now.
    #[must_use]
    pub fn capture(state: &'s State) -> Self {
        let pin = state.pin();
        state.read(|inner| {
            let membership = &inner.shared.membership;
            Self {
                state,
                _pin: pin,
                current: inner.mvcc.current,
                compacted: inner.mvcc.compacted,
                applied: inner.shared.applied,
                conf_state: membership.conf_state.clone(),
                members: membership.members.values().cloned().collect(),
                cluster: membership.cluster_id,
                encoded: encode_state(inner),
                leases: inner
                    .mvcc
                    .leases
                    .all()
                    .map(|(id, lease)| (id, lease.ttl))
                    .collect(),
                stored: inner.mvcc.recent.stored(),
                newest: inner.mvcc.recent.unstored(),
            }
        })
    }

    /// Visits the records that `wants` accepts, in the order of their revisions, until the visitor breaks off.
    /// `false`: it did.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn records(
        &self,
        wants: &dyn Fn(Revision) -> bool,
        visit: &mut dyn FnMut(&Record) -> ControlFlow<()>,
    ) -> Result<bool, StoreError> {
        let end = schema::meta_key(Revision::start_of(self.stored + 1));
        let mut next = schema::meta_key(Revision::default());
        loop {
            let (metas, more) = self.metas(&next, &end, wants)?;
            let Some(last) = metas.last() else {
                break;
            };
            next = schema::meta_key(Revision {
                sub: last.stamp.revision.sub + 1,
                ..last.stamp.revision
            });
            for record in self.complete(metas)? {
                if visit(&record).is_break() {
                    return Ok(false);
                }
            }
            if !more {
                break;
            }
        }
        for record in self.newest.iter().flat_map(|change| &change.records) {
            if wants(record.revision) && visit(record).is_break() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next few records but for their values, and whether there may be more.
    fn metas(
        &self,
        from: &[u8],
        end: &[u8],
        wants: &dyn Fn(Revision) -> bool,
    ) -> Result<(Vec<Meta>, bool), StoreError> {
        let mut metas = Vec::with_capacity(STEP_RECORDS);
        let mut damaged = false;
        self.state.engine().scan(from, end, &mut |key, value| {
            let Some(meta) = schema::decode_meta(key, value) else {
                damaged = true;
                return ControlFlow::Break(());
            };
            if wants(meta.stamp.revision) {
                metas.push(meta);
            }
            if metas.len() >= STEP_RECORDS {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if damaged {
            return Err(StoreError::Corrupt);
        }
        let more = metas.len() >= STEP_RECORDS;
        Ok((metas, more))
    }

    fn complete(&self, metas: Vec<Meta>) -> Result<Vec<Record>, StoreError> {
        let keys: Vec<Vec<u8>> = metas
            .iter()
            .filter(|meta| !meta.stamp.deleted)
            .map(|meta| schema::value_key(meta.stamp.revision))
            .collect();
        let mut values = self.state.engine().get_all(&keys)?.into_iter();
        metas
            .into_iter()
            .map(|meta| {
                let value = if meta.stamp.deleted {
                    Bytes::new()
                } else {
                    values.next().flatten().ok_or(StoreError::Corrupt)?
                };
                Ok(Record {
                    revision: meta.stamp.revision,
                    deleted: meta.stamp.deleted,
                    life: meta.life,
                    key: meta.key,
                    value,
                })
            })
            .collect()
    }

    /// For every key, the change before or at the last compaction that made it what it was at `revision`, sorted; and
    /// whether any key was alive then.
    #[must_use]
    pub fn compacted_at(&self, revision: i64) -> (Vec<Revision>, bool) {
        let mut kept = Vec::new();
        let mut alive = false;
        let mut after: Option<Box<[u8]>> = None;
        loop {
            // In steps: who applies must not wait for all of it. Keys that come meanwhile were not alive then.
            let last = self.state.read(|inner| {
                let from = match &after {
                    Some(key) => Bound::Excluded(key.as_ref()),
                    None => Bound::Unbounded,
                };
                let mut last = None;
                for (key, item) in inner.mvcc.index.after(from).take(STEP_KEYS) {
                    last = Some(key);
                    if let Some(change) = item.at(revision) {
                        alive = true;
                        if change.main <= self.compacted {
                            kept.push(change);
                        }
                    }
                }
                last.map(Box::from)
            });
            if last.is_none() {
                break;
            }
            after = last;
        }
        kept.sort_unstable();
        (kept, alive)
    }
}
