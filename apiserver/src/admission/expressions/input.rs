//! What the names of expressions stand for in a request.

use std::sync::{Arc, LazyLock};

use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value as Json, json};

use crate::admission::Attributes;
use crate::admission::matching::Shown;
use crate::admission::request;
use crate::cel::library::authz::{Asker, Check, Resource};
use crate::cel::value::Value;
use crate::custom::schema::Schema;

/// One request as expressions see it.
pub struct Input {
    /// `request`
    request: Json,
    /// `namespaceObject`
    namespace: Json,
    /// Who may do what.
    pub asker: Arc<Asker>,
    authorizer: Arc<Check>,
}

impl Input {
    /// The request, in the version it is shown in.
    pub fn new(attributes: &Attributes<'_>, shown: &Shown) -> Self {
        let ctx = attributes.ctx;
        let asker = Arc::<Asker>::default();
        let resource = Resource {
            group: ctx.info.group.to_owned(),
            resource: ctx.info.plural.to_owned(),
            subresource: ctx.subresource.to_owned(),
            namespace: ctx.namespace.to_owned(),
            name: request::name(attributes).to_owned(),
            ..Resource::default()
        };
        Self {
            request: request::describe(attributes, &shown.served),
            namespace: namespace(attributes),
            authorizer: Arc::new(Check::new(asker.clone(), resource)),
            asker,
        }
    }

    /// The names for an object, and parameters where expressions know such a thing.
    pub fn names<'v>(
        &'v self,
        (object, old): (&'v Json, &'v Json),
        params: Option<&'v Json>,
    ) -> Vec<(&'static str, Value<'v>)> {
        let mut names = vec![
            ("object", Value::json(object, None)),
            ("oldObject", Value::json(old, None)),
            ("request", Value::json(&self.request, None)),
            ("namespaceObject", Value::json(&self.namespace, Some(&NAMESPACE))),
            ("authorizer", Value::Check(self.authorizer.clone())),
        ];
        if let Some(params) = params {
            names.push(("params", Value::json(params, None)));
        }
        names
    }
}

/// The namespace the request is about something in; null for what is in none, and for namespaces themselves.
fn namespace(attributes: &Attributes<'_>) -> Json {
    let ctx = attributes.ctx;
    let itself = ctx.info.group.is_empty() && ctx.info.plural == "namespaces";
    if ctx.namespace.is_empty() || itself {
        return Json::Null;
    }
    let cache = ctx.server.catalog.of::<Namespace>();
    cache
        .and_then(|cache| cache.get(ctx.namespace))
        .and_then(|entry| entry.read())
        .map_or(Json::Null, |mut namespace: Json| {
            if let Some(metadata) = namespace.get_mut("metadata").and_then(Json::as_object_mut) {
                metadata.remove("managedFields");
                if let Some(uid) = metadata.remove("uid") {
                    metadata.insert("UID".to_owned(), uid);
                }
            }
            namespace
        })
}

/// Which texts of a namespace are moments.
static NAMESPACE: LazyLock<Schema> = LazyLock::new(|| {
    let moment = json!({"type": "string", "format": "date-time"});
    Schema::compile(&json!({"type": "object", "properties": {
        "metadata": {"type": "object", "properties": {"creationTimestamp": moment, "deletionTimestamp": moment}},
        "status": {"type": "object", "properties": {"conditions": {"type": "array", "items": {
            "type": "object", "properties": {"lastTransitionTime": moment},
        }}}},
    }}))
});
