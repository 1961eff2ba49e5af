//! ClusterRoles.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::ClusterRole;
use keelson_api::field::Errors;
use keelson_api::status::ApiError;
use serde_json::Value;

use super::{GROUP, Reach, only_ownership, policy_rules};
use crate::authorization::rbac::escalation::{NewRole, check_role};
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, selectors};
use crate::registry::strategy::{
    Column, NameRule, RequestContext, Reservation, ResourceInfo, Scope, Strategy,
};

/// The kind's strategy.
pub struct ClusterRoleKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "ClusterRole",
    plural: "clusterroles",
    singular: "clusterrole",
    scope: Scope::Cluster,
    storage_prefix: "clusterroles",
    name_rule: NameRule::PathSegment,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for ClusterRoleKind {
    type Object = ClusterRole;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, role: &ClusterRole) -> Errors {
        validate(role)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &ClusterRole, _old: &ClusterRole) -> Errors {
        validate(new)
    }

    async fn begin_create(
        &self,
        ctx: &RequestContext<'_>,
        role: &mut ClusterRole,
    ) -> Result<Reservation, ApiError> {
        let wanted = NewRole {
            name: role.metadata.name.as_deref().unwrap_or_default(),
            existing: "",
            rules: role.rules.as_deref().unwrap_or(&[]),
            aggregates: role.aggregation_rule.is_some(),
        };
        check_role(ctx, wanted).await?;
        Ok(Reservation::none())
    }

    async fn begin_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut ClusterRole,
        old: &ClusterRole,
    ) -> Result<Reservation, ApiError> {
        if !only_ownership(new, old) {
            let wanted = NewRole {
                name: ctx.name,
                existing: ctx.name,
                rules: new.rules.as_deref().unwrap_or(&[]),
                aggregates: new.aggregation_rule.is_some() || old.aggregation_rule.is_some(),
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

    fn cells(&self, role: &ClusterRole, _now: Timestamp) -> Vec<Value> {
        let created = role
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| keelson_api::time::rfc3339(t.0));
        vec![cells::name(&role.metadata), created.unwrap_or_default().into()]
    }
}

fn validate(role: &ClusterRole) -> Errors {
    let mut errors = Errors::new();
    policy_rules(&mut errors, role.rules.as_deref().unwrap_or(&[]), Reach::Cluster);
    if let Some(aggregation) = &role.aggregation_rule {
        let at = Loc::new("aggregationRule.clusterRoleSelectors");
        let list = aggregation.cluster_role_selectors.as_deref().unwrap_or(&[]);
        if list.is_empty() {
            errors
                .push(at.required("at least one clusterRoleSelector required if aggregationRule is non-nil"));
        }
        for (i, selector) in list.iter().enumerate() {
            selectors::label_selector(&mut errors, &at.index(i), selector);
        }
    }
    errors
}
