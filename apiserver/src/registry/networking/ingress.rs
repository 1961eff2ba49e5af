//! Ingresses.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressSpec, IngressStatus,
};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{NONE, cells, rules};
use crate::registry::extensions;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

/// The older way to name a class.
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The kind's strategy.
pub struct IngressKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "networking.k8s.io",
    kind: "Ingress",
    plural: "ingresses",
    singular: "ingress",
    short_names: &["ing"],
    storage_prefix: "ingress",
    subresources: &[SubresourceInfo::status("networking.k8s.io", "v1", "Ingress")],
    aliases: &[extensions::INGRESS],
    ..ResourceInfo::base()
};

impl Strategy for IngressKind {
    type Object = Ingress;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, ingress: &mut Ingress) {
        meta::first_generation(&mut ingress.metadata);
        ingress.status = Some(IngressStatus {
            load_balancer: Some(Default::default()),
        });
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, ingress: &Ingress) -> Errors {
        let mut errors = validate(ingress);
        let annotation = ingress
            .metadata
            .annotations
            .as_ref()
            .unwrap_or(&NONE)
            .get(CLASS_ANNOTATION);
        let class = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_ref());
        if let (Some(annotation), Some(class)) = (annotation, class)
            && annotation != class
        {
            let at = Loc::new("annotations");
            let detail = "can not be set when the class field is also set";
            errors.push(at.child(CLASS_ANNOTATION).invalid(annotation.as_str(), detail));
        }
        errors
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Ingress, _old: &Ingress) -> Errors {
        validate(new)
    }

    fn warnings(&self, ingress: &Ingress, _old: Option<&Ingress>) -> Vec<String> {
        match ingress
            .metadata
            .annotations
            .as_ref()
            .unwrap_or(&NONE)
            .get(CLASS_ANNOTATION)
        {
            Some(_) => vec![format!(
                "annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            )],
            None => Vec::new(),
        }
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Class", "The class whose controller serves the ingress"),
            Column::new("Hosts", "Hosts the ingress answers to"),
            Column::new("Address", "Where the ingress answers"),
            Column::new("Ports", "The ports the ingress answers at"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, ingress: &Ingress, now: Timestamp) -> Vec<Value> {
        let spec = ingress.spec.as_ref();
        let class = spec.and_then(|s| s.ingress_class_name.as_deref());
        let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
        let addresses: BTreeSet<&str> = balancer
            .iter()
            .flat_map(|b| b.ingress.iter().flatten())
            .filter_map(|i| {
                i.ip.as_deref()
                    .filter(|ip| !ip.is_empty())
                    .or(i.hostname.as_deref())
            })
            .collect();
        let encrypted = spec
            .and_then(|s| s.tls.as_ref())
            .is_some_and(|tls| !tls.is_empty());
        vec![
            cells::name(&ingress.metadata),
            cells::or_none(class),
            hosts(spec).into(),
            Vec::from_iter(addresses).join(",").into(),
            if encrypted { "80, 443" } else { "80" }.into(),
            cells::age(&ingress.metadata, now),
        ]
    }
}

fn hosts(spec: Option<&IngressSpec>) -> String {
    const SHOWN_MAX: usize = 3;
    let rules = spec.and_then(|s| s.rules.as_deref()).unwrap_or(&[]);
    let mut hosts = rules
        .iter()
        .enumerate()
        .filter_map(|(i, rule)| Some((i, rule.host.as_deref()?)))
        .filter(|(_, host)| !host.is_empty());
    let shown: Vec<(usize, &str)> = hosts.by_ref().take(SHOWN_MAX).collect();
    let Some((last, _)) = shown.last() else {
        return "*".to_owned();
    };
    let list = shown.iter().map(|(_, host)| *host).collect::<Vec<_>>().join(",");
    // Rules for any host count among those left out.
    match shown.len() == SHOWN_MAX && last + 1 < rules.len() {
        true => format!("{list} + {} more...", rules.len() - SHOWN_MAX),
        false => list,
    }
}

fn validate(ingress: &Ingress) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let none = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&none);
    let rules_given = spec.rules.as_deref().unwrap_or(&[]);
    if rules_given.is_empty() && spec.default_backend.is_none() {
        let detail = "either `defaultBackend` or `rules` must be specified";
        errors.push(at.invalid(rules::shown(&rules_given), detail));
    }
    if let Some(backend) = &spec.default_backend {
        self::backend(&mut errors, &at.child("defaultBackend"), backend);
    }
    let all = at.child("rules");
    for (i, rule) in rules_given.iter().enumerate() {
        let at = all.index(i);
        if let Some(host) = rule.host.as_deref().filter(|h| !h.is_empty()) {
            self::host(&mut errors, &at.child("host"), host);
        }
        let Some(http) = &rule.http else { continue };
        let at_paths = at.child("http.paths");
        if http.paths.is_empty() {
            errors.push(at_paths.required(""));
        }
        for (j, path) in http.paths.iter().enumerate() {
            self::path(&mut errors, &at_paths.index(j), path);
        }
    }
    let all = at.child("tls");
    for (i, tls) in spec.tls.iter().flatten().enumerate() {
        let at_hosts = all.index(i);
        let at_hosts = at_hosts.child("hosts");
        for (j, host) in tls.hosts.iter().flatten().enumerate() {
            if host.contains('*') {
                let complaints = validation::wildcard_dns1123_subdomain(host);
                rules::complain(&mut errors, &at_hosts.index(j), host, complaints);
            } else {
                rules::subdomain(&mut errors, &at_hosts.index(j), host);
            }
        }
    }
    if let Some(class) = &spec.ingress_class_name {
        rules::subdomain(&mut errors, &at.child("ingressClassName"), class);
    }
    errors
}

