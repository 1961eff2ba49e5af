//! What several controllers need: pods, owners, templates, counts. Pure functions, no I/O.

pub mod answers;
pub mod expectations;
pub mod limits;
pub mod node_affinity;
pub mod owners;
pub mod patches;
pub mod pod_control;
pub mod pods;
pub mod reasons;
pub mod revisions;
pub mod services;
pub mod template;
pub mod tolerations;
pub mod trim;
