//! Wire contracts: the etcd v3 API, keelson.v1.Resources, Raft transport and CRI v1.
