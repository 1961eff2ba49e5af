//! kube-store: the Raft-replicated sled store that speaks the etcd v3 API.

fn main() {}
