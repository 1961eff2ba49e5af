//! MutatingWebhookConfigurations: webhooks that change objects.

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use keelson_api::field::Errors;
use serde_json::Value;

use super::webhooks::{self, Defaults, view};
use crate::registry::common::defaults::fill;
use crate::registry::common::meta::{self, Spec};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

/// The kind's strategy.
pub struct MutatingWebhookConfigurationKind;

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

impl Strategy for MutatingWebhookConfigurationKind {
    type Object = MutatingWebhookConfiguration;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, configuration: &mut MutatingWebhookConfiguration) {
        for webhook in configuration.webhooks.iter_mut().flatten() {
            fill(&mut webhook.reinvocation_policy, "Never");
            webhooks::default(Defaults {
                failure_policy: &mut webhook.failure_policy,
                match_policy: &mut webhook.match_policy,
                namespaces: &mut webhook.namespace_selector,
                objects: &mut webhook.object_selector,
                timeout: &mut webhook.timeout_seconds,
                rules: &mut webhook.rules,
                service: webhook.client_config.service.as_mut(),
            });
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, configuration: &mut MutatingWebhookConfiguration) {
        meta::first_generation(&mut configuration.metadata);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut MutatingWebhookConfiguration,
        old: &MutatingWebhookConfiguration,
    ) {
        let webhooks = Spec::compare(&new.webhooks, &old.webhooks);
        meta::next_generation(&mut new.metadata, &old.metadata, webhooks);
    }

    fn validate_create(
        &self,
        _ctx: &RequestContext<'_>,
        configuration: &MutatingWebhookConfiguration,
    ) -> Errors {
        webhooks::validate(&views(configuration))
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &MutatingWebhookConfiguration,
        _old: &MutatingWebhookConfiguration,
    ) -> Errors {
        webhooks::validate(&views(new))
    }

    fn columns(&self) -> &'static [Column] {
        webhooks::COLUMNS
    }

    fn cells(&self, configuration: &MutatingWebhookConfiguration, now: Timestamp) -> Vec<Value> {
        let count = configuration.webhooks.as_ref().map_or(0, Vec::len);
        webhooks::cells(&configuration.metadata, count, now)
    }
}

/// The webhooks of a configuration, in their order.
pub fn views(configuration: &MutatingWebhookConfiguration) -> Vec<webhooks::Webhook<'_>> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .map(|webhook| view!(webhook, webhook.reinvocation_policy.as_deref().unwrap_or("Never")))
        .collect()
}
