//! Changes of the group as members ask the leader for them.

use keelson_proto::raft_transport::membership_request::Change;

use crate::cluster::{from_peer, to_peer};
use crate::raft::handle::Membership;

/// A change as it travels.
#[must_use]
pub fn encode(change: &Membership) -> Change {
    match change {
        Membership::Add(member) => Change::Add(to_peer(member)),
        Membership::Promote(id) => Change::Promote(*id),
        Membership::Remove(id) => Change::Remove(*id),
    }
}

/// A change that has travelled.
#[must_use]
pub fn decode(change: Change) -> Membership {
    match change {
        Change::Add(member) => Membership::Add(from_peer(member)),
        Change::Promote(id) => Membership::Promote(id),
        Change::Remove(id) => Membership::Remove(id),
    }
}
