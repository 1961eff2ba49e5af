//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others are asked before something is written.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`configured`] | the webhooks there are, read once for as long as they do not change |
//! | [`matching`] | which of them a request concerns |
//! | [`review`] | the question and the answer (`admission.k8s.io/v1`) |

pub mod configured;
pub mod matching;
pub mod review;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use keelson_api::patch::json as json_patch;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;
use crate::webhook;
use configured::{Configured, Hook};
use matching::Asked;
use review::Answer;

/// Objects that say who is asked are nobody else's business: a webhook must not be able to keep itself in place.
fn concerns(operation: Operation, info: &ResourceInfo) -> bool {
    info.group != "admissionregistration.k8s.io" && operation != Operation::Connect
}

/// The plugin that lets webhooks change objects.
#[derive(Default)]
pub struct MutatingAdmissionWebhook {
    configured: Configured<MutatingWebhookConfiguration>,
}

#[async_trait]
impl Admission for MutatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        concerns(operation, info)
    }

    fn asks_outside(&self) -> bool {
        true
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let hooks = self.configured.hooks(attributes.ctx.server);
        let mut called: Vec<(usize, Option<Value>)> = Vec::new();
        for (index, hook) in hooks.iter().enumerate() {
            if let Some(change) = mutate_through(hook, attributes).await? {
                called.push((index, change));
            }
        }
        // Who was asked before somebody else changed the object is asked once more, if it wants to be.
        let last_change = called.iter().rposition(|(_, change)| change.is_some());
        let again = called
            .iter()
            .take(last_change.unwrap_or(0))
            .map(|(index, _)| *index);
        for index in again.filter(|index| hooks[*index].reinvoked()) {
            mutate_through(&hooks[index], attributes).await?;
        }
        Ok(())
    }
}

/// Asks one webhook. `None`: it was not concerned; `Some(None)`: it changed nothing.
async fn mutate_through(
    hook: &Arc<Hook>,
    attributes: &mut Attributes<'_>,
) -> ApiResult<Option<Option<Value>>> {
    let Some(asked) = matching::concerned(hook, attributes).await? else {
        return Ok(None);
    };
    let Some(answer) = ask(hook, attributes, &asked).await? else {
        return Ok(Some(None));
    };
    let Some(patch) = answer.patch.filter(|patch| !patch.is_empty()) else {
        return Ok(Some(None));
    };
    let failed = |error: ApiError| failure(hook, error.message());
    let mut value = asked.object;
    let changed = json_patch::parse(&patch).and_then(|patch| json_patch::apply(&mut value, &patch));
    changed.map_err(|error| failure(hook, &error.to_string()))?;
    let served = asked.served;
    served.to_storage(&mut value).map_err(failed)?;
    let own = attributes.ctx.info.api_version();
    let value = matching::converted(attributes, &served, value, &own)
        .await
        .map_err(failed)?;
    let Some(object) = attributes.object.as_deref_mut() else {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(ApiError::internal(why));
    };
    object
        .become_decoded(value.to_string().as_bytes())
        .map_err(failed)?;
    served.strategy().default(object)?;
    attributes.changed_outside = true;
    Ok(Some(Some(value)))
}

/// The plugin that lets webhooks refuse.
#[derive(Default)]
pub struct ValidatingAdmissionWebhook {
    configured: Configured<ValidatingWebhookConfiguration>,
}

#[async_trait]
impl Admission for ValidatingAdmissionWebhook {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        concerns(operation, info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let hooks = self.configured.hooks(attributes.ctx.server);
        let mut questions = Vec::new();
        for hook in hooks.iter() {
            if let Some(asked) = matching::concerned(hook, attributes).await? {
                questions.push((hook, asked));
            }
        }
        let answers = questions.iter().map(|(hook, asked)| ask(hook, attributes, asked));
        for answer in join_all(answers).await {
            answer?;
        }
        Ok(())
    }
}

/// Asks, and refuses if the answer says so. `None`: there was no answer, and that does not matter.
async fn ask(hook: &Hook, attributes: &Attributes<'_>, asked: &Asked) -> ApiResult<Option<Answer>> {
    let ctx = attributes.ctx;
    if ctx.dry_run && !hook.dry_run_is_safe() {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err(ApiError::bad_request(why));
    }
    let question = review::question(attributes, asked);
    let uid = question.uid.clone();
    let timeout = Duration::from_secs(hook.timeout_seconds);
    let body = Bytes::from(question.body.to_string());
    let answered = webhook::post(ctx.server, &hook.client, body, timeout)
        .await
        .and_then(|answer| review::answer(&answer, &uid));
    let answer = match answered {
        Ok(answer) => answer,
        Err(why) if hook.failures_are_ignored() => {
            tracing::warn!(webhook = %hook.name, error = %why, "failed calling webhook, failing open");
            return Ok(None);
        }
        Err(why) => return Err(failure(hook, &why)),
    };
    for warning in &answer.warnings {
        ctx.warn(warning.clone());
    }
    match answer.denied(&hook.name) {
        Some(denied) => Err(denied),
        None => Ok(Some(answer)),
    }
}

fn failure(hook: &Hook, why: &str) -> ApiError {
    ApiError::internal(format_args!("failed calling webhook {:?}: {why}", hook.name))
}
