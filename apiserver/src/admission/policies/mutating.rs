//! The plugin that lets policies change objects.

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::MutatingAdmissionPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::invocation::{Invocation, invocations};
use super::known::Known;
use super::mutations::{Change, Mutations, Problem};
use super::policy::{Binding, Policy};
use crate::admission::expressions::FailurePolicy;
use crate::admission::expressions::conditions::Verdict;
use crate::admission::expressions::input::Input;
use crate::admission::expressions::run::{OUT_OF_BUDGET, Stop, settle};
use crate::admission::matching::Shown;
use crate::admission::refusal::forbidden;
use crate::admission::{Admission, Attributes, Operation};
use crate::cel::eval::Scope;
use crate::registry::catalog::Served;
use crate::registry::info::ResourceInfo;

/// MutatingAdmissionPolicy
#[derive(Default)]
pub struct MutatingAdmissionPolicies {
    known: Known<MutatingAdmissionPolicy>,
}

#[async_trait]
impl Admission for MutatingAdmissionPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, _subresource: &str) -> bool {
        matches!(operation, Operation::Create | Operation::Update) && super::concern(info)
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let hooks = self.known.hooks(attributes.ctx.server);
        if hooks.is_empty() || attributes.object.is_none() {
            return Ok(());
        }
        let concerned = invocations(&hooks, attributes).await;
        if concerned.is_empty() {
            return Ok(());
        }
        let second = attributes.turns.second;
        if second && attributes.turns.policies.matters() {
            let object = attributes.encoded()?;
            attributes.turns.policies.return_to(&object);
        }
        let mut failures = Vec::new();
        for Invocation {
            policy,
            binding,
            target,
        } in concerned
        {
            let who = binding.map(|binding| binding.name.as_str());
            let strict = policy.failure_policy == FailurePolicy::Fail;
            let mut note = |why: String| {
                if strict {
                    failures.push(refused(&policy.name, who, &why));
                }
            };
            match (target, binding) {
                (Err(why), _) => note(why),
                (Ok((served, params)), Some(binding)) => {
                    for param in &params {
                        let problems = invoke(attributes, policy, binding, &served, param.as_ref()).await?;
                        problems.into_iter().for_each(&mut note);
                    }
                }
                (Ok(_), None) => {}
            }
        }
        if !second && attributes.turns.policies.matters() {
            let object = attributes.encoded()?;
            attributes.turns.policies.leave(object);
        }
        match failures.first() {
            Some(first) => Err(answer(attributes, first, &failures)),
            None => Ok(()),
        }
    }
}

/// Runs a policy with one set of parameters; what went wrong.
async fn invoke(
    attributes: &mut Attributes<'_>,
    policy: &Policy<Mutations>,
    binding: &Binding,
    served: &Served,
    param: Option<&Value>,
) -> ApiResult<Vec<String>> {
    const NONE: &Value = &Value::Null;
    let mut shown = Shown::new(attributes, served.clone()).await?;
    let input = Input::new(attributes, &shown);
    let params = policy.params.is_some().then(|| param.unwrap_or(NONE));
    let judged = settle(attributes.ctx, &input.asker, || {
        let names = input.names((&shown.object, &shown.old), params);
        let mut scope = Scope::with_variables(names, &policy.variables);
        policy.conditions.judge(&mut scope, policy.failure_policy)
    })
    .await;
    match judged {
        Ok(Verdict::Met) => {}
        Ok(Verdict::Unmet) => return Ok(Vec::new()),
        Ok(Verdict::Failed(why)) => return Ok(vec![why]),
        Err(_) => return Ok(vec![OUT_OF_BUDGET.to_owned()]),
    }
    let key = key(policy, binding, param);
    if attributes.turns.second && !attributes.turns.policies.is_due(&key) {
        return Ok(Vec::new());
    }
    let mut problems = Vec::new();
    let before = shown.object.clone();
    for change in &policy.does.changes {
        let computed = settle(attributes.ctx, &input.asker, || {
            let names = input.names((&shown.object, &shown.old), params);
            change.compute(Scope::with_variables(names, &policy.variables))
        })
        .await;
        match made(change, &shown, computed) {
            Ok(value) if value == shown.object => {}
            Ok(value) => {
                shown.put_back(attributes, value).await?;
                shown = Shown::new(attributes, served.clone()).await?;
            }
            Err(Problem::Policy(why)) => problems.push(why),
            Err(Problem::Request(error)) => return Err(*error),
        }
    }
    let turns = &mut attributes.turns;
    if shown.object != before {
        turns.policies.changed();
        turns.changed = true;
    }
    if policy.does.reinvoked {
        turns.policies.waits(key);
    }
    Ok(problems)
}

fn made(
    change: &Change,
    shown: &Shown,
    computed: Result<Result<Value, String>, Stop>,
) -> Result<Value, Problem> {
    let computed = computed.unwrap_or_else(|_| Err(OUT_OF_BUDGET.to_owned()));
    change.make(shown, computed.map_err(Problem::Policy)?)
}

/// What tells one run of a policy from another.
fn key(policy: &Policy<Mutations>, binding: &Binding, param: Option<&Value>) -> String {
    let meta = |field: &str| {
        let text = param.and_then(|param| param.pointer(field));
        text.and_then(Value::as_str).unwrap_or_default()
    };
    format!(
        "{}/{}/{}/{}",
        policy.name,
        binding.name,
        meta("/metadata/namespace"),
        meta("/metadata/name")
    )
}

fn refused(policy: &str, binding: Option<&str>, why: &str) -> String {
    match binding {
        Some(binding) => format!("policy '{policy}' with binding '{binding}' denied request: {why}"),
        None => format!("policy '{policy}' denied request: {why}"),
    }
}

/// The refusal: its text is the first failure, all of them are its causes.
fn answer(attributes: &Attributes<'_>, first: &str, failures: &[String]) -> ApiError {
    let mut status = forbidden(attributes, first).into_status();
    status.message = Some(first.to_owned());
    status.reason = Some("Invalid".to_owned());
    let details = status.details.get_or_insert_default();
    details
        .causes
        .get_or_insert_default()
        .extend(failures.iter().map(|failure| StatusCause {
            message: Some(failure.clone()),
            ..StatusCause::default()
        }));
    ApiError::from(status)
}
