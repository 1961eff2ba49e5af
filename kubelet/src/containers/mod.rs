//! From a pod's spec to the descriptions CRI takes.
//!
//! - [`sandbox`], [`container`]: the descriptions themselves
//! - [`env`], [`expansion`], [`downward`]: variables
//! - [`mounts`]: volumes and the kubelet's own files in a container
//! - [`security`], [`resources`]: what it may do and use
//! - [`mod@dns`]: resolving names

pub mod container;
pub mod dns;
pub mod downward;
pub mod env;
pub mod expansion;
pub mod mounts;
pub mod resources;
pub mod sandbox;
pub mod security;
