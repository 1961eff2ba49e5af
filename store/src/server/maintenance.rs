//! The Maintenance service.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_proto::etcd::maintenance_server::Maintenance;
use keelson_proto::etcd::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse, StatusRequest, StatusResponse,
    alarm_request::AlarmAction, downgrade_request::DowngradeAction,
};
use keelson_proto::store::proposal::Operation;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::kv::unexpected;
use super::{API_VERSION, Api};
use crate::backup;
use crate::engine::Pressure;
use crate::error::StoreError;
use crate::mvcc::hash::HistoryHash;
use crate::raft::handle::Command;
use crate::state::Outcome;

/// The Maintenance service.
#[derive(Clone)]
pub struct MaintenanceService(pub Arc<Api>);

impl MaintenanceService {
    async fn hash_at(&self, revision: i64) -> Result<HistoryHash, StoreError> {
        let state = self.0.state.clone();
        tokio::task::spawn_blocking(move || state.hash(revision))
            .await
            .unwrap_or(Err(StoreError::Stopped))
    }

    /// The alarm of a full disk is this member's own; it goes when there is room.
    fn own_alarm(&self) -> Option<AlarmMember> {
        self.0.raft.leadership.disk_full().then(|| AlarmMember {
            member_id: self.0.raft.member,
            alarm: AlarmType::Nospace as i32,
        })
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    type SnapshotStream = ReceiverStream<Result<SnapshotResponse, Status>>;

    async fn alarm(&self, request: Request<AlarmRequest>) -> Result<Response<AlarmResponse>, Status> {
        self.0.refuse_learner()?;
        let request = request.into_inner();
        let (action, kind, member) = (request.action(), request.alarm(), request.member_id);
        match self.0.raft.propose(Operation::Alarm(request)).await? {
            Outcome::Alarm(mut response) => {
                self.0.headers.complete(&mut response.header);
                if let Some(own) = self.own_alarm()
                    && action == AlarmAction::Get
                    && (kind == AlarmType::None || kind == AlarmType::Nospace)
                    && (member == 0 || member == own.member_id)
                    && !response.alarms.contains(&own)
                {
                    response.alarms.push(own);
                }
                Ok(Response::new(response))
            }
            other => unexpected(other),
        }
    }

    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let state = &self.0.state;
        let leadership = &self.0.raft.leadership;
        let (alarms, learner) = state.read(|inner| {
            let membership = &inner.shared.membership;
            let learner = membership
                .members
                .get(&self.0.raft.member)
                .is_some_and(|member| member.learner);
            (inner.shared.alarms.clone(), learner)
        });
        let mut errors: Vec<String> = alarms
            .iter()
            .chain(&self.own_alarm())
            .map(|alarm| {
                let kind = alarm.alarm().as_str_name();
                format!("memberID:{} alarm:{kind} ", alarm.member_id)
            })
            .collect();
        errors.dedup();
        if leadership.leader() == 0 {
            errors.push(StoreError::NoLeader.to_string());
        }
        let bytes = i64::try_from(state.engine().disk_bytes()).unwrap_or(i64::MAX);
        Ok(Response::new(StatusResponse {
            header: Some(self.0.headers.at(state.revision())),
            version: API_VERSION.into(),
            db_size: bytes,
            leader: leadership.leader(),
            raft_index: leadership.committed(),
            raft_term: leadership.term(),
            raft_applied_index: state.applied_index(),
            errors,
            db_size_in_use: bytes,
            is_learner: learner,
            storage_version: API_VERSION.into(),
            db_size_quota: i64::try_from(self.0.limits.quota_bytes).unwrap_or(i64::MAX),
            downgrade_info: None,
        }))
    }

