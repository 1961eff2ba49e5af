//! What scheduler, kubelet, controllers and quota keep asking of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::conditions;
use crate::quantity::Amount;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Amount>;

type Quantities = BTreeMap<String, Quantity>;

/// The pod's containers have not all started yet.
pub const PENDING: &str = "Pending";
/// The pod runs.
pub const RUNNING: &str = "Running";
/// All containers ended well and will not start again.
pub const SUCCEEDED: &str = "Succeeded";
/// All containers ended, at least one badly, and will not start again.
pub const FAILED: &str = "Failed";

/// How the pod's resources are guaranteed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    /// Every container's CPU and memory are requested in full.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is requested.
    BestEffort,
}

impl QosClass {
    /// As in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The phase; empty before the first status.
pub fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

/// Whether the pod has ended and will not run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), SUCCEEDED | FAILED)
}

/// Whether the pod counts for its controller: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}

/// Whether a condition of the pod is true.
pub fn has_condition(pod: &Pod, kind: &str) -> bool {
    conditions::is_true(
        pod.status.as_ref().and_then(|status| status.conditions.as_ref()),
        kind,
    )
}

/// Whether the pod can serve.
pub fn is_ready(pod: &Pod) -> bool {
    has_condition(pod, "Ready")
}

/// Whether the pod has been able to serve for at least so many seconds.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: jiff::Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now).is_some_and(|wait| wait.is_zero())
}

/// How long until a ready pod counts as available; `None` if it is not ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: jiff::Timestamp) -> Option<std::time::Duration> {
    let ready = conditions::find(pod.status.as_ref()?.conditions.as_ref(), "Ready")?;
    if ready.status != conditions::TRUE {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(std::time::Duration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let at = since.as_nanosecond() + i128::from(min_ready_seconds) * 1_000_000_000;
    let wait = u64::try_from(at - now.as_nanosecond()).unwrap_or_default();
    Some(std::time::Duration::from_nanos(wait))
}

/// The node the pod is bound to, if it is.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec
        .as_ref()?
        .node_name
        .as_deref()
        .filter(|name| !name.is_empty())
}

/// A port of the node that a pod occupies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// The port.
    pub port: i32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; `0.0.0.0` is all of them.
    pub address: String,
}

impl HostPort {
    /// Whether both cannot be had on one node.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        let any = |address: &str| address == "0.0.0.0" || address == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.address == other.address || any(&self.address) || any(&other.address))
    }
}

/// The ports of its node that a pod claims.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_sidecar(container));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                port: number,
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                address: port
                    .host_ip
                    .clone()
                    .filter(|ip| !ip.is_empty())
                    .unwrap_or_else(|| "0.0.0.0".into()),
            })
        })
        .collect()
}

/// Whether an init container is a sidecar: it keeps running beside the containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether the pod comes from a file on its node.
pub fn is_static(pod: &Pod) -> bool {
    annotation(pod, crate::labels::CONFIG_SOURCE).is_some_and(|source| source != "api")
}

/// Whether the pod is the API's copy of a static pod.
pub fn is_mirror(pod: &Pod) -> bool {
    annotation(pod, crate::labels::CONFIG_MIRROR).is_some()
}

fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The status of a container, an init container or an ephemeral one, by name.
pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [
        &status.container_statuses,
        &status.init_container_statuses,
        &status.ephemeral_container_statuses,
    ]
    .into_iter()
    .flatten()
    .flatten()
    .find(|one| one.name == name)
}

/// What the pod asks for at its most demanding moment: its containers and sidecars together, or one init
/// container with the sidecars started before it; a demand at pod level stands for all of these; plus overhead.
pub fn requests(pod: &Pod) -> Amounts {
    pod.spec
        .as_ref()
        .map(|spec| demand(spec, &|c| requests_of(c.resources.as_ref()), Side::Requests))
        .unwrap_or_default()
}

/// What the pod may use at most. A resource that some container leaves unlimited is summed over the others.
pub fn limits(pod: &Pod) -> Amounts {
    pod.spec
        .as_ref()
        .map(|spec| demand(spec, &|c| limits_of(c.resources.as_ref()), Side::Limits))
        .unwrap_or_default()
}

/// What the pod holds on its node while a resize is under way: the larger of what it asks for, what the node has
/// allocated and what is in force, container by container. A resize the node has ruled out counts for nothing.
pub fn requests_in_force(pod: &Pod) -> Amounts {
    let Some(spec) = pod.spec.as_ref() else {
        return Amounts::new();
    };
    let infeasible = pod
        .status
        .as_ref()
        .and_then(|status| conditions::find(status.conditions.as_ref(), "PodResizePending"))
        .is_some_and(|condition| condition.reason.as_deref() == Some("Infeasible"));
    let of = |container: &Container| {
        let wanted = requests_of(container.resources.as_ref());
        let Some(status) = container_status(pod, &container.name) else {
            return wanted;
        };
        let allocated = amounts(status.allocated_resources.as_ref());
        let in_force = requests_of(status.resources.as_ref());
        let mut held = if infeasible && !(allocated.is_empty() && in_force.is_empty()) {
            Amounts::new()
        } else {
            wanted
        };
        raise(&mut held, &allocated);
        raise(&mut held, &in_force);
        held
    };
    demand(spec, &of, Side::Requests)
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Requests,
    Limits,
}

/// What the pod's containers ask for together, whatever is said at pod level.
pub fn requests_of_containers(spec: &PodSpec) -> Amounts {
    together(spec, &|container| requests_of(container.resources.as_ref()))
}

