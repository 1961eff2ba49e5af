//! Roles.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::Role;
use keelson_api::field::Errors;
use keelson_api::status::ApiError;
use serde_json::Value;

use super::{GROUP, Reach, only_ownership, policy_rules};
use crate::authorization::rbac::escalation::{NewRole, check_role};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, NameRule, RequestContext, Reservation, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct RoleKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "Role",
    plural: "roles",
    singular: "role",
    storage_prefix: "roles",
    name_rule: NameRule::PathSegment,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for RoleKind {
    type Object = Role;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, role: &Role) -> Errors {
        validate(role)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Role, _old: &Role) -> Errors {
        validate(new)
    }

    async fn begin_create(&self, ctx: &RequestContext<'_>, role: &mut Role) -> Result<Reservation, ApiError> {
        let wanted = NewRole {
            name: role.metadata.name.as_deref().unwrap_or_default(),
            existing: "",
            rules: role.rules.as_deref().unwrap_or(&[]),
            aggregates: false,
        };
        check_role(ctx, wanted).await?;
        Ok(Reservation::none())
    }

    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut Role,
        old: &Role,
    ) -> Result<Reservation, ApiError> {
        if !only_ownership(new, old) {
            let wanted = NewRole {
                name: ctx.name,
                existing: ctx.name,
                rules: new.rules.as_deref().unwrap_or(&[]),
                aggregates: false,
            };
            check_role(ctx, wanted).await?;
        }
        Ok(Reservation::none())
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Created At", "When the object was created.").of("date"),
        ];
        COLUMNS
    }

    fn cells(&self, role: &Role, _now: Timestamp) -> Vec<Value> {
        let created = role
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| keelson_api::time::rfc3339(t.0));
        vec![cells::name(&role.metadata), created.unwrap_or_default().into()]
    }
}

fn validate(role: &Role) -> Errors {
    let mut errors = Errors::new();
    policy_rules(
        &mut errors,
        role.rules.as_deref().unwrap_or(&[]),
        Reach::Namespace,
    );
    errors
}
