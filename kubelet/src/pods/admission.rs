//! The node's own word on a pod that was bound to it: it refuses what it cannot run.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, NodeSelectorRequirement, NodeSelectorTerm, Pod};
use keelson_api::pods::host_ports;

use crate::eviction;
use crate::objects::PodExt;
use crate::pods::qos::{self, QosClass};
use crate::pods::status::PodFailure;
use crate::quantity;

/// Decides on a pod, given those that are already here.
///
/// # Errors
/// Why it is refused: the pod fails with this reason.
pub fn admit(pod: &Pod, others: &[Arc<Pod>], node: &Node) -> Result<(), PodFailure> {
    spares(pod, node)?;
    fits(pod, others, node)?;
    let labels = node.metadata.labels.clone().unwrap_or_default();
    if !matches_node(pod, &labels, node.metadata.name.as_deref().unwrap_or_default()) {
        return Err(refused(
            "NodeAffinity",
            "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
        ));
    }
    let wanted = host_ports(pod.spec());
    let mut taken = others.iter().flat_map(|other| host_ports(other.spec()));
    if taken.any(|taken| wanted.iter().any(|port| port.conflicts_with(&taken))) {
        return Err(refused(
            "NodePorts",
            "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
        ));
    }
    Ok(())
}

fn refused(reason: &str, text: &str) -> PodFailure {
    PodFailure::new(reason, format!("Pod was rejected: {text}"))
}

/// A node that is short of something takes no pods that would need it, but for critical ones.
fn spares(pod: &Pod, node: &Node) -> Result<(), PodFailure> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let under = |kind: &str| {
        conditions
            .iter()
            .any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let pressures: Vec<&str> = ["MemoryPressure", "DiskPressure", "PIDPressure"]
        .into_iter()
        .filter(|kind| under(kind))
        .collect();
    if pressures.is_empty() || eviction::is_critical(pod) {
        return Ok(());
    }
    // Those that asked for memory were promised it, and others may say that they can do with little.
    let tolerates = pod.spec().tolerations.iter().flatten().any(|toleration| {
        let key = toleration.key.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().unwrap_or_default();
        let exists = toleration.operator.as_deref() == Some("Exists");
        (key == "node.kubernetes.io/memory-pressure" || key.is_empty() && exists)
            && matches!(effect, "" | "NoSchedule")
    });
    if pressures == ["MemoryPressure"] && (qos::class(pod) != QosClass::BestEffort || tolerates) {
        return Ok(());
    }
    let text = format!("The node had condition: [{}]. ", pressures.join(" "));
    Err(refused("Evicted", &text))
}

fn fits(pod: &Pod, others: &[Arc<Pod>], node: &Node) -> Result<(), PodFailure> {
    let allocatable = node
        .status
        .as_ref()
        .and_then(|status| status.allocatable.clone())
        .unwrap_or_default();
    let lacking = |name: &str, requested: i64, used: i64, capacity: i64| {
        let text = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        refused(&format!("OutOf{name}"), &text)
    };
    if let Some(limit) = allocatable.get("pods").map(quantity::value) {
        let used = i64::try_from(others.len()).unwrap_or(i64::MAX);
        if used + 1 > limit {
            return Err(lacking("pods", 1, used, limit));
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        let Some(capacity) = allocatable.get(name) else {
            continue;
        };
        let capacity = if name == "cpu" {
            quantity::milli(capacity)
        } else {
            quantity::value(capacity)
        };
        let requested = qos::pod_request(pod, name);
        let used: i64 = others.iter().map(|other| qos::pod_request(other, name)).sum();
        // What asks for nothing always fits.
        if requested > 0 && requested > capacity - used {
            return Err(lacking(name, requested, used, capacity));
        }
    }
    Ok(())
}

type Labels = std::collections::BTreeMap<String, String>;

fn matches_node(pod: &Pod, labels: &Labels, name: &str) -> bool {
    let selector = pod.spec().node_selector.iter().flatten();
    if !selector
        .clone()
        .all(|(key, value)| labels.get(key) == Some(value))
    {
        return false;
    }
    let required = pod
        .spec()
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| {
            affinity
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    let Some(required) = required else { return true };
    required
        .node_selector_terms
        .iter()
        .any(|term| term_matches(term, labels, name))
}

fn term_matches(term: &NodeSelectorTerm, labels: &Labels, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // An empty term matches nothing.
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_field = |requirement: &NodeSelectorRequirement| {
        let value = (requirement.key == "metadata.name").then_some(name);
        requirement_matches(requirement, value)
    };
    expressions
        .iter()
        .all(|requirement| requirement_matches(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields.iter().all(by_field)
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let contains = |value: &str| values.iter().any(|wanted| wanted == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let given = value.and_then(number);
        let wanted = values.first().and_then(|text| number(text));
        given
            .zip(wanted)
            .is_some_and(|(given, wanted)| holds(given, wanted))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(contains),
        "NotIn" => !value.is_some_and(contains),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|given, wanted| given > wanted),
        "Lt" => compare(|given, wanted| given < wanted),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}}}))
        .expect("a node")
    }

    fn pod(memory: &str, selector: serde_json::Value) -> Pod {
        serde_json::from_value(json!({"spec": {"nodeSelector": selector, "containers": [{"name": "c", "resources": {"requests": {"memory": memory}}}]}}))
            .expect("a pod")
    }

    #[test]
    fn too_much_is_refused_by_name() {
        let others = [Arc::new(pod("512Mi", json!({})))];
        assert_eq!(admit(&pod("512Mi", json!({})), &others, &node()), Ok(()));
        let failure = admit(&pod("600Mi", json!({})), &others, &node()).expect_err("too much");
        assert_eq!(failure.reason, "OutOfmemory");
        assert_eq!(
            failure.message,
            "Pod was rejected: Node didn't have enough resource: memory, requested: 629145600, used: 536870912, capacity: 1073741824"
        );
        let full = [others[0].clone(), others[0].clone()];
        assert_eq!(
            admit(&pod("0", json!({})), &full, &node())
                .expect_err("full")
                .reason,
            "OutOfpods"
        );
        assert_eq!(
            admit(&pod("0", json!({"disk": "hdd"})), &[], &node())
                .expect_err("elsewhere")
                .reason,
            "NodeAffinity"
        );
    }

    #[test]
    fn a_port_of_the_node_is_one_pods() {
        let with = |port: i32, address: &str| -> Pod {
            let ports = json!([{"containerPort": 80, "hostPort": port, "hostIP": address}]);
            serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "ports": ports}]}}))
                .expect("a pod")
        };
        let others = [Arc::new(with(8080, "10.0.0.1"))];
        for (port, address) in [(8081, ""), (8080, "10.0.0.2")] {
            assert_eq!(admit(&with(port, address), &others, &node()), Ok(()));
        }
        for address in ["", "0.0.0.0", "10.0.0.1"] {
            let failure = admit(&with(8080, address), &others, &node()).expect_err("taken");
            assert_eq!(
                (failure.reason.as_str(), failure.message.as_str()),
                (
                    "NodePorts",
                    "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                )
            );
        }
    }
}