fn together(spec: &PodSpec, of: &dyn Fn(&Container) -> Amounts) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let mut sidecars = Amounts::new();
    let mut peak = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let wanted = of(container);
        if is_sidecar(container) {
            add(&mut total, &wanted);
            add(&mut sidecars, &wanted);
            raise(&mut peak, &sidecars);
        } else {
            let mut moment = sidecars.clone();
            add(&mut moment, &wanted);
            raise(&mut peak, &moment);
        }
    }
    raise(&mut total, &peak);
    total
}

fn demand(spec: &PodSpec, of: &dyn Fn(&Container) -> Amounts, side: Side) -> Amounts {
    let mut total = together(spec, of);
    let pod_level = match side {
        Side::Requests => requests_of(spec.resources.as_ref()),
        Side::Limits => limits_of(spec.resources.as_ref()),
    };
    total.extend(pod_level.into_iter().filter(|(name, _)| may_be_pod_level(name)));
    for (name, amount) in amounts(spec.overhead.as_ref()) {
        // Overhead on top of no limit is still no limit.
        match total.get_mut(&name) {
            Some(sum) => *sum += amount,
            None if side == Side::Requests => {
                total.insert(name, amount);
            }
            None => {}
        }
    }
    total
}

/// Whether a pod can ask for the resource as a whole.
pub fn may_be_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn amounts(quantities: Option<&Quantities>) -> Amounts {
    quantities
        .into_iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), Amount::of(quantity)))
        .collect()
}

fn requests_of(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|one| one.requests.as_ref()))
}

fn limits_of(resources: Option<&ResourceRequirements>) -> Amounts {
    amounts(resources.and_then(|one| one.limits.as_ref()))
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        match sum.get_mut(name) {
            Some(one) => *one += *amount,
            None => {
                sum.insert(name.clone(), *amount);
            }
        }
    }
}

fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        match to.get_mut(name) {
            Some(one) => *one = (*one).max(*amount),
            None => {
                to.insert(name.clone(), *amount);
            }
        }
    }
}

/// How the pod's CPU and memory are guaranteed.
pub fn qos_class(pod: &Pod) -> QosClass {
    let Some(spec) = pod.spec.as_ref() else {
        return QosClass::BestEffort;
    };
    if let Some(resources) = spec
        .resources
        .as_ref()
        .filter(|one| one.requests.is_some() || one.limits.is_some())
    {
        return class_of(std::iter::once(Some(resources)));
    }
    let all = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    class_of(all.map(|container| container.resources.as_ref()))
}

fn class_of<'a>(all: impl Iterator<Item = Option<&'a ResourceRequirements>>) -> QosClass {
    // Of CPU and of memory: nothing else counts.
    let counted = |quantities: Option<&Quantities>| {
        ["cpu", "memory"].map(|name| {
            let quantity = quantities.and_then(|quantities| quantities.get(name));
            quantity.map_or(Amount::ZERO, Amount::of)
        })
    };
    let sum = |sums: [Amount; 2], more: [Amount; 2]| [sums[0] + more[0], sums[1] + more[1]];
    let (mut requests, mut limits) = ([Amount::ZERO; 2], [Amount::ZERO; 2]);
    let mut everything_limited = true;
    for resources in all {
        requests = sum(requests, counted(resources.and_then(|one| one.requests.as_ref())));
        let limited = counted(resources.and_then(|one| one.limits.as_ref()));
        everything_limited &= !limited.iter().any(|amount| amount.is_zero());
        limits = sum(limits, limited);
    }
    if requests.iter().chain(&limits).all(|amount| amount.is_zero()) {
        QosClass::BestEffort
    } else if everything_limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> Pod {
        serde_json::from_str(&format!("{{\"spec\":{spec}}}")).expect("a pod")
    }

    #[test]
    fn requests_are_those_of_the_most_demanding_moment() {
        let pod = pod(r#"{"overhead":{"cpu":"10m"},
                "initContainers":[
                  {"name":"side","restartPolicy":"Always","resources":{"requests":{"cpu":"100m"}}},
                  {"name":"init","resources":{"requests":{"cpu":"2","memory":"1Gi"}}}],
                "containers":[{"name":"a","resources":{"requests":{"cpu":"500m"}}},
                              {"name":"b","resources":{"requests":{"cpu":"1","memory":"64Mi"}}}]}"#);
        let got = requests(&pod);
        assert_eq!(got["cpu"].milli_value(), 2110);
        assert_eq!(got["memory"].to_string(), "1Gi");
        assert_eq!(qos_class(&pod), QosClass::Burstable);
    }

    #[test]
    fn classes() {
        let full = r#"{"containers":[{"name":"a","resources":{"requests":{"cpu":"1","memory":"1Gi"},
                       "limits":{"cpu":"1000m","memory":"1Gi"}}}]}"#;
        assert_eq!(qos_class(&pod(full)), QosClass::Guaranteed);
        assert_eq!(
            qos_class(&pod(r#"{"containers":[{"name":"a"}]}"#)),
            QosClass::BestEffort
        );
        let limits_only = r#"{"containers":[{"name":"a","resources":{"limits":{"cpu":"1"}}}]}"#;
        assert_eq!(qos_class(&pod(limits_only)), QosClass::Burstable);
    }

    #[test]
    fn availability_waits() {
        let mut pod = pod("{\"containers\":[]}");
        pod.status = serde_json::from_str(
            r#"{"phase":"Running","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}"#,
        )
        .expect("a status");
        let at = |text: &str| text.parse().expect("a time");
        assert!(is_ready(&pod) && is_active(&pod));
        assert!(!is_available(&pod, 10, at("2026-01-01T00:00:09Z")));
        assert!(is_available(&pod, 10, at("2026-01-01T00:00:10Z")));
    }
}
