//! A request described as `AdmissionReview` has it, for webhooks and for expressions.

use serde_json::{Value, json};

use super::{Attributes, Operation};
use crate::registry::catalog::Served;

/// What an operation is called.
pub fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

/// The name of what the request is about, empty while it is still to be made up.
pub fn name<'a>(attributes: &'a Attributes<'_>) -> &'a str {
    match attributes.ctx.name {
        "" => attributes.object.as_deref().map_or("", |object| object.name()),
        name => name,
    }
}

/// Everything but the objects, for somebody who is shown them as `served`.
pub fn describe(attributes: &Attributes<'_>, served: &Served) -> Value {
    let ctx = attributes.ctx;
    let info = ctx.info;
    let sub = info.subresource(ctx.subresource);
    let kind = |group: &str, version: &str| match sub {
        // A subresource that is the object itself is of its kind.
        Some(sub) if sub.kind != info.kind => {
            json!({"group": sub.group, "version": sub.version, "kind": sub.kind})
        }
        _ => json!({"group": group, "version": version, "kind": info.kind}),
    };
    let resource =
        |group: &str, version: &str| json!({"group": group, "version": version, "resource": info.plural});
    let options = match attributes.operation {
        Operation::Create => "CreateOptions",
        Operation::Update => "UpdateOptions",
        Operation::Delete => "DeleteOptions",
        Operation::Connect => "",
    };
    let mut user = json!({"username": ctx.user.name, "groups": ctx.user.groups});
    if !ctx.user.uid.is_empty() {
        user["uid"] = ctx.user.uid.as_str().into();
    }
    if !ctx.user.extra.is_empty() {
        user["extra"] = json!(ctx.user.extra);
    }
    let mut request = json!({
        "kind": kind(served.group(), served.version()),
        "resource": resource(served.group(), served.version()),
        "requestKind": kind(info.group, info.version),
        "requestResource": resource(info.group, info.version),
        "operation": operation(attributes.operation),
        "userInfo": user,
        "dryRun": ctx.dry_run,
    });
    if !options.is_empty() {
        let mut options = json!({"kind": options, "apiVersion": "meta.k8s.io/v1"});
        if ctx.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        request["options"] = options;
    }
    for (field, value) in [
        ("name", name(attributes)),
        ("namespace", ctx.namespace),
        ("subResource", ctx.subresource),
        ("requestSubResource", ctx.subresource),
    ] {
        if !value.is_empty() {
            request[field] = value.into();
        }
    }
    request
}
