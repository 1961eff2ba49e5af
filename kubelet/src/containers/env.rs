//! The variables a container starts with.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};
use keelson_proto::cri;

use crate::containers::downward::{self, DownwardError, Facts};
use crate::containers::expansion::expand;
use crate::objects::PodExt;

/// The config maps and secrets a container refers to, by name. `None`: it does not exist.
#[derive(Debug, Default)]
pub struct Sources {
    /// Config maps of the pod's namespace.
    pub config_maps: HashMap<String, Option<ConfigMap>>,
    /// Secrets of the pod's namespace.
    pub secrets: HashMap<String, Option<Secret>>,
}

/// Why a container's variables cannot be made: it waits with reason `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A config map or secret is missing.
    #[error("{kind} \"{name}\" not found")]
    NoObject {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// It has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Where.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The downward API does not have it.
    #[error(transparent)]
    Downward(#[from] DownwardError),
}

/// Names of the config maps and of the secrets that a container's variables come from.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut config_maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        config_maps.extend(
            from.config_map_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(from.secret_ref.as_ref().map(|reference| reference.name.clone()));
    }
    for value in container
        .env
        .iter()
        .flatten()
        .filter_map(|variable| variable.value_from.as_ref())
    {
        config_maps.extend(
            value
                .config_map_key_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
        secrets.extend(
            value
                .secret_key_ref
                .as_ref()
                .map(|reference| reference.name.clone()),
        );
    }
    (config_maps, secrets)
}

/// Makes a container's variables, in order, later ones over earlier ones.
///
/// # Errors
/// See [`EnvError`].
pub fn variables(
    pod: &Pod,
    container: &Container,
    services: &[Service],
    sources: &Sources,
    facts: &Facts,
) -> Result<Vec<cri::KeyValue>, EnvError> {
    let mut made = Ordered::default();
    let service_variables = of_services(services, pod);
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(reference) = &from.config_map_ref {
            match sources.config_maps.get(&reference.name).and_then(Option::as_ref) {
                Some(map) => map
                    .data
                    .iter()
                    .flatten()
                    .for_each(|(key, value)| made.set(format!("{prefix}{key}"), value.clone())),
                None if reference.optional == Some(true) => {}
                None => {
                    return Err(EnvError::NoObject {
                        kind: "configmap",
                        name: reference.name.clone(),
                    });
                }
            }
        }
        if let Some(reference) = &from.secret_ref {
            match sources.secrets.get(&reference.name).and_then(Option::as_ref) {
                Some(secret) => secret.data.iter().flatten().for_each(|(key, value)| {
                    made.set(
                        format!("{prefix}{key}"),
                        String::from_utf8_lossy(&value.0).into_owned(),
                    )
                }),
                None if reference.optional == Some(true) => {}
                None => {
                    return Err(EnvError::NoObject {
                        kind: "secret",
                        name: reference.name.clone(),
                    });
                }
            }
        }
    }
    // References may name services' variables and those set before; values from elsewhere are not expanded.
    let mut known: HashMap<String, String> = service_variables.iter().cloned().collect();
    known.extend(made.0.iter().cloned());
    for variable in container.env.iter().flatten() {
        if let Some(value) = value_of(pod, container, variable, &known, sources, facts)? {
            known.insert(variable.name.clone(), value.clone());
            made.set(variable.name.clone(), value);
        }
    }
    for (name, value) in service_variables {
        if !made.0.iter().any(|(known, _)| *known == name) {
            made.0.push((name, value));
        }
    }
    Ok(made
        .0
        .into_iter()
        .map(|(key, value)| cri::KeyValue { key, value })
        .collect())
}

#[derive(Default)]
struct Ordered(Vec<(String, String)>);

impl Ordered {
    fn set(&mut self, name: String, value: String) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }
}

fn value_of(
    pod: &Pod,
    container: &Container,
    variable: &EnvVar,
    known: &HashMap<String, String>,
    sources: &Sources,
    facts: &Facts,
) -> Result<Option<String>, EnvError> {
    let Some(from) = &variable.value_from else {
        return Ok(Some(expand(variable.value.as_deref().unwrap_or_default(), known)));
    };
    if let Some(selector) = &from.field_ref {
        return Ok(Some(downward::field(pod, selector, facts)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(downward::resource(pod, Some(container), selector, facts)?));
    }
    if let Some(reference) = &from.config_map_key_ref {
        let optional = reference.optional == Some(true);
        let Some(map) = sources.config_maps.get(&reference.name).and_then(Option::as_ref) else {
            return missing(optional, || EnvError::NoObject {
                kind: "configmap",
                name: reference.name.clone(),
            });
        };
        return match map.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(value.clone())),
            None => missing(optional, || {
                no_key("ConfigMap", pod, &reference.name, &reference.key)
            }),
        };
    }
    if let Some(reference) = &from.secret_key_ref {
        let optional = reference.optional == Some(true);
        let Some(secret) = sources.secrets.get(&reference.name).and_then(Option::as_ref) else {
            return missing(optional, || EnvError::NoObject {
                kind: "secret",
                name: reference.name.clone(),
            });
        };
        return match secret.data.as_ref().and_then(|data| data.get(&reference.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None => missing(optional, || {
                no_key("Secret", pod, &reference.name, &reference.key)
            }),
        };
    }
    Ok(Some(String::new()))
}

