//! Which webhooks and policies a request concerns.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use serde_json::Value;

use super::Attributes;
use super::request::operation;
use crate::handlers::managers;
use crate::registry::admissionregistration::matching::Rule;
use crate::registry::catalog::Served;
use crate::registry::common::selectors;

/// What somebody is asked about.
pub struct Criteria<'a, R> {
    /// Requests under one of these rules,
    pub rules: &'a [R],
    /// but under none of these,
    pub excluded: &'a [R],
    /// in these namespaces,
    pub namespaces: &'a LabelSelector,
    /// about objects with these labels.
    pub objects: &'a LabelSelector,
    /// Whether a rule for one version holds for the others of the same resource.
    pub equivalent: bool,
}

/// The objects of a request in the version that somebody knows.
pub struct Shown {
    /// The version.
    pub served: Served,
    /// The new object, or the body of a subresource; null for deletions.
    pub object: Value,
    /// The object as stored; null for creations.
    pub old: Value,
}

impl Shown {
    /// The objects in that version.
    pub async fn new(attributes: &Attributes<'_>, served: Served) -> ApiResult<Self> {
        let shown = |object: Option<&dyn Object>| -> ApiResult<Value> {
            let Some(object) = object else {
                return Ok(Value::Null);
            };
            let mut value = serde_json::from_slice(&object.encode()?).map_err(ApiError::internal)?;
            // Whoever converts has to see the version it converts from.
            if served.converter().is_none() {
                served.from_storage(&mut value);
            }
            Ok(value)
        };
        let object = match attributes.body {
            Some(body) => body.clone(),
            None => shown(attributes.object.as_deref())?,
        };
        let old = shown(attributes.old)?;
        let mut asked = Self { served, object, old };
        if attributes.body.is_none() {
            let version = asked.served.api_version();
            asked.object = converted(attributes, &asked.served, asked.object, &version).await?;
            asked.old = converted(attributes, &asked.served, asked.old, &version).await?;
        }
        Ok(asked)
    }
}

impl Shown {
    /// Makes the request's object what somebody has made of the one that was shown.
    pub async fn put_back(&self, attributes: &mut Attributes<'_>, mut value: Value) -> ApiResult<()> {
        if let Some(version) = self.served.custom_version() {
            // What the schema does not know goes without a word: nobody who could be told has written it.
            version.normalize(&mut value);
        }
        self.served.to_storage(&mut value)?;
        let own = attributes.ctx.info.api_version();
        let value = converted(attributes, &self.served, value, &own).await?;
        let Some(object) = attributes.object.as_deref_mut() else {
            return Ok(());
        };
        let managed = object.meta().managed_fields.clone();
        object.become_decoded(value.to_string().as_bytes())?;
        managers::restore(attributes.ctx.warnings, object.meta_mut(), managed);
        self.served.strategy().default(object)
    }
}

/// An object in another version of a custom resource whose versions a webhook converts.
async fn converted(
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

impl<R> Criteria<'_, R>
where
    for<'r> Rule<'r>: From<&'r R>,
{
    /// The version to show the request in, `None` if it is not chosen. Without rules every request is.
    pub fn version(&self, attributes: &Attributes<'_>) -> Option<Served> {
        let served = if self.rules.is_empty() {
            as_asked(attributes)?
        } else {
            self.under(self.rules, attributes)?
        };
        let chosen = in_namespaces(self.namespaces, attributes)
            && has_labels(self.objects, attributes)
            && (self.excluded.is_empty() || self.under(self.excluded, attributes).is_none());
        chosen.then_some(served)
    }

    /// The version of the resource that rules name: the one asked for, or an equivalent one.
    fn under(&self, rules: &[R], attributes: &Attributes<'_>) -> Option<Served> {
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
            rules.iter().any(|rule| request.falls_under(rule.into()))
        };
        if matches(info.group, info.version) {
            return as_asked(attributes);
        }
        if !self.equivalent {
            return None;
        }
        let catalog = &ctx.server.catalog;
        let alias = info
            .aliases
            .iter()
            .find(|alias| matches(alias.group, alias.version));
        match alias {
            Some(alias) => catalog
                .find(alias.group, alias.version, info.plural)
                .map(|served| Served::clone(&served)),
            None => catalog
                .custom()
                .versions(info.group, info.plural)
                .into_iter()
                .find(|served| matches(served.group(), served.version())),
        }
    }
}

/// The resource as the request has it.
fn as_asked(attributes: &Attributes<'_>) -> Option<Served> {
    let info = attributes.ctx.info;
    let found = attributes
        .ctx
        .server
        .catalog
        .find(info.group, info.version, info.plural)?;
    Some(Served::clone(&found))
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
fn in_namespaces(selector: &LabelSelector, attributes: &Attributes<'_>) -> bool {
    if selectors::is_empty(selector) {
        return true;
    }
    let ctx = attributes.ctx;
    let none = BTreeMap::new();
    if ctx.info.group.is_empty() && ctx.info.plural == "namespaces" {
        let of = |object: &dyn Object| selectors::matches(selector, object.labels());
        return match (attributes.object.as_deref(), attributes.old) {
            (Some(object), _) => of(object),
            (None, Some(old)) => of(old),
            (None, None) => false,
        };
    }
    if ctx.namespace.is_empty() {
        return true;
    }
    let namespace = ctx.server.cached::<Namespace>("", ctx.namespace);
    let labels = namespace
        .as_ref()
        .and_then(|namespace| namespace.metadata.labels.as_ref());
    selectors::matches(selector, labels.unwrap_or(&none))
}

/// Whether the object is chosen by its labels, before or after the change.
fn has_labels(selector: &LabelSelector, attributes: &Attributes<'_>) -> bool {
    if selectors::is_empty(selector) {
        return true;
    }
    let of_body = |body: &Value| {
        let labels = body.pointer("/metadata/labels").cloned().unwrap_or_default();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
        selectors::matches(selector, &labels)
    };
    let of = |object: &dyn Object| selectors::matches(selector, object.labels());
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
