//! Parameters: the objects a binding hands to its policy.

use std::sync::Arc;

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use keelson_api::names::split_api_version;
use serde_json::Value;

use crate::registry::catalog::Served;
use crate::registry::common::selectors;
use crate::state::{Server, cache_key};
use crate::storage::cache::select;
use crate::storage::filter::Filter;

/// The resource of a kind of parameters, built-in or custom. The error is upstream's.
pub fn resource(server: &Server, kind: &ParamKind) -> Result<Served, String> {
    let version = kind.api_version.as_deref().unwrap_or_default();
    let name = kind.kind.as_deref().unwrap_or_default();
    let (group, short) = split_api_version(version);
    let mut built_in = server.catalog.served();
    built_in
        .find(|s| s.group() == group && s.version() == short && s.info().kind == name)
        .cloned()
        .or_else(|| server.catalog.custom().of_kind(group, short, name))
        .ok_or_else(|| format!("failed to find resource referenced by paramKind: '{version}, Kind={name}'"))
}

/// The parameters of a binding for something in `namespace`. `None` stands for none where a policy is run without.
pub async fn collect(
    server: &Arc<Server>,
    resource: Option<&Served>,
    wanted: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Value>>, String> {
    // A policy without a kind of parameters has none, whatever its binding says.
    let (Some(resource), Some(wanted)) = (resource, wanted) else {
        return Ok(vec![None]);
    };
    let own = wanted.namespace.as_deref().filter(|own| !own.is_empty());
    let namespace = match (resource.info().namespaced(), own) {
        (true, Some(own)) => own,
        (true, None) if namespace.is_empty() => {
            return Err(
                "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources"
                    .into(),
            );
        }
        (true, None) => namespace,
        (false, Some(_)) => {
            return Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".into());
        }
        (false, None) => "",
    };
    let name = wanted.name.as_deref().filter(|name| !name.is_empty());
    let found: Vec<Value> = match (name, &wanted.selector) {
        (Some(name), _) => {
            let entry = resource.cache.get(&cache_key(namespace, name));
            entry.and_then(|entry| entry.read()).into_iter().collect()
        }
        (None, Some(selector)) => {
            let (entries, _) = resource.cache.snapshot(|| server.feed.reached());
            select(&entries, &Filter::namespace(namespace), None)
                .filter(|entry| {
                    let labels = entry
                        .labels()
                        .map(|(key, value)| (key.to_string(), value.to_string()));
                    selectors::matches(selector, &labels.collect())
                })
                .filter_map(|entry| entry.read())
                .collect()
        }
        (None, None) => return Err("one of name or selector must be provided".into()),
    };
    if found.is_empty() && wanted.parameter_not_found_action.as_deref() == Some("Deny") {
        return Err("no params found for policy binding with `Deny` parameterNotFoundAction".into());
    }
    let shown = shown(server, resource, found).await?;
    Ok(shown.into_iter().map(Some).collect())
}

/// Stored objects in the version their kind was named in.
async fn shown(
    server: &Arc<Server>,
    resource: &Served,
    mut objects: Vec<Value>,
) -> Result<Vec<Value>, String> {
    match resource.converter().filter(|_| !objects.is_empty()) {
        Some(converter) => converter
            .convert(server, objects, &resource.api_version())
            .await
            .map_err(|error| error.message().to_owned()),
        None => {
            objects
                .iter_mut()
                .for_each(|object| resource.from_storage(object));
            Ok(objects)
        }
    }
}
