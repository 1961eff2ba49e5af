//! What a node's status becomes when the node has fallen silent.

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Conditions only the node itself can know.
const OF_THE_NODE: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// The node with these conditions unknown; `None` if they are already.
#[must_use]
pub fn silenced(node: &Node, now: &Time) -> Option<Node> {
    let mut node = node.clone();
    let created = node.metadata.creation_timestamp.clone();
    let conditions = node
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    let mut changed = false;
    for kind in OF_THE_NODE {
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            None => {
                conditions.push(NodeCondition {
                    type_: kind.into(),
                    status: "Unknown".into(),
                    reason: Some("NodeStatusNeverUpdated".into()),
                    message: Some("Kubelet never posted node status.".into()),
                    last_heartbeat_time: created.clone(),
                    last_transition_time: Some(now.clone()),
                });
                changed = true;
            }
            Some(condition) if condition.status != "Unknown" => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(now.clone());
                changed = true;
            }
            Some(_) => {}
        }
    }
    changed.then_some(node)
}

/// When the node last spoke through its status.
#[must_use]
pub fn heartbeat(node: &Node) -> Option<&Time> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == "Ready")?
        .last_heartbeat_time
        .as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::NodeStatus;

    #[test]
    fn silence_is_unknown() {
        let ready = NodeCondition {
            type_: "Ready".into(),
            status: "True".into(),
            ..NodeCondition::default()
        };
        let status = NodeStatus {
            conditions: Some(vec![ready]),
            ..NodeStatus::default()
        };
        let node = Node {
            status: Some(status),
            ..Node::default()
        };
        let now = Time(jiff::Timestamp::UNIX_EPOCH);
        let silent = silenced(&node, &now).expect("a change");
        let reasons: Vec<_> = silent
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .filter_map(|condition| condition.reason.as_deref())
            .collect();
        assert_eq!(reasons[0], "NodeStatusUnknown");
        assert_eq!(reasons[1..], ["NodeStatusNeverUpdated"; 3]);
        assert!(silenced(&silent, &now).is_none());
    }
}
