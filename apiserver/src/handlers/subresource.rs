//! Subresources that take and answer a kind of their own: scale, binding, eviction, token.

use std::sync::Arc;

use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::patch::{Patch, PatchType};
use super::{Call, Outcome, apply};
use crate::registry::info::Verb;
use crate::registry::strategy::{Answer, Subresource, SubresourceCall};

/// How often a patch is tried anew because somebody else changed the parent.
const ATTEMPTS: usize = 5;

fn handler(call: &Call<'_>) -> ApiResult<Arc<dyn Subresource>> {
    call.strategy()
        .handler(call.subresource)
        .ok_or_else(ApiError::no_such_resource)
}

fn with_body<'a>(call: &'a Call<'_>, body: Value, query: &'a [(String, String)]) -> SubresourceCall<'a> {
    SubresourceCall {
        ctx: call.context(call.name),
        body,
        query,
    }
}

fn outcome(answer: Answer) -> Outcome {
    Outcome::other(answer.code, answer.json)
}

fn parse(json: &[u8]) -> ApiResult<Value> {
    if json.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(json).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized: json parse error: {error}"
        ))
    })
}

/// GET, POST or PUT.
pub async fn serve(
    call: &Call<'_>,
    verb: Verb,
    json: &[u8],
    query: &[(String, String)],
) -> ApiResult<Outcome> {
    let handler = handler(call)?;
    let request = with_body(call, parse(json)?, query);
    let answer = match verb {
        Verb::Get => handler.get(request).await,
        Verb::Create => handler.create(request).await,
        Verb::Update => handler.update(request).await,
        _ => Err(ApiError::method_not_supported(
            &call.group_resource(),
            verb.as_str(),
        )),
    };
    answer.map(outcome)
}

/// PATCH: reads, changes and writes back, again when somebody else was faster.
pub async fn patch(
    call: &Call<'_>,
    kind: PatchType,
    body: &[u8],
    query: &[(String, String)],
) -> ApiResult<Outcome> {
    let handler = handler(call)?;
    if kind == PatchType::Apply {
        let config = apply::read(call, body)?;
        return handler.apply(with_body(call, config, query)).await.map(outcome);
    }
    let patch = Patch::read(kind, body);
    for attempt in 1.. {
        let before = handler.get(with_body(call, Value::Null, query)).await?;
        let mut value: Value = serde_json::from_slice(&before.json).map_err(ApiError::internal)?;
        patch.apply(call, &mut value)?;
        match handler.update(with_body(call, value, query)).await {
            Err(error) if error.is_conflict() && attempt < ATTEMPTS => {}
            result => return result.map(outcome),
        }
    }
    Err(ApiError::internal("a patch was given up"))
}
