//! kube-proxy: service addresses and the node's pod network, in nftables.
//!
//! ```text
//! config.rs    flags
//! run.rs       informers, and the loop that brings the kernel to what they say
//! rules/       what the kernel should do: pure functions
//!   services.rs  Services and EndpointSlices → service ports with their endpoints
//!   table.rs     an nftables table as data: sets, maps, chains
//!   build.rs     service ports → table
//!   render.rs    table → nft's language, whole or as the difference to another
//! nft.rs       applying rules: one transaction each
//! health_check.rs  for load balancers: whether this node has endpoints of a service
//! conntrack.rs forgetting connections to endpoints that are gone
//! network/     the node's pod network: CNI configuration, routes, kernel settings
//! metrics.rs   what is measured
//! ```
#![forbid(unsafe_code)]

pub mod config;
mod conntrack;
mod health_check;
mod metrics;
pub mod network;
pub mod nft;
pub mod rules;
mod run;

pub use config::Config;
pub use run::run;
