//! The webhooks there are.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, RuleWithOperations, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::object::Kind;
use parking_lot::Mutex;

use crate::registry::admissionregistration::webhooks::Webhook;
use crate::registry::admissionregistration::{mutating_webhook, validating_webhook};
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
    /// How long it may take.
    pub timeout_seconds: u64,
    failure_policy: String,
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
            timeout_seconds: u64::try_from(view.timeout).unwrap_or(1),
            failure_policy: view.failure_policy.to_owned(),
            match_policy: view.match_policy.to_owned(),
            side_effects: view.side_effects.to_owned(),
            reinvocation: view.reinvocation.to_owned(),
        }
    }

    /// Whether no answer is as good as a good one.
    pub fn failures_are_ignored(&self) -> bool {
        self.failure_policy == "Ignore"
    }

    /// Whether a rule for one version holds for the others of the same resource.
    pub fn versions_are_equivalent(&self) -> bool {
        self.match_policy != "Exact"
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

/// A kind that holds webhooks.
pub trait Configuration: Kind {
    /// The webhooks, in their order.
    fn hooks(&self) -> Vec<Hook>;
}

impl Configuration for MutatingWebhookConfiguration {
    fn hooks(&self) -> Vec<Hook> {
        mutating_webhook::views(self).iter().map(Hook::of).collect()
    }
}

impl Configuration for ValidatingWebhookConfiguration {
    fn hooks(&self) -> Vec<Hook> {
        validating_webhook::views(self).iter().map(Hook::of).collect()
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
            .flat_map(|configuration| configuration.hooks())
            .map(Arc::new);
        let hooks: Arc<Vec<_>> = Arc::new(hooks.collect());
        *known = Some((entries, hooks.clone()));
        hooks
    }
}
