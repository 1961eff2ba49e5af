//! The `resource.k8s.io` group: devices, and who gets them (KEP-4381).
//!
//! - [`device_class`], [`resource_claim`], [`resource_claim_template`], [`resource_slice`]: the kinds
//! - [`claim`]: what a claim asks for, shared by claims and templates

pub mod claim;
pub mod device_class;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
