//! What objects take of a resource quota, and which quotas hold for them.
//!
//! The apiserver charges quotas with this when objects are created, the controller manager counts them anew: both have
//! to come to the same numbers.
//!
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/>

mod claims;
mod pods;
mod scopes;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::names::GroupResource;
use crate::pods::Amounts;
use crate::quantity::Amount;

/// How many objects of a resource there are: `count/deployments.apps`.
const COUNT: &str = "count/";
/// Resources of the core group that are counted under their bare names too.
const COUNTED_BARE: &[&str] = &[
    "configmaps",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
];
/// Resources nobody counts.
const IGNORED: &[(&str, &str)] = &[("", "events"), ("events.k8s.io", "events"), ("", "bindings")];

/// An object as quotas see it.
#[derive(Clone, Copy)]
pub enum Counted<'a> {
    /// Compute resources are counted.
    Pod(&'a Pod),
    /// Node ports and load balancers are counted.
    Service(&'a Service),
    /// Storage is counted.
    Claim(&'a PersistentVolumeClaim),
    /// Devices are counted.
    DeviceClaim(&'a ResourceClaim),
    /// Only how many there are.
    Other,
}

/// Whether quotas can hold for a resource at all.
pub fn counts(resource: &GroupResource) -> bool {
    !IGNORED.contains(&(&*resource.group, &*resource.resource))
}

/// The name under which objects of a resource are counted.
pub fn count_name(resource: &GroupResource) -> String {
    format!("{COUNT}{resource}")
}

/// The resource a name counts, `None` for names that measure something else.
pub fn counted_resource(name: &str) -> Option<GroupResource> {
    let resource = match name.strip_prefix(COUNT) {
        Some(resource) => resource,
        None if COUNTED_BARE.contains(&name) => name,
        None => return None,
    };
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    Some(GroupResource::new(group.to_owned(), resource.to_owned()))
}

/// What an object takes.
pub fn usage(resource: &GroupResource, object: Counted<'_>, now: Timestamp) -> Amounts {
    let mut usage = Amounts::new();
    usage.insert(count_name(resource), Amount::from_units(1));
    match object {
        Counted::Pod(pod) => pods::add_usage(&mut usage, pod, now),
        Counted::Service(service) => add_service(&mut usage, service),
        Counted::Claim(claim) => claims::add_usage(&mut usage, claim),
        Counted::DeviceClaim(claim) => claims::add_devices(&mut usage, claim),
        Counted::Other => {
            if resource.group.is_empty() && COUNTED_BARE.contains(&&*resource.resource) {
                usage.insert(resource.resource.to_string(), Amount::from_units(1));
            }
        }
    }
    usage
}

fn add_service(usage: &mut Amounts, service: &Service) {
    usage.insert("services".into(), Amount::from_units(1));
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_deref().unwrap_or(&[]);
    let (mut node_ports, mut balancers) = (0, 0);
    match spec.type_.as_deref() {
        Some("NodePort") => node_ports = ports.len(),
        Some("LoadBalancer") => {
            balancers = 1;
            node_ports = match spec.allocate_load_balancer_node_ports {
                // Ports asked for by number are there all the same.
                Some(false) => ports
                    .iter()
                    .filter(|port| port.node_port.unwrap_or(0) != 0)
                    .count(),
                _ => ports.len(),
            };
        }
        _ => {}
    }
    let units = |count: usize| Amount::from_units(i64::try_from(count).unwrap_or(i64::MAX));
    usage.insert("services.nodeports".into(), units(node_ports));
    usage.insert("services.loadbalancers".into(), units(balancers));
}

/// Of the names a quota limits, those that objects like this one take something of.
pub fn limited<'n>(
    resource: &GroupResource,
    object: Counted<'_>,
    names: impl Iterator<Item = &'n String>,
) -> Vec<&'n str> {
    let count = count_name(resource);
    let measured = |name: &str| match object {
        Counted::Pod(_) => pods::measures(name),
        Counted::Service(_) => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        Counted::Claim(_) => claims::measures(name),
        Counted::DeviceClaim(_) => claims::measures_devices(name),
        Counted::Other => {
            resource.group.is_empty() && *resource.resource == *name && COUNTED_BARE.contains(&name)
        }
    };
    names
        .map(String::as_str)
        .filter(|name| *name == count || measured(name))
        .collect()
}

/// Whether an object lies within all scopes of a quota.
pub fn in_scope(quota: &ResourceQuota, object: Counted<'_>) -> bool {
    scopes::hold(quota, object)
}

/// What a pod has to say because a quota limits it, and does not: `cpu for: web; memory for: web`.
pub fn unsaid(limited: &[&str], object: Counted<'_>) -> Option<String> {
    match object {
        Counted::Pod(pod) => pods::unsaid(limited, pod),
        _ => None,
    }
}

/// Quantities as amounts.
pub fn amounts(quantities: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let entries = quantities.into_iter().flatten();
    entries
        .map(|(name, quantity)| (name.clone(), Amount::of(quantity)))
        .collect()
}

/// Amounts as quantities.
pub fn quantities(amounts: &Amounts) -> BTreeMap<String, Quantity> {
    let entries = amounts.iter();
    entries
        .map(|(name, amount)| (name.clone(), Quantity::from(*amount)))
        .collect()
}

/// What one has more than the other, nothing where it has less.
pub fn increase(new: &Amounts, old: &Amounts) -> Amounts {
    let mut increase = Amounts::new();
    for (name, amount) in new {
        let before = old.get(name).copied().unwrap_or_default();
        if *amount > before {
            increase.insert(name.clone(), *amount - before);
        }
    }
    increase
}

/// Adds up.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_default() += *amount;
    }
}

#[cfg(test)]
mod tests;
