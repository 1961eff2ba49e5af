//! `pods/eviction`: a deletion that asks the disruption budgets first.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::{Eviction, PodDisruptionBudget};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, StatusCause, Time};
use keelson_api::names::GroupResource;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::{conditions, pods, time};
use serde_json::Value;

use crate::admission::Operation;
use crate::handlers::options::validate_delete_options;
use crate::registry::common::scale::{decode, success};
use crate::registry::common::{NONE, selectors};
use crate::registry::strategy::{Answer, Subresource, SubresourceCall};

use super::preconditions;

/// More disrupted pods than a budget can remember.
const REMEMBERED_MAX: usize = 2000;
/// Seconds after which an eviction is worth another try while the budget's figures are old.
const RETRY_SECONDS: i32 = 10;

/// An eviction of either version; the older one has the same fields.
fn read(body: &Value) -> ApiResult<Eviction> {
    if body["apiVersion"] != "policy/v1beta1" {
        return decode(body);
    }
    let mut body = body.clone();
    body["apiVersion"] = "policy/v1".into();
    decode(&body)
}

/// The subresource.
pub struct PodEviction;

#[async_trait]
impl Subresource for PodEviction {
    async fn create(&self, call: SubresourceCall<'_>) -> ApiResult<Answer> {
        let ctx = &call.ctx;
        let eviction = read(&call.body)?;
        let given = eviction.metadata.name.as_deref().unwrap_or("");
        if given != ctx.name {
            return Err(ApiError::bad_request(
                "name in URL does not match name in Eviction object",
            ));
        }
        ctx.server.admit(ctx, Operation::Create, &call.body).await?;
        let mut options = eviction.delete_options.unwrap_or_default();
        let dry_run = dry_run(ctx.dry_run, &options)?;
        validate_delete_options(&options)?;
        let pod: Pod = ctx.server.fresh(ctx.namespace, ctx.name).await?;
        if needs_budget(&pod) {
            spend(&call, &pod, dry_run).await?;
            // What was counted must be what goes.
            let preconditions = options.preconditions.get_or_insert_default();
            preconditions.uid.get_or_insert_with(|| pod.uid().to_owned());
        }
        if !dry_run {
            options.dry_run = None;
            mark(&call, &mut options).await?;
            ctx.server
                .delete::<Pod>(ctx.user, ctx.namespace, ctx.name, DeleteOptions { ..options })
                .await?;
        }
        success(201)
    }
}

/// Whether the eviction is only tried: the request and its body must not say different things.
fn dry_run(request: bool, options: &DeleteOptions) -> ApiResult<bool> {
    let body = options.dry_run.as_deref().unwrap_or_default();
    if request && !body.is_empty() && body != ["All"] {
        let body = body.join(" ");
        return Err(ApiError::new(
            500,
            "",
            format!("Non-matching dry-run options in request and content: [All] and [{body}]"),
        ));
    }
    Ok(request || !body.is_empty())
}

/// Says on the pod why it goes, for whoever judges its end: a Job's failure policy. What the eviction insists on is
/// looked at here, and holds for the pod as it is afterwards.
async fn mark(call: &SubresourceCall<'_>, options: &mut DeleteOptions) -> ApiResult<()> {
    let ctx = &call.ctx;
    let insisted = options.preconditions.clone().unwrap_or_default();
    let change = |pod: &mut Pod| {
        preconditions::check(pod, &insisted.uid, &insisted.resource_version)?;
        let condition = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: conditions::TRUE.to_owned(),
            reason: Some("EvictionByEvictionAPI".to_owned()),
            message: Some("Eviction API: evicting".to_owned()),
            observed_generation: pod.metadata.generation,
            ..PodCondition::default()
        };
        conditions::set(&mut pod.status.get_or_insert_default().conditions, condition);
        Ok(())
    };
    let pod = ctx
        .server
        .update::<Pod>(ctx.user, (ctx.namespace, ctx.name, "status"), change)
        .await?;
    if let Some(insisted) = &mut options.preconditions
        && insisted.resource_version.is_some()
    {
        insisted.resource_version = pod.metadata.resource_version;
    }
    Ok(())
}

