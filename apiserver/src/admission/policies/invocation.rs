//! Which policies a request has to do with.

use serde_json::Value;

use super::known::Hook;
use super::params;
use super::policy::{Binding, Policy};
use crate::admission::Attributes;
use crate::registry::catalog::Served;

/// A policy that a request has to do with.
pub struct Invocation<'h, D> {
    /// The policy.
    pub policy: &'h Policy<D>,
    /// What puts it into force; `None` when the policy itself cannot be run.
    pub binding: Option<&'h Binding>,
    /// The version it wants to see the request in, and the parameters it is run with, once for each. Or why it cannot be
    /// run, in upstream's words.
    pub target: Result<(Served, Vec<Option<Value>>), String>,
}

/// The policies a request has to do with, with every binding that concerns it.
pub async fn invocations<'h, D>(hooks: &'h [Hook<D>], attributes: &Attributes<'_>) -> Vec<Invocation<'h, D>> {
    let ctx = attributes.ctx;
    let mut all = Vec::new();
    for Hook { policy, bindings } in hooks {
        let Some(served) = policy.constraints.criteria().version(attributes) else {
            continue;
        };
        let kind = policy
            .params
            .as_ref()
            .map(|kind| params::resource(ctx.server, kind));
        let kind = match kind.transpose() {
            Ok(kind) => kind,
            Err(why) => {
                all.push(Invocation {
                    policy,
                    binding: None,
                    target: Err(format!("failed to configure policy: {why}")),
                });
                continue;
            }
        };
        for binding in bindings {
            if binding.constraints.criteria().version(attributes).is_none() {
                continue;
            }
            let params =
                params::collect(ctx.server, kind.as_ref(), binding.params.as_ref(), ctx.namespace).await;
            let target = match params {
                Ok(params) if params.is_empty() => continue,
                Ok(params) => Ok((served.clone(), params)),
                Err(why) => Err(format!("failed to configure binding: {why}")),
            };
            all.push(Invocation {
                policy,
                binding: Some(binding),
                target,
            });
        }
    }
    all
}
