//! The KV service: ranges, puts, deletions, transactions, compaction.

use std::sync::Arc;

use keelson_proto::etcd::kv_server::Kv;
use keelson_proto::etcd::request_op::Request as Op;
use keelson_proto::etcd::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};
use keelson_proto::store::proposal::Operation;
use prost::Message;
use tonic::{Request, Response, Status};

use super::Api;
use super::listen::MESSAGE_OVERHEAD;
use crate::error::StoreError;
use crate::mvcc::check;
use crate::state::Outcome;

/// Ranges of more records than this are read on a thread that may wait for the disk.
const INLINE_RECORDS: i64 = 64;
/// And so are ranges in a store of more keys than this: they are all counted, which takes about a millisecond for these.
const INLINE_KEYS: usize = 10_000;

/// The KV service.
#[derive(Clone)]
pub struct KvService(pub Arc<Api>);

impl KvService {
    fn check_size(&self, bytes: usize) -> Result<(), StoreError> {
        let limit = self.0.limits.request_bytes;
        if bytes > limit + MESSAGE_OVERHEAD {
            return Err(StoreError::MessageTooLarge {
                bytes,
                limit: limit + MESSAGE_OVERHEAD,
            });
        }
        if bytes > limit {
            return Err(StoreError::RequestTooLarge);
        }
        Ok(())
    }

    /// Carries out a transaction, however it came here.
    ///
    /// # Errors
    /// Those of a call of `Txn`.
    pub async fn transact(&self, request: TxnRequest) -> Result<TxnResponse, StoreError> {
        self.0.refuse_learner()?;
        check::txn(&request, self.0.limits.txn_ops)?;
        let mut response = if is_read_only(&request) {
            if !is_serializable(&request) {
                self.0.raft.linearize().await?;
            }
            self.0.state.txn_read(&request)?
        } else {
            self.check_size(request.encoded_len())?;
            match self.0.raft.propose(Operation::Txn(request)).await? {
                Outcome::Txn(response) => response,
                _ => return Err(StoreError::Corrupt),
            }
        };
        // Those of the operations carry only the revision, as in etcd.
        self.0.headers.complete(&mut response.header);
        Ok(response)
    }

    async fn read_range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        let few_read =
            request.count_only || request.keys_only || (1..=INLINE_RECORDS).contains(&request.limit);
        let few_counted = || self.0.state.read(|inner| inner.mvcc.index.len()) <= INLINE_KEYS;
        let small = request.range_end.is_empty() || (few_read && few_counted());
        if small {
            return self.0.state.range(&request);
        }
        // Few at a time: each takes a thread and the memory for its answer, and the cores are few, too.
        let _turn = self
            .0
            .bulk_reads
            .acquire()
            .await
            .map_err(|_| StoreError::Stopped)?;
        let state = self.0.state.clone();
        tokio::task::spawn_blocking(move || state.range(&request))
            .await
            .unwrap_or(Err(StoreError::Stopped))
    }
}

/// An outcome of another kind than the proposal's cannot come from one log.
pub fn unexpected<T>(_: Outcome) -> Result<T, Status> {
    Err(StoreError::Corrupt.into())
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        let request = request.into_inner();
        check::range(&request)?;
        if !request.serializable {
            self.0.refuse_learner()?;
            self.0.raft.linearize().await?;
        }
        let mut response = self.read_range(request).await?;
        self.0.headers.complete(&mut response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        check::put(&request)?;
        self.check_size(request.encoded_len())?;
        match self.0.raft.propose(Operation::Put(request)).await? {
            Outcome::Put(mut response) => {
                self.0.headers.complete(&mut response.header);
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        check::delete_range(&request)?;
        self.check_size(request.encoded_len())?;
        match self.0.raft.propose(Operation::DeleteRange(request)).await? {
            Outcome::DeleteRange(mut response) => {
                self.0.headers.complete(&mut response.header);
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        Ok(Response::new(self.transact(request.into_inner()).await?))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        match self.0.raft.propose(Operation::Compaction(request)).await? {
            Outcome::Compaction(mut response) => {
                if request.physical {
                    self.0.state.compaction_done(request.revision).await;
                }
                self.0.headers.complete(&mut response.header);
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }
}

fn is_read_only(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| matches!(op.request, Some(Op::RequestRange(_))))
}

fn is_serializable(request: &TxnRequest) -> bool {
    request
        .success
        .iter()
        .chain(&request.failure)
        .all(|op| match &op.request {
            Some(Op::RequestRange(range)) => range.serializable,
            _ => true,
        })
        && !(request.success.is_empty() && request.failure.is_empty())
}
