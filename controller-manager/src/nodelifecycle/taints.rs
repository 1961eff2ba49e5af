//! The taints that a node's conditions call for.

use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::labels::{
    TAINT_DISK_PRESSURE, TAINT_MEMORY_PRESSURE, TAINT_NETWORK_UNAVAILABLE, TAINT_NOT_READY,
    TAINT_PID_PRESSURE, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};

/// New pods do not come.
pub const NO_SCHEDULE: &str = "NoSchedule";
/// Running pods have to go.
pub const NO_EXECUTE: &str = "NoExecute";

/// Whether a node can run pods, by its own word or for want of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It says that it can.
    Ready,
    /// It says that it cannot.
    NotReady,
    /// It does not say.
    Unknown,
}

/// What a node's condition `Ready` says; `None` if the node never posted any.
#[must_use]
pub fn readiness(node: &Node) -> Option<Readiness> {
    Some(match status_of(node, "Ready")? {
        "True" => Readiness::Ready,
        "False" => Readiness::NotReady,
        _ => Readiness::Unknown,
    })
}

fn status_of<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_deref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .map(|condition| condition.status.as_str())
}

/// What may be done to the pods of a node that is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// They have to go.
    Now,
    /// Not now: too many nodes are lost at once for each of them to be at fault. What is tainted stays so.
    Later,
    /// Not at all: every node is lost, so it is this side that cannot see.
    Never,
}

/// The node's taints as they should be; `None` if they are.
#[must_use]
pub fn wanted(node: &Node, eviction: Eviction, now: &Time) -> Option<Vec<Taint>> {
    let current = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let mut keys: Vec<(&str, &str)> = no_schedule(node)
        .into_iter()
        .map(|key| (key, NO_SCHEDULE))
        .collect();
    let lost = match readiness(node) {
        Some(Readiness::NotReady) => Some(TAINT_NOT_READY),
        Some(Readiness::Unknown) => Some(TAINT_UNREACHABLE),
        Some(Readiness::Ready) | None => None,
    };
    if let Some(key) = lost {
        let already = current.iter().any(is_lost);
        if eviction == Eviction::Now || (eviction == Eviction::Later && already) {
            keys.push((key, NO_EXECUTE));
        }
    }
    let stays = |taint: &&Taint| !is_managed(taint) || keys.contains(&(&taint.key, &taint.effect));
    let mut taints: Vec<Taint> = current.iter().filter(stays).cloned().collect();
    for (key, effect) in keys {
        if !taints
            .iter()
            .any(|taint| taint.key == key && taint.effect == effect)
        {
            taints.push(Taint {
                key: key.into(),
                effect: effect.into(),
                value: None,
                time_added: Some(now.clone()),
            });
        }
    }
    (taints != current).then_some(taints)
}

/// Whether the node wants a taint that makes its pods go, and has none yet.
#[must_use]
pub fn is_newly_lost(node: &Node) -> bool {
    let current = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    matches!(readiness(node), Some(Readiness::NotReady | Readiness::Unknown)) && !current.iter().any(is_lost)
}

fn is_lost(taint: &Taint) -> bool {
    taint.effect == NO_EXECUTE && (taint.key == TAINT_NOT_READY || taint.key == TAINT_UNREACHABLE)
}

fn is_managed(taint: &Taint) -> bool {
    let by_condition = [
        TAINT_NOT_READY,
        TAINT_UNREACHABLE,
        TAINT_UNSCHEDULABLE,
        TAINT_MEMORY_PRESSURE,
        TAINT_DISK_PRESSURE,
        TAINT_PID_PRESSURE,
        TAINT_NETWORK_UNAVAILABLE,
    ];
    is_lost(taint) || (taint.effect == NO_SCHEDULE && by_condition.contains(&taint.key.as_str()))
}

fn no_schedule(node: &Node) -> Vec<&'static str> {
    let mut keys = Vec::new();
    match readiness(node) {
        Some(Readiness::NotReady) => keys.push(TAINT_NOT_READY),
        Some(Readiness::Unknown) => keys.push(TAINT_UNREACHABLE),
        Some(Readiness::Ready) => {}
        // The taint a node registers with stays until the node says that it is ready.
        None => keys.extend(has_not_ready(node).then_some(TAINT_NOT_READY)),
    }
    let pressures = [
        ("MemoryPressure", TAINT_MEMORY_PRESSURE),
        ("DiskPressure", TAINT_DISK_PRESSURE),
        ("NetworkUnavailable", TAINT_NETWORK_UNAVAILABLE),
        ("PIDPressure", TAINT_PID_PRESSURE),
    ];
    keys.extend(
        pressures
            .iter()
            .filter(|(kind, _)| status_of(node, kind) == Some("True"))
            .map(|(_, key)| *key),
    );
    if node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or_default()
    {
        keys.push(TAINT_UNSCHEDULABLE);
    }
    keys
}

