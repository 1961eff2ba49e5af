//! Environment variables and the downward API.

use k8s_openapi::api::core::v1::{
    EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};
use keelson_api::field::Errors;
use keelson_api::quantity::Amount;
use keelson_api::validation;

use super::config_key;
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

/// Fields of a pod that an environment variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of a pod that a file may show.
pub(super) const FILE_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];
/// Every field of a pod that has a name in the downward API.
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: &[&str] = &[
    "1", "1E", "1Ei", "1G", "1Gi", "1K", "1Ki", "1M", "1Mi", "1P", "1Pi", "1T", "1Ti",
];
const CPU_DIVISORS: &[&str] = &["1", "1m"];

/// The variables of a container.
pub fn variables(errors: &mut Errors, at: &Loc<'_>, variables: &[EnvVar]) {
    for (i, variable) in variables.iter().enumerate() {
        let at = at.index(i);
        if variable.name.is_empty() {
            errors.push(at.child("name").required(""));
        } else {
            let complaints = validation::env_name_relaxed(&variable.name);
            rules::complain(errors, &at.child("name"), &variable.name, complaints);
        }
        if let Some(source) = &variable.value_from {
            let has_value = variable.value.as_deref().is_some_and(|v| !v.is_empty());
            value_from(errors, &at.child("valueFrom"), source, has_value);
        }
    }
}

fn value_from(errors: &mut Errors, at: &Loc<'_>, source: &EnvVarSource, has_value: bool) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        field_selector(errors, &at.child("fieldRef"), field, ENV_FIELDS);
    }
    if let Some(resource) = &source.resource_field_ref {
        sources += 1;
        resource_selector(errors, &at.child("resourceFieldRef"), resource, Container::Own);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        let at = at.child("configMapKeyRef");
        rules::not_empty(errors, &at.child("name"), Some(&key.name));
        config_key(errors, &at.child("key"), &key.key);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        let at = at.child("secretKeyRef");
        rules::not_empty(errors, &at.child("name"), Some(&key.name));
        config_key(errors, &at.child("key"), &key.key);
    }
    if let Some(key) = &source.file_key_ref {
        sources += 1;
        let at = at.child("fileKeyRef");
        rules::not_empty(errors, &at.child("key"), Some(&key.key));
        rules::not_empty(errors, &at.child("volumeName"), Some(&key.volume_name));
        if key.path.is_empty() {
            errors.push(at.child("path").required(""));
        } else {
            rules::file_path(errors, &at.child("path"), &key.path);
        }
    }
    if sources == 0 {
        let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.push(at.invalid("", detail));
    }
    if has_value && sources != 0 {
        errors.push(at.invalid("", "may not be specified when `value` is not empty"));
    } else if sources > 1 {
        errors.push(at.invalid("", "may not have more than one field specified at a time"));
    }
}

/// Whole ConfigMaps and Secrets as variables.
pub fn from_sources(errors: &mut Errors, at: &Loc<'_>, sources: &[EnvFromSource]) {
    for (i, source) in sources.iter().enumerate() {
        let one = at.index(i);
        if let Some(prefix) = &source.prefix
            && !prefix.is_empty()
        {
            rules::complain(
                errors,
                &one.child("prefix"),
                prefix,
                validation::env_name_relaxed(prefix),
            );
        }
        let mut count = 0;
        if let Some(config_map) = &source.config_map_ref {
            count += 1;
            rules::not_empty(errors, &one.child("configMapRef.name"), Some(&config_map.name));
        }
        if let Some(secret) = &source.secret_ref {
            count += 1;
            rules::not_empty(errors, &one.child("secretRef.name"), Some(&secret.name));
        }
        match count {
            0 => errors.push(at.invalid("", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(at.invalid("", "may not have more than one field specified at a time")),
        }
    }
}

/// A field of the pod, shown to a container.
pub fn field_selector(errors: &mut Errors, at: &Loc<'_>, field: &ObjectFieldSelector, allowed: &[&str]) {
    let version = field.api_version.as_deref().unwrap_or("");
    let path = field.field_path.as_str();
    if version.is_empty() {
        errors.push(at.child("apiVersion").required(""));
        return;
    }
    if path.is_empty() {
        errors.push(at.child("fieldPath").required(""));
        return;
    }
    let at_path = at.child("fieldPath");
    let (plain, subscript) = subscripted(path);
    if version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {version}");
        errors.push(at_path.invalid(path, detail));
        return;
    }
    match subscript {
        Some(key) if plain == "metadata.annotations" => {
            rules::complain(errors, at, key, validation::qualified_name(&key.to_lowercase()));
        }
        Some(key) if plain == "metadata.labels" => {
            rules::complain(errors, at, key, validation::qualified_name(key));
        }
        Some(_) => errors.push(at.invalid(plain, "does not support subscript")),
        None if plain == "spec.host" => {}
        None if !KNOWN_FIELDS.contains(&plain) => {
            let detail = format!("error converting fieldPath: field label not supported: {plain}");
            errors.push(at_path.invalid(path, detail));
        }
        None if !allowed.contains(&plain) => errors.push(at_path.not_supported(plain, allowed)),
        None => {}
    }
}

/// Splits `metadata.labels['a']` into the path and the key.
fn subscripted(path: &str) -> (&str, Option<&str>) {
    path.strip_suffix("']")
        .and_then(|rest| rest.split_once("['"))
        .map_or((path, None), |(p, key)| (p, Some(key)))
}

/// Whose resources a selector speaks of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// The container that has the variable.
    Own,
    /// One that must be named: a volume belongs to the pod.
    Named,
}

/// A request or limit, shown to a container.
pub fn resource_selector(
    errors: &mut Errors,
    at: &Loc<'_>,
    field: &ResourceFieldSelector,
    container: Container,
) {
    let resource = field.resource.as_str();
    if container == Container::Named && field.container_name.as_deref().unwrap_or("").is_empty() {
        errors.push(at.child("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(at.child("resource").required(""));
    } else if !RESOURCES.contains(&resource)
        && !resource.starts_with("limits.hugepages-")
        && !resource.starts_with("requests.hugepages-")
    {
        errors.push(at.child("resource").not_supported(resource, RESOURCES));
    }
    let Some(divisor) = &field.divisor else { return };
    match Amount::try_from(divisor) {
        Ok(amount) if amount.is_zero() => {}
        Ok(_) => {
            let (what, allowed) = if resource.ends_with(".cpu") {
                ("cpu", CPU_DIVISORS)
            } else {
                ("memory", BYTE_DIVISORS)
            };
            let what = if resource.ends_with("ephemeral-storage") {
                "local ephemeral storage"
            } else {
                what
            };
            if !allowed.iter().any(|one| one.eq_ignore_ascii_case(&divisor.0)) {
                let detail = format!(
                    "only divisor's values {} are supported with the {what} resource",
                    if what == "cpu" {
                        "1m and 1"
                    } else {
                        "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei"
                    }
                );
                errors.push(at.child("divisor").invalid(resource, detail));
            }
        }
        Err(error) => errors.push(at.child("divisor").invalid(divisor.0.as_str(), error.to_string())),
    }
}
