//! The doors: gRPC for clients and members, and the few plain HTTP paths.
//!
//! - [`listen`]: sockets, TLS, and which door a request goes to
//! - [`kv`], [`watch`], [`lease`], [`cluster`], [`maintenance`], [`auth`]: the services of the etcd v3 API
//! - [`lock`], [`election`]: etcd's services for locks and elections, made of [`line`]s of keys
//! - [`transactions`]: the door of apiservers to `Txn`
//! - [`metrics`]: what Prometheus reads

pub mod auth;
pub mod cluster;
pub mod election;
pub mod kv;
pub mod lease;
pub mod line;
pub mod listen;
pub mod lock;
pub mod maintenance;
pub mod metrics;
pub mod transactions;
pub mod watch;

use std::sync::Arc;
use std::time::Duration;

use keelson_proto::etcd::ResponseHeader;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::error::StoreError;
use crate::raft::handle::{Leadership, RaftHandle};
use crate::state::State;
use crate::transport::peers::Peers;
use crate::watch::session::WatchLimits;

/// The version of the etcd API that is spoken.
pub const API_VERSION: &str = "3.6.0";

/// Makes the headers of responses.
#[derive(Clone)]
pub struct Headers {
    /// The group.
    pub cluster_id: u64,
    /// This member.
    pub member_id: u64,
    /// For the term.
    pub leadership: Arc<Leadership>,
}

impl Headers {
    /// A header at a revision.
    #[must_use]
    pub fn at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.leadership.term(),
        }
    }

    /// Completes a header that has only its revision.
    pub fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.at(revision));
    }
}

/// Bounds on what clients may ask.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest write.
    pub request_bytes: usize,
    /// Most operations in a transaction.
    pub txn_ops: usize,
    /// Shortest lease in seconds.
    pub min_lease_ttl: i64,
    /// Size at which the space alarm is raised.
    pub quota_bytes: u64,
    /// How long a handed-over leadership may take to arrive.
    pub election_timeout: Duration,
    /// Watch streams.
    pub watch: WatchLimits,
}

/// What every service works with.
pub struct Api {
    /// The applied state.
    pub state: Arc<State>,
    /// Consensus.
    pub raft: RaftHandle,
    /// Other members.
    pub peers: Peers,
    /// Headers of responses.
    pub headers: Headers,
    /// Bounds.
    pub limits: Limits,
    /// `--initial-cluster-token`, part of new members' identities.
    pub token: String,
    /// Turns at reading long ranges.
    pub bulk_reads: Semaphore,
    /// Ends streams.
    pub shutdown: CancellationToken,
}

impl Api {
    /// Refuses what needs agreement while this member only learns.
    ///
    /// # Errors
    /// While it does.
    pub fn refuse_learner(&self) -> Result<(), StoreError> {
        let learner = self.state.read(|inner| {
            let members = &inner.shared.membership.members;
            members
                .get(&self.raft.member)
                .is_some_and(|member| member.learner)
        });
        if learner {
            return Err(StoreError::LearnerUnsupported);
        }
        Ok(())
    }

    /// Refuses a request that wants a leader, as etcd's clients say with a header, while there is none.
    ///
    /// # Errors
    /// While there is none.
    pub fn require_leader(&self, metadata: &tonic::metadata::MetadataMap) -> Result<(), StoreError> {
        if wants_leader(metadata) && self.raft.leadership.leader() == 0 {
            return Err(StoreError::NoLeader);
        }
        Ok(())
    }

    /// Ends when a stream that wants a leader has been without one for too long; never for other streams.
    pub async fn leader_lost(self: Arc<Self>, wanted: bool) {
        let mut without = 0;
        while without < LEADERLESS_TIMEOUTS {
            tokio::time::sleep(self.limits.election_timeout).await;
            without = if wanted && self.raft.leadership.leader() == 0 {
                without + 1
            } else {
                0
            };
        }
    }
}

/// Election timeouts without a leader after which streams that want one are ended, as in etcd.
const LEADERLESS_TIMEOUTS: u32 = 3;

/// Whether the client wants to be told when there is no leader.
#[must_use]
pub fn wants_leader(metadata: &tonic::metadata::MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}