fn host(errors: &mut Errors, at: &Loc<'_>, host: &str) {
    if validation::parse_ip(host).is_some() {
        errors.push(at.invalid(host, "must be a DNS name, not an IP address"));
    } else if host.contains('*') {
        rules::complain(errors, at, host, validation::wildcard_dns1123_subdomain(host));
    } else {
        rules::subdomain(errors, at, host);
    }
}

fn path(errors: &mut Errors, at: &Loc<'_>, path: &HTTPIngressPath) {
    let text = path.path.as_deref().unwrap_or("");
    let at_type = at.child("pathType");
    let at_path = at.child("path");
    match path.path_type.as_str() {
        "" => errors.push(at_type.required("pathType must be specified")),
        "Exact" | "Prefix" => {
            if !text.starts_with('/') {
                errors.push(at_path.invalid(text, "must be an absolute path"));
            }
            for bad in ["//", "/./", "/../", "%2f", "%2F"] {
                if text.contains(bad) {
                    errors.push(at_path.invalid(text, format!("must not contain '{bad}'")));
                }
            }
            for bad in ["/..", "/."] {
                if text.ends_with(bad) {
                    errors.push(at_path.invalid(text, format!("cannot end with '{bad}'")));
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !text.starts_with('/') {
                errors.push(at_path.invalid(text, "must be an absolute path"));
            }
        }
        other => errors.push(at_type.not_supported(other, &["Exact", "ImplementationSpecific", "Prefix"])),
    }
    backend(errors, &at.child("backend"), &path.backend);
}

fn backend(errors: &mut Errors, at: &Loc<'_>, backend: &IngressBackend) {
    match (&backend.resource, &backend.service) {
        (Some(_), Some(_)) => {
            errors.push(at.invalid("", "cannot set both resource and service backends"));
        }
        (Some(resource), None) => {
            let at = at.child("resource");
            rules::not_empty(errors, &at.child("kind"), Some(&resource.kind));
            rules::not_empty(errors, &at.child("name"), Some(&resource.name));
        }
        (None, None) => errors.push(at.required("resource or service backend is required")),
        (None, Some(service)) => {
            let at = at.child("service");
            if service.name.is_empty() {
                errors.push(at.child("name").required(""));
            } else {
                let complaints = validation::dns1035_label(&service.name);
                rules::complain(errors, &at.child("name"), &service.name, complaints);
            }
            let at_port = at.child("port");
            let port = service.port.as_ref();
            let name = port.and_then(|p| p.name.as_deref()).unwrap_or("");
            let number = port.and_then(|p| p.number).unwrap_or(0);
            match (name.is_empty(), number) {
                (true, 0) => errors.push(at.required("port name or number is required")),
                (true, number) => rules::port(errors, &at_port.child("number"), number),
                (false, 0) => {
                    rules::complain(errors, &at_port.child("name"), name, validation::port_name(name))
                }
                (false, _) => errors.push(at.invalid("", "cannot set both port name & port number")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn mistakes_are_named() {
        let cases = [
            (
                json!({"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}),
                vec![],
            ),
            (
                json!({}),
                vec!["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
            ),
            (
                json!({"rules": [{"host": "1.2.3.4", "http": {"paths": [{"path": "x", "pathType": "Prefix", "backend": {}}]}}]}),
                vec![
                    "spec.rules[0].host: Invalid value: \"1.2.3.4\": must be a DNS name, not an IP address",
                    "spec.rules[0].http.paths[0].path: Invalid value: \"x\": must be an absolute path",
                    "spec.rules[0].http.paths[0].backend: Required value: resource or service backend is required",
                ],
            ),
        ];
        for (spec, expected) in cases {
            let ingress =
                serde_json::from_value(json!({"metadata": {"name": "i"}, "spec": spec})).expect("an ingress");
            let found: Vec<String> = validate(&ingress).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected);
        }
    }
}
