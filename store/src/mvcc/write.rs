//! Puts, deletions and transactions, as the applied log brings them.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::request_op::Request;
use keelson_proto::etcd::response_op::Response;
use keelson_proto::etcd::{
    DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RequestOp, ResponseHeader, ResponseOp,
    TxnRequest, TxnResponse,
};
use keelson_proto::mvcc::KeyValue;
use smallvec::SmallVec;

use super::Mvcc;
use super::compare::Path;
use super::index::Life;
use super::key_range::KeyRange;
use super::recent::{Change, Record};
use super::revision::Revision;
use crate::error::StoreError;

/// One revision in the making.
pub struct Writer<'a> {
    mvcc: &'a mut Mvcc,
    records: SmallVec<[Record; 1]>,
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader {
        revision,
        ..ResponseHeader::default()
    })
}

impl Mvcc {
    /// Carries out a put.
    ///
    /// # Errors
    /// When its lease or the key it refers to does not exist; nothing was written then.
    pub fn put(&mut self, request: PutRequest) -> Result<PutResponse, StoreError> {
        self.check_put(&request)?;
        let mut writer = Writer::new(self);
        let response = writer.put(request)?;
        writer.finish();
        Ok(response)
    }

    /// Carries out a deletion.
    ///
    /// # Errors
    /// When a record it has to return cannot be read.
    pub fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, StoreError> {
        let mut writer = Writer::new(self);
        let response = writer.delete_range(request)?;
        writer.finish();
        Ok(response)
    }

    /// Carries out a transaction.
    ///
    /// # Errors
    /// When an operation of the branch it takes would be refused; nothing was written then.
    pub fn txn(&mut self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        let path = self.judge(&request)?;
        self.check_txn(&request, &path)?;
        let mut writer = Writer::new(self);
        let response = writer.txn(request, &path)?;
        writer.finish();
        Ok(response)
    }

