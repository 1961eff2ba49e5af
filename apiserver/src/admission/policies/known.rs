//! The policies there are. Each is read once for as long as it does not change.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::policy::{Binding, BindingKind as _, Policy, PolicyKind};
use crate::state::Server;
use crate::storage::cache::Entries;

/// A policy and what puts it into force.
#[derive(Debug)]
pub struct Hook<D> {
    /// The policy.
    pub policy: Arc<Policy<D>>,
    /// At least one.
    pub bindings: Vec<Binding>,
}

/// Every policy of a kind that is in force, by name.
pub struct Known<P: PolicyKind>(Mutex<State<P>>);

struct State<P: PolicyKind> {
    /// The policies and bindings that the hooks are of.
    seen: Option<(Entries, Entries)>,
    read: HashMap<String, Read<P>>,
    hooks: Arc<Vec<Hook<P::Does>>>,
}

/// A policy as it was stored, and what it says.
struct Read<P: PolicyKind> {
    stored: Arc<P>,
    policy: Arc<Policy<P::Does>>,
}

impl<P: PolicyKind> Default for Known<P> {
    fn default() -> Self {
        Self(Mutex::new(State {
            seen: None,
            read: HashMap::new(),
            hooks: Arc::default(),
        }))
    }
}

impl<P: PolicyKind> Known<P> {
    /// The policies as the caches know them now.
    pub fn hooks(&self, server: &Server) -> Arc<Vec<Hook<P::Does>>> {
        let catalog = &server.catalog;
        let (Some(policies), Some(bindings)) = (catalog.of::<P>(), catalog.of::<P::Binding>()) else {
            return Arc::default();
        };
        let (policies, bindings) = (policies.snapshot(|| 0).0, bindings.snapshot(|| 0).0);
        let mut state = self.0.lock();
        if let Some(seen) = &state.seen
            && seen.0.ptr_eq(&policies)
            && seen.1.ptr_eq(&bindings)
        {
            return state.hooks.clone();
        }
        state.refresh(server);
        state.seen = Some((policies, bindings));
        state.hooks.clone()
    }
}

impl<P: PolicyKind> State<P> {
    fn refresh(&mut self, server: &Server) {
        let mut by_policy: HashMap<String, Vec<Binding>> = HashMap::new();
        for binding in server.cached_list::<P::Binding>("") {
            if let Some(binding) = binding.read() {
                by_policy.entry(binding.policy.clone()).or_default().push(binding);
            }
        }
        let mut before = std::mem::take(&mut self.read);
        let mut hooks = Vec::new();
        for stored in server.cached_list::<P>("") {
            let name = stored.name().to_owned();
            // A policy nobody has bound is not in force.
            let Some(bindings) = by_policy.remove(&name) else {
                continue;
            };
            let policy = match before.remove(&name) {
                Some(read) if Arc::ptr_eq(&read.stored, &stored) => read.policy,
                _ => match stored.read() {
                    Some(policy) => Arc::new(policy),
                    None => continue,
                },
            };
            hooks.push(Hook {
                policy: policy.clone(),
                bindings,
            });
            self.read.insert(name, Read { stored, policy });
        }
        self.hooks = Arc::new(hooks);
    }
}
