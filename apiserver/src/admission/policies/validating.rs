//! The plugin that lets policies refuse.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::{Value, json};

use super::invocation::{Invocation, invocations};
use super::known::Known;
use super::policy::{Binding, Policy};
use super::validations::{Denial, Outcome, Validations, run};
use crate::admission::expressions::FailurePolicy;
use crate::admission::expressions::input::Input;
use crate::admission::expressions::run::{OUT_OF_BUDGET, settle};
use crate::admission::matching::Shown;
use crate::admission::refusal::forbidden;
use crate::admission::{Admission, Attributes, Operation};
use crate::audit;
use crate::cel::eval::Scope;
use crate::registry::info::ResourceInfo;

/// Notes in the audit log are cut at this many bytes.
const NOTE_MAX: usize = 10 << 10;
/// The note that says which rules were broken.
const FAILURES: &str = "validation.policy.admission.k8s.io/validation_failure";

/// ValidatingAdmissionPolicy
#[derive(Default)]
pub struct ValidatingAdmissionPolicies {
    known: Known<ValidatingAdmissionPolicy>,
}

/// Why a request is refused.
struct Refusal {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: Option<String>,
}

#[async_trait]
impl Admission for ValidatingAdmissionPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, _operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        super::concern(info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let hooks = self.known.hooks(attributes.ctx.server);
        if hooks.is_empty() {
            return Ok(());
        }
        let mut refusals = Vec::new();
        let mut notes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen: Vec<(Shown, Input)> = Vec::new();
        for invocation in invocations(&hooks, attributes).await {
            let Invocation {
                policy,
                binding,
                target,
            } = invocation;
            let (served, params) = match target {
                Ok(target) => target,
                Err(message) if policy.failure_policy == FailurePolicy::Fail => {
                    refusals.push(Refusal {
                        policy: policy.name.clone(),
                        binding: binding.map(|binding| binding.name.clone()),
                        message,
                        reason: None,
                    });
                    continue;
                }
                Err(_) => continue,
            };
            let Some(binding) = binding else { continue };
            let version = served.api_version();
            let place = match seen.iter().position(|(s, _)| s.served.api_version() == version) {
                Some(place) => place,
                None => {
                    let shown = Shown::new(attributes, served).await?;
                    let input = Input::new(attributes, &shown);
                    seen.push((shown, input));
                    seen.len() - 1
                }
            };
            for param in &params {
                let outcome = judge(attributes, &seen[place], policy, param.as_ref()).await;
                for (key, value) in &outcome.notes {
                    let values = notes.entry(format!("{}/{key}", policy.name)).or_default();
                    let mut value = value.clone();
                    value.truncate(value.floor_char_boundary(NOTE_MAX));
                    if !values.contains(&value) {
                        values.push(value);
                    }
                }
                refusals.extend(consequences(attributes, policy, binding, outcome));
            }
        }
        for (key, values) in notes {
            audit::annotate(&key, || values.join(", "));
        }
        match refusals.into_iter().next() {
            Some(refusal) => Err(refusal.answer(attributes)),
            None => Ok(()),
        }
    }
}

async fn judge(
    attributes: &Attributes<'_>,
    (shown, input): &(Shown, Input),
    policy: &Policy<Validations>,
    params: Option<&Value>,
) -> Outcome {
    const NONE: &Value = &Value::Null;
    let params = policy.params.is_some().then(|| params.unwrap_or(NONE));
    let judged = settle(attributes.ctx, &input.asker, || {
        let names = input.names((&shown.object, &shown.old), params);
        run(policy, Scope::with_variables(names, &policy.variables))
    })
    .await;
    judged.unwrap_or_else(|_| {
        let denial = Denial {
            rule: 0,
            message: OUT_OF_BUDGET.to_owned(),
            reason: None,
        };
        let strict = policy.failure_policy == FailurePolicy::Fail;
        Outcome {
            denials: strict.then_some(denial).into_iter().collect(),
            ..Outcome::default()
        }
    })
}

/// What follows from an outcome: warnings and notes at once, refusals as the answer.
fn consequences(
    attributes: &Attributes<'_>,
    policy: &Policy<Validations>,
    binding: &Binding,
    outcome: Outcome,
) -> Vec<Refusal> {
    let refusal = |message, reason| Refusal {
        policy: policy.name.clone(),
        binding: Some(binding.name.clone()),
        message,
        reason,
    };
    let mut refusals = Vec::new();
    for denial in outcome.denials {
        if binding.has_action("Audit") {
            audit::annotate(FAILURES, || {
                let failure = json!([{
                    "message": denial.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": denial.rule, "validationActions": binding.actions,
                }]);
                failure.to_string()
            });
        }
        if binding.has_action("Warn") {
            attributes.ctx.warn(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, denial.message
            ));
        }
        if binding.has_action("Deny") {
            refusals.push(refusal(denial.message, denial.reason));
        }
    }
    let broken = outcome.broken_notes.into_iter();
    refusals.extend(broken.map(|message| refusal(message, None)));
    refusals
}

impl Refusal {
    fn answer(self, attributes: &Attributes<'_>) -> ApiError {
        let who = match &self.binding {
            Some(binding) => format!("'{}' with binding '{binding}'", self.policy),
            None => format!("'{}'", self.policy),
        };
        let message = format!("ValidatingAdmissionPolicy {who} denied request: {}", self.message);
        let reason = self.reason.unwrap_or_else(|| "Invalid".to_owned());
        let code = match reason.as_str() {
            "Forbidden" => 403,
            "Unauthorized" => 401,
            "RequestEntityTooLarge" => 413,
            _ => 422,
        };
        let mut status = forbidden(attributes, &message).into_status();
        status.reason = Some(reason);
        status.code = Some(code);
        let details = status.details.get_or_insert_default();
        details.causes.get_or_insert_default().push(StatusCause {
            message: Some(message),
            ..StatusCause::default()
        });
        ApiError::from(status)
    }
}
