//! ValidatingWebhookConfigurations: webhooks that refuse objects.

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;

use super::configuration::Configuration;
use super::webhooks::{Defaults, Webhook, defaults, view};
use crate::registry::common::meta::Spec;
use crate::registry::strategy::{ResourceInfo, Scope};

static INFO: ResourceInfo = ResourceInfo {
    group: "admissionregistration.k8s.io",
    kind: "ValidatingWebhookConfiguration",
    plural: "validatingwebhookconfigurations",
    singular: "validatingwebhookconfiguration",
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    storage_prefix: "validatingwebhookconfigurations",
    ..ResourceInfo::base()
};

impl Configuration for ValidatingWebhookConfiguration {
    const INFO: &'static ResourceInfo = &INFO;

    fn defaults(&mut self) -> Vec<Defaults<'_>> {
        let webhooks = self.webhooks.iter_mut().flatten();
        webhooks.map(|webhook| defaults!(webhook)).collect()
    }

    fn views(&self) -> Vec<Webhook<'_>> {
        let webhooks = self.webhooks.iter().flatten();
        webhooks.map(|webhook| view!(webhook, "Never")).collect()
    }

    fn compare(&self, old: &Self) -> Spec {
        Spec::compare(&self.webhooks, &old.webhooks)
    }
}
