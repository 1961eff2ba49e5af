//! The `admissionregistration.k8s.io` group: webhooks and policies that are asked before something is written.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`mutating_webhook`], [`validating_webhook`] | the webhook kinds |
//! | [`configuration`] | the strategy of both |
//! | [`webhooks`] | what both have in common |
//! | [`validating_policy`], [`mutating_policy`] | the policy kinds |
//! | [`policies`] | what both have in common |
//! | [`policy_binding`] | their bindings |
//! | [`matching`] | rules, selectors, conditions: what a webhook or policy is asked about |

pub mod configuration;
pub mod matching;
pub mod mutating_policy;
pub mod mutating_webhook;
pub mod policies;
pub mod policy_binding;
pub mod validating_policy;
pub mod validating_webhook;
pub mod webhooks;
