//! Lines of keys, as etcd's clients make them to lock and to elect.
//!
//! Who wants something puts a key `NAME/LEASE`. It has what it wants once no key under `NAME/` is older, and for as long
//! as its key is there. Keys are never put before one's own, so what has been seen to be the oldest remains it: each
//! waits for the one just before it, and nobody for all. Everything goes through the KV service, as it would for a
//! client that did it by itself.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_server::Kv;
use keelson_proto::etcd::lease_server::Lease;
use keelson_proto::etcd::range_request::{SortOrder, SortTarget};
use keelson_proto::etcd::request_op::Request as Op;
use keelson_proto::etcd::response_op::Response as Answer;
use keelson_proto::etcd::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, TxnRequest, TxnResponse,
};
use keelson_proto::mvcc::KeyValue;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

use super::Api;
use super::kv::KvService;
use super::lease::LeaseService;
use crate::error::StoreError;
use crate::mvcc::key_range::KeyRange;
use crate::watch::follow::Follow;

/// Seconds of a lease that the server makes for a client that has none, as in etcd.
const SESSION_TTL: i64 = 60;

/// Everybody who wants the same thing.
pub struct Line {
    api: Arc<Api>,
    name: Bytes,
}

/// A client's place in a line.
pub struct Place {
    /// Its key.
    pub key: Bytes,
    /// Revision at which the key was created.
    pub revision: i64,
    /// Answer to the transaction that entered.
    pub header: ResponseHeader,
    /// The value under the key.
    pub value: Bytes,
    /// It was taken just now, and not before by the same lease.
    pub new: bool,
    /// It is at the head of the line.
    pub first: bool,
}

impl Line {
    /// The line of a name.
    #[must_use]
    pub fn new(api: Arc<Api>, name: Bytes) -> Self {
        Self { api, name }
    }

