//! The webhooks there are.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{RuleWithOperations, WebhookClientConfig};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use parking_lot::Mutex;

use crate::admission::expressions::FailurePolicy;
use crate::admission::expressions::conditions::Conditions;
use crate::admission::expressions::surroundings::Surroundings;
use crate::admission::matching::Criteria;
use crate::registry::admissionregistration::configuration::Configuration;
use crate::registry::admissionregistration::webhooks::Webhook;
use crate::state::Server;
use crate::storage::cache::Entries;

/// One webhook, with a life of its own.
#[derive(Debug)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub client: WebhookClientConfig,
    /// What it is asked about.
    pub rules: Vec<RuleWithOperations>,
    /// Objects of these namespaces.
    pub namespaces: LabelSelector,
    /// Objects with these labels.
    pub objects: LabelSelector,
    /// Requests for which all of these hold.
    pub conditions: Conditions,
    /// How long it may take.
    pub timeout_seconds: u64,
    /// What happens without an answer.
    pub failure_policy: FailurePolicy,
    match_policy: String,
    side_effects: String,
    reinvocation: String,
}

impl Hook {
    fn of(view: &Webhook<'_>) -> Self {
        Self {
            name: view.name.to_owned(),
            client: view.client.clone(),
            rules: view.rules.to_vec(),
            namespaces: view.namespaces.cloned().unwrap_or_default(),
            objects: view.objects.cloned().unwrap_or_default(),
            conditions: Conditions::read(view.conditions, &Surroundings::new().with_authorizer()),
            timeout_seconds: u64::try_from(view.timeout).unwrap_or(1),
            failure_policy: FailurePolicy::parse(Some(view.failure_policy)),
            match_policy: view.match_policy.to_owned(),
            side_effects: view.side_effects.to_owned(),
            reinvocation: view.reinvocation.to_owned(),
        }
    }

    /// Whether no answer is as good as a good one.
    pub fn failures_are_ignored(&self) -> bool {
        self.failure_policy == FailurePolicy::Ignore
    }

    /// What it is asked about, but for its conditions.
    pub fn criteria(&self) -> Criteria<'_, RuleWithOperations> {
        Criteria {
            rules: &self.rules,
            excluded: &[],
            namespaces: &self.namespaces,
            objects: &self.objects,
            equivalent: self.match_policy != "Exact",
        }
    }

    /// Whether asking changes nothing when nothing is to be written.
    pub fn dry_run_is_safe(&self) -> bool {
        matches!(self.side_effects.as_str(), "None" | "NoneOnDryRun")
    }

    /// Whether it wants to be asked again about what others changed after it.
    pub fn reinvoked(&self) -> bool {
        self.reinvocation == "IfNeeded"
    }
}

/// The webhooks read from the entries of one moment.
type Known = (Entries, Arc<Vec<Arc<Hook>>>);

/// Every webhook of a kind, by the name of its configuration, read anew when any of them has changed.
pub struct Configured<K> {
    known: Mutex<Option<Known>>,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Default for Configured<K> {
    fn default() -> Self {
        Self {
            known: Mutex::default(),
            kind: std::marker::PhantomData,
        }
    }
}

impl<K: Configuration> Configured<K> {
    /// The webhooks as the cache knows them now.
    pub fn hooks(&self, server: &Server) -> Arc<Vec<Arc<Hook>>> {
        let Some(cache) = server.catalog.of::<K>() else {
            return Arc::default();
        };
        let (entries, _) = cache.snapshot(|| 0);
        let mut known = self.known.lock();
        if let Some((before, hooks)) = &*known
            && before.ptr_eq(&entries)
        {
            return hooks.clone();
        }
        let configurations = server.cached_list::<K>("");
        let hooks = configurations
            .iter()
            .flat_map(|configuration| configuration.views().iter().map(Hook::of).collect::<Vec<_>>())
            .map(Arc::new);
        let hooks: Arc<Vec<_>> = Arc::new(hooks.collect());
        *known = Some((entries, hooks.clone()));
        hooks
    }
}
