//! The Kubernetes object model shared by servers and clients: no I/O.