    /// Deletes keys of a lease that has ended, as one revision.
    pub fn delete_keys<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) {
        let mut writer = Writer::new(self);
        for key in keys {
            writer.delete(Bytes::copy_from_slice(key));
        }
        writer.finish();
    }

    fn check_put(&self, request: &PutRequest) -> Result<(), StoreError> {
        if request.lease != 0 && self.leases.get(request.lease).is_none() {
            return Err(StoreError::LeaseNotFound);
        }
        if request.ignore_value || request.ignore_lease {
            let alive = self.index.get(&request.key).and_then(|item| item.alive());
            if alive.is_none() {
                return Err(StoreError::KeyNotFound);
            }
        }
        Ok(())
    }

    fn check_txn(&self, request: &TxnRequest, path: &Path) -> Result<(), StoreError> {
        let mut nested = path.nested.iter();
        for op in branch(request, path) {
            match &op.request {
                Some(Request::RequestPut(op)) => self.check_put(op)?,
                Some(Request::RequestRange(op)) if op.revision > self.current => {
                    return Err(StoreError::FutureRevision);
                }
                Some(Request::RequestRange(op)) if op.revision > 0 && op.revision < self.compacted => {
                    return Err(StoreError::Compacted);
                }
                Some(Request::RequestTxn(op)) => {
                    if let Some(path) = nested.next() {
                        self.check_txn(op, path)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether a transaction could put something.
#[must_use]
pub fn may_put(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .any(|op| match &op.request {
            Some(Request::RequestPut(_)) => true,
            Some(Request::RequestTxn(op)) => may_put(op),
            _ => false,
        })
}

fn branch<'r>(request: &'r TxnRequest, path: &Path) -> &'r [RequestOp] {
    if path.succeeded {
        &request.success
    } else {
        &request.failure
    }
}

impl<'a> Writer<'a> {
    fn new(mvcc: &'a mut Mvcc) -> Self {
        Self {
            mvcc,
            records: SmallVec::new(),
        }
    }

    /// The revision as seen from inside: what was written already counts.
    fn revision(&self) -> i64 {
        if self.records.is_empty() {
            self.mvcc.current
        } else {
            self.mvcc.current + 1
        }
    }

    fn next(&self) -> Revision {
        Revision {
            main: self.mvcc.current + 1,
            sub: self.records.len() as u32,
        }
    }

    /// A key's newest record, one of this transaction's own included.
    fn current_record(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let Some((revision, _)) = self.mvcc.index.get(key).and_then(|item| item.alive()) else {
            return Ok(None);
        };
        if revision.main > self.mvcc.current {
            return Ok(self.records.get(revision.sub as usize).cloned());
        }
        self.mvcc
            .record(key, revision)?
            .ok_or(StoreError::Corrupt)
            .map(Some)
    }

    fn put(&mut self, request: PutRequest) -> Result<PutResponse, StoreError> {
        let previous = if request.prev_kv || request.ignore_value {
            self.current_record(&request.key)?
        } else {
            None
        };
        let old_lease = self
            .mvcc
            .index
            .get(&request.key)
            .and_then(|item| item.alive())
            .map_or(0, |(_, life)| life.lease);
        let lease = if request.ignore_lease {
            old_lease
        } else {
            request.lease
        };
        let value = match &previous {
            Some(record) if request.ignore_value => record.value.clone(),
            _ => request.value,
        };
        let revision = self.next();
        let (_, life) = self.mvcc.index.put(&request.key, revision, lease);
        self.mvcc.leases.attach(&request.key, old_lease, lease);
        self.records.push(Record {
            revision,
            deleted: false,
            life,
            key: request.key,
            value,
        });
        Ok(PutResponse {
            header: header(revision.main),
            prev_kv: previous
                .filter(|_| request.prev_kv)
                .map(|record| record.to_key_value()),
        })
    }

    fn delete(&mut self, key: Bytes) {
        let revision = self.next();
        if let Some(life) = self.mvcc.index.delete(&key, revision) {
            self.mvcc.leases.attach(&key, life.lease, 0);
            self.records.push(Record {
                revision,
                deleted: true,
                life: Life::default(),
                key,
                value: Bytes::new(),
            });
        }
    }

    fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<DeleteRangeResponse, StoreError> {
        let range = KeyRange::new(&request.key, &request.range_end);
        let keys: Vec<Bytes> = self
            .mvcc
            .index
            .range(&range)
            .filter(|(_, item)| item.alive().is_some())
            .map(|(key, _)| Bytes::copy_from_slice(key))
            .collect();
        let mut prev_kvs: Vec<KeyValue> = Vec::new();
        if request.prev_kv {
            for key in &keys {
                if let Some(record) = self.current_record(key)? {
                    prev_kvs.push(record.to_key_value());
                }
            }
        }
        let deleted = keys.len() as i64;
        for key in keys {
            self.delete(key);
        }
        Ok(DeleteRangeResponse {
            header: header(self.revision()),
            deleted,
            prev_kvs,
        })
    }

    fn txn(&mut self, request: TxnRequest, path: &Path) -> Result<TxnResponse, StoreError> {
        let ops = if path.succeeded {
            request.success
        } else {
            request.failure
        };
        let mut nested = path.nested.iter();
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            let response = match op.request {
                Some(Request::RequestPut(op)) => Some(Response::ResponsePut(self.put(op)?)),
                Some(Request::RequestDeleteRange(op)) => {
                    Some(Response::ResponseDeleteRange(self.delete_range(&op)?))
                }
                Some(Request::RequestRange(op)) => Some(Response::ResponseRange(self.range(&op)?)),
                Some(Request::RequestTxn(op)) => match nested.next() {
                    // A nested transaction's header is empty, as in etcd.
                    Some(path) => Some(Response::ResponseTxn(TxnResponse {
                        header: Some(ResponseHeader::default()),
                        ..self.txn(op, path)?
                    })),
                    None => None,
                },
                None => None,
            };
            responses.push(ResponseOp { response });
        }
        Ok(TxnResponse {
            header: header(self.revision()),
            succeeded: path.succeeded,
            responses,
        })
    }

    /// A range inside a transaction: it sees what the transaction has written so far.
    fn range(
        &mut self,
        request: &keelson_proto::etcd::RangeRequest,
    ) -> Result<keelson_proto::etcd::RangeResponse, StoreError> {
        let at = if request.revision > 0 {
            request.revision
        } else {
            self.revision()
        };
        if self.records.is_empty() || at <= self.mvcc.current {
            return self.mvcc.range_locked(request, at);
        }
        // The records so far are made visible for the time of the range.
        let revision = self.mvcc.current + 1;
        self.mvcc.recent.push(Arc::new(Change {
            revision,
            records: self.records.clone(),
        }));
        let response = self.mvcc.range_locked(request, at);
        self.mvcc.recent.pop_last();
        let mut response = response?;
        response.header = header(revision);
        Ok(response)
    }

    /// The revision is complete, if anything was written.
    fn finish(self) {
        if self.records.is_empty() {
            return;
        }
        let revision = self.mvcc.current + 1;
        self.mvcc.recent.push(Arc::new(Change {
            revision,
            records: self.records,
        }));
        self.mvcc.current = revision;
    }
}
