//! TokenReviews: whose token is this?

use async_trait::async_trait;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};
use keelson_api::field::Errors;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::{GROUP, user_info};
use crate::registry::common::cells;
use crate::registry::strategy::{Column, Lifetime, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct TokenReviewKind;

static INFO: ResourceInfo = ResourceInfo {
    group: GROUP,
    kind: "TokenReview",
    plural: "tokenreviews",
    singular: "tokenreview",
    scope: Scope::Cluster,
    verbs: &[Verb::Create],
    storage_prefix: "tokenreviews",
    lifetime: Lifetime::Answered,
    ..ResourceInfo::base()
};

#[async_trait]
impl Strategy for TokenReviewKind {
    type Object = TokenReview;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _review: &TokenReview) -> Errors {
        Errors::new()
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, _new: &TokenReview, _old: &TokenReview) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[Column::name()];
        COLUMNS
    }

    fn cells(&self, review: &TokenReview, _now: Timestamp) -> Vec<Value> {
        vec![cells::name(&review.metadata)]
    }

    async fn answer(&self, ctx: &RequestContext<'_>, review: &mut TokenReview) -> ApiResult<()> {
        let token = review.spec.token.as_str();
        if token.is_empty() {
            return Err(ApiError::bad_request(
                "token is required for TokenReview in authentication",
            ));
        }
        let own = ctx.server.config.audiences();
        let audiences = match review.spec.audiences.as_deref() {
            None | Some([]) => own,
            Some(asked) => asked,
        };
        let reviewed = ctx
            .server
            .authenticator
            .review(ctx.server, token, audiences)
            .await;
        review.status = Some(match reviewed {
            Ok((user, audiences)) => TokenReviewStatus {
                authenticated: Some(true),
                user: Some(user_info(user)),
                audiences: Some(audiences).filter(|audiences| !audiences.is_empty()),
                error: None,
            },
            Err(error) => TokenReviewStatus {
                error: Some(error),
                ..TokenReviewStatus::default()
            },
        });
        Ok(())
    }
}
