//! The harness of the end-to-end tests: a whole cluster of real binaries in namespaces of its own.
//!
//! - [`isolation`]: a fresh network, mount and process namespace, so that nothing a test starts outlives it
//! - [`aggregation`]: an API server behind another
//! - [`authority`]: certificates made on the spot
//! - [`daemons`]: daemons started one by one
//! - [`control_plane`]: a store and an apiserver on loopback, and requests to it
//! - [`cluster`]: `keeladm up` and `down`
//! - [`clock`]: the daemons' wall clock, set while they run
//! - [`wire`]: requests to a control plane as bytes, for what stock clients do not show
//! - [`kubectl`]: stock kubectl in several versions
//! - [`https`]: a server of a test's own, for whom the cluster calls
//! - [`process`]: commands with their output, and waiting for something to become true
//! - [`webhooks`]: a webhook of the test's own
#![forbid(unsafe_code)]

pub mod aggregation;
pub mod authority;
pub mod clock;
pub mod cluster;
pub mod control_plane;
pub mod daemons;
pub mod isolation;
pub mod kubectl;
pub mod process;
pub mod servers;
pub mod webhooks;
pub mod wire;
