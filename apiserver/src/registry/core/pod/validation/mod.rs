//! The rules for pods, and for the pod templates of everything that makes pods.
//!
//! | module | what it checks |
//! | --- | --- |
//! | [`containers`] | containers of all three sorts: names, images, ports, mounts, pull policies |
//! | [`environment`] | environment variables and the downward API |
//! | [`probes`] | probes, hooks and their handlers |
//! | [`resources`] | requests and limits |
//! | [`volumes`] | volumes and their sources |
//! | [`security`] | security contexts |
//! | [`scheduling`] | affinity, tolerations, spread, gates |
//! | [`update`] | what may change once a pod exists |

pub mod containers;
pub mod environment;
pub mod probes;
pub mod resize;
pub mod resources;
pub mod scheduling;
pub mod security;
pub mod update;
pub mod volumes;

#[cfg(test)]
mod tests;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig, PodSpec, PodTemplateSpec};
use keelson_api::field::Errors;
use keelson_api::validation::{self, dns1123_label, dns1123_subdomain};

use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, rules};

/// Limits of the DNS configuration of a pod.
const NAMESERVERS_MAX: usize = 3;
const SEARCH_PATHS_MAX: usize = 32;
const SEARCH_CHARS_MAX: usize = 2048;

/// A pod that is to be created.
pub fn pod(pod: &Pod) -> Errors {
    let mut errors = Errors::new();
    pod_annotations(&mut errors, pod);
    match &pod.spec {
        Some(spec) => {
            pod_spec(&mut errors, &Loc::new("spec"), spec);
            ephemeral_on_create(&mut errors, spec);
            scheduling::gated_on_create(&mut errors, spec);
        }
        None => pod_spec(&mut errors, &Loc::new("spec"), &PodSpec::default()),
    }
    errors
}

fn ephemeral_on_create(errors: &mut Errors, spec: &PodSpec) {
    if spec
        .ephemeral_containers
        .as_ref()
        .is_some_and(|list| !list.is_empty())
    {
        errors.push(Loc::new("spec.ephemeralContainers").forbidden("cannot be set on create"));
    }
}

fn pod_annotations(errors: &mut Errors, pod: &Pod) {
    let annotations = pod.metadata.annotations.as_ref().unwrap_or(&NONE);
    let at = Loc::new("metadata.annotations");
    if let Some(cost) = annotations.get("controller.kubernetes.io/pod-deletion-cost") {
        let leading = cost.starts_with('+') || (cost.len() > 1 && cost.starts_with('0'));
        if leading || cost.parse::<i32>().is_err() {
            let at = at.key("controller.kubernetes.io/pod-deletion-cost");
            errors.push(at.invalid(cost.as_str(), "must be a 32bit integer"));
        }
    }
}

/// A pod template, without what depends on the kind that owns it.
pub fn pod_template(errors: &mut Errors, at: &Loc<'_>, template: &PodTemplateSpec) {
    rules::template_metadata(errors, at, template);
    let spec_at = at.child("spec");
    match &template.spec {
        Some(spec) => {
            pod_spec(errors, &spec_at, spec);
            if spec
                .ephemeral_containers
                .as_ref()
                .is_some_and(|list| !list.is_empty())
            {
                let at = spec_at.child("ephemeralContainers");
                errors.push(at.forbidden("ephemeral containers not allowed in pod template"));
            }
        }
        None => pod_spec(errors, &spec_at, &PodSpec::default()),
    }
}

