//! The Lease service.

use std::sync::Arc;

use futures::StreamExt;
use keelson_proto::etcd::lease_server::Lease;
use keelson_proto::etcd::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseStatus, LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
};
use keelson_proto::raft_transport::{LeaseRenewRequest, LeaseTtlRequest};
use keelson_proto::store::proposal::Operation;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::kv::unexpected;
use crate::error::StoreError;
use crate::lease::MAX_TTL;
use crate::state::Outcome;

/// The Lease service.
#[derive(Clone)]
pub struct LeaseService(pub Arc<Api>);

impl LeaseService {
    fn leads(&self) -> bool {
        self.0.raft.leadership.leader() == self.0.raft.member
    }

    /// Gives a lease its full time again, here or at the leader. `None`: there is no such lease.
    async fn renew(&self, id: i64) -> Result<Option<i64>, StoreError> {
        if self.leads() {
            return self.0.raft.renew(&self.0.state.clock, id).await;
        }
        let mut leader = self.0.peers.leader().await?;
        let renewed = leader
            .lease_renew(LeaseRenewRequest { id })
            .await
            .map_err(|_| StoreError::NoLeader)?
            .into_inner();
        Ok(renewed.found.then_some(renewed.ttl))
    }

    async fn remaining(&self, id: i64) -> Result<Option<i64>, StoreError> {
        if self.leads() {
            return Ok(self.0.state.clock.remaining(id));
        }
        let mut leader = self.0.peers.leader().await?;
        let left = leader
            .lease_time_to_live(LeaseTtlRequest { id })
            .await
            .map_err(|_| StoreError::NoLeader)?
            .into_inner();
        Ok(left.found.then_some(left.remaining))
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    type LeaseKeepAliveStream = ReceiverStream<Result<LeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<LeaseGrantRequest>,
    ) -> Result<Response<LeaseGrantResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let mut request = request.into_inner();
        if request.ttl > MAX_TTL {
            return Err(StoreError::LeaseTtlTooLarge.into());
        }
        // A lease shorter than an election could end while nobody leads.
        request.ttl = request.ttl.max(self.0.limits.min_lease_ttl);
        if request.id == 0 {
            request.id = rand::random_range(1..i64::MAX);
        }
        match self.0.raft.propose(Operation::LeaseGrant(request)).await? {
            Outcome::LeaseGrant(mut response) => {
                self.0.headers.complete(&mut response.header);
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        match self.0.raft.propose(Operation::LeaseRevoke(request)).await? {
            Outcome::LeaseRevoke(mut response) => {
                self.0.headers.complete(&mut response.header);
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let wants_leader = super::wants_leader(request.metadata());
        let mut requests = request.into_inner();
        let (out, responses) = mpsc::channel(16);
        let service = self.clone();
        tokio::spawn(async move {
            let shutdown = service.0.shutdown.clone();
            let mut leader_lost = std::pin::pin!(service.0.clone().leader_lost(wants_leader));
            loop {
                let request = tokio::select! {
                    request = requests.next() => request,
                    () = leader_lost.as_mut() => {
                        let _ = out.send(Err(StoreError::NoLeader.into())).await;
                        break;
                    }
                    () = shutdown.cancelled() => {
                        let _ = out.send(Err(StoreError::Stopped.into())).await;
                        break;
                    }
                };
                let Some(Ok(LeaseKeepAliveRequest { id })) = request else {
                    break;
                };
                let response = match service.renew(id).await {
                    Ok(ttl) => Ok(LeaseKeepAliveResponse {
                        header: Some(service.0.headers.at(service.0.state.revision())),
                        id,
                        ttl: ttl.unwrap_or(0),
                    }),
                    Err(error) => Err(error.into()),
                };
                let failed = response.is_err();
                if out.send(response).await.is_err() || failed {
                    break;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        self.0.raft.linearize().await?;
        let lease = self.0.state.read(|inner| {
            inner.mvcc.leases.get(request.id).map(|lease| {
                let keys: Vec<bytes::Bytes> = if request.keys {
                    lease
                        .keys
                        .iter()
                        .map(|key| bytes::Bytes::copy_from_slice(key))
                        .collect()
                } else {
                    Vec::new()
                };
                (lease.ttl, keys)
            })
        });
        let mut response = LeaseTimeToLiveResponse {
            header: Some(self.0.headers.at(self.0.state.revision())),
            id: request.id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        };
        if let Some((granted, keys)) = lease {
            response.ttl = self.remaining(request.id).await?.unwrap_or(-1);
            response.granted_ttl = granted;
            response.keys = keys;
        }
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<LeaseLeasesRequest>,
    ) -> Result<Response<LeaseLeasesResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        self.0.raft.linearize().await?;
        let leases = self.0.state.read(|inner| {
            inner
                .mvcc
                .leases
                .all()
                .map(|(id, _)| LeaseStatus { id })
                .collect()
        });
        Ok(Response::new(LeaseLeasesResponse {
            header: Some(self.0.headers.at(self.0.state.revision())),
            leases,
        }))
    }
}
