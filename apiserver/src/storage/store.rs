//! The etcd v3 client, reduced to what a Kubernetes server does with its store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use keelson_api::status::ApiError;
use keelson_proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use keelson_proto::etcd::kv_client::KvClient;
use keelson_proto::etcd::lease_client::LeaseClient;
use keelson_proto::etcd::request_op::Request as Op;
use keelson_proto::etcd::response_op::Response as OpAnswer;
use keelson_proto::etcd::watch_client::WatchClient;
use keelson_proto::etcd::{
    Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
};
use keelson_proto::mvcc::KeyValue;
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::encryption::{self, Encryption, Opened};
use super::transactions::Transactions;

/// How long a single call may take. A store without a leader does not answer at all.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reads are tried again while the store is away.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// Lists of the whole store come in one message.
const MESSAGE_LIMIT: usize = 512 << 20;
/// Leases of events are shared by everything written within this time, as upstream does it.
const LEASE_REUSE: Duration = Duration::from_secs(60);

/// A value and the revision it was written at.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The bytes.
    pub value: Bytes,
    /// Revision of the last write.
    pub revision: i64,
    /// Whether it was encrypted with another key than the one in use.
    pub stale: bool,
}

/// What came of a conditional write.
#[derive(Debug)]
pub enum Written {
    /// It was done, at this revision.
    Done(i64),
    /// The condition did not hold; this is what the key holds instead.
    Conflict(Option<Stored>),
}

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for has been compacted away.
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    /// The revision asked for is not there yet.
    #[error("etcdserver: mvcc: required revision is a future revision")]
    Future,
    /// No answer in time: the call may or may not have had its effect.
    #[error("the store did not answer in time")]
    Timeout,
    /// Not reachable.
    #[error("the store cannot be reached: {0}")]
    Unavailable(String),
    /// The value under this key cannot be encrypted or decrypted.
    #[error("unable to transform key {0:?}: {1}")]
    Transform(String, String),
    /// Anything else the store said.
    #[error("{0}")]
    Refused(String),
}

impl From<Status> for StoreError {
    fn from(status: Status) -> Self {
        match status.code() {
            Code::OutOfRange if status.message().contains("compacted") => StoreError::Compacted,
            Code::OutOfRange => StoreError::Future,
            Code::DeadlineExceeded | Code::Cancelled => StoreError::Timeout,
            Code::Unavailable | Code::Unknown => StoreError::Unavailable(status.message().to_owned()),
            _ => StoreError::Refused(status.message().to_owned()),
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Timeout => ApiError::timeout(
                "the store did not answer in time; the request may still have had its effect",
                1,
            ),
            StoreError::Unavailable(_) => {
                ApiError::service_unavailable(error.to_string()).with_retry_after(1)
            }
            StoreError::Compacted => {
                ApiError::expired("The resourceVersion for the provided list is too old.")
            }
            StoreError::Future | StoreError::Transform(..) | StoreError::Refused(_) => {
                ApiError::internal(error)
            }
        }
    }
}

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    kv: KvClient<Channel>,
    transactions: Transactions,
    watch: WatchClient<Channel>,
    lease: LeaseClient<Channel>,
    prefix: Arc<str>,
    event_lease: Arc<Mutex<Option<(i64, Instant)>>>,
    encryption: Option<Arc<Encryption>>,
}

impl Store {
    /// A store behind two channels: one for calls, one for watches, so that neither waits for the other.
    /// `prefix` is where everything lies: `/registry`.
    pub fn new(calls: Channel, watches: Channel, prefix: &str) -> Self {
        let limit = MESSAGE_LIMIT;
        Self {
            kv: KvClient::new(calls.clone())
                .max_decoding_message_size(limit)
                .max_encoding_message_size(limit),
            transactions: Transactions::new(calls.clone(), limit),
            watch: WatchClient::new(watches).max_decoding_message_size(limit),
            lease: LeaseClient::new(calls),
            prefix: format!("/{}", prefix.trim_matches('/')).into(),
            event_lease: Arc::default(),
            encryption: None,
        }
    }

    /// The same store, seeing only ciphertext of what is to be encrypted.
    pub fn encrypted(mut self, encryption: Option<Arc<Encryption>>) -> Self {
        self.encryption = encryption;
        self
    }

