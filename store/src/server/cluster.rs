//! The Cluster service: who belongs to the group.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keelson_proto::etcd::cluster_server::Cluster;
use keelson_proto::etcd::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use keelson_proto::raft_transport::{MembershipRequest, MembershipResponse};
use keelson_proto::store::StoredMember;
use keelson_proto::store::proposal::Operation;
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

use super::Api;
use super::kv::unexpected;
use crate::cluster::{member_id, to_etcd};
use crate::error::StoreError;
use crate::raft::handle::{Membership, PROPOSAL_PATIENCE};
use crate::state::Outcome;
use crate::transport::membership;
use crate::urls::Url;

/// The Cluster service.
#[derive(Clone)]
pub struct ClusterService(pub Arc<Api>);

impl ClusterService {
    fn header(&self) -> Option<keelson_proto::etcd::ResponseHeader> {
        Some(self.0.headers.at(self.0.state.revision()))
    }

    /// Changes the group by the leader's decision: only the leader knows who answers and who is in step.
    async fn change(&self, change: Membership) -> Result<Vec<Member>, Status> {
        let raft = &self.0.raft;
        let deadline = Instant::now() + PROPOSAL_PATIENCE;
        while Instant::now() < deadline {
            let leader = raft.leadership.leader();
            if leader == raft.member {
                return members(raft.change_membership(change).await?);
            }
            let asked = tokio::time::timeout_at(deadline, self.ask(leader, &change)).await;
            match asked.unwrap_or(Asked::Unknown) {
                Asked::Refused(why) => return Err(why),
                Asked::Nobody => tokio::time::sleep(LOOK_AGAIN).await,
                // A leader that leaves may go without an answer: what became of it shows here.
                Asked::Done | Asked::Unknown => return self.shown(&change, deadline).await,
            }
        }
        Err(StoreError::Timeout.into())
    }

    async fn ask(&self, leader: u64, change: &Membership) -> Asked {
        let Ok(mut client) = self.0.peers.member(leader).await else {
            return Asked::Nobody;
        };
        let request = MembershipRequest {
            cluster_id: self.0.headers.cluster_id,
            to: leader,
            change: Some(membership::encode(change)),
        };
        match client.change_membership(request).await.map(Response::into_inner) {
            Ok(MembershipResponse { code: 0, .. }) => Asked::Done,
            Ok(refusal) => Asked::Refused(Status::new(refusal.code.into(), refusal.error)),
            Err(status) if status.code() == Code::FailedPrecondition => Asked::Nobody,
            Err(_) => Asked::Unknown,
        }
    }

    /// Waits until this member has applied a change. One that is itself removed may never be told.
    async fn shown(&self, change: &Membership, deadline: Instant) -> Result<Vec<Member>, Status> {
        let own = self.0.raft.member;
        let leaving = matches!(change, Membership::Remove(id) if *id == own);
        while Instant::now() < deadline {
            let shown = self.0.state.read(|inner| {
                let membership = &inner.shared.membership;
                (leaving || membership.shows(change)).then(|| membership.to_etcd())
            });
            if let Some(mut members) = shown {
                members.retain(|member| !(leaving && member.id == own));
                return Ok(members);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(StoreError::Timeout.into())
    }
}

/// How often a member looks whether there is a leader, or whether a change has arrived.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What came of asking the leader for a change.
enum Asked {
    /// It was agreed on.
    Done,
    /// It was refused, and why.
    Refused(Status),
    /// Whoever was asked does not lead: nothing was done.
    Nobody,
    /// There was no answer.
    Unknown,
}

fn members(outcome: Outcome) -> Result<Vec<Member>, Status> {
    match outcome {
        Outcome::Members(members) => Ok(members),
        other => unexpected(other),
    }
}

fn check_urls(urls: &[String]) -> Result<(), StoreError> {
    if urls.is_empty() || urls.iter().any(|url| url.parse::<Url>().is_err()) {
        return Err(StoreError::BadMemberUrls);
    }
    Ok(())
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_add(
        &self,
        request: Request<MemberAddRequest>,
    ) -> Result<Response<MemberAddResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        // The time makes the identity new, should a member with these URLs have been removed before.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let member = StoredMember {
            id: member_id(&request.peer_ur_ls, &format!("{}{now}", self.0.token)),
            peer_urls: request.peer_ur_ls,
            learner: request.is_learner,
            ..StoredMember::default()
        };
        let members = self.change(Membership::Add(member.clone())).await?;
        Ok(Response::new(MemberAddResponse {
            header: self.header(),
            member: Some(to_etcd(&member)),
            members,
        }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let members = self.change(Membership::Remove(request.into_inner().id)).await?;
        Ok(Response::new(MemberRemoveResponse {
            header: self.header(),
            members,
        }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let request = request.into_inner();
        check_urls(&request.peer_ur_ls)?;
        let member = StoredMember {
            id: request.id,
            peer_urls: request.peer_ur_ls,
            ..StoredMember::default()
        };
        let members = members(self.0.raft.propose(Operation::MemberUpdate(member)).await?)?;
        Ok(Response::new(MemberUpdateResponse {
            header: self.header(),
            members,
        }))
    }

    async fn member_list(
        &self,
        request: Request<MemberListRequest>,
    ) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.0.refuse_learner()?;
            self.0.raft.linearize().await?;
        }
        let members = self.0.state.read(|inner| inner.shared.membership.to_etcd());
        Ok(Response::new(MemberListResponse {
            header: self.header(),
            members,
        }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.0.require_leader(request.metadata())?;
        self.0.refuse_learner()?;
        let members = self.change(Membership::Promote(request.into_inner().id)).await?;
        Ok(Response::new(MemberPromoteResponse {
            header: self.header(),
            members,
        }))
    }
}
