//! LocalSubjectAccessReviews: may somebody do this in one namespace? Whoever may ask is decided by namespace, too.

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::LocalSubjectAccessReview;
use keelson_api::field::Errors;
use keelson_api::status::ApiResult;
use serde_json::Value;

use super::{GROUP, has_subject, no_metadata, question, subject};
use crate::registry::common::cells;
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Strategy, Verb};

/// The kind's strategy.
pub struct LocalSubjectAccessReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "LocalSubjectAccessReview",
    plural: "localsubjectaccessreviews",
    singular: "localsubjectaccessreview",
    verbs: &[Verb::Create],
    storage_prefix: "localsubjectaccessreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for LocalSubjectAccessReviewKind {
    type Object = LocalSubjectAccessReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, ctx: &RequestContext<'_>, review: &LocalSubjectAccessReview) -> Errors {
        let mut errors = Errors::new();
        let mut metadata = review.metadata.clone();
        metadata.namespace = None;
        no_metadata(&mut errors, &metadata, "must be empty except for namespace");
        question(&review.spec).validate(&mut errors);
        has_subject(&mut errors, &review.spec);
        if let Some(asked) = &review.spec.resource_attributes
            && asked.namespace.as_deref().unwrap_or_default() != ctx.namespace
        {
            let at = Loc::new("spec.resourceAttributes.namespace");
            errors.push(at.invalid(rules::shown(&asked.namespace), "must match metadata.namespace"));
        }
        if let Some(path) = &review.spec.non_resource_attributes {
            let at = Loc::new("spec.nonResourceAttributes");
            errors.push(at.invalid(rules::shown(path), "disallowed on this kind of request"));
        }
        errors
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &LocalSubjectAccessReview,
        _old: &LocalSubjectAccessReview,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &LocalSubjectAccessReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut LocalSubjectAccessReview) -> ApiResult<()> {
        let user = subject(&review.spec);
        review.status = Some(question(&review.spec).answer(ctx.server, &user).await);
        Ok(())
    }
}
