//! The `flowcontrol.apiserver.k8s.io` group: whose requests are served before whose.
//!
//! - [`flow_schema`], [`priority_level`]: the kinds
//! - [`bootstrap`]: the objects every cluster has

pub mod bootstrap;
pub mod flow_schema;
pub mod priority_level;

/// The schema and the level of requests that never wait.
pub const EXEMPT: &str = "exempt";
/// The schema and the level of requests nothing else matches.
pub const CATCH_ALL: &str = "catch-all";
