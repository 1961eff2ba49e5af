//! What several controllers need: pods, owners, templates, counts. Pure functions, no I/O.

pub mod answers;
pub mod expectations;
pub mod limits;
pub mod owners;
pub mod patches;
pub mod pod_control;
pub mod pods;
pub mod reasons;
pub mod services;
pub mod template;
