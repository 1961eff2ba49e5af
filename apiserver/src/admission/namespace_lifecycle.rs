//! NamespaceLifecycle: nothing is made in a namespace that is not there or on its way out, and some namespaces stay.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use keelson_api::names::GroupResource;
use keelson_api::status::{ApiError, ApiResult};

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// Namespaces that may not be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

/// The plugin.
pub struct NamespaceLifecycle;

fn is_namespaces(info: &ResourceInfo) -> bool {
    info.group.is_empty() && info.plural == "namespaces"
}

#[async_trait]
impl Admission for NamespaceLifecycle {
    fn name(&self) -> &'static str {
        "NamespaceLifecycle"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        match operation {
            Operation::Delete => is_namespaces(info),
            Operation::Create | Operation::Update => info.namespaced(),
            Operation::Connect => false,
        }
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        if attributes.operation == Operation::Delete {
            if IMMORTAL.contains(&ctx.name) {
                return Err(forbidden(attributes, "this namespace may not be deleted"));
            }
            return Ok(());
        }
        let name = ctx.namespace;
        let namespace = match ctx.server.cached::<Namespace>("", name) {
            Some(namespace) => namespace,
            // The cache may not have seen a namespace that was made a moment ago.
            None => match ctx.server.fresh::<Namespace>("", name).await {
                Err(error) if error.is_not_found() => {
                    return Err(ApiError::not_found(&GroupResource::core("namespaces"), name));
                }
                other => Arc::new(other?),
            },
        };
        let phase = namespace.status.as_ref().and_then(|s| s.phase.as_deref());
        if attributes.operation == Operation::Create && phase == Some("Terminating") {
            let why =
                format!("unable to create new content in namespace {name} because it is being terminated");
            let cause = StatusCause {
                reason: Some("NamespaceTerminating".to_owned()),
                message: Some(format!("namespace {name} is being terminated")),
                field: Some("metadata.namespace".to_owned()),
            };
            return Err(forbidden(attributes, why).with_cause(cause));
        }
        Ok(())
    }
}
