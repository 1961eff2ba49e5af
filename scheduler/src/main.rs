//! kube-scheduler: binds pods to nodes through the scheduling framework.

fn main() {}
