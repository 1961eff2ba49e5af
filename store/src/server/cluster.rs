//! The Cluster service: who belongs to the group.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use keelson_proto::etcd::cluster_server::Cluster;
use keelson_proto::etcd::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest,
    MemberUpdateResponse,
};
use keelson_proto::store::StoredMember;
use keelson_proto::store::proposal::Operation;
use tonic::{Request, Response, Status};

use super::Api;
use super::kv::unexpected;
use crate::cluster::{member_id, to_etcd};
use crate::error::StoreError;
use crate::raft::handle::Membership;
use crate::state::Outcome;
use crate::urls::Url;

/// The Cluster service.
#[derive(Clone)]
pub struct ClusterService(pub Arc<Api>);

impl ClusterService {
    fn header(&self) -> Option<keelson_proto::etcd::ResponseHeader> {
        Some(self.0.headers.at(self.0.state.revision()))
    }

    async fn change(&self, change: Membership) -> Result<Vec<Member>, Status> {
        members(self.0.raft.change_membership(change).await?)
    }
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
