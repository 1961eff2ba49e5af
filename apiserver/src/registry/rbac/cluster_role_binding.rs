//! ClusterRoleBindings.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use keelson_api::field::Errors;
use keelson_api::status::ApiError;
use serde_json::Value;

use super::{BINDING_COLUMNS, GROUP, binding, binding_cells, default_binding, only_ownership, same_role};
use crate::authorization::rbac::escalation::check_binding;
use crate::registry::strategy::{
    Column, NameRule, RequestContext, Reservation, ResourceInfo, Scope, Strategy,
};

/// Kinds of roles that may be bound.
const KINDS: &[&str] = &["ClusterRole"];

/// The kind's strategy.
pub struct ClusterRoleBindingKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "ClusterRoleBinding",
    plural: "clusterrolebindings",
    singular: "clusterrolebinding",
    scope: Scope::Cluster,
    storage_prefix: "clusterrolebindings",
    name_rule: NameRule::PathSegment,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for ClusterRoleBindingKind {
    type Object = ClusterRoleBinding;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, object: &mut ClusterRoleBinding) {
        default_binding(&mut object.role_ref, &mut object.subjects);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, object: &ClusterRoleBinding) -> Errors {
        validate(object)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ClusterRoleBinding,
        old: &ClusterRoleBinding,
    ) -> Errors {
        let mut errors = validate(new);
        same_role(&mut errors, &new.role_ref, &old.role_ref);
        errors
    }

    async fn begin_create(
        &self,
        ctx: &RequestContext<'_>,
        object: &mut ClusterRoleBinding,
    ) -> Result<Reservation, ApiError> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        check_binding(ctx, name, &object.role_ref).await?;
        Ok(Reservation::none())
    }

    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut ClusterRoleBinding,
        old: &ClusterRoleBinding,
    ) -> Result<Reservation, ApiError> {
        if !only_ownership(new, old) {
            check_binding(ctx, ctx.name, &new.role_ref).await?;
        }
        Ok(Reservation::none())
    }

    fn columns(&self) -> &'static [Column] {
        BINDING_COLUMNS
    }

    fn cells(&self, object: &ClusterRoleBinding, now: Timestamp) -> Vec<Value> {
        let subjects = object.subjects.as_deref().unwrap_or(&[]);
        binding_cells(&object.metadata, &object.role_ref, subjects, now)
    }
}

fn validate(object: &ClusterRoleBinding) -> Errors {
    let mut errors = Errors::new();
    binding(
        &mut errors,
        &object.role_ref,
        object.subjects.as_deref().unwrap_or(&[]),
        KINDS,
    );
    errors
}
