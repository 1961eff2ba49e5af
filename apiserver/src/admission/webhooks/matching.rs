//! Which webhooks a request concerns.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::configured::Hook;
use crate::admission::{Attributes, Operation};
use crate::registry::admissionregistration::matching::Rule;
use crate::registry::catalog::Served;
use crate::registry::common::selectors;

/// What a webhook is asked about, in the version its rules are for.
pub struct Asked {
    /// The version.
    pub served: Served,
    /// The new object, or the body of a subresource; null for deletions.
    pub object: Value,
    /// The object as stored; null for creations.
    pub old: Value,
}

/// What an operation is called.
pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// What to ask the webhook, `None` if the request is none of its business.
pub async fn concerned(hook: &Hook, attributes: &Attributes<'_>) -> ApiResult<Option<Asked>> {
    let Some(served) = version(hook, attributes) else {
        return Ok(None);
    };
    if !in_namespaces(hook, attributes)? || !has_labels(hook, attributes) {
        return Ok(None);
    }
    let shown = |object: Option<&dyn Object>| -> ApiResult<Value> {
        let Some(object) = object else {
            return Ok(Value::Null);
        };
        let mut value = serde_json::from_slice(&object.encode()?).map_err(ApiError::internal)?;
        served.from_storage(&mut value);
        Ok(value)
    };
    let object = match attributes.body {
        Some(body) => body.clone(),
        None => shown(attributes.object.as_deref())?,
    };
    let old = shown(attributes.old)?;
    let mut asked = Asked { served, object, old };
    if attributes.body.is_none() {
        let version = asked.served.api_version();
        asked.object = converted(attributes, &asked.served, asked.object, &version).await?;
        asked.old = converted(attributes, &asked.served, asked.old, &version).await?;
    }
    Ok(Some(asked))
}

/// An object in another version of a custom resource whose versions a webhook converts.
pub async fn converted(
    attributes: &Attributes<'_>,
    served: &Served,
    object: Value,
    version: &str,
) -> ApiResult<Value> {
    let Some(converter) = served.converter().filter(|_| !object.is_null()) else {
        return Ok(object);
    };
    let mut converted = converter
        .convert(attributes.ctx.server, vec![object], version)
        .await?;
    converted
        .pop()
        .ok_or_else(|| ApiError::internal("an object got lost while it was converted"))
}

/// The version of the resource that the webhook's rules name: the stored one, or an equivalent one.
fn version(hook: &Hook, attributes: &Attributes<'_>) -> Option<Served> {
    let ctx = attributes.ctx;
    let info = ctx.info;
    let matches = |group: &str, version: &str| {
        let request = Request {
            operation: operation(attributes.operation),
            group,
            version,
            resource: info.plural,
            subresource: ctx.subresource,
            namespaced: info.namespaced(),
            name: ctx.name,
        };
        hook.rules.iter().any(|rule| request.falls_under(rule.into()))
    };
    let catalog = &ctx.server.catalog;
    let find = |group: &str, version: &str| {
        let served = catalog.find(group, version, info.plural)?;
        Some(Served::clone(&served))
    };
    if matches(info.group, info.version) {
        return find(info.group, info.version);
    }
    if !hook.versions_are_equivalent() {
        return None;
    }
    if let Some(alias) = info
        .aliases
        .iter()
        .find(|alias| matches(alias.group, alias.version))
    {
        return find(alias.group, alias.version);
    }
    let mut versions = catalog.custom().versions(info.group, info.plural).into_iter();
    versions.find(|served| matches(served.group(), served.version()))
}

/// A request as rules see it.
pub struct Request<'a> {
    /// `CREATE`, ...
    pub operation: &'a str,
    /// Group of the resource.
    pub group: &'a str,
    /// Version of the resource.
    pub version: &'a str,
    /// Its plural.
    pub resource: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The object's name, empty while it is not known.
    pub name: &'a str,
}

