//! Wire contracts, compiled from the `.proto` files of this crate.
//!
//! | module | file | between |
//! | --- | --- | --- |
//! | [`etcd`], [`mvcc`], [`auth`] | `rpc.proto`, `kv.proto`, `auth.proto` | apiserver and etcdctl → store |
//! | [`transactions`] | `transactions.proto` | apiserver → store |
//! | [`lock`], [`election`] | `lock.proto`, `election.proto` | etcd's clients → store |
//! | [`raft_transport`] | `raft_transport.proto` | store ↔ store |
//! | [`store`] | `store.proto` | the store's log and disk |
//! | `resources` | `resources.proto` | components → apiserver |
//! | `cri` | `cri.proto` | kubelet → container runtime |
//! | [`kms`] | `kms.proto` | apiserver → key management service |
//!
//! All `bytes` fields are [`bytes::Bytes`].

#![forbid(unsafe_code)]

/// Everything generated, by protobuf package.
#[allow(missing_docs, rustdoc::all, clippy::all, unused_qualifications)]
pub mod generated {
    include!(concat!(env!("OUT_DIR"), "/contracts.rs"));
}

pub use generated::authpb as auth;
pub use generated::etcdserverpb as etcd;
pub use generated::keelson::raft::v1 as raft_transport;
pub use generated::keelson::store::v1 as store;
pub use generated::keelson::transactions::v1 as transactions;
#[cfg(has_resources)]
pub use generated::keelson::v1 as resources;
pub use generated::mvccpb as mvcc;
#[cfg(has_cri)]
pub use generated::runtime::v1 as cri;
pub use generated::v2 as kms;
pub use generated::v3electionpb as election;
pub use generated::v3lockpb as lock;
