//! SelfSubjectRulesReviews: what may I do in a namespace? `kubectl auth can-i --list`.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SelfSubjectRulesReview, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;
use keelson_api::field::Errors;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::GROUP;
use crate::authorization::AuthorizationMode;
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct SelfSubjectRulesReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "SelfSubjectRulesReview",
    plural: "selfsubjectrulesreviews",
    singular: "selfsubjectrulesreview",
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    storage_prefix: "selfsubjectrulesreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for SelfSubjectRulesReviewKind {
    type Object = SelfSubjectRulesReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _review: &SelfSubjectRulesReview) -> Errors {
        Errors::new()
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &SelfSubjectRulesReview,
        _old: &SelfSubjectRulesReview,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &SelfSubjectRulesReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut SelfSubjectRulesReview) -> ApiResult<()> {
        let namespace = review.spec.namespace.as_deref().unwrap_or_default();
        if namespace.is_empty() {
            return Err(ApiError::bad_request("no namespace on request"));
        }
        let authorizer = &ctx.server.authorizer;
        let mut status = SubjectRulesReviewStatus::default();
        let mut problems = Vec::new();
        if authorizer.runs(AuthorizationMode::Node) && ctx.user.node_name().is_some() {
            status.incomplete = true;
            problems.push("node authorizer does not support user rule resolution".to_owned());
        }
        if authorizer.runs(AuthorizationMode::Webhook) {
            status.incomplete = true;
            problems.push("webhook authorizer does not support user rule resolution".to_owned());
        }
        if authorizer.runs(AuthorizationMode::AlwaysAllow) {
            let star = || vec!["*".to_owned()];
            add(
                &mut status,
                PolicyRule {
                    verbs: star(),
                    api_groups: Some(star()),
                    resources: Some(star()),
                    ..PolicyRule::default()
                },
            );
            add(
                &mut status,
                PolicyRule {
                    verbs: star(),
                    non_resource_urls: Some(star()),
                    ..PolicyRule::default()
                },
            );
        }
        if authorizer.runs(AuthorizationMode::Rbac) {
            let (rules, missing) = authorizer.rbac.rules_of(ctx.user, namespace);
            rules.iter().for_each(|rule| add(&mut status, rule.policy()));
            problems.extend(missing);
        }
        status.evaluation_error = match problems.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => Some(format!("[{}]", many.join(", "))),
        };
        review.status = Some(status);
        Ok(())
    }
}

fn add(status: &mut SubjectRulesReviewStatus, rule: PolicyRule) {
    if rule.resources.is_some() {
        status.resource_rules.push(ResourceRule {
            verbs: rule.verbs.clone(),
            api_groups: rule.api_groups,
            resources: rule.resources,
            resource_names: rule.resource_names,
        });
    }
    if rule.non_resource_urls.is_some() {
        status.non_resource_rules.push(NonResourceRule {
            verbs: rule.verbs,
            non_resource_urls: rule.non_resource_urls,
        });
    }
}
