//! Quality of service: which pods the node protects when it runs short, and how.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::objects::{ContainerKind, PodExt, init_kind};
use crate::quantity;

/// The three classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has limits for CPU and memory, and requests them.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is.
    BestEffort,
}

impl QosClass {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type Resources = BTreeMap<String, Quantity>;

fn get(resources: Option<&Resources>, name: &str) -> Option<i64> {
    let quantity = resources?.get(name)?;
    let value = if name == "cpu" {
        quantity::milli(quantity)
    } else {
        quantity::value(quantity)
    };
    (value > 0).then_some(value)
}

/// What a container asks for: its request, else its limit.
pub fn request(container: &Container, name: &str) -> Option<i64> {
    let resources = container.resources.as_ref()?;
    get(resources.requests.as_ref(), name).or_else(|| get(resources.limits.as_ref(), name))
}

/// What a container may use at most.
pub fn limit(container: &Container, name: &str) -> Option<i64> {
    get(container.resources.as_ref()?.limits.as_ref(), name)
}

/// The class of a pod.
pub fn class(pod: &Pod) -> QosClass {
    let containers: Vec<&Container> = pod.init_containers().iter().chain(pod.containers()).collect();
    let mut guaranteed = true;
    let mut best_effort = true;
    for container in containers {
        for name in ["cpu", "memory"] {
            let (request, limit) = (request(container, name), limit(container, name));
            best_effort &= request.is_none() && limit.is_none();
            guaranteed &= limit.is_some() && request == limit;
        }
    }
    match (guaranteed, best_effort) {
        (_, true) => QosClass::BestEffort,
        (true, _) => QosClass::Guaranteed,
        _ => QosClass::Burstable,
    }
}

/// What a whole pod asks for of one resource: the containers together, or the largest init container with the
/// sidecars before it, whichever is more; and the overhead. CPU in thousandths, everything else whole.
pub fn pod_request(pod: &Pod, name: &str) -> i64 {
    pod_total(pod, |container| request(container, name).unwrap_or(0)) + overhead(pod, name)
}

/// What a whole pod may use at most; `None` if any container is without limit.
pub fn pod_limit(pod: &Pod, name: &str) -> Option<i64> {
    let all = pod.init_containers().iter().chain(pod.containers());
    if all.clone().any(|container| limit(container, name).is_none()) {
        return None;
    }
    Some(pod_total(pod, |container| limit(container, name).unwrap_or(0)) + overhead(pod, name))
}

fn overhead(pod: &Pod, name: &str) -> i64 {
    get(pod.spec().overhead.as_ref(), name).unwrap_or(0)
}

fn pod_total(pod: &Pod, of: impl Fn(&Container) -> i64) -> i64 {
    let mut sidecars = 0;
    let mut largest_init = 0;
    for container in pod.init_containers() {
        let amount = of(container);
        if init_kind(container) == ContainerKind::Sidecar {
            sidecars += amount;
            largest_init = largest_init.max(sidecars);
        } else {
            largest_init = largest_init.max(sidecars + amount);
        }
    }
    let regular: i64 = pod.containers().iter().map(&of).sum();
    largest_init.max(regular + sidecars)
}

/// The kernel's out-of-memory score of a container: the more it exceeds its request, the sooner it goes.
pub fn oom_score_adj(pod: &Pod, container: &Container, memory_capacity: i64) -> i64 {
    if pod
        .spec()
        .priority
        .is_some_and(|priority| priority >= SYSTEM_CRITICAL)
    {
        return GUARANTEED_SCORE;
    }
    match class(pod) {
        QosClass::Guaranteed => GUARANTEED_SCORE,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let request = request(container, "memory").unwrap_or(0);
            let score = 1000 - (1000 * i128::from(request) / i128::from(memory_capacity.max(1)));
            i64::try_from(score)
                .unwrap_or(0)
                .clamp(1000 + GUARANTEED_SCORE, 999)
        }
    }
}

const GUARANTEED_SCORE: i64 = -997;
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(resources: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "resources": resources}]}})).expect("a pod")
    }

    #[test]
    fn classes() {
        assert_eq!(class(&pod(json!({}))), QosClass::BestEffort);
        assert_eq!(
            class(&pod(json!({"requests": {"cpu": "1"}}))),
            QosClass::Burstable
        );
        assert_eq!(
            class(&pod(json!({"limits": {"cpu": "1", "memory": "1Gi"}}))),
            QosClass::Guaranteed
        );
        let less =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}});
        assert_eq!(class(&pod(less)), QosClass::Burstable);
    }

    #[test]
    fn init_containers_count_by_the_largest() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "2"}}}],
            "containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}))
        .expect("a pod");
        assert_eq!(pod_request(&pod, "cpu"), 2100);
    }

    #[test]
    fn scores() {
        let pod = pod(json!({"requests": {"memory": "256Mi"}}));
        assert_eq!(oom_score_adj(&pod, &pod.containers()[0], 1 << 30), 750);
    }
}
