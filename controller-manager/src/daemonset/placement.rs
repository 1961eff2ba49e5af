//! Which nodes a daemon set's pods belong on.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Node, Toleration};
use keelson_api::labels::{
    TAINT_DISK_PRESSURE, TAINT_MEMORY_PRESSURE, TAINT_NETWORK_UNAVAILABLE, TAINT_NOT_READY,
    TAINT_PID_PRESSURE, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE,
};
use keelson_api::object::Object as _;

use crate::common::node_affinity;
use crate::common::tolerations::tolerates;

/// Whether a pod belongs on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// There should be one.
    pub should_run: bool,
    /// One that is there may stay.
    pub should_stay: bool,
}

/// Judges one node.
#[must_use]
pub fn place(set: &DaemonSet, node: &Node) -> Place {
    let nowhere = Place {
        should_run: false,
        should_stay: false,
    };
    let Some(spec) = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()) else {
        return nowhere;
    };
    let named = spec.node_name.as_deref().filter(|name| !name.is_empty());
    if named.is_some_and(|name| name != node.name()) || !node_affinity::fits(spec, node) {
        return nowhere;
    }
    let mut accepted = tolerations(spec.host_network.unwrap_or_default());
    accepted.extend(spec.tolerations.clone().unwrap_or_default());
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    let refused = |effect: &str| {
        let of_effect = taints.iter().filter(|taint| taint.effect == effect);
        of_effect
            .into_iter()
            .any(|taint| !accepted.iter().any(|toleration| tolerates(toleration, taint)))
    };
    let should_stay = !refused("NoExecute");
    Place {
        should_run: should_stay && !refused("NoSchedule"),
        should_stay,
    }
}

/// What every daemon puts up with: it serves the node, in whatever state that is.
#[must_use]
pub fn tolerations(host_network: bool) -> Vec<Toleration> {
    let exists = |(key, effect): (&str, &str)| Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        effect: Some(effect.into()),
        ..Toleration::default()
    };
    let mut accepted = vec![
        (TAINT_NOT_READY, "NoExecute"),
        (TAINT_UNREACHABLE, "NoExecute"),
        (TAINT_DISK_PRESSURE, "NoSchedule"),
        (TAINT_MEMORY_PRESSURE, "NoSchedule"),
        (TAINT_PID_PRESSURE, "NoSchedule"),
        (TAINT_UNSCHEDULABLE, "NoSchedule"),
    ];
    if host_network {
        accepted.push((TAINT_NETWORK_UNAVAILABLE, "NoSchedule"));
    }
    accepted.into_iter().map(exists).collect()
}
