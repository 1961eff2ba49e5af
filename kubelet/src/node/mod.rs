//! The node: what it has, how it is, and telling the apiserver so.
//!
//! - [`facts`]: the machine's capacity and identity
//! - [`status`]: conditions and the status as a whole
//! - [`register`]: the Node object, its status and its lease, kept current

pub mod facts;
pub mod register;
pub mod status;

/// The Kubernetes version that this kubelet behaves like.
pub const KUBERNETES_VERSION: &str = "v1.36.2";