    /// What is encrypted and how, if anything is.
    pub fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.encryption.as_ref()
    }

    /// The object behind a value of the store.
    pub async fn open(&self, key: &[u8], value: Bytes) -> Result<Opened, StoreError> {
        let key = String::from_utf8_lossy(key);
        match &self.encryption {
            None => encryption::plain(&key, value),
            Some(encryption) => encryption.open(&key, value).await,
        }
    }

    async fn opened(&self, kv: KeyValue) -> Result<Stored, StoreError> {
        let opened = self.open(&kv.key, kv.value).await?;
        Ok(Stored {
            value: opened.value,
            revision: kv.mod_revision,
            stale: opened.stale,
        })
    }

    async fn seal(&self, key: &str, value: Bytes) -> Result<Bytes, StoreError> {
        match &self.encryption {
            None => Ok(value),
            Some(encryption) => encryption.seal(key, value).await,
        }
    }

    /// `/registry/`.
    pub fn root(&self) -> String {
        format!("{}/", self.prefix)
    }

    /// The full key of an object: `/registry/pods/default/web`.
    pub fn key(&self, storage_prefix: &str, key: &str) -> String {
        format!("{}/{storage_prefix}/{key}", self.prefix)
    }

    /// For the feed.
    pub(super) fn watches(&self) -> WatchClient<Channel> {
        self.watch.clone()
    }

    /// What a key holds, linearizably.
    pub async fn get(&self, key: &str) -> Result<Option<Stored>, StoreError> {
        let request = RangeRequest {
            key: Bytes::from(key.to_owned()),
            ..Default::default()
        };
        let answer = self.range(request).await?;
        match answer.kvs.into_iter().next() {
            Some(kv) => self.opened(kv).await.map(Some),
            None => Ok(None),
        }
    }

    /// The store's current revision, linearizably.
    pub async fn revision(&self) -> Result<i64, StoreError> {
        let nothing = RangeRequest {
            key: Bytes::from(format!("{}/.", self.prefix)),
            count_only: true,
            ..Default::default()
        };
        let request = TxnRequest {
            success: vec![RequestOp {
                request: Some(Op::RequestRange(nothing)),
            }],
            ..Default::default()
        };
        let answer = patiently(|| self.transact(request.clone(), false)).await?;
        Ok(answer.header.map(|h| h.revision).unwrap_or_default())
    }

    /// Keys below `prefix` from `start` on, at `revision` (0: now), at most `limit` (0: all). Values are as stored: see
    /// [`Store::open`].
    pub async fn page(
        &self,
        prefix: &str,
        start: &str,
        revision: i64,
        limit: i64,
    ) -> Result<RangeResponse, StoreError> {
        self.range(RangeRequest {
            key: Bytes::from(start.to_owned()),
            range_end: prefix_end(prefix.as_bytes()),
            revision,
            limit,
            ..Default::default()
        })
        .await
    }

    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, StoreError> {
        patiently(|| async { Ok(self.kv.clone().range(request.clone()).await?.into_inner()) }).await
    }

    /// Writes `key` if it does not exist.
    pub async fn create(&self, key: &str, value: Bytes, lease: i64) -> Result<Written, StoreError> {
        let value = self.seal(key, value).await?;
        let key = Bytes::from(key.to_owned());
        let put = PutRequest {
            key: key.clone(),
            value,
            lease,
            ..Default::default()
        };
        self.write(key, 0, Op::RequestPut(put)).await
    }

    /// Writes `key` if it still is what it was at revision `expected`.
    pub async fn update(
        &self,
        key: &str,
        expected: i64,
        value: Bytes,
        lease: i64,
    ) -> Result<Written, StoreError> {
        let value = self.seal(key, value).await?;
        let key = Bytes::from(key.to_owned());
        let put = PutRequest {
            key: key.clone(),
            value,
            lease,
            ..Default::default()
        };
        self.write(key, expected, Op::RequestPut(put)).await
    }

    /// Removes `key` if it still is what it was at revision `expected`.
    pub async fn delete(&self, key: &str, expected: i64) -> Result<Written, StoreError> {
        let key = Bytes::from(key.to_owned());
        let delete = DeleteRangeRequest {
            key: key.clone(),
            ..Default::default()
        };
        self.write(key, expected, Op::RequestDeleteRange(delete)).await
    }

    async fn write(&self, key: Bytes, expected: i64, op: Op) -> Result<Written, StoreError> {
        let read = RangeRequest {
            key: key.clone(),
            ..Default::default()
        };
        let large = matches!(&op, Op::RequestPut(put) if put.value.len() > Transactions::VALUE_BYTES);
        let request = TxnRequest {
            compare: vec![Compare {
                result: CompareResult::Equal as i32,
                target: CompareTarget::Mod as i32,
                key,
                target_union: Some(TargetUnion::ModRevision(expected)),
                ..Default::default()
            }],
            success: vec![RequestOp { request: Some(op) }],
            failure: vec![RequestOp {
                request: Some(Op::RequestRange(read)),
            }],
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, self.transact(request, large))
            .await
            .map_err(|_| StoreError::Timeout)??;
        if answer.succeeded {
            return Ok(Written::Done(
                answer.header.map(|h| h.revision).unwrap_or_default(),
            ));
        }
        let found = answer
            .responses
            .into_iter()
            .next()
            .and_then(|op| match op.response {
                Some(OpAnswer::ResponseRange(range)) => range.kvs.into_iter().next(),
                _ => None,
            });
        let found = match found {
            Some(kv) => Some(self.opened(kv).await?),
            None => None,
        };
        Ok(Written::Conflict(found))
    }

    async fn transact(&self, request: TxnRequest, large: bool) -> Result<TxnResponse, Status> {
        if !large {
            match self.transactions.run(request.clone()).await {
                Err(status) if status.code() == Code::Unimplemented => {}
                answer => return answer,
            }
        }
        Ok(self.kv.clone().txn(request).await?.into_inner())
    }

    /// A lease that ends `ttl` from now or up to a minute later; many events share one.
    pub async fn event_lease(&self, ttl: Duration) -> Result<i64, StoreError> {
        // Held while a lease is granted: whoever comes meanwhile gets the same one.
        let mut shared = self.event_lease.lock().await;
        if let Some((id, until)) = *shared
            && Instant::now() < until
        {
            return Ok(id);
        }
        let id = self.grant(ttl + LEASE_REUSE).await?;
        *shared = Some((id, Instant::now() + LEASE_REUSE));
        Ok(id)
    }

    /// A new lease of that time.
    pub async fn grant(&self, ttl: Duration) -> Result<i64, StoreError> {
        let ttl = i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX);
        let mut lease = self.lease.clone();
        let granted = tokio::time::timeout(CALL_TIMEOUT, lease.lease_grant(LeaseGrantRequest { ttl, id: 0 }));
        Ok(granted.await.map_err(|_| StoreError::Timeout)??.into_inner().id)
    }

    /// Lets a lease begin anew; false when it has ended.
    pub async fn renew(&self, id: i64) -> Result<bool, StoreError> {
        let mut lease = self.lease.clone();
        let renewed = async {
            let once = tokio_stream::once(LeaseKeepAliveRequest { id });
            lease.lease_keep_alive(once).await?.into_inner().message().await
        };
        let answer = tokio::time::timeout(CALL_TIMEOUT, renewed)
            .await
            .map_err(|_| StoreError::Timeout)??;
        Ok(answer.is_some_and(|answer| answer.ttl > 0))
    }

    /// Ends a lease, and with it everything that was written under it.
    pub async fn revoke(&self, id: i64) -> Result<(), StoreError> {
        let mut lease = self.lease.clone();
        tokio::time::timeout(CALL_TIMEOUT, lease.lease_revoke(LeaseRevokeRequest { id }))
            .await
            .map_err(|_| StoreError::Timeout)??;
        Ok(())
    }
}

/// Reads are tried again while the store is away: they have no effect.
async fn patiently<T, F>(read: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, Status>>,
{
    let begun = Instant::now();
    loop {
        let error = match tokio::time::timeout(CALL_TIMEOUT, read()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(status)) => StoreError::from(status),
            Err(_) => StoreError::Timeout,
        };
        if !matches!(error, StoreError::Unavailable(_)) || begun.elapsed() > READ_PATIENCE {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Bytes::from(end);
        }
        end.pop();
    }
    Bytes::from_static(&[0])
}
