//! MutatingAdmissionWebhook and ValidatingAdmissionWebhook: others are asked before something is written.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`configured`] | the webhooks there are, read once for as long as they do not change |
//! | [`review`] | the question and the answer (`admission.k8s.io/v1`) |

pub mod configured;
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

use super::expressions::conditions::Verdict;
use super::expressions::input::Input;
use super::expressions::run::{OUT_OF_BUDGET, settle};
use super::matching::Shown;
use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::cel::eval::Scope;
use crate::registry::info::ResourceInfo;
use crate::webhook;
use configured::{Configured, Hook};
use review::Answer;

/// Objects that say who is asked are nobody else's business: a webhook must not be able to keep itself in place.
fn concerns(info: &ResourceInfo) -> bool {
    info.group != "admissionregistration.k8s.io"
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

    fn handles(&self, _operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        concerns(info)
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let hooks = self.configured.hooks(attributes.ctx.server);
        if hooks.is_empty() {
            return Ok(());
        }
        let second = attributes.turns.second;
        if second && attributes.turns.webhooks.matters() {
            let object = attributes.encoded()?;
            attributes.turns.webhooks.return_to(&object);
        }
        for hook in hooks.iter() {
            if second && !attributes.turns.webhooks.is_due(&hook.name) {
                continue;
            }
            let Some(change) = mutate_through(hook, attributes).await? else {
                continue;
            };
            let turns = &mut attributes.turns;
            if change == Change::Made {
                turns.webhooks.changed();
                turns.changed = true;
            }
            if hook.reinvoked() {
                turns.webhooks.waits(hook.name.clone());
            }
        }
        if !second && attributes.turns.webhooks.matters() {
            let object = attributes.encoded()?;
            attributes.turns.webhooks.leave(object);
        }
        Ok(())
    }
}

/// What a webhook has done to the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It has changed it.
    Made,
    /// It has not.
    None,
}

/// Asks one webhook. `None`: it was not concerned.
async fn mutate_through(hook: &Arc<Hook>, attributes: &mut Attributes<'_>) -> ApiResult<Option<Change>> {
    let Some(asked) = concerned(hook, attributes).await? else {
        return Ok(None);
    };
    let Some(answer) = ask(hook, attributes, &asked).await? else {
        return Ok(Some(Change::None));
    };
    let Some(patch) = answer.patch.filter(|patch| !patch.is_empty()) else {
        return Ok(Some(Change::None));
    };
    if attributes.object.is_none() {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(ApiError::internal(why));
    }
    let mut value = asked.object.clone();
    let changed = json_patch::parse(&patch).and_then(|patch| json_patch::apply(&mut value, &patch));
    changed.map_err(|error| failure(hook, &error.to_string()))?;
    if value == asked.object {
        return Ok(Some(Change::None));
    }
    asked
        .put_back(attributes, value)
        .await
        .map_err(|error| failure(hook, error.message()))?;
    Ok(Some(Change::Made))
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

    fn handles(&self, _operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        concerns(info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let hooks = self.configured.hooks(attributes.ctx.server);
        let mut questions = Vec::new();
        for hook in hooks.iter() {
            if let Some(asked) = concerned(hook, attributes).await? {
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

/// What to show the webhook, `None` if the request is none of its business.
async fn concerned(hook: &Hook, attributes: &Attributes<'_>) -> ApiResult<Option<Shown>> {
    let criteria = hook.criteria();
    // Without rules a webhook is asked nothing, unlike a policy.
    let Some(served) = criteria.version(attributes).filter(|_| !hook.rules.is_empty()) else {
        return Ok(None);
    };
    let shown = Shown::new(attributes, served).await?;
    if hook.conditions.is_empty() {
        return Ok(Some(shown));
    }
    let input = Input::new(attributes, &shown);
    let judged = settle(attributes.ctx, &input.asker, || {
        let mut scope = Scope::new(input.names((&shown.object, &shown.old), None));
        hook.conditions.judge(&mut scope, hook.failure_policy)
    })
    .await;
    match judged {
        Ok(Verdict::Met) => Ok(Some(shown)),
        Ok(Verdict::Unmet) => Ok(None),
        Ok(Verdict::Failed(why)) => Err(forbidden(attributes, why)),
        Err(_) if hook.failures_are_ignored() => Ok(None),
        Err(_) => Err(forbidden(attributes, OUT_OF_BUDGET)),
    }
}

/// Asks, and refuses if the answer says so. `None`: there was no answer, and that does not matter.
async fn ask(hook: &Hook, attributes: &Attributes<'_>, asked: &Shown) -> ApiResult<Option<Answer>> {
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
