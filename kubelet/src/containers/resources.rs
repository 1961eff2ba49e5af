//! Requests and limits as the kernel takes them.

use k8s_openapi::api::core::v1::{Container, Pod};
use keelson_proto::cri;

use crate::pods::qos;

/// Microseconds of one scheduling period.
const CPU_PERIOD: i64 = 100_000;
/// The kernel takes no smaller quota.
const MIN_CPU_QUOTA: i64 = 1000;
const MIN_CPU_SHARES: i64 = 2;
const MAX_CPU_SHARES: i64 = 262_144;

/// CPU shares for thousandths of a core.
pub fn cpu_shares(millis: i64) -> i64 {
    if millis == 0 {
        MIN_CPU_SHARES
    } else {
        (millis * 1024 / 1000).clamp(MIN_CPU_SHARES, MAX_CPU_SHARES)
    }
}

/// CPU quota of a period for thousandths of a core.
pub fn cpu_quota(millis: i64) -> i64 {
    if millis == 0 {
        0
    } else {
        (millis * CPU_PERIOD / 1000).max(MIN_CPU_QUOTA)
    }
}

/// What this kernel and this process can do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of memory the node has.
    pub memory_capacity: i64,
    /// The lowest out-of-memory score that may be asked for.
    pub lowest_oom_score: i64,
    /// Is it cgroup v2?
    pub unified: bool,
}

/// A container's resources.
pub fn of_container(pod: &Pod, container: &Container, limits: Limits) -> cri::LinuxContainerResources {
    let cpu_limit = qos::limit(container, "cpu").unwrap_or(0);
    let memory_limit = qos::limit(container, "memory").unwrap_or(0);
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: cpu_shares(qos::request(container, "cpu").unwrap_or(0)),
        memory_limit_in_bytes: memory_limit,
        oom_score_adj: qos::oom_score_adj(pod, container, limits.memory_capacity)
            .max(limits.lowest_oom_score),
        ..Default::default()
    };
    if cpu_limit > 0 {
        resources.cpu_period = CPU_PERIOD;
        resources.cpu_quota = cpu_quota(cpu_limit);
    }
    if limits.unified {
        // One process killed for memory takes its container along: half a container helps nobody.
        resources.unified.insert("memory.oom.group".into(), "1".into());
    }
    resources
}

/// A whole pod's resources, for its cgroup.
pub fn of_pod(pod: &Pod) -> cri::LinuxContainerResources {
    let mut resources = cri::LinuxContainerResources {
        cpu_shares: cpu_shares(qos::pod_request(pod, "cpu")),
        ..Default::default()
    };
    if let Some(limit) = qos::pod_limit(pod, "cpu") {
        resources.cpu_period = CPU_PERIOD;
        resources.cpu_quota = cpu_quota(limit);
    }
    resources.memory_limit_in_bytes = qos::pod_limit(pod, "memory").unwrap_or(0);
    resources
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn as_the_kernel_counts() {
        let pod: Pod = serde_json::from_value(json!({"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "250m"}, "limits": {"cpu": "5m", "memory": "64Mi"}}}]}}))
        .expect("a pod");
        let limits = Limits {
            memory_capacity: 1 << 30,
            lowest_oom_score: 0,
            unified: false,
        };
        let made = of_container(&pod, &crate::objects::PodExt::containers(&pod)[0], limits);
        assert_eq!(
            (made.cpu_shares, made.cpu_quota, made.memory_limit_in_bytes),
            (256, 1000, 64 << 20)
        );
        assert_eq!(made.oom_score_adj, 938);
    }
}
