//! The downward API: a pod's own fields and resources as text, for variables and files.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ObjectFieldSelector, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::Amount;

use crate::objects::PodExt;

/// What the downward API knows besides the pod.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The pod's addresses, the primary one first.
    pub pod_ips: Vec<String>,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<String>,
    /// The node's name.
    pub node_name: String,
    /// What stands for a limit that is not set.
    pub allocatable: BTreeMap<String, Quantity>,
}

/// A field that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DownwardError {
    /// The path is not one of those supported.
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    /// The resource is not one of those supported.
    #[error("unsupported container resource: {0}")]
    Resource(String),
    /// The container does not exist.
    #[error("container {0} not found")]
    Container(String),
}

/// A field of the pod.
///
/// # Errors
/// For a path that the downward API does not know.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector, facts: &Facts) -> Result<String, DownwardError> {
    let path = selector.field_path.as_str();
    if let Some((base, key)) = subscript(path) {
        let map = match base {
            "metadata.labels" => &pod.metadata.labels,
            "metadata.annotations" => &pod.metadata.annotations,
            _ => return Err(DownwardError::Field(path.into())),
        };
        return Ok(map
            .as_ref()
            .and_then(|map| map.get(key))
            .cloned()
            .unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => pod.name().into(),
        "metadata.namespace" => pod.namespace().into(),
        "metadata.uid" => pod.uid().into(),
        "metadata.labels" => lines(pod.metadata.labels.as_ref()),
        "metadata.annotations" => lines(pod.metadata.annotations.as_ref()),
        "spec.nodeName" => pod
            .spec()
            .node_name
            .clone()
            .unwrap_or_else(|| facts.node_name.clone()),
        "spec.serviceAccountName" => pod.spec().service_account_name.clone().unwrap_or_default(),
        "status.hostIP" => facts.host_ips.first().cloned().unwrap_or_default(),
        "status.hostIPs" => facts.host_ips.join(","),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        _ => return Err(DownwardError::Field(path.into())),
    })
}

/// `metadata.labels['key']` as its parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (base, rest) = path.split_once('[')?;
    let key = rest.strip_suffix(']')?;
    Some((base, key.trim_matches(['\'', '"'])))
}

/// `key="value"` on lines, sorted, values quoted as Go quotes strings.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", quoted(value)))
        .collect();
    lines.join("\n")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A resource of a container of the pod, in units of the divisor, rounded up.
///
/// # Errors
/// For a container or a resource that is not there.
pub fn resource(
    pod: &Pod,
    own: Option<&Container>,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, DownwardError> {
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => pod
            .init_containers()
            .iter()
            .chain(pod.containers())
            .find(|container| container.name == name)
            .ok_or_else(|| DownwardError::Container(name.into()))?,
        None => own.ok_or_else(|| DownwardError::Container(String::new()))?,
    };
    let unsupported = || DownwardError::Resource(selector.resource.clone());
    let (which, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known || !matches!(which, "limits" | "requests") {
        return Err(unsupported());
    }
    let resources = container.resources.as_ref();
    let amount = match which {
        "limits" => resources
            .and_then(|all| all.limits.as_ref()?.get(name))
            .or_else(|| facts.allocatable.get(name)),
        _ => resources.and_then(|all| all.requests.as_ref()?.get(name)),
    };
    let amount = amount.map_or(Amount::ZERO, Amount::of);
    let divisor = selector
        .divisor
        .as_ref()
        .map(Amount::of)
        .filter(|divisor| !divisor.is_zero())
        .unwrap_or(Amount::from_units(1));
    // Both are exact to a billionth, so their quotient needs no floating point.
    let (dividend, divisor) = (amount.nanos(), divisor.nanos());
    Ok(((dividend + divisor - 1) / divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "labels": {"z": "1", "app": "x\"y"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}}}]}}))
        .expect("a pod")
    }

    #[test]
    fn fields() {
        let get = |path: &str| {
            field(
                &pod(),
                &ObjectFieldSelector {
                    field_path: path.into(),
                    ..Default::default()
                },
                &Facts::default(),
            )
        };
        assert_eq!(get("metadata.labels['app']").as_deref(), Ok("x\"y"));
        assert_eq!(get("metadata.labels").as_deref(), Ok("app=\"x\\\"y\"\nz=\"1\""));
        assert!(get("spec.containers").is_err());
    }

    #[test]
    fn resources_round_up() {
        let pod = pod();
        let get = |resource: &str, divisor: &str| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: (!divisor.is_empty()).then(|| Quantity(divisor.into())),
                ..Default::default()
            };
            super::resource(&pod, pod.containers().first(), &selector, &Facts::default())
        };
        assert_eq!(get("limits.cpu", "").as_deref(), Ok("2"));
        assert_eq!(get("limits.cpu", "1m").as_deref(), Ok("1500"));
        assert_eq!(get("limits.memory", "1Mi").as_deref(), Ok("64"));
        assert_eq!(get("requests.memory", "").as_deref(), Ok("0"));
        assert!(get("limits.disk", "").is_err());
    }
}