impl Request<'_> {
    /// Whether the rule covers the request.
    pub fn falls_under(&self, rule: Rule<'_>) -> bool {
        let has = |list: &[String], wanted: &str| list.iter().any(|one| one == "*" || one == wanted);
        let scope = match rule.scope {
            "Namespaced" => self.namespaced,
            "Cluster" => !self.namespaced,
            _ => true,
        };
        scope
            && has(rule.operations, self.operation)
            && has(rule.groups, self.group)
            && has(rule.versions, self.version)
            && rule.resources.iter().any(|name| self.is_named(name))
            && (rule.names.is_empty() || rule.names.iter().any(|name| name == self.name))
    }

    /// `pods`, `pods/status`, `pods/*`, `*/status`, `*`, `*/*`.
    fn is_named(&self, name: &str) -> bool {
        let (resource, subresource) = name.split_once('/').unwrap_or((name, ""));
        let fits = |pattern: &str, given: &str| pattern == "*" || pattern == given;
        fits(resource, self.resource) && fits(subresource, self.subresource)
    }
}

/// Whether the object's namespace is chosen. A namespace is chosen by its own labels; what lives in none always is.
fn in_namespaces(hook: &Hook, attributes: &Attributes<'_>) -> ApiResult<bool> {
    if selectors::is_empty(&hook.namespaces) {
        return Ok(true);
    }
    let ctx = attributes.ctx;
    let none = BTreeMap::new();
    if ctx.info.group.is_empty() && ctx.info.plural == "namespaces" {
        let of = |object: &dyn Object| selectors::matches(&hook.namespaces, object.labels());
        return Ok(match (attributes.object.as_deref(), attributes.old) {
            (Some(object), _) => of(object),
            (None, Some(old)) => of(old),
            (None, None) => false,
        });
    }
    if ctx.namespace.is_empty() {
        return Ok(true);
    }
    let namespace = ctx.server.cached::<Namespace>("", ctx.namespace);
    let labels = namespace
        .as_ref()
        .and_then(|namespace| namespace.metadata.labels.as_ref());
    Ok(selectors::matches(&hook.namespaces, labels.unwrap_or(&none)))
}

/// Whether the object is chosen by its labels, before or after the change.
fn has_labels(hook: &Hook, attributes: &Attributes<'_>) -> bool {
    if selectors::is_empty(&hook.objects) {
        return true;
    }
    let of_body = |body: &Value| {
        let labels = body.pointer("/metadata/labels").cloned().unwrap_or_default();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
        selectors::matches(&hook.objects, &labels)
    };
    let of = |object: &dyn Object| selectors::matches(&hook.objects, object.labels());
    attributes.body.is_some_and(of_body)
        || attributes.object.as_deref().is_some_and(of)
        || attributes.old.is_some_and(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(resource: &'a str, subresource: &'a str) -> Request<'a> {
        Request {
            operation: "CREATE",
            group: "",
            version: "v1",
            resource,
            subresource,
            namespaced: true,
            name: "x",
        }
    }

    #[test]
    fn rules_cover_resources_and_subresources() {
        for (pattern, resource, subresource, covered) in [
            ("pods", "pods", "", true),
            ("pods", "pods", "status", false),
            ("pods/status", "pods", "status", true),
            ("pods/*", "pods", "status", true),
            ("pods/*", "pods", "", true),
            ("*/scale", "deployments", "scale", true),
            ("*", "pods", "", true),
            ("*", "pods", "status", false),
            ("*/*", "pods", "status", true),
            ("*/*", "pods", "", true),
        ] {
            assert_eq!(
                request(resource, subresource).is_named(pattern),
                covered,
                "{pattern} {resource}/{subresource}"
            );
        }
        let list = |text: &str| vec![text.to_owned()];
        let (create, any, v1, pods) = (list("CREATE"), list("*"), list("v1"), list("pods"));
        let rule = |scope| Rule {
            operations: &create,
            groups: &any,
            versions: &v1,
            resources: &pods,
            names: &[],
            scope,
        };
        assert!(request("pods", "").falls_under(rule("*")));
        assert!(request("pods", "").falls_under(rule("Namespaced")));
        assert!(!request("pods", "").falls_under(rule("Cluster")));
    }
}
