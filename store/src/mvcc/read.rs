//! Ranges at a revision.

use std::cmp::Ordering;

use bytes::Bytes;
use keelson_proto::etcd::range_request::{SortOrder, SortTarget};
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::response_op::Response;
use keelson_proto::etcd::{RangeRequest, RangeResponse, ResponseHeader, ResponseOp, TxnRequest, TxnResponse};
use keelson_proto::mvcc::KeyValue;

use super::Mvcc;
use super::index::Life;
use super::key_range::KeyRange;
use super::recent::Record;
use super::revision::Revision;
use super::schema;
use crate::engine::Engine;
use crate::error::StoreError;

/// Keys of a range looked at under one lock of [`Mvcc`]. A range may hold a million keys, all of which are counted, and
/// who applies, and everybody behind, waits for the lock.
const STEP_KEYS: usize = 4096;

/// Keys of a range as the index knows them, with what has to be read yet. Made under the lock of [`Mvcc`], step by step,
/// completed without it.
pub struct Selection {
    hits: Vec<Hit>,
    count: i64,
    revision: i64,
    at: i64,
    /// Keys not looked at yet.
    rest: Option<KeyRange>,
}

/// What a transaction that only reads selects.
pub struct TxnSelection<'r> {
    succeeded: bool,
    revision: i64,
    ranges: Vec<(&'r RangeRequest, Selection)>,
}

struct Hit {
    key: Bytes,
    revision: Revision,
    life: Option<Life>,
    value: Option<Bytes>,
}

/// A record that should be there is not: history was dropped while it was being read. Select again.
#[derive(Debug)]
pub enum ReadError {
    /// The record is gone.
    Gone,
    /// The request cannot be answered.
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for ReadError {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

fn sort_order(request: &RangeRequest) -> SortOrder {
    match request.sort_order() {
        // The index delivers by key; any other target has to be sorted.
        SortOrder::None if request.sort_target() != SortTarget::Key => SortOrder::Ascend,
        order => order,
    }
}

fn has_filters(request: &RangeRequest) -> bool {
    request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0
}

impl Mvcc {
    /// Begins to select what a request asks for: the first few keys. [`Self::select_more`] goes on.
    ///
    /// # Errors
    /// When its revision is not there any more, or not yet.
    pub fn select(&self, request: &RangeRequest) -> Result<Selection, StoreError> {
        if request.revision > self.current {
            return Err(StoreError::FutureRevision);
        }
        let at = if request.revision <= 0 {
            self.current
        } else {
            request.revision
        };
        if at < self.compacted {
            return Err(StoreError::Compacted);
        }
        let mut selection = self.begin(request, at);
        self.step(request, &mut selection, STEP_KEYS);
        Ok(selection)
    }

    /// Goes on selecting, if [`Selection::has_more`].
    ///
    /// # Errors
    /// [`ReadError::Gone`] when the revision was dropped since the beginning; select again.
    pub fn select_more(&self, request: &RangeRequest, selection: &mut Selection) -> Result<(), ReadError> {
        if selection.at < self.compacted {
            return Err(ReadError::Gone);
        }
        self.step(request, selection, STEP_KEYS);
        Ok(())
    }

    fn begin(&self, request: &RangeRequest, at: i64) -> Selection {
        Selection {
            hits: Vec::new(),
            count: 0,
            revision: self.current,
            at,
            rest: Some(KeyRange::new(&request.key, &request.range_end)),
        }
    }

    /// Looks at the next keys, so many of them at most.
    fn step(&self, request: &RangeRequest, selection: &mut Selection, keys: usize) {
        let Some(range) = selection.rest.take() else {
            return;
        };
        // etcd takes the limit before it sorts by anything but the key, unless an order is named.
        let limited = request.sort_order() == SortOrder::None && !has_filters(request);
        let limit = match usize::try_from(request.limit) {
            // One more than asked for shows whether there is more.
            Ok(limit) if limit > 0 && limited => limit + 1,
            _ => usize::MAX,
        };
        for (looked_at, (key, item)) in self.index.range(&range).enumerate() {
            if looked_at >= keys {
                selection.rest = Some(range.rest_from(key));
                break;
            }
            let Some(revision) = item.at(selection.at) else {
                continue;
            };
            selection.count += 1;
            if request.count_only || selection.hits.len() >= limit {
                continue;
            }
            let recent = self.recent.get(revision);
            selection.hits.push(Hit {
                key: match recent {
                    Some(record) => record.key.clone(),
                    None => Bytes::copy_from_slice(key),
                },
                revision,
                life: recent.map(|record| record.life).or(item.life_at(revision)),
                value: recent.map(|record| record.value.clone()),
            });
        }
    }

    /// A whole range under the lock, for transactions: `at` may be the revision they are writing.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn range_locked(&self, request: &RangeRequest, at: i64) -> Result<RangeResponse, StoreError> {
        let mut selection = self.begin(request, at);
        self.step(request, &mut selection, usize::MAX);
        selection
            .complete(request, self.engine.as_ref())
            .map_err(|error| match error {
                ReadError::Gone => StoreError::Corrupt,
                ReadError::Store(error) => error,
            })
    }

    /// Selects what a transaction that only reads asks for, all of it at one moment.
    ///
    /// # Errors
    /// When a revision it asks for is not there, or the engine fails.
    pub fn select_txn<'r>(&self, request: &'r TxnRequest) -> Result<TxnSelection<'r>, StoreError> {
        let succeeded = self.judge(request)?.succeeded;
        let ops = if succeeded {
            &request.success
        } else {
            &request.failure
        };
        let mut ranges = Vec::with_capacity(ops.len());
        for op in ops {
            let Some(Request::RequestRange(range)) = &op.request else {
                continue;
            };
            let mut selection = self.select(range)?;
            self.step(range, &mut selection, usize::MAX);
            ranges.push((range, selection));
        }
        Ok(TxnSelection {
            succeeded,
            revision: self.current,
            ranges,
        })
    }

    /// The record of a change, from memory or the engine. `None`: its history has been dropped.
    ///
    /// # Errors
    /// When the engine cannot be read.
    pub fn record(&self, key: &[u8], revision: Revision) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.recent.get(revision) {
            return Ok(Some(record.clone()));
        }
        fetch_record(self.engine.as_ref(), key, revision)
    }
}

