//! Priority: a pod's class becomes a number, which only the class decides.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use keelson_api::object::Object;
use keelson_api::status::ApiResult;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;
use crate::registry::scheduling::priority_class::SYSTEM_CLASSES;
use crate::registry::strategy::RequestContext;

/// Pods without a class, in a cluster without a default one.
const NO_PRIORITY: i32 = 0;
const PREEMPT: &str = "PreemptLowerPriority";

/// The plugin.
pub struct Priority;

/// What a class means.
#[derive(Debug, PartialEq, Eq)]
struct Meaning {
    class: String,
    value: i32,
    policy: String,
}

#[async_trait]
impl Admission for Priority {
    fn name(&self) -> &'static str {
        "Priority"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        let pods = info.group.is_empty() && info.plural == "pods";
        let classes = info.group == "scheduling.k8s.io" && info.plural == "priorityclasses";
        matches!(operation, Operation::Create | Operation::Update)
            && subresource.is_empty()
            && (pods || classes)
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        if attributes.operation == Operation::Update {
            keep(attributes);
            return Ok(());
        }
        let Some(spec) = attributes
            .object_mut::<Pod>()
            .map(|pod| pod.spec.get_or_insert_default())
        else {
            return Ok(());
        };
        let class = spec.priority_class_name.clone().unwrap_or_default();
        let Some(meaning) = meaning(ctx, &class) else {
            return Err(forbidden(
                attributes,
                format!("no PriorityClass with name {class} was found"),
            ));
        };
        if let Some(given) = spec.priority
            && given != meaning.value
        {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                meaning.value
            );
            return Err(forbidden(attributes, why));
        }
        if let Some(given) = spec.preemption_policy.clone()
            && given != meaning.policy
        {
            let why = format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {} from the given PriorityClass name",
                meaning.policy
            );
            return Err(forbidden(attributes, why));
        }
        spec.priority_class_name = Some(meaning.class).filter(|class| !class.is_empty());
        spec.priority = Some(meaning.value);
        spec.preemption_policy = Some(meaning.policy);
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(class) = attributes.object::<PriorityClass>() else {
            return Ok(());
        };
        if class.global_default != Some(true) {
            return Ok(());
        }
        let classes = attributes.ctx.server.cached_list::<PriorityClass>("");
        let other = classes
            .iter()
            .find(|c| c.global_default == Some(true) && c.name() != class.name());
        match other {
            Some(other) => Err(forbidden(
                attributes,
                format!(
                    "PriorityClass {} is already marked as default. Only one default can exist",
                    other.name()
                ),
            )),
            None => Ok(()),
        }
    }
}

/// A change that leaves the priority out does not mean to remove it.
fn keep(attributes: &mut Attributes<'_>) {
    let Some(old) = attributes.old::<Pod>().and_then(|pod| pod.spec.as_ref()) else {
        return;
    };
    let (priority, policy) = (old.priority, old.preemption_policy.clone());
    if let Some(spec) = attributes.object_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) {
        spec.priority = spec.priority.or(priority);
        spec.preemption_policy = spec.preemption_policy.take().or(policy);
    }
}

fn meaning(ctx: &RequestContext<'_>, class: &str) -> Option<Meaning> {
    if let Some((name, value, _)) = SYSTEM_CLASSES.iter().find(|(name, ..)| *name == class) {
        return Some(Meaning {
            class: (*name).to_owned(),
            value: *value,
            policy: PREEMPT.to_owned(),
        });
    }
    let found = if class.is_empty() {
        // Should there be several defaults for a moment, the lowest one counts.
        let classes = ctx.server.cached_list::<PriorityClass>("").into_iter();
        let default = classes
            .filter(|c| c.global_default == Some(true))
            .min_by_key(|c| c.value);
        match default {
            Some(class) => class,
            None => {
                return Some(Meaning {
                    class: String::new(),
                    value: NO_PRIORITY,
                    policy: PREEMPT.to_owned(),
                });
            }
        }
    } else {
        ctx.server.cached::<PriorityClass>("", class)?
    };
    Some(Meaning {
        class: found.name().to_owned(),
        value: found.value.unwrap_or(0),
        policy: found
            .preemption_policy
            .clone()
            .unwrap_or_else(|| PREEMPT.to_owned()),
    })
}
