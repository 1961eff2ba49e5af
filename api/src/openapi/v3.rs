//! The OpenAPI v3 documents, one per group and version.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::definitions::{self, Notation};
use super::operations::{self, Body, Content, META, Operation, Paths, path_items};
use super::parameters::Parameter;
use super::v2::{add_extensions, reason_phrase};
use super::{Resource, custom};

pub(super) fn document(group: &str, version: &str, resources: &[Resource]) -> Value {
    let mut paths = operations::of_resources(
        resources
            .iter()
            .filter(|one| one.group == group && one.version == version),
    );
    let (path, operation) = operations::of_version(group, version);
    paths.entry(path).or_default().push(operation);
    let versions = resources
        .iter()
        .map(|one| (one.group.to_string(), one.version.to_string()))
        .collect();
    let own: Vec<&Resource> = resources
        .iter()
        .filter(|one| one.group == group && one.version == version)
        .collect();
    of_paths(&paths, &versions, &own)
}

pub(super) fn index_document(path: &str) -> Value {
    let (path, operation) = match path {
        "version" => operations::of_server_version(),
        "api" => operations::of_group(""),
        "apis" => operations::of_groups(),
        path => operations::of_group(path.strip_prefix("apis/").unwrap_or(path)),
    };
    of_paths(&Paths::from([(path, vec![operation])]), &BTreeSet::new(), &[])
}

fn of_paths(paths: &Paths<'_>, versions: &BTreeSet<(String, String)>, resources: &[&Resource]) -> Value {
    let types = definitions::reachable(paths, &custom::referred(resources));
    let mut schemas = definitions::schemas(&types, versions, Notation::V3);
    custom::add(&mut schemas, resources, Notation::V3);
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": path_items(paths, operation_of, Parameter::v3),
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "BearerToken": {
                    "description": "Bearer Token authentication",
                    "in": "header",
                    "name": "authorization",
                    "type": "apiKey",
                },
            },
        },
    })
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn operation_of(operation: &Operation<'_>, own: &[Parameter<'_>]) -> Value {
    let mut out = json!({
        "description": operation.description,
        "operationId": operation.id,
        "tags": [operation.tag],
    });
    if !own.is_empty() {
        out["parameters"] = own.iter().map(Parameter::v3).collect();
    }
    let content = |media: &[&str], schema: &Value| -> Value {
        media
            .iter()
            .map(|one| ((*one).to_owned(), json!({"schema": schema})))
            .collect::<Map<_, _>>()
            .into()
    };
    let body = match &operation.body {
        Some(Body::Object(name)) => Some((reference(name), true)),
        Some(Body::Options) => Some((reference(&format!("{META}DeleteOptions")), false)),
        Some(Body::Patch) => Some((reference(&format!("{META}Patch")), true)),
        None => None,
    };
    if let Some((schema, required)) = body {
        let mut body = json!({"content": content(operation.consumes, &schema)});
        if required {
            body["required"] = true.into();
        }
        out["requestBody"] = body;
    }
    let schema = match &operation.answer {
        Content::Type(name) => reference(name),
        Content::Text => json!({"type": "string"}),
    };
    let responses: Map<String, Value> = operation
        .codes
        .iter()
        .map(|&code| {
            let mut response = json!({"description": reason_phrase(code)});
            if code != 401 {
                response["content"] = content(operation.produces, &schema);
            }
            (code.to_string(), response)
        })
        .collect();
    out["responses"] = responses.into();
    add_extensions(operation, &mut out);
    out
}
