//! SubjectAccessReviews: may somebody do this?

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use keelson_api::field::Errors;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::{GROUP, has_subject, no_metadata, question, subject};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct SubjectAccessReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "SubjectAccessReview",
    plural: "subjectaccessreviews",
    singular: "subjectaccessreview",
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    storage_prefix: "subjectaccessreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for SubjectAccessReviewKind {
    type Object = SubjectAccessReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, review: &SubjectAccessReview) -> Errors {
        let mut errors = Errors::new();
        no_metadata(&mut errors, &review.metadata, "must be empty");
        question(&review.spec).validate(&mut errors);
        has_subject(&mut errors, &review.spec);
        errors
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &SubjectAccessReview,
        _old: &SubjectAccessReview,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &SubjectAccessReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut SubjectAccessReview) -> ApiResult<()> {
        let user = subject(&review.spec);
        review.status = Some(question(&review.spec).answer(ctx.server, &user).await);
        Ok(())
    }
}
