//! What pods live through on a real container runtime. See `support` for what these tests run on.
//!
//! - `lives`: starting, failing, being restarted and deleted; volumes and security contexts; static pods
//! - `probes`: gRPC and startup probes
//! - `hooks`: what runs after a container's start and before its end
//! - `sidecars`: init containers that go on, and containers that join later
//! - `images`: pulling from a registry that asks for a password
//! - `eviction`: what happens to pods that use too much, and on a node that is short of memory
//! - `figures`: what the kubelet says that containers use

#![allow(missing_docs)]

mod eviction;
mod figures;
mod hooks;
mod images;
mod lives;
mod probes;
mod sidecars;
mod support;

use serde_json::{Value, json};

/// The command of a container that runs a shell script.
fn shell(script: &str) -> Value {
    json!(["/bin/sh", "-c", script])
}

/// One kind of state of one of a pod's containers; null if that is not its state.
fn state<'a>(status: &'a Value, index: usize, what: &str) -> &'a Value {
    &status["containerStatuses"][index]["state"][what]
}
