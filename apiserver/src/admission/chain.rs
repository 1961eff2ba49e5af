//! The plugins in the order they run.

use keelson_api::status::ApiResult;

use super::config::AdmissionConfig;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// Every plugin there is, in upstream's order, told how to work.
pub fn default_plugins(config: AdmissionConfig) -> Vec<Box<dyn Admission>> {
    vec![
        Box::new(super::namespace_lifecycle::NamespaceLifecycle),
        Box::new(super::limit_ranger::LimitRanger),
        Box::new(super::service_account::ServiceAccount),
        Box::new(super::node_restriction::NodeRestriction),
        Box::new(super::taint_nodes_by_condition::TaintNodesByCondition),
        Box::new(super::pod_security::PodSecurity::from(config.pod_security)),
        Box::new(super::priority::Priority),
        Box::new(super::default_toleration_seconds::DefaultTolerationSeconds),
        Box::new(super::default_storage_class::DefaultStorageClass),
        Box::new(super::storage_object_in_use_protection::StorageObjectInUseProtection),
        Box::new(super::persistent_volume_claim_resize::PersistentVolumeClaimResize),
        Box::new(super::runtime_class::RuntimeClass),
        Box::new(super::certificates::approval::CertificateApproval),
        Box::new(super::certificates::signing::CertificateSigning),
        Box::new(super::certificates::subject_restriction::CertificateSubjectRestriction),
        Box::new(super::default_ingress_class::DefaultIngressClass),
        Box::new(super::policies::mutating::MutatingAdmissionPolicies::default()),
        Box::new(super::webhooks::MutatingAdmissionWebhook::default()),
        Box::new(super::policies::validating::ValidatingAdmissionPolicies::default()),
        Box::new(super::webhooks::ValidatingAdmissionWebhook::default()),
        // Last: what is charged here is not to be refused by anybody else.
        Box::new(super::resource_quota::ResourceQuota::default()),
    ]
}

/// The plugins to run: the default ones and those named, without those disabled. Unknown names are an error.
pub fn enabled(
    enable: &[String],
    disable: &[String],
    config: AdmissionConfig,
) -> anyhow::Result<Vec<Box<dyn Admission>>> {
    let plugins = default_plugins(config);
    for name in enable.iter().chain(disable).filter(|name| !name.is_empty()) {
        if !plugins.iter().any(|plugin| plugin.name() == name) {
            let known: Vec<_> = plugins.iter().map(|plugin| plugin.name()).collect();
            anyhow::bail!(
                "admission plugin {name:?} is unknown; there are {}",
                known.join(", ")
            );
        }
    }
    Ok(plugins
        .into_iter()
        .filter(|plugin| !disable.iter().any(|name| name == plugin.name()))
        .collect())
}

/// The enabled plugins.
pub struct Chain {
    plugins: Vec<Box<dyn Admission>>,
}

impl Chain {
    /// A chain of these plugins.
    pub fn new(plugins: Vec<Box<dyn Admission>>) -> Self {
        Self { plugins }
    }

    /// Names of the plugins, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.plugins.iter().map(|p| p.name()).collect()
    }

    /// Whether any plugin wants to see such requests.
    pub fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        self.plugins
            .iter()
            .any(|p| p.handles(operation, info, subresource))
    }

    /// Runs the mutating step of every plugin concerned; once more when policies or webhooks have changed the object.
    pub async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        self.mutate_once(attributes).await?;
        if std::mem::take(&mut attributes.turns.changed) {
            attributes.turns.second = true;
            self.mutate_once(attributes).await?;
        }
        Ok(())
    }

    async fn mutate_once(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        for plugin in &self.plugins {
            if concerned(plugin.as_ref(), attributes) {
                plugin.mutate(attributes).await?;
            }
        }
        Ok(())
    }

    /// Runs the validating step of every plugin concerned.
    pub async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        for plugin in &self.plugins {
            if concerned(plugin.as_ref(), attributes) {
                plugin.validate(attributes).await?;
            }
        }
        Ok(())
    }
}

fn concerned(plugin: &dyn Admission, attributes: &Attributes<'_>) -> bool {
    let ctx = attributes.ctx;
    plugin.handles(attributes.operation, ctx.info, ctx.subresource)
}
