//! MutatingWebhookConfigurations: webhooks that change objects.

use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;

use super::configuration::Configuration;
use super::webhooks::{Defaults, Webhook, defaults, view};
use crate::registry::common::defaults::fill;
use crate::registry::common::meta::Spec;
use crate::registry::strategy::{ResourceInfo, Scope};

static INFO: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "MutatingWebhookConfiguration",
    plural: "mutatingwebhookconfigurations",
    singular: "mutatingwebhookconfiguration",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "mutatingwebhookconfigurations",
    ..ResourceInfo::base()
};

impl Configuration for MutatingWebhookConfiguration {
    const INFO: &'static ResourceInfo = &INFO;

    fn default_own(&mut self) {
        for webhook in self.webhooks.iter_mut().flatten() {
            fill(&mut webhook.reinvocation_policy, "Never");
        }
    }

    fn defaults(&mut self) -> Vec<Defaults<'_>> {
        let webhooks = self.webhooks.iter_mut().flatten();
        webhooks.map(|webhook| defaults!(webhook)).collect()
    }

    fn views(&self) -> Vec<Webhook<'_>> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks
            .map(|webhook| view!(webhook, webhook.reinvocation_policy.as_deref().unwrap_or("Never")))
            .collect()
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.webhooks, &old.webhooks)
    }
}