    /// The lease that a client means, made for it if it means none.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn lease(&self, lease: i64) -> Result<i64, Status> {
        if lease != 0 {
            return Ok(lease);
        }
        let request = LeaseGrantRequest {
            ttl: SESSION_TTL,
            id: 0,
        };
        let granted = LeaseService(self.api.clone())
            .lease_grant(Request::new(request))
            .await?;
        Ok(granted.into_inner().id)
    }

    /// Takes a place, or finds that the lease has one.
    ///
    /// # Errors
    /// When there is no such lease, or no agreement.
    pub async fn enter(&self, lease: i64, value: Bytes) -> Result<Place, Status> {
        let key = self.key(lease);
        let head = || op(Op::RequestRange(self.oldest()));
        let mine = RangeRequest {
            key: key.clone(),
            ..RangeRequest::default()
        };
        let put = PutRequest {
            key: key.clone(),
            value: value.clone(),
            lease,
            ..PutRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created(key.clone(), 0)],
            success: vec![op(Op::RequestPut(put)), head()],
            failure: vec![op(Op::RequestRange(mine)), head()],
        };
        let answer = self.txn(request).await?;
        let header = answer.header.unwrap_or_default();
        let mut ranges = answer.responses.into_iter().filter_map(|op| match op.response {
            Some(Answer::ResponseRange(range)) => Some(range.kvs.into_iter().next()),
            _ => None,
        });
        let (revision, value) = if answer.succeeded {
            (header.revision, value)
        } else {
            let there = ranges.next().flatten().ok_or(StoreError::Corrupt)?;
            (there.create_revision, there.value)
        };
        let first = ranges
            .next()
            .flatten()
            .is_none_or(|head| head.create_revision == revision);
        Ok(Place {
            key,
            revision,
            header,
            value,
            new: answer.succeeded,
            first,
        })
    }

    /// Waits until it is a place's turn. A place that does not get it is left, and so is one whose client is `gone`
    /// (but for one that it had before). `None`: the key is not there any more, because its lease has ended, or somebody
    /// deleted it.
    ///
    /// # Errors
    /// When the client is gone, the member stops, or there is no agreement.
    pub async fn turn(
        &self,
        place: &Place,
        gone: &CancellationToken,
    ) -> Result<Option<ResponseHeader>, Status> {
        let turn = if place.first {
            Ok(Some(place.header))
        } else {
            tokio::select! {
                turn = self.wait(place) => turn,
                () = gone.cancelled() => Err(Status::cancelled("context canceled")),
                () = self.api.shutdown.cancelled() => Err(StoreError::Stopped.into()),
            }
        };
        let had_it = place.first && !place.new;
        if turn.is_err() || (gone.is_cancelled() && !had_it) {
            // What is left behind goes with its lease.
            let _ = self.leave(&place.key, place.revision).await;
        }
        turn
    }

    async fn wait(&self, place: &Place) -> Result<Option<ResponseHeader>, Status> {
        let follow = |key: &Bytes, seen: i64| {
            Follow::new(self.api.state.clone(), KeyRange::One(key.clone()), seen + 1)
        };
        let mut own = follow(&place.key, place.header.revision);
        loop {
            let before = self
                .range(RangeRequest {
                    max_create_revision: place.revision - 1,
                    sort_order: SortOrder::Descend as i32,
                    ..self.oldest()
                })
                .await?;
            let seen = revision(&before);
            let Some(before) = before.kvs.into_iter().next() else {
                // A lease may have ended meanwhile that nobody here has heard of yet.
                return self.still_there(place).await;
            };
            let mut before = follow(&before.key, seen);
            tokio::select! {
                ended = deleted(&mut before) => ended?,
                ended = deleted(&mut own) => {
                    ended?;
                    let Some(header) = self.still_there(place).await? else {
                        return Ok(None);
                    };
                    own = follow(&place.key, header.revision);
                }
            }
        }
    }

    async fn still_there(&self, place: &Place) -> Result<Option<ResponseHeader>, Status> {
        let found = self
            .range(RangeRequest {
                key: place.key.clone(),
                ..RangeRequest::default()
            })
            .await?;
        let there = found
            .kvs
            .first()
            .is_some_and(|kv| kv.create_revision == place.revision);
        Ok(found.header.filter(|_| there))
    }

    /// Gives a new value to a key that was created at `revision`. `None`: that one is not there any more.
    ///
    /// # Errors
    /// When there is no such lease, or no agreement.
    pub async fn rewrite(&self, revision: i64, put: PutRequest) -> Result<Option<ResponseHeader>, Status> {
        let request = TxnRequest {
            compare: vec![created(put.key.clone(), revision)],
            success: vec![op(Op::RequestPut(put))],
            failure: Vec::new(),
        };
        let answer = self.txn(request).await?;
        Ok(answer.header.filter(|_| answer.succeeded))
    }

    /// Deletes a key if it is still the one that was created at `revision`.
    ///
    /// # Errors
    /// When there is no agreement.
    pub async fn leave(&self, key: &Bytes, revision: i64) -> Result<ResponseHeader, Status> {
        let delete = DeleteRangeRequest {
            key: key.clone(),
            ..DeleteRangeRequest::default()
        };
        let request = TxnRequest {
            compare: vec![created(key.clone(), revision)],
            success: vec![op(Op::RequestDeleteRange(delete))],
            failure: Vec::new(),
        };
        Ok(self.txn(request).await?.header.unwrap_or_default())
    }

    /// The head of the line, and the revision at which it was.
    ///
    /// # Errors
    /// When there is no agreement.
    pub async fn head(&self) -> Result<(Option<KeyValue>, ResponseHeader), Status> {
        let found = self.range(self.oldest()).await?;
        Ok((found.kvs.into_iter().next(), found.header.unwrap_or_default()))
    }

    /// Every key of the line.
    #[must_use]
    pub fn keys(&self) -> KeyRange {
        let oldest = self.oldest();
        KeyRange::Span(oldest.key, oldest.range_end)
    }

    fn key(&self, lease: i64) -> Bytes {
        // As Go writes a negative number in hexadecimal.
        let sign = if lease < 0 { "-" } else { "" };
        let number = format!("/{sign}{:x}", lease.unsigned_abs());
        [self.name.as_ref(), number.as_bytes()].concat().into()
    }

    /// The oldest key under the name and a slash; the character after the slash ends the range.
    fn oldest(&self) -> RangeRequest {
        RangeRequest {
            key: [self.name.as_ref(), b"/"].concat().into(),
            range_end: [self.name.as_ref(), b"0"].concat().into(),
            limit: 1,
            sort_target: SortTarget::Create as i32,
            sort_order: SortOrder::Ascend as i32,
            ..RangeRequest::default()
        }
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        let kv = KvService(self.api.clone());
        Ok(kv.range(Request::new(request)).await?.into_inner())
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let kv = KvService(self.api.clone());
        Ok(kv.txn(Request::new(request)).await?.into_inner())
    }
}

/// Waits until a key is deleted, or may have been.
async fn deleted(follow: &mut Follow) -> Result<(), StoreError> {
    loop {
        match follow.next().await {
            Ok(records) if records.iter().any(|record| record.deleted) => return Ok(()),
            Ok(_) => {}
            Err(StoreError::Compacted) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

fn op(request: Op) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

/// The key was created at this revision; 0: it is not there.
fn created(key: Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key,
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn revision(response: &RangeResponse) -> i64 {
    response.header.as_ref().map_or(0, |header| header.revision)
}

/// Carries `work` to its end, whether or not the client waits for it, and tells it when the client is gone.
///
/// # Errors
/// Those of `work`, as etcd answers them: with their text, and the code of an error that is no gRPC status, because
/// they reached the service through a client of its own.
pub async fn attended<T, W>(work: impl FnOnce(CancellationToken) -> W) -> Result<T, Status>
where
    T: Send + 'static,
    W: Future<Output = Result<T, Status>> + Send + 'static,
{
    let gone = CancellationToken::new();
    // When the client goes, so does this future.
    let _guard = gone.clone().drop_guard();
    let done = tokio::spawn(work(gone)).await;
    done.unwrap_or_else(|_| Err(StoreError::Stopped.into()))
        .map_err(|status| unknown(&status))
}

/// The same text without a code.
pub fn unknown(status: &Status) -> Status {
    Status::unknown(status.message())
}
