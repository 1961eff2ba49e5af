//! kube-store: a key-value store with the etcd v3 API, replicated by Raft.
//!
//! A write goes down this list and its answer comes back up; a read stops half way.
//!
//! - [`server`]: gRPC for clients; [`config`], [`urls`]: flags
//! - [`raft`]: agreeing on an order, with other members through [`transport`]
//! - [`wal`]: the write-ahead log, where an acknowledged write is
//! - [`state`]: the replicated state, made of [`mvcc`] (keys and their history), [`lease`], [`cluster`]
//! - [`watch`]: telling clients of changes
//! - [`persist`]: bringing the state to the [`engine`] (sled) in the background
//! - [`history`]: the whole state at one moment; [`dump`]: that as a stream; [`backup`], [`bolt`]: as a file of etcd's
//! - [`time`]: the clock, real or simulated
//! - [`folder`]: the data folder, opened, made or repaired
//! - [`boot`]: from flags to a running member; [`compactor`]: dropping history by itself
//!
//! The store knows keys and bytes, never Kubernetes.

#![forbid(unsafe_code)]

pub mod backup;
pub mod bolt;
pub mod boot;
pub mod cluster;
pub mod compactor;
pub mod config;
pub mod dump;
pub mod engine;
pub mod error;
pub mod folder;
pub mod history;
pub mod lease;
pub mod mvcc;
pub mod persist;
pub mod raft;
pub mod server;
pub mod state;
pub mod time;
pub mod transport;
pub mod urls;
pub mod wal;
pub mod watch;

pub use boot::run;
pub use config::Config;