fn no_key(kind: &'static str, pod: &Pod, name: &str, key: &str) -> EnvError {
    EnvError::NoKey {
        key: key.into(),
        kind,
        namespace: pod.namespace().into(),
        name: name.into(),
    }
}

fn missing(optional: bool, error: impl FnOnce() -> EnvError) -> Result<Option<String>, EnvError> {
    if optional { Ok(None) } else { Err(error()) }
}

/// Variables that tell of services: those of the pod's namespace if it wants them, and the API's in any case.
fn of_services(services: &[Service], pod: &Pod) -> Vec<(String, String)> {
    let links = pod.spec().enable_service_links.unwrap_or(true);
    let mut chosen: HashMap<&str, &Service> = HashMap::new();
    for service in services {
        let (Some(name), Some(namespace)) = (
            service.metadata.name.as_deref(),
            service.metadata.namespace.as_deref(),
        ) else {
            continue;
        };
        let own = links && namespace == pod.namespace();
        let master = namespace == "default" && name == "kubernetes";
        // A service of the pod's own namespace hides the API's of the same name.
        if own || (master && !chosen.contains_key(name)) {
            chosen.insert(name, service);
        }
    }
    let mut chosen: Vec<_> = chosen.into_iter().collect();
    chosen.sort_by_key(|(name, _)| *name);
    chosen
        .into_iter()
        .flat_map(|(name, service)| of_service(name, service))
        .collect()
}

fn of_service(name: &str, service: &Service) -> Vec<(String, String)> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let ip = spec.cluster_ip.as_deref().unwrap_or_default();
    let (Some(first), false) = (ports.first(), ip.is_empty() || ip == "None") else {
        return Vec::new();
    };
    let prefix = as_variable(name);
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    let mut made = vec![
        (format!("{prefix}_SERVICE_HOST"), ip.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), first.port.to_string()),
    ];
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            made.push((
                format!("{prefix}_SERVICE_PORT_{}", as_variable(port_name)),
                port.port.to_string(),
            ));
        }
    }
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            made.push((format!("{prefix}_PORT"), url.clone()));
        }
        let port_prefix = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        made.push((port_prefix.clone(), url));
        made.push((format!("{port_prefix}_PROTO"), protocol.to_lowercase()));
        made.push((format!("{port_prefix}_PORT"), port.port.to_string()));
        made.push((format!("{port_prefix}_ADDR"), ip.to_owned()));
    }
    made
}

fn as_variable(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn made(
        pod: serde_json::Value,
        services: serde_json::Value,
        sources: &Sources,
    ) -> Result<HashMap<String, String>, EnvError> {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let services: Vec<Service> = serde_json::from_value(services).expect("services");
        let variables = variables(&pod, &pod.containers()[0], &services, sources, &Facts::default())?;
        Ok(variables.into_iter().map(|pair| (pair.key, pair.value)).collect())
    }

    #[test]
    fn sources_expand_in_order() {
        let config: ConfigMap =
            serde_json::from_value(json!({"data": {"one": "1", "two": "$(P_one)"}})).expect("a map");
        let sources = Sources {
            config_maps: HashMap::from([("cm".into(), Some(config))]),
            ..Default::default()
        };
        let got = made(
            json!({"metadata": {"name": "n", "namespace": "ns"}, "spec": {"containers": [{"name": "c",
                "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}],
                "env": [{"name": "A", "value": "$(P_one)$(LATER)"}, {"name": "LATER", "value": "x"}, {"name": "B", "value": "$(A)!"},
                    {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {"name": "O", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k", "optional": true}}}]}]}}),
            json!([]),
            &sources,
        )
        .expect("variables");
        assert_eq!(got["P_two"], "$(P_one)");
        assert_eq!(got["A"], "1$(LATER)");
        assert_eq!(got["B"], "1$(LATER)!");
        assert_eq!(got["N"], "n");
        assert!(!got.contains_key("O"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let pod = json!({"metadata": {"namespace": "ns"}, "spec": {"containers": [{"name": "c",
            "env": [{"name": "O", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}]}});
        let error = made(pod.clone(), json!([]), &Sources::default()).expect_err("no secret");
        assert_eq!(error.to_string(), "secret \"s\" not found");
        let empty = Sources {
            secrets: HashMap::from([("s".into(), Some(Secret::default()))]),
            ..Default::default()
        };
        let error = made(pod, json!([]), &empty).expect_err("no key");
        assert_eq!(error.to_string(), "couldn't find key k in Secret ns/s");
    }

    #[test]
    fn services_speak() {
        let services = json!([
            {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
            {"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "10.96.1.1", "ports": [{"port": 53, "protocol": "UDP"}]}},
            {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}]);
        let pod = |links: bool| json!({"metadata": {"namespace": "ns"}, "spec": {"enableServiceLinks": links, "containers": [{"name": "c"}]}});
        let got = made(pod(true), services.clone(), &Sources::default()).expect("variables");
        assert_eq!(got["KUBERNETES_SERVICE_PORT_HTTPS"], "443");
        assert_eq!(got["MY_DB_PORT_53_UDP"], "udp://10.96.1.1:53");
        assert!(!got.keys().any(|key| key.starts_with("HEADLESS")));
        let got = made(pod(false), services, &Sources::default()).expect("variables");
        assert!(got.contains_key("KUBERNETES_SERVICE_HOST") && !got.contains_key("MY_DB_SERVICE_HOST"));
    }
}