/// A record from the engine. `None`: its history has been dropped.
///
/// # Errors
/// When the engine cannot be read.
pub fn fetch_record(
    engine: &dyn Engine,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Record>, StoreError> {
    let meta_key = schema::meta_key(revision);
    let Some(encoded) = engine.get(&meta_key)? else {
        return Ok(None);
    };
    let meta = schema::decode_meta(&meta_key, &encoded).ok_or(StoreError::Corrupt)?;
    if meta.key.as_ref() != key {
        return Err(StoreError::Corrupt);
    }
    let value = if meta.stamp.deleted {
        Bytes::new()
    } else {
        match engine.get(&schema::value_key(revision))? {
            Some(value) => value,
            None => return Ok(None),
        }
    };
    Ok(Some(Record {
        revision,
        deleted: meta.stamp.deleted,
        life: meta.life,
        key: meta.key,
        value,
    }))
}

impl TxnSelection<'_> {
    /// Reads.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when a record was dropped meanwhile; select again.
    pub fn complete(self, engine: &dyn Engine) -> Result<TxnResponse, ReadError> {
        let mut responses = Vec::with_capacity(self.ranges.len());
        for (request, selection) in self.ranges {
            let response = selection.complete(request, engine)?;
            responses.push(ResponseOp {
                response: Some(Response::ResponseRange(response)),
            });
        }
        Ok(TxnResponse {
            header: Some(ResponseHeader {
                revision: self.revision,
                ..ResponseHeader::default()
            }),
            succeeded: self.succeeded,
            responses,
        })
    }
}