fn has_not_ready(node: &Node) -> bool {
    let current = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    current
        .iter()
        .any(|taint| taint.key == TAINT_NOT_READY && taint.effect == NO_SCHEDULE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::{NodeCondition, NodeSpec, NodeStatus};

    fn node(conditions: &[(&str, &str)], taints: &[(&str, &str)]) -> Node {
        let conditions = conditions
            .iter()
            .map(|(kind, status)| NodeCondition {
                type_: (*kind).into(),
                status: (*status).into(),
                ..NodeCondition::default()
            })
            .collect();
        let taints = taints
            .iter()
            .map(|(key, effect)| Taint {
                key: (*key).into(),
                effect: (*effect).into(),
                ..Taint::default()
            })
            .collect();
        Node {
            spec: Some(NodeSpec {
                taints: Some(taints),
                ..NodeSpec::default()
            }),
            status: Some(NodeStatus {
                conditions: Some(conditions),
                ..NodeStatus::default()
            }),
            ..Node::default()
        }
    }

    fn keys(node: &Node, eviction: Eviction) -> Option<Vec<(String, String)>> {
        let taints = wanted(node, eviction, &Time(jiff::Timestamp::UNIX_EPOCH))?;
        Some(
            taints
                .into_iter()
                .map(|taint| (taint.key, taint.effect))
                .collect(),
        )
    }

    fn pair(key: &str, effect: &str) -> (String, String) {
        (key.to_owned(), effect.to_owned())
    }

    #[test]
    fn silence_taints_twice() {
        let lost = node(&[("Ready", "Unknown")], &[("mine", NO_SCHEDULE)]);
        let expected = vec![
            pair("mine", NO_SCHEDULE),
            pair(TAINT_UNREACHABLE, NO_SCHEDULE),
            pair(TAINT_UNREACHABLE, NO_EXECUTE),
        ];
        assert_eq!(keys(&lost, Eviction::Now), Some(expected));
        assert_eq!(keys(&lost, Eviction::Later).map(|keys| keys.len()), Some(2));
    }

    #[test]
    fn recovery_takes_taints_away_but_not_other_peoples() {
        let taints = [
            ("mine", NO_EXECUTE),
            (TAINT_UNREACHABLE, NO_SCHEDULE),
            (TAINT_UNREACHABLE, NO_EXECUTE),
        ];
        assert_eq!(
            keys(&node(&[("Ready", "True")], &taints), Eviction::Now),
            Some(vec![pair("mine", NO_EXECUTE)])
        );
        assert_eq!(keys(&node(&[("Ready", "True")], &[]), Eviction::Now), None);
    }

    #[test]
    fn where_every_node_is_lost_nothing_is_evicted() {
        let taints = [(TAINT_UNREACHABLE, NO_SCHEDULE), (TAINT_UNREACHABLE, NO_EXECUTE)];
        let lost = node(&[("Ready", "Unknown")], &taints);
        assert_eq!(
            keys(&lost, Eviction::Never),
            Some(vec![pair(TAINT_UNREACHABLE, NO_SCHEDULE)])
        );
        assert_eq!(keys(&lost, Eviction::Later), None);
    }

    #[test]
    fn pressure_keeps_new_pods_away() {
        let full = node(
            &[
                ("Ready", "True"),
                ("DiskPressure", "True"),
                ("MemoryPressure", "False"),
            ],
            &[],
        );
        assert_eq!(
            keys(&full, Eviction::Now),
            Some(vec![pair(TAINT_DISK_PRESSURE, NO_SCHEDULE)])
        );
    }

    #[test]
    fn a_new_node_keeps_its_first_taint() {
        assert_eq!(
            keys(&node(&[], &[(TAINT_NOT_READY, NO_SCHEDULE)]), Eviction::Now),
            None
        );
    }
}
