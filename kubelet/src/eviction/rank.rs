//! Who goes first, and what is said of it.

use std::cmp::Reverse;
use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use super::pressure::{Resource, Shortage};
use crate::objects::PodExt;
use crate::pods::qos;

/// What one pod uses, in bytes or files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// All of it.
    pub total: u64,
    /// Its containers, by name.
    pub containers: HashMap<String, u64>,
}

/// What pods use, by UID.
pub type Usage = HashMap<String, Used>;

fn total(pod: &Pod, usage: &Usage) -> u64 {
    usage.get(pod.uid()).map_or(0, |used| used.total)
}

/// The pod that is to go: of those that use more than they asked for, else of all, the least important one, and among
/// equals the one that exceeds its request by most.
pub fn first<'a>(pods: &'a [Pod], usage: &Usage, resource: Resource) -> Option<&'a Pod> {
    pods.iter().min_by_key(|pod| {
        let used = i128::from(total(pod, usage));
        // Nobody asks for inodes.
        let asked = match resource {
            Resource::Inodes => 0,
            _ => i128::from(qos::pod_request(pod, resource.name())),
        };
        (
            used <= asked,
            pod.spec().priority.unwrap_or(0),
            Reverse(used - asked),
        )
    })
}

/// Upstream's words.
pub fn message(pod: &Pod, usage: &Usage, shortage: &Shortage) -> String {
    let resource = shortage.resource.name();
    let mut message = format!(
        "The node was low on resource: {resource}. Threshold quantity: {}, available: {}. ",
        quantity(shortage.threshold),
        quantity(shortage.available)
    );
    let used = usage.get(pod.uid()).cloned().unwrap_or_default();
    for container in pod.containers() {
        let Some(used) = used.containers.get(&container.name).copied() else {
            continue;
        };
        let asked = qos::request(container, resource)
            .and_then(|asked| u64::try_from(asked).ok())
            .unwrap_or(0);
        if used > asked {
            message.push_str(&format!(
                "Container {} was using {}, request is {}, has larger consumption of {resource}. ",
                container.name,
                quantity(used),
                quantity(asked)
            ));
        }
    }
    message
}

/// A number of bytes in the largest binary unit that it is a multiple of.
pub fn quantity(bytes: u64) -> String {
    let mut left = bytes;
    let mut units = ["", "Ki", "Mi", "Gi", "Ti", "Pi"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    while left > 0 && left.is_multiple_of(1024) {
        let Some(next) = units.next() else { break };
        (left, unit) = (left / 1024, next);
    }
    format!("{left}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32, request: &str) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": request}}}]}}),
        )
        .expect("a pod")
    }

    fn usage(pods: &[(&str, u64)]) -> Usage {
        let used = |bytes: u64| Used {
            total: bytes,
            containers: HashMap::from([("c".to_owned(), bytes)]),
        };
        pods.iter()
            .map(|(name, bytes)| ((*name).to_owned(), used(*bytes)))
            .collect()
    }

    #[test]
    fn who_exceeds_goes_before_who_is_unimportant() {
        let pods = [
            pod("modest", 0, "100"),
            pod("greedy", 10, "100"),
            pod("greedier", 10, "100"),
        ];
        let used = usage(&[("modest", 90), ("greedy", 150), ("greedier", 170)]);
        let name =
            |pods: &[Pod], used: &Usage| first(pods, used, Resource::Memory).map(|pod| pod.name().to_owned());
        assert_eq!(name(&pods, &used).as_deref(), Some("greedier"));
        assert_eq!(name(&pods[..2], &used).as_deref(), Some("greedy"));
        let lowly = [pods[1].clone(), pod("lowly", -5, "100")];
        let used = usage(&[("greedy", 190), ("lowly", 101)]);
        assert_eq!(name(&lowly, &used).as_deref(), Some("lowly"));
        assert_eq!(name(&[], &used), None);
    }

    #[test]
    fn the_message_names_who_used_more() {
        let shortage = Shortage {
            resource: Resource::Memory,
            threshold: 100 << 20,
            available: 52_000_000,
        };
        let text = message(&pod("p", 0, "1Mi"), &usage(&[("p", 3 << 20)]), &shortage);
        assert_eq!(
            text,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52000000. \
             Container c was using 3Mi, request is 1Mi, has larger consumption of memory. "
        );
        assert_eq!(quantity(0), "0");
        assert_eq!(quantity(1 << 60), "1024Pi");
    }
}
