//! Bindings posted to a namespace: the same as `pods/binding`, with the pod's name in the body.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Binding;
use keelson_api::field::Errors;
use keelson_api::object::Object as _;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::pod::binding;
use crate::admission::Operation;
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Strategy, Verb};

/// The kind's strategy.
pub struct BindingKind;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Binding",
    plural: "bindings",
    singular: "binding",
    verbs: &[Verb::Create],
    storage_prefix: "bindings",
    lifetime: Lifetime::CarriedOut,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for BindingKind {
    type Object = Binding;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, binding: &Binding) -> Errors {
        binding::validate(binding)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Binding, _old: &Binding) -> Errors {
        binding::validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, binding: &Binding, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&binding.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, binding: &mut Binding) -> ApiResult<()> {
        let body = binding.to_value()?;
        ctx.server.admit(ctx, Operation::Create, &body).await?;
        binding::bind(ctx, binding.name(), binding).await
    }
}
