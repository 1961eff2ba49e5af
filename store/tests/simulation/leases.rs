//! Clients that hold on to leases: each is granted one, hangs a key on it, renews it for a while and lets it go.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use keelson_proto::etcd::{LeaseGrantRequest, PutRequest};
use keelson_proto::store::proposal::Operation;
use keelson_proto::store::{LeaseExpiry, Proposal};
use keelson_store::error::StoreError;
use keelson_store::raft::handle::Command;
use keelson_store::state::Outcome;
use prost::Message;
use rand::Rng;
use rand::rngs::StdRng;
use tokio::sync::oneshot;

use crate::member::Running;
use crate::plan::Plan;

/// Keys that hang on leases begin with this.
pub const PREFIX: &str = "l/";
const SECOND: u64 = 1_000_000;

/// What a holder is at.
enum Phase {
    /// It has no lease.
    Free,
    /// It waits to hear of its grant, or of its key.
    Writing {
        outcome: oneshot::Receiver<Result<Outcome, StoreError>>,
        since: u64,
        key: bool,
    },
    /// It holds on.
    Holding { renewals: u32 },
    /// It waits for the others to confirm who renewed its lease.
    Renewing {
        confirmed: oneshot::Receiver<Result<(), StoreError>>,
        since: u64,
        term: u64,
        renewals: u32,
    },
}

/// A client with a lease, at one member.
pub struct Holder {
    number: i64,
    renewals: u32,
    ttls: Range<u64>,
    leases: i64,
    lease: i64,
    ttl: u64,
    phase: Phase,
    member: (u64, u32),
}

/// Until when each lease was promised to live.
pub type Promises = BTreeMap<i64, u64>;

/// The lease a key hangs on.
pub fn lease_of(key: &str) -> Option<i64> {
    key.strip_prefix(PREFIX)?.parse().ok()
}

impl Holder {
    pub fn new(number: i64, plan: &Plan) -> Self {
        Self {
            number,
            renewals: plan.renewals,
            ttls: plan.ttl.clone(),
            leases: 0,
            lease: 0,
            ttl: 0,
            phase: Phase::Free,
            member: (0, 0),
        }
    }

    fn propose(
        &self,
        running: &mut Running,
        operation: Operation,
    ) -> oneshot::Receiver<Result<Outcome, StoreError>> {
        let (answer, outcome) = oneshot::channel();
        let kind = u64::from(matches!(operation, Operation::Put(_)));
        // Unique beside the numbers of members and of other clients.
        let id = (0xfffe_u64 << 48) | ((self.lease as u64) << 1) | kind;
        let data = Proposal {
            id,
            operation: Some(operation),
        }
        .encode_to_vec();
        running.core.take(Command::Propose {
            id,
            data,
            frees_space: false,
            answer,
        });
        outcome
    }

    /// Takes the next step at a member that runs.
    pub fn step(
        &mut self,
        running: &mut Running,
        member: (u64, u32),
        now: u64,
        random: &mut StdRng,
        promises: &mut Promises,
    ) {
        let moved = member != self.member;
        self.member = member;
        match &mut self.phase {
            Phase::Free => {
                self.leases += 1;
                self.lease = self.number * 100_000 + self.leases;
                self.ttl = random.random_range(self.ttls.clone());
                let request = Operation::LeaseGrant(LeaseGrantRequest {
                    id: self.lease,
                    ttl: self.ttl as i64,
                });
                let outcome = self.propose(running, request);
                self.phase = Phase::Writing {
                    outcome,
                    since: now,
                    key: false,
                };
            }
            Phase::Writing { outcome, since, key } => match outcome.try_recv() {
                Ok(Ok(_)) if *key => {
                    self.phase = Phase::Holding {
                        renewals: random.random_range(0..=self.renewals),
                    };
                }
                Ok(Ok(_)) => {
                    promises.insert(self.lease, *since + self.ttl * SECOND);
                    let request = Operation::Put(PutRequest {
                        key: format!("{PREFIX}{}", self.lease).into(),
                        value: Bytes::from_static(b"1"),
                        lease: self.lease,
                        ..PutRequest::default()
                    });
                    let outcome = self.propose(running, request);
                    self.phase = Phase::Writing {
                        outcome,
                        since: now,
                        key: true,
                    };
                }
                Err(oneshot::error::TryRecvError::Empty) if !moved && now < *since + 4 * SECOND => {}
                _ => self.phase = Phase::Free,
            },
            Phase::Holding { renewals: 0 } => self.phase = Phase::Free,
            Phase::Holding { renewals } => {
                // As the server does: the leader's clock, and then the others' word that it is the leader's.
                let clock = &running.state.clock;
                let term = clock.term();
                if running.leadership.leader() == member.0 && term != 0 && clock.renew(self.lease).is_some() {
                    let renewals = *renewals - 1;
                    let (waiter, confirmed) = oneshot::channel();
                    running.core.take(Command::ReadIndex(waiter));
                    self.phase = Phase::Renewing {
                        confirmed,
                        since: now,
                        term,
                        renewals,
                    };
                }
            }
            Phase::Renewing {
                confirmed,
                since,
                term,
                renewals,
            } => {
                let renewals = *renewals;
                match confirmed.try_recv() {
                    Ok(Ok(())) if !moved && running.state.clock.term() == *term => {
                        let promised = *since + self.ttl * SECOND;
                        let before = promises.entry(self.lease).or_default();
                        *before = promised.max(*before);
                        self.phase = Phase::Holding { renewals };
                    }
                    Err(oneshot::error::TryRecvError::Empty) if !moved && now < *since + 2 * SECOND => {}
                    _ => self.phase = Phase::Holding { renewals },
                }
            }
        }
    }
}

/// What a member does about leases that have run out, in the two steps between which anything may happen: it proposes
/// what it found the last time, and looks for the next.
pub fn expire(running: &mut Running, found: &mut Vec<LeaseExpiry>) {
    for expiry in found.drain(..) {
        running.handle.propose_unattended(Operation::LeaseExpiry(expiry));
    }
    found.extend(running.state.clock.expired(100));
}
