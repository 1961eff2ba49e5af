//! SelfSubjectAccessReviews: may I do this? `kubectl auth can-i`.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use keelson_api::field::Errors;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::{GROUP, Question, no_metadata};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct SelfSubjectAccessReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "SelfSubjectAccessReview",
    plural: "selfsubjectaccessreviews",
    singular: "selfsubjectaccessreview",
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    storage_prefix: "selfsubjectaccessreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for SelfSubjectAccessReviewKind {
    type Object = SelfSubjectAccessReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, review: &SelfSubjectAccessReview) -> Errors {
        let mut errors = Errors::new();
        no_metadata(&mut errors, &review.metadata, "must be empty");
        own_question(review).validate(&mut errors);
        errors
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &SelfSubjectAccessReview,
        _old: &SelfSubjectAccessReview,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &SelfSubjectAccessReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut SelfSubjectAccessReview) -> ApiResult<()> {
        review.status = Some(own_question(review).answer(ctx.server, ctx.user).await);
        Ok(())
    }
}

fn own_question(review: &SelfSubjectAccessReview) -> Question<'_> {
    Question {
        resource: review.spec.resource_attributes.as_ref(),
        path: review.spec.non_resource_attributes.as_ref(),
    }
}
