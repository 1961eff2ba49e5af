//! The OpenAPI v2 document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions::{self, Notation};
use super::operations::{self, Body, Content, META, Operation, path_items};
use super::parameters::{Parameter, SHARED};
use super::{Resource, custom};

const BODY_OPTIONS: &str = "body-2Y1dVQaQ";
const BODY_PATCH: &str = "body-78PwaGsr";

pub(super) fn document(resources: &[Resource]) -> Value {
    let mut paths = operations::of_resources(resources.iter());
    let versions: BTreeSet<(String, String)> = resources
        .iter()
        .map(|one| (one.group.to_string(), one.version.to_string()))
        .collect();
    let groups: BTreeSet<&str> = versions.iter().map(|(group, _)| group.as_str()).collect();
    let mut add = |(path, operation): (String, Operation<'static>)| {
        paths.entry(path).or_default().push(operation);
    };
    versions
        .iter()
        .for_each(|(group, version)| add(operations::of_version(group, version)));
    groups
        .into_iter()
        .for_each(|group| add(operations::of_group(group)));
    add(operations::of_groups());
    add(operations::of_server_version());
    let all: Vec<&Resource> = resources.iter().collect();
    let types = definitions::reachable(&paths, &custom::referred(&all));
    let mut schemas = definitions::schemas(&types, &versions, Notation::V2);
    custom::add(&mut schemas, &all, Notation::V2);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": path_items(&paths, operation_of, Parameter::v2),
        "definitions": schemas,
        "parameters": parameters(),
        "securityDefinitions": {
            "BearerToken": {
                "description": "Bearer Token authentication",
                "in": "header",
                "name": "authorization",
                "type": "apiKey",
            },
        },
        "security": [{"BearerToken": []}],
    })
}

fn parameters() -> Map<String, Value> {
    let mut all: Map<String, Value> = SHARED
        .iter()
        .map(|one| (one.id.to_owned(), Parameter::Shared(one).v2_full()))
        .collect();
    let body =
        |name: &str| json!({"in": "body", "name": "body", "schema": reference(&format!("{META}{name}"))});
    all.insert(BODY_OPTIONS.to_owned(), body("DeleteOptions"));
    let mut patch = body("Patch");
    patch["required"] = true.into();
    all.insert(BODY_PATCH.to_owned(), patch);
    all
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/definitions/{name}")})
}

fn operation_of(operation: &Operation<'_>, own: &[Parameter<'_>]) -> Value {
    let mut out = json!({
        "consumes": operation.consumes,
        "description": operation.description,
        "operationId": operation.id,
        "produces": operation.produces,
        "schemes": ["https"],
        "tags": [operation.tag],
    });
    let mut parameters: Vec<Value> = Vec::new();
    match &operation.body {
        Some(Body::Object(name)) => {
            parameters
                .push(json!({"in": "body", "name": "body", "required": true, "schema": reference(name)}));
        }
        Some(Body::Options) => parameters.push(json!({"$ref": format!("#/parameters/{BODY_OPTIONS}")})),
        Some(Body::Patch) => parameters.push(json!({"$ref": format!("#/parameters/{BODY_PATCH}")})),
        None => {}
    }
    parameters.extend(own.iter().map(Parameter::v2));
    // Sorted by name, "body" too: allowWatchBookmarks would come before it, but goes with no body.
    if !parameters.is_empty() {
        out["parameters"] = parameters.into();
    }
    let schema = match &operation.answer {
        Content::Type(name) => reference(name),
        Content::Text => json!({"type": "string"}),
    };
    let responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|&code| {
            let text = reason_phrase(code);
            let response = if code == 401 {
                json!({"description": text})
            } else {
                json!({"description": text, "schema": schema})
            };
            (code.to_string(), response)
        })
        .collect();
    out["responses"] = responses.into();
    add_extensions(operation, &mut out);
    out
}

pub(super) fn add_extensions(operation: &Operation<'_>, out: &mut Value) {
    if let Some(action) = operation.action {
        out["x-kubernetes-action"] = action.into();
    }
    if let Some(kind) = &operation.kind {
        out["x-kubernetes-group-version-kind"] =
            json!({"group": kind.group, "kind": kind.kind, "version": kind.version});
    }
}

pub(super) fn reason_phrase(code: u16) -> &'static str {
    match code {
        201 => "Created",
        202 => "Accepted",
        401 => "Unauthorized",
        _ => "OK",
    }
}