impl Selection {
    /// Whether there are keys that were not looked at yet.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.rest.is_some()
    }

    /// How many records it will read.
    #[must_use]
    pub fn to_read(&self) -> usize {
        self.hits.iter().filter(|hit| hit.value.is_none()).count()
    }

    /// Reads, filters, sorts and cuts.
    ///
    /// # Errors
    /// [`ReadError::Gone`] when a record was dropped meanwhile; select again.
    pub fn complete(
        mut self,
        request: &RangeRequest,
        engine: &dyn Engine,
    ) -> Result<RangeResponse, ReadError> {
        let mut response = RangeResponse {
            header: Some(ResponseHeader {
                revision: self.revision,
                ..Default::default()
            }),
            count: self.count,
            ..Default::default()
        };
        if request.count_only {
            return Ok(response);
        }
        for hit in &mut self.hits {
            if hit.life.is_none() {
                let key = schema::meta_key(hit.revision);
                let encoded = engine.get(&key)?.ok_or(ReadError::Gone)?;
                let meta = schema::decode_meta(&key, &encoded).ok_or(StoreError::Corrupt)?;
                hit.life = Some(meta.life);
            }
        }
        self.filter(request);
        let order = sort_order(request);
        let target = request.sort_target();
        if target == SortTarget::Value && order != SortOrder::None {
            self.read_values(engine)?;
        }
        self.sort(order, target);
        if let Ok(limit) = usize::try_from(request.limit)
            && limit > 0
            && self.hits.len() > limit
        {
            self.hits.truncate(limit);
            response.more = true;
        }
        if !request.keys_only {
            self.read_values(engine)?;
        }
        response.kvs = self
            .hits
            .into_iter()
            .map(|hit| {
                let life = hit.life.unwrap_or_default();
                KeyValue {
                    key: hit.key,
                    create_revision: life.created,
                    mod_revision: hit.revision.main,
                    version: life.version,
                    value: match hit.value {
                        Some(value) if !request.keys_only => value,
                        _ => Bytes::new(),
                    },
                    lease: life.lease,
                }
            })
            .collect();
        Ok(response)
    }

    /// The revision that is read.
    #[must_use]
    pub fn at(&self) -> i64 {
        self.at
    }

    fn filter(&mut self, request: &RangeRequest) {
        if !has_filters(request) {
            return;
        }
        let within =
            |number: i64, min: i64, max: i64| (min == 0 || number >= min) && (max == 0 || number <= max);
        self.hits.retain(|hit| {
            let created = hit.life.unwrap_or_default().created;
            within(
                hit.revision.main,
                request.min_mod_revision,
                request.max_mod_revision,
            ) && within(created, request.min_create_revision, request.max_create_revision)
        });
    }

    fn sort(&mut self, order: SortOrder, target: SortTarget) {
        if order == SortOrder::None || (order == SortOrder::Ascend && target == SortTarget::Key) {
            return;
        }
        let compare = |a: &Hit, b: &Hit| -> Ordering {
            let (a_life, b_life) = (a.life.unwrap_or_default(), b.life.unwrap_or_default());
            match target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a_life.version.cmp(&b_life.version),
                SortTarget::Create => a_life.created.cmp(&b_life.created),
                SortTarget::Mod => a.revision.main.cmp(&b.revision.main),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        };
        match order {
            SortOrder::Descend => self.hits.sort_by(|a, b| compare(b, a)),
            _ => self.hits.sort_by(compare),
        }
    }

    fn read_values(&mut self, engine: &dyn Engine) -> Result<(), ReadError> {
        let mut missing: Vec<usize> = (0..self.hits.len())
            .filter(|position| self.hits[*position].value.is_none())
            .collect();
        // In the order in which they lie on disk, not the order of the keys.
        missing.sort_unstable_by_key(|position| self.hits[*position].revision);
        let keys: Vec<Vec<u8>> = missing
            .iter()
            .map(|position| schema::value_key(self.hits[*position].revision))
            .collect();
        let values = engine.get_all(&keys)?;
        for (position, value) in missing.into_iter().zip(values) {
            self.hits[position].value = Some(value.ok_or(ReadError::Gone)?);
        }
        Ok(())
    }
}
