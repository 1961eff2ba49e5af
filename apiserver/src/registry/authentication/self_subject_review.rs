//! SelfSubjectReviews: `kubectl auth whoami`.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::field::Errors;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::{GROUP, user_info};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct SelfSubjectReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "SelfSubjectReview",
    plural: "selfsubjectreviews",
    singular: "selfsubjectreview",
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    storage_prefix: "selfsubjectreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for SelfSubjectReviewKind {
    type Object = SelfSubjectReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _review: &SelfSubjectReview) -> Errors {
        Errors::new()
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &SelfSubjectReview,
        _old: &SelfSubjectReview,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &SelfSubjectReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut SelfSubjectReview) -> ApiResult<()> {
        review.metadata.creation_timestamp = Some(Time(ctx.now));
        review.status = Some(SelfSubjectReviewStatus {
            user_info: Some(user_info(ctx.user.clone())),
        });
        Ok(())
    }
}