/// Pods that serve nobody, or are going anyway, disturb nobody by going.
fn needs_budget(pod: &Pod) -> bool {
    !pods::is_terminal(pod) && pods::phase(pod) != "Pending" && pod.metadata.deletion_timestamp.is_none()
}

/// Takes one disruption from the budget of the pod, if it has one.
async fn spend(call: &SubresourceCall<'_>, pod: &Pod, dry_run: bool) -> ApiResult<()> {
    let ctx = &call.ctx;
    let labels = pod.metadata.labels.as_ref().unwrap_or(&NONE);
    let mut budgets: Vec<PodDisruptionBudget> = ctx.server.fresh_list(ctx.namespace).await?;
    budgets.retain(|budget| {
        budget
            .spec
            .as_ref()
            .and_then(|s| s.selector.as_ref())
            .is_some_and(|s| selectors::matches(s, labels))
    });
    let Some(budget) = budgets.pop() else {
        return Ok(());
    };
    if !budgets.is_empty() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(ApiError::new(500, "", message));
    }
    if may_go_unhealthy(pod, &budget) {
        return Ok(());
    }
    let (pod_name, now) = (ctx.name, ctx.now);
    let name = budget.name().to_owned();
    let change = |budget: &mut PodDisruptionBudget| decrement(budget, pod_name, now);
    if dry_run {
        let mut budget = budget;
        return change(&mut budget);
    }
    ctx.server
        .update(ctx.user, (ctx.namespace, &name, "status"), change)
        .await
        .map(drop)
}

/// A pod that is not ready is not counted among the healthy ones: its going costs the budget nothing.
fn may_go_unhealthy(pod: &Pod, budget: &PodDisruptionBudget) -> bool {
    if pods::is_ready(pod) {
        return false;
    }
    let always = budget
        .spec
        .as_ref()
        .and_then(|s| s.unhealthy_pod_eviction_policy.as_deref())
        == Some("AlwaysAllow");
    let healthy = budget
        .status
        .as_ref()
        .is_some_and(|s| s.current_healthy >= s.desired_healthy && s.desired_healthy > Some(0));
    always || healthy
}

fn decrement(budget: &mut PodDisruptionBudget, pod: &str, now: jiff::Timestamp) -> ApiResult<()> {
    const VIOLATION: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
    let name = budget.name().to_owned();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    let cause = |message: String| StatusCause {
        reason: Some("DisruptionBudget".to_owned()),
        message: Some(message),
        field: None,
    };
    if status.observed_generation.unwrap_or(0) < generation {
        let text = format!("The disruption budget {name} is still being processed by the server.");
        return Err(ApiError::too_many_requests(VIOLATION, RETRY_SECONDS).with_cause(cause(text)));
    }
    let gr = GroupResource::new("policy", "poddisruptionbudgets");
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(ApiError::forbidden(
            &gr,
            &name,
            "pdb disruptions allowed is negative",
        ));
    }
    let disrupted = status.disrupted_pods.get_or_insert_default();
    if disrupted.len() > REMEMBERED_MAX {
        return Err(ApiError::forbidden(
            &gr,
            &name,
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if allowed == 0 {
        let text = format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy.unwrap_or(0),
            status.current_healthy.unwrap_or(0)
        );
        return Err(ApiError::too_many_requests(VIOLATION, 0).with_cause(cause(text)));
    }
    status.disruptions_allowed = Some(allowed - 1);
    disrupted.insert(pod.to_owned(), Time(time::to_seconds(now)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_budget_is_spent_until_it_is_gone() {
        let mut budget: PodDisruptionBudget = serde_json::from_value(json!({
            "metadata": {"name": "b", "generation": 1},
            "status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1, "expectedPods": 2}
        }))
        .expect("a budget");
        decrement(&mut budget, "p", jiff::Timestamp::UNIX_EPOCH).expect("one is allowed");
        let error = decrement(&mut budget, "q", jiff::Timestamp::UNIX_EPOCH).expect_err("none is left");
        assert_eq!((error.code(), error.causes().len()), (429, 1));
        budget.metadata.generation = Some(2);
        let error = decrement(&mut budget, "q", jiff::Timestamp::UNIX_EPOCH).expect_err("old figures");
        assert_eq!(error.retry_after_seconds(), Some(10));
    }
}
