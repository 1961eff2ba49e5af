//! Why a node, or every node, cannot run a pod.

use std::borrow::Cow;

/// Whether a refusal could end if pods were removed from the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permanence {
    /// Other pods are in the way: preemption may help.
    Resolvable,
    /// The node itself does not fit.
    Unresolvable,
}

/// A plugin's no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The plugin.
    pub plugin: &'static str,
    /// Upstream's words; a node can be refused for several reasons.
    pub reasons: Vec<Cow<'static, str>>,
    /// Whether removing pods could help.
    pub permanence: Permanence,
}

impl Refusal {
    /// Other pods are in the way.
    pub fn resolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal {
            plugin,
            reasons: vec![reason.into()],
            permanence: Permanence::Resolvable,
        }
    }

    /// The node itself does not fit.
    pub fn unresolvable(plugin: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Refusal {
            plugin,
            reasons: vec![reason.into()],
            permanence: Permanence::Unresolvable,
        }
    }
}
