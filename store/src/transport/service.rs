//! The incoming side.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::StreamExt;
use keelson_proto::raft_transport::raft_transport_server::RaftTransport;
use keelson_proto::raft_transport::{
    LeaseRenewRequest, LeaseRenewResponse, LeaseTtlRequest, LeaseTtlResponse, MembersRequest,
    MembersResponse, MembershipRequest, MembershipResponse, MessageBatch, MessagesEnd, SnapshotEnd,
    SnapshotPiece, StateRequest,
};
use protobuf::Message as _;
use raft::eraftpb::Message;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::membership;
use crate::cluster::to_peer;
use crate::dump::{self, Loader};
use crate::error::StoreError;
use crate::raft::handle::{Command, RaftHandle};
use crate::state::State;

/// Pieces of a state that may wait for a connection.
const STATE_PIECES: usize = 8;

/// Answers other members.
#[derive(Clone)]
pub struct TransportService {
    inner: Arc<Inner>,
}

struct Inner {
    cluster: u64,
    state: Arc<State>,
    raft: RaftHandle,
    folder: PathBuf,
    received: AtomicU64,
}

impl TransportService {
    /// Answers in the name of this member. Received snapshots are prepared in `folder`.
    #[must_use]
    pub fn new(cluster: u64, state: Arc<State>, raft: RaftHandle, folder: PathBuf) -> Self {
        Self {
            inner: Arc::new(Inner {
                cluster,
                state,
                raft,
                folder,
                received: AtomicU64::new(0),
            }),
        }
    }

    fn check(&self, cluster: u64, to: u64) -> Result<(), Status> {
        if cluster != self.inner.cluster {
            return Err(Status::failed_precondition(
                "request sent was ignored (cluster ID mismatch)",
            ));
        }
        if to != self.inner.raft.member {
            return Err(Status::failed_precondition(
                "request sent was ignored (member ID mismatch)",
            ));
        }
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Result<Message, Status> {
    let mut message = Message::default();
    message
        .merge_from_bytes(bytes)
        .map_err(|error| Status::invalid_argument(format!("raft message: {error}")))?;
    Ok(message)
}

#[tonic::async_trait]
impl RaftTransport for TransportService {
    async fn messages(
        &self,
        request: Request<Streaming<MessageBatch>>,
    ) -> Result<Response<MessagesEnd>, Status> {
        let mut batches = request.into_inner();
        while let Some(batch) = batches.next().await {
            let batch = batch?;
            self.check(batch.cluster_id, batch.to)?;
            let messages = batch
                .messages
                .iter()
                .map(|bytes| decode(bytes))
                .collect::<Result<Vec<_>, _>>()?;
            self.inner.raft.send(Command::Step(messages));
        }
        Ok(Response::new(MessagesEnd {}))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotPiece>>,
    ) -> Result<Response<SnapshotEnd>, Status> {
        let mut pieces = request.into_inner();
        let number = self.inner.received.fetch_add(1, Ordering::Relaxed);
        let path = self.inner.folder.join(format!("incoming-{number}"));
        let failed =
            |error: &dyn std::fmt::Display| Status::internal(format!("receiving a snapshot: {error}"));
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(|error| failed(&error))?;
        }
        let mut loader = Loader::new(&path).map_err(|error| failed(&error))?;
        let mut crc = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            self.check(piece.cluster_id, piece.to)?;
            crc = crc32c::crc32c_append(crc, &piece.data);
            loader = tokio::task::spawn_blocking(move || loader.take(&piece.data).map(|()| loader))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))?;
            let Some(want) = piece.crc else {
                continue;
            };
            if want != crc {
                return Err(Status::data_loss("the snapshot was damaged on its way"));
            }
            let message = decode(&piece.message)?;
            tokio::task::spawn_blocking(move || loader.finish().map(drop))
                .await
                .map_err(|error| failed(&error))?
                .map_err(|error| failed(&error))?;
            self.inner.raft.send(Command::Snapshot(message, path));
            return Ok(Response::new(SnapshotEnd {}));
        }
        Err(Status::data_loss("the snapshot was cut short"))
    }

    type StateStream = ReceiverStream<Result<SnapshotPiece, Status>>;

    async fn state(&self, request: Request<StateRequest>) -> Result<Response<Self::StateStream>, Status> {
        let to = request.into_inner().from;
        let known = self
            .inner
            .state
            .read(|inner| inner.shared.membership.members.contains_key(&to));
        if !known {
            return Err(Status::failed_precondition(
                "the member is not part of this cluster",
            ));
        }
        let (pieces, stream) = mpsc::channel(STATE_PIECES);
        let inner = self.inner.clone();
        let piece = SnapshotPiece {
            cluster_id: inner.cluster,
            from: inner.raft.member,
            to,
            ..SnapshotPiece::default()
        };
        tracing::info!(
            member = format!("{to:x}"),
            "sending the state to a member that has lost its own"
        );
        tokio::task::spawn_blocking(move || {
            let mut crc = 0;
            let sent = dump::write(&inner.state, &mut |data| {
                crc = crc32c::crc32c_append(crc, &data);
                let piece = SnapshotPiece {
                    data,
                    ..piece.clone()
                };
                match pieces.blocking_send(Ok(piece)) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            let end = match sent {
                Ok(Some(_)) => Ok(SnapshotPiece {
                    crc: Some(crc),
                    ..piece
                }),
                Ok(None) => return,
                Err(error) => Err(error.into()),
            };
            // Whoever asked may have gone.
            let _ = pieces.blocking_send(end);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let members = self.inner.state.read(|inner| {
            let members = inner.shared.membership.members.values();
            members.map(to_peer).collect()
        });
        Ok(Response::new(MembersResponse {
            cluster_id: self.inner.cluster,
            member_id: self.inner.raft.member,
            leader_id: self.inner.raft.leadership.leader(),
            members,
        }))
    }

    async fn lease_renew(
        &self,
        request: Request<LeaseRenewRequest>,
    ) -> Result<Response<LeaseRenewResponse>, Status> {
        let inner = &self.inner;
        let ttl = inner
            .raft
            .renew(&inner.state.clock, request.into_inner().id)
            .await?;
        Ok(Response::new(LeaseRenewResponse {
            found: ttl.is_some(),
            ttl: ttl.unwrap_or(0),
        }))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTtlRequest>,
    ) -> Result<Response<LeaseTtlResponse>, Status> {
        let remaining = self.inner.state.clock.remaining(request.into_inner().id);
        Ok(Response::new(LeaseTtlResponse {
            found: remaining.is_some(),
            remaining: remaining.unwrap_or(0),
        }))
    }

    async fn change_membership(
        &self,
        request: Request<MembershipRequest>,
    ) -> Result<Response<MembershipResponse>, Status> {
        let request = request.into_inner();
        self.check(request.cluster_id, request.to)?;
        let raft = &self.inner.raft;
        if raft.leadership.leader() != raft.member {
            return Err(StoreError::NotLeader.into());
        }
        let change = request
            .change
            .map(membership::decode)
            .ok_or_else(|| Status::invalid_argument("a change of the group without a change"))?;
        let response = match raft.change_membership(change).await {
            Ok(_) => MembershipResponse::default(),
            Err(error) => MembershipResponse {
                code: error.code().into(),
                error: error.to_string(),
            },
        };
        Ok(Response::new(response))
    }
}