/// The spec of a pod or template.
pub fn pod_spec(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    let volumes = spec.volumes.as_deref().unwrap_or(&[]);
    volumes::volumes(errors, &at.child("volumes"), volumes);
    resource_claims(errors, &at.child("resourceClaims"), spec);
    let scope = containers::PodScope {
        volumes,
        claims: spec.resource_claims.as_deref().unwrap_or(&[]),
        grace: spec.termination_grace_period_seconds.unwrap_or(0),
        host_users: spec.host_users.unwrap_or(true),
    };
    containers::all(errors, at, spec, &scope);
    host_ports(errors, &at.child("containers"), spec);
    if let Some(own) = &spec.resources {
        resources::pod_level(errors, &at.child("resources"), own);
    }
    rules::one_of(
        errors,
        &at.child("restartPolicy"),
        spec.restart_policy.as_deref(),
        &["Always", "OnFailure", "Never"],
    );
    rules::one_of(
        errors,
        &at.child("dnsPolicy"),
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if let Some(selector) = &spec.node_selector {
        rules::labels(errors, &at.child("nodeSelector"), selector);
    }
    security::pod(errors, &at.child("securityContext"), spec);
    if let Some(affinity) = &spec.affinity {
        scheduling::affinity(errors, &at.child("affinity"), affinity);
    }
    dns_config(errors, at, spec);
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let gates = at.child("readinessGates");
        rules::qualified_name(
            errors,
            &gates.index(i).child("conditionType"),
            &gate.condition_type,
        );
    }
    scheduling::gates(errors, &at.child("schedulingGates"), spec);
    scheduling::spread(errors, &at.child("topologySpreadConstraints"), spec);

    let name_like = [
        ("serviceAccountName", spec.service_account_name.as_deref()),
        ("nodeName", spec.node_name.as_deref()),
        ("priorityClassName", spec.priority_class_name.as_deref()),
        ("runtimeClassName", spec.runtime_class_name.as_deref()),
    ];
    for (field, value) in name_like {
        if let Some(value) = value
            && (!value.is_empty() || field == "runtimeClassName")
        {
            rules::subdomain(errors, &at.child(field), value);
        }
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        rules::between(
            errors,
            &at.child("activeDeadlineSeconds"),
            seconds,
            1,
            i32::MAX.into(),
        );
    }
    for (field, value) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(value) = value
            && !value.is_empty()
        {
            rules::label(errors, &at.child(field), value);
        }
    }
    if let Some(name) = &spec.hostname_override {
        host_name_override(errors, at, spec, name);
    }
    scheduling::tolerations(
        errors,
        &at.child("tolerations"),
        spec.tolerations.as_deref().unwrap_or(&[]),
    );
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let aliases = at.child("hostAliases");
        let at = aliases.index(i);
        rules::ip(errors, &at.child("ip"), &alias.ip);
        for (j, name) in alias.hostnames.iter().flatten().enumerate() {
            rules::subdomain(errors, &at.child("hostnames").index(j), name);
        }
    }
    rules::optional_one_of(
        errors,
        &at.child("preemptionPolicy"),
        spec.preemption_policy.as_deref(),
        &["PreemptLowerPriority", "Never"],
    );
    if let Some(overhead) = &spec.overhead {
        resources::list(errors, &at.child("overhead"), overhead);
    }
    if let Some(os) = &spec.os {
        let at = at.child("os");
        match os.name.as_str() {
            "" => errors.push(at.child("name").required("cannot be empty")),
            "linux" | "windows" => {}
            other => errors.push(at.not_supported(other, &["linux", "windows"])),
        }
    }
}

/// On the host's network a container's ports are the host's.
fn host_ports(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    if spec.host_network != Some(true) {
        return;
    }
    for (i, container) in spec.containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host_port = port.host_port.unwrap_or(0);
            if host_port != 0 && host_port != port.container_port {
                let (at, detail) = (
                    at.index(i),
                    "must match `containerPort` when `hostNetwork` is true",
                );
                let at = at.child("ports");
                errors.push(at.index(j).child("hostPort").invalid(host_port, detail));
            }
        }
    }
}

fn host_name_override(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec, name: &str) {
    const MAX: usize = 64;
    let at_name = at.child("hostnameOverride");
    if name.len() > MAX {
        errors.push(at_name.too_long(MAX));
    }
    rules::complain(errors, &at_name, name, dns1123_subdomain(name));
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.push(at_name.forbidden("hostnameOverride may not be set when setHostnameAsFQDN is true"));
    }
    if spec.host_network == Some(true) {
        errors.push(at_name.forbidden("hostnameOverride may not be set when hostNetwork is true"));
    }
}

