//! What pods take.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use crate::pods::{Amounts, is_terminal, limits, requests};
use crate::quantity::Amount;

const MEASURED: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// What every container has to ask for when a quota limits it.
const TO_BE_SAID: &[&str] = &[
    "cpu",
    "memory",
    "requests.cpu",
    "requests.memory",
    "limits.cpu",
    "limits.memory",
];
const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

/// Whether a quota's name measures something of pods.
pub(super) fn measures(name: &str) -> bool {
    if MEASURED.contains(&name) || name.starts_with(HUGE_PAGES) {
        return true;
    }
    name.strip_prefix(REQUESTS)
        .is_some_and(|rest| rest.starts_with(HUGE_PAGES) || is_extended(rest))
}

/// Resources of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// Whether the pod still holds anything: not when it has ended, nor when its time to stop is up and no kubelet says so.
fn holds(pod: &Pod, now: Timestamp) -> bool {
    if is_terminal(pod) {
        return false;
    }
    let (Some(deleted), Some(_)) = (
        &pod.metadata.deletion_timestamp,
        pod.metadata.deletion_grace_period_seconds,
    ) else {
        return true;
    };
    // The timestamp of a deletion is its end: grace has been added to it.
    now <= deleted.0
}

pub(super) fn add_usage(usage: &mut Amounts, pod: &Pod, now: Timestamp) {
    if !holds(pod, now) {
        return;
    }
    usage.insert("pods".into(), Amount::from_units(1));
    usage.extend(compute(&requests(pod), &limits(pod)));
}

/// Requests and limits under the names quotas know them by.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut out = Amounts::new();
    for (name, amount) in requests {
        match name.as_str() {
            "cpu" | "memory" | "ephemeral-storage" => {
                out.insert(name.clone(), *amount);
                out.insert(format!("{REQUESTS}{name}"), *amount);
            }
            huge if huge.starts_with(HUGE_PAGES) => {
                out.insert(name.clone(), *amount);
                out.insert(format!("{REQUESTS}{name}"), *amount);
            }
            other if is_extended(other) => {
                out.insert(format!("{REQUESTS}{name}"), *amount);
            }
            _ => {}
        }
    }
    for (name, amount) in limits {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            out.insert(format!("limits.{name}"), *amount);
        }
    }
    out
}

fn of(resources: Option<&ResourceRequirements>) -> Amounts {
    let requests = super::amounts(resources.and_then(|r| r.requests.as_ref()));
    let limits = super::amounts(resources.and_then(|r| r.limits.as_ref()));
    compute(&requests, &limits)
}

pub(super) fn unsaid(limited: &[&str], pod: &Pod) -> Option<String> {
    let wanted: BTreeSet<&str> = limited
        .iter()
        .copied()
        .filter(|name| TO_BE_SAID.contains(name))
        .collect();
    let spec = pod.spec.as_ref()?;
    // What is said for the pod as a whole is said for its containers.
    let whole = of(spec.resources.as_ref());
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    for container in containers {
        let Container { name, resources, .. } = container;
        let said = of(resources.as_ref());
        for resource in &wanted {
            if !said.contains_key(*resource) && !whole.contains_key(*resource) {
                missing.entry(resource).or_default().insert(name);
            }
        }
    }
    if missing.is_empty() {
        return None;
    }
    let parts: Vec<String> = missing
        .into_iter()
        .map(|(resource, names)| {
            let names: Vec<&str> = names.into_iter().collect();
            format!("{resource} for: {}", names.join(","))
        })
        .collect();
    Some(parts.join("; "))
}
