//! The Election service: the head of a line is elected.

use std::sync::Arc;

use bytes::Bytes;
use keelson_proto::election::election_server::Election;
use keelson_proto::election::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};
use keelson_proto::etcd::PutRequest;
use keelson_proto::mvcc::KeyValue;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Api;
use super::line::{Line, Place, attended, unknown};
use crate::error::StoreError;
use crate::mvcc::key_range::KeyRange;
use crate::mvcc::recent::Record;
use crate::watch::follow::Follow;

/// A request that has to say who is elected, and does not.
const MISSING_LEADER_KEY: &str = "\"leader\" field must be provided";
/// Nobody is elected.
const NO_LEADER: &str = "election: no leader";
/// Whoever asks is not elected, or not any more.
const NOT_LEADER: &str = "election: not leader";

/// Responses that may wait for an observer's connection.
const RESPONSES: usize = 16;

/// The Election service.
#[derive(Clone)]
pub struct ElectionService(pub Arc<Api>);

fn not_leader() -> Status {
    Status::unknown(NOT_LEADER)
}

fn shown(leader: Option<LeaderKey>) -> Result<LeaderKey, Status> {
    leader.ok_or_else(|| Status::unknown(MISSING_LEADER_KEY))
}

/// Takes a place with a value; one that the lease had before gets the value.
async fn stand(line: &Line, lease: i64, value: Bytes) -> Result<Place, Status> {
    let place = line.enter(lease, value.clone()).await?;
    if place.value == value {
        return Ok(place);
    }
    let put = PutRequest {
        key: place.key.clone(),
        value,
        lease,
        ..PutRequest::default()
    };
    let rewritten = match line.rewrite(place.revision, put).await {
        Ok(rewritten) => rewritten.ok_or_else(not_leader),
        Err(error) => Err(error),
    };
    if let Err(error) = rewritten {
        // What is left behind goes with its lease.
        let _ = line.leave(&place.key, place.revision).await;
        return Err(error);
    }
    Ok(place)
}

#[tonic::async_trait]
impl Election for ElectionService {
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let CampaignRequest { name, lease, value } = request.into_inner();
        let line = Line::new(self.0.clone(), name.clone());
        attended(|gone| async move {
            let lease = line.lease(lease).await?;
            let place = stand(&line, lease, value).await?;
            // etcd would say of a key that is gone that it is elected.
            line.turn(&place, &gone).await?.ok_or_else(not_leader)?;
            Ok(Response::new(CampaignResponse {
                header: Some(place.header),
                leader: Some(LeaderKey {
                    name,
                    key: place.key,
                    rev: place.revision,
                    lease,
                }),
            }))
        })
        .await
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let ProclaimRequest { leader, value } = request.into_inner();
        let leader = shown(leader)?;
        let line = Line::new(self.0.clone(), leader.name);
        attended(|_| async move {
            let put = PutRequest {
                key: leader.key,
                value,
                lease: line.lease(leader.lease).await?,
                ..PutRequest::default()
            };
            let header = line.rewrite(leader.rev, put).await?;
            Ok(Response::new(ProclaimResponse {
                header: Some(header.ok_or_else(not_leader)?),
            }))
        })
        .await
    }

    async fn leader(&self, request: Request<LeaderRequest>) -> Result<Response<LeaderResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let line = Line::new(self.0.clone(), request.into_inner().name);
        let (head, header) = line.head().await.map_err(|status| unknown(&status))?;
        let head = head.ok_or_else(|| Status::unknown(NO_LEADER))?;
        Ok(Response::new(LeaderResponse {
            header: Some(header),
            kv: Some(head),
        }))
    }

    type ObserveStream = ReceiverStream<Result<LeaderResponse, Status>>;

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let leader_lost = self
            .0
            .clone()
            .leader_lost(super::wants_leader(request.metadata()));
        let (out, responses) = mpsc::channel(RESPONSES);
        let observer = Observer {
            line: Line::new(self.0.clone(), request.into_inner().name),
            api: self.0.clone(),
            out: out.clone(),
        };
        let shutdown = self.0.shutdown.clone();
        tokio::spawn(async move {
            let error = tokio::select! {
                Err(status) = observer.run() => unknown(&status),
                () = leader_lost => StoreError::NoLeader.into(),
                () = shutdown.cancelled() => StoreError::Stopped.into(),
                () = out.closed() => return,
            };
            // The client may be gone already.
            let _ = out.send(Err(error)).await;
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    async fn resign(&self, request: Request<ResignRequest>) -> Result<Response<ResignResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let leader = shown(request.into_inner().leader)?;
        let line = Line::new(self.0.clone(), leader.name);
        attended(|_| async move {
            let header = line.leave(&leader.key, leader.rev).await?;
            Ok(Response::new(ResignResponse { header: Some(header) }))
        })
        .await
    }
}

/// Who is told of an election.
struct Observer {
    line: Line,
    api: Arc<Api>,
    out: mpsc::Sender<Result<LeaderResponse, Status>>,
}

impl Observer {
    /// Tells of everybody who is elected and all they proclaim, until it cannot.
    async fn run(&self) -> Result<std::convert::Infallible, Status> {
        loop {
            let (head, header) = self.line.head().await?;
            match head {
                Some(head) => self.reign(head, header.revision).await?,
                None => self.vacancy(header.revision).await?,
            }
        }
    }

    /// Tells of one who is elected, as it is at a revision, and what it proclaims, until it is not any more.
    async fn reign(&self, head: KeyValue, seen: i64) -> Result<(), Status> {
        let key = KeyRange::One(head.key.clone());
        let mut follow = Follow::new(self.api.state.clone(), key, seen + 1);
        self.tell(head, seen).await?;
        while let Some(records) = followed(&mut follow).await? {
            for record in records {
                if record.deleted {
                    return Ok(());
                }
                let revision = record.revision.main;
                self.tell(record.to_key_value(), revision).await?;
            }
        }
        Ok(())
    }

    /// Waits until somebody stands, who is elected with that.
    async fn vacancy(&self, seen: i64) -> Result<(), Status> {
        let mut follow = Follow::new(self.api.state.clone(), self.line.keys(), seen + 1);
        while let Some(records) = followed(&mut follow).await? {
            if let Some(put) = records.iter().find(|record| !record.deleted) {
                let revision = put.revision.main;
                return self.reign(put.to_key_value(), revision).await;
            }
        }
        Ok(())
    }

    async fn tell(&self, leader: KeyValue, revision: i64) -> Result<(), Status> {
        let response = LeaderResponse {
            header: Some(self.api.headers.at(revision)),
            kv: Some(leader),
        };
        self.out
            .send(Ok(response))
            .await
            .map_err(|_| Status::cancelled("context canceled"))
    }
}

/// The next changes. `None`: they were missed, and it has to be looked anew who is elected.
async fn followed(follow: &mut Follow) -> Result<Option<Vec<Record>>, StoreError> {
    match follow.next().await {
        Ok(records) => Ok(Some(records)),
        Err(StoreError::Compacted) => Ok(None),
        Err(error) => Err(error),
    }
}