fn resource_claims(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    let claims = spec.resource_claims.as_deref().unwrap_or(&[]);
    for (i, claim) in claims.iter().enumerate() {
        let at = at.index(i);
        if claim.name.is_empty() {
            errors.push(at.child("name").required(""));
        } else if claims[..i].iter().any(|c| c.name == claim.name) {
            errors.push(at.child("name").duplicate(claim.name.as_str()));
        } else {
            rules::label(errors, &at.child("name"), &claim.name);
        }
        match (&claim.resource_claim_name, &claim.resource_claim_template_name) {
            (Some(_), Some(_)) => {
                let detail =
                    "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified";
                errors.push(at.invalid(rules::shown(claim), detail));
            }
            (None, None) => {
                let detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`";
                errors.push(at.invalid(rules::shown(claim), detail));
            }
            (Some(name), None) => rules::subdomain(errors, &at.child("resourceClaimName"), name),
            (None, Some(name)) => rules::subdomain(errors, &at.child("resourceClaimTemplateName"), name),
        }
    }
}

fn dns_config(errors: &mut Errors, at: &Loc<'_>, spec: &PodSpec) {
    let none = spec.dns_policy.as_deref() == Some("None");
    let at = at.child("dnsConfig");
    let Some(config) = &spec.dns_config else {
        if none {
            let detail = "must provide `dnsConfig` when `dnsPolicy` is None";
            errors.push(at.required(detail));
        }
        return;
    };
    let PodDNSConfig {
        nameservers,
        options,
        searches,
    } = config;
    let nameservers = nameservers.as_deref().unwrap_or(&[]);
    let at_servers = at.child("nameservers");
    if none && nameservers.is_empty() {
        errors.push(at_servers.required("must provide at least one DNS nameserver when `dnsPolicy` is None"));
    }
    if nameservers.len() > NAMESERVERS_MAX {
        let detail = format!("must not have more than {NAMESERVERS_MAX} nameservers");
        errors.push(at_servers.invalid(rules::shown(&nameservers), detail));
    }
    for (i, server) in nameservers.iter().enumerate() {
        rules::ip(errors, &at_servers.index(i), server);
    }
    let searches = searches.as_deref().unwrap_or(&[]);
    let at_searches = at.child("searches");
    if searches.len() > SEARCH_PATHS_MAX {
        let detail = format!("must not have more than {SEARCH_PATHS_MAX} search paths");
        errors.push(at_searches.invalid(rules::shown(&searches), detail));
    }
    if searches.join(" ").len() > SEARCH_CHARS_MAX {
        let detail = format!(
            "must not have more than {SEARCH_CHARS_MAX} characters (including spaces) in the search list"
        );
        errors.push(at_searches.invalid(rules::shown(&searches), detail));
    }
    for (i, search) in searches.iter().enumerate() {
        // Underscores before and inside of a label and a lone dot are what resolvers take too.
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            let plain: Vec<String> = name
                .split('.')
                .map(|part| part.strip_prefix('_').unwrap_or(part).replace('_', "-"))
                .collect();
            let complaints = dns1123_subdomain(&plain.join("."));
            rules::complain(errors, &at_searches.index(i), search, complaints);
        }
    }
    for (i, option) in options.iter().flatten().enumerate() {
        if option.name.as_deref().unwrap_or("").is_empty() {
            let options = at.child("options");
            errors.push(options.index(i).required("must not be empty"));
        }
    }
}

/// The name of something inside a pod that other parts refer to.
pub(super) fn inner_name(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::complain(errors, at, name, dns1123_label(name));
    }
}

/// A key of a ConfigMap or Secret.
pub(super) fn config_key(errors: &mut Errors, at: &Loc<'_>, key: &str) {
    if key.is_empty() {
        errors.push(at.required(""));
    } else {
        rules::complain(errors, at, key, validation::config_map_key(key));
    }
}
