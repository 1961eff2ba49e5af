//! Requests and limits of containers and pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodResourceClaim, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::field::Errors;
use keelson_api::quantity::Amount;
use keelson_api::validation;

use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

const HUGE_PAGES: &str = "hugepages-";
const NOT_INTEGER: &str = "must be an integer";

type List = BTreeMap<String, Quantity>;

/// The resources of a container.
pub fn container(
    errors: &mut Errors,
    at: &Loc<'_>,
    resources: &ResourceRequirements,
    claims: &[PodResourceClaim],
) {
    let empty = List::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let (at_limits, at_requests) = (at.child("limits"), at.child("requests"));
    for (name, quantity) in limits {
        let at = at_limits.key(name);
        container_resource_name(errors, &at, name);
        amount(errors, &at, name, quantity);
    }
    for (name, quantity) in requests {
        let at = at_requests.key(name);
        container_resource_name(errors, &at, name);
        let Some(request) = amount(errors, &at, name, quantity) else {
            continue;
        };
        within_limit(
            errors,
            &at_limits,
            &at_requests,
            name,
            (quantity, request),
            limits,
        );
    }
    let has_huge = |list: &List| list.keys().any(|name| name.starts_with(HUGE_PAGES));
    let has_plain = |list: &List| list.contains_key("cpu") || list.contains_key("memory");
    if (has_huge(limits) || has_huge(requests)) && !has_plain(limits) && !has_plain(requests) {
        errors.push(at.forbidden("HugePages require cpu or memory"));
    }
    for (i, claim) in resources.claims.iter().flatten().enumerate() {
        let at = at.child("claims");
        let at = at.index(i);
        if claim.name.is_empty() {
            errors.push(at.child("name").required(""));
        } else if !claims.iter().any(|c| c.name == claim.name) {
            errors.push(at.child("name").not_found(claim.name.as_str()));
        }
    }
}

fn within_limit(
    errors: &mut Errors,
    at_limits: &Loc<'_>,
    at_requests: &Loc<'_>,
    name: &str,
    (quantity, request): (&Quantity, Amount),
    limits: &List,
) {
    let overcommit = overcommit_allowed(name);
    match limits.get(name) {
        None if !overcommit => {
            errors.push(at_limits.required("Limit must be set for non overcommitable resources"));
        }
        None => {}
        Some(limit) => {
            let Ok(most) = Amount::try_from(limit) else { return };
            if !overcommit && request != most {
                let detail = format!("must be equal to {name} limit of {}", limit.0);
                errors.push(at_requests.invalid(quantity.0.as_str(), detail));
            } else if request > most {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.0);
                errors.push(at_requests.invalid(quantity.0.as_str(), detail));
            }
        }
    }
}

/// The resources of a pod as a whole.
pub fn pod_level(errors: &mut Errors, at: &Loc<'_>, resources: &ResourceRequirements) {
    container(errors, at, resources, &[]);
    for (field, list) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for name in list.iter().flatten().map(|(name, _)| name) {
            if !matches!(name.as_str(), "cpu" | "memory") && !name.starts_with(HUGE_PAGES) {
                let at = at.child(field);
                errors.push(
                    at.key(name)
                        .not_supported(name.as_str(), &["cpu", "hugepages-", "memory"]),
                );
            }
        }
    }
}

/// A plain list of resources, such as a pod's overhead.
pub fn list(errors: &mut Errors, at: &Loc<'_>, list: &List) {
    for (name, quantity) in list {
        let at = at.key(name);
        container_resource_name(errors, &at, name);
        amount(errors, &at, name, quantity);
    }
}

/// A quantity that is readable, not below zero, and whole for what cannot be divided.
pub fn amount(errors: &mut Errors, at: &Loc<'_>, name: &str, quantity: &Quantity) -> Option<Amount> {
    let amount = rules::quantity(errors, at, quantity)?;
    if is_integer_resource(name) && !amount.is_whole() {
        errors.push(at.invalid(quantity.0.as_str(), NOT_INTEGER));
    }
    Some(amount)
}

/// A resource a container may ask for.
fn container_resource_name(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if matches!(name, "cpu" | "memory" | "ephemeral-storage") {
        return;
    }
    resource_name(errors, at, name);
    if !name.contains('/') {
        if !name.starts_with(HUGE_PAGES) {
            errors.push(at.invalid(name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.push(at.invalid(name, "doesn't follow extended resource name standard"));
    }
}

/// Any resource there is.
pub fn resource_name(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    let complaints = validation::qualified_name(name);
    if !complaints.is_empty() {
        rules::complain(errors, at, name, complaints);
    } else if !name.contains('/') && !is_standard(name) {
        errors.push(at.invalid(name, "must be a standard resource type or fully qualified"));
    }
}

fn is_standard(name: &str) -> bool {
    let plain = name
        .strip_prefix("requests.")
        .or_else(|| name.strip_prefix("limits."))
        .unwrap_or(name);
    matches!(
        plain,
        "cpu"
            | "memory"
            | "ephemeral-storage"
            | "storage"
            | "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || plain.starts_with(HUGE_PAGES)
}

/// Resources without a domain, or of `kubernetes.io`.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && validation::qualified_name(&format!("requests.{name}")).is_empty()
}

fn overcommit_allowed(name: &str) -> bool {
    is_native(name) && !name.starts_with(HUGE_PAGES)
}

/// Resources that are counted in whole units.
fn is_integer_resource(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "resourcequotas"
            | "services"
            | "replicationcontrollers"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    ) || (name.contains('/') && is_extended(name))
}
