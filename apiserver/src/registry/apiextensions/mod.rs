//! The `apiextensions.k8s.io` group: definitions. What they define is served by [`crate::custom`].

pub mod custom_resource_definition;
mod schema_rules;
mod structural_rules;
mod validation;