    async fn defragment(
        &self,
        _: Request<DefragmentRequest>,
    ) -> Result<Response<DefragmentResponse>, Status> {
        // The engine fills its gaps by itself while it writes; what is left to give back is memory.
        let state = self.0.state.clone();
        tokio::task::spawn_blocking(move || state.engine().trim(Pressure::Idle))
            .await
            .map_err(|_| StoreError::Stopped)?
            .map_err(StoreError::from)?;
        Ok(Response::new(DefragmentResponse {
            header: Some(self.0.headers.at(self.0.state.revision())),
        }))
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        let hash = self.hash_at(0).await?;
        Ok(Response::new(HashResponse {
            header: Some(self.0.headers.at(hash.revision)),
            hash: hash.hash,
        }))
    }

    async fn hash_kv(&self, request: Request<HashKvRequest>) -> Result<Response<HashKvResponse>, Status> {
        let revision = request.into_inner().revision;
        let hash = self.hash_at(revision).await?;
        Ok(Response::new(HashKvResponse {
            header: Some(self.0.headers.at(self.0.state.revision())),
            hash: hash.hash,
            // etcd's way of saying that there was no compaction.
            compact_revision: if hash.compacted == 0 { -1 } else { hash.compacted },
            hash_revision: hash.revision,
        }))
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Self::SnapshotStream>, Status> {
        let (out, pieces) = mpsc::channel(4);
        let state = self.0.state.clone();
        let header = self.0.headers.at(state.revision());
        let response = move |blob: Bytes, last: bool| SnapshotResponse {
            header: Some(header),
            // How much is left is not known before it is read; only the end is.
            remaining_bytes: u64::from(!last),
            blob,
            version: API_VERSION.into(),
        };
        tokio::task::spawn_blocking(move || {
            // One piece is held back, for the last one says that it is.
            let mut held: Option<Bytes> = None;
            let written = backup::write(&state, &mut |blob| {
                let Some(before) = held.replace(blob) else {
                    return ControlFlow::Continue(());
                };
                match out.blocking_send(Ok(response(before, false))) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(_) => ControlFlow::Break(()),
                }
            });
            let last = match written {
                Ok(true) => Ok(response(held.unwrap_or_default(), true)),
                Ok(false) => return,
                Err(error) => Err(error.into()),
            };
            // The client may have gone.
            let _ = out.blocking_send(last);
        });
        Ok(Response::new(ReceiverStream::new(pieces)))
    }

    async fn move_leader(
        &self,
        request: Request<MoveLeaderRequest>,
    ) -> Result<Response<MoveLeaderResponse>, Status> {
        self.0.refuse_learner()?;
        let target = request.into_inner().target_id;
        let leadership = &self.0.raft.leadership;
        if leadership.leader() != self.0.raft.member {
            return Err(StoreError::NotLeader.into());
        }
        let may_lead = self
            .0
            .state
            .read(|inner| inner.shared.membership.conf_state.voters.contains(&target));
        if !may_lead {
            return Err(StoreError::BadTransferee.into());
        }
        self.0.raft.send(Command::Transfer(target));
        let deadline = tokio::time::Instant::now() + self.0.limits.election_timeout * 3;
        while leadership.leader() != target {
            if tokio::time::Instant::now() > deadline {
                return Err(StoreError::Timeout.into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Response::new(MoveLeaderResponse {
            header: Some(self.0.headers.at(self.0.state.revision())),
        }))
    }

    /// There is no older version to go back to.
    async fn downgrade(
        &self,
        request: Request<DowngradeRequest>,
    ) -> Result<Response<DowngradeResponse>, Status> {
        let request = request.into_inner();
        if request.action() == DowngradeAction::Cancel {
            return Err(StoreError::NoDowngrade.into());
        }
        let numbers: Vec<&str> = request.version.trim_start_matches('v').split('.').collect();
        let is_version =
            (2..=3).contains(&numbers.len()) && numbers.iter().all(|number| number.parse::<u32>().is_ok());
        if is_version {
            return Err(StoreError::InvalidDowngrade.into());
        }
        Err(StoreError::BadDowngradeVersion.into())
    }
}
