//! Between members: Raft messages and snapshots, over gRPC streams.
//!
//! - [`peers`]: the outgoing side, a task for every other member
//! - [`service`]: the incoming side
//! - [`connect`]: connections to members, with or without TLS
//! - [`join`]: what a new member asks those that are there
//! - [`membership`]: changes of the group, as the leader is asked for them
//! - [`fetch`]: the whole state, for a member that has lost its own

pub mod connect;
pub mod fetch;
pub mod join;
pub mod membership;
pub mod peers;
pub mod service;
