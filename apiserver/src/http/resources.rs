//! Requests to resources: from a verb, a path and a body to a handler, and from its outcome to an answer.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::names::GroupResource;
use keelson_api::protobuf;
use keelson_api::status::{ApiError, ApiResult, reason};
use serde_json::Value;

use super::answer::{self, Body, answer, encode, full, maybe_gzip, with_warnings};
use super::arriving::Arriving;
use super::negotiate::{self, Encoding, Form, Shape};
use super::{Asked, list, read_body, watch, websocket};
use crate::audit;
use crate::connect;
use crate::flow_control::Place;
use crate::handlers::options::{ListOptions, Query, WriteOptions};
use crate::handlers::patch::PatchType;
use crate::handlers::{self, Call, Outcome, body};
use crate::registry::catalog::Served;
use crate::registry::info::{Lifetime, SubresourceForm, Verb};
use crate::request_info::ResourceRequest;
use crate::state::Server;
use crate::table::{self, IncludeObject};

/// What a caller is told of a method that a path has not.
const METHOD_NOT_ALLOWED: &str = "the server does not allow this method on the requested resource";

/// How the caller wants the answer.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// Encoding and shape.
    pub form: Form,
    /// Part of the object that comes with a table's row.
    pub include: IncludeObject,
    /// Indented.
    pub pretty: bool,
    /// Whether gzip may be used.
    pub gzip: bool,
}

/// Serves a request to a resource.
pub async fn serve(
    server: &Arc<Server>,
    wanted: &ResourceRequest,
    verb: Option<Verb>,
    asked: Asked,
) -> ApiResult<Response<Body>> {
    let served = server
        .find(&wanted.group, &wanted.version, &wanted.resource)
        .await?;
    let info = served.info();
    let unsupported = || match served.custom_version() {
        Some(_) => {
            let resource = GroupResource::new(served.group(), info.plural);
            let method = asked.request.method().as_str();
            let action = verb.map_or_else(|| method.to_ascii_lowercase(), |verb| verb.as_str().to_owned());
            ApiError::method_not_supported(&resource, &action)
        }
        // Upstream's router knows the path, but no such method on it.
        None => ApiError::new(405, reason::METHOD_NOT_ALLOWED, METHOD_NOT_ALLOWED),
    };
    // What runs behind a proxy may know methods that the API does not.
    if verb.is_none() && wanted.subresource != "proxy" {
        return Err(unsupported());
    }
    if !info.namespaced() && !wanted.namespace.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if info.namespaced() && wanted.namespace.is_empty() && !wanted.name.is_empty() {
        return Err(ApiError::no_such_resource());
    }
    if info.namespaced()
        && wanted.namespace.is_empty()
        && matches!(verb, Some(Verb::Create | Verb::DeleteCollection))
    {
        return Err(unsupported());
    }
    let subresource = info.subresource(&wanted.subresource);
    if subresource.is_some_and(|subresource| subresource.form == SubresourceForm::Connect) {
        let connected: BoxFuture<'_, _> = Box::pin(connect(server, &served, wanted, asked));
        return connected.await;
    }
    let Some(verb) = verb else {
        return Err(unsupported());
    };
    if !wanted.subresource.is_empty() {
        let subresource = subresource.ok_or_else(ApiError::no_such_resource)?;
        if !wanted.rest.is_empty() {
            return Err(ApiError::no_such_resource());
        }
        if !subresource.verbs.contains(&verb) {
            return Err(unsupported());
        }
    } else if !info.allows(verb) || (verb == Verb::Create && !wanted.name.is_empty()) {
        return Err(unsupported());
    }
    // One object is written over at a time, whatever the body says. Custom resources come without such a route.
    if wanted.name.is_empty() && matches!(verb, Verb::Update | Verb::Patch) {
        return Err(match served.custom_version() {
            Some(_) => ApiError::bad_request("name must be provided"),
            None => unsupported(),
        });
    }

    // Answers to questions are no collections of objects: there are no tables of them.
    let form = negotiate::form(asked.request.headers(), info.lifetime != Lifetime::Answered)?;
    let query = Query(&asked.query);
    let wish = Wish {
        form,
        include: IncludeObject::parse(query.text("includeObject"))?,
        pretty: asked.pretty,
        gzip: negotiate::accepts_gzip(asked.request.headers()),
    };
    let Asked {
        user,
        query,
        request,
        place,
        ..
    } = asked;
    let call = Call::new(
        server,
        &served,
        &user,
        &wanted.namespace,
        &wanted.name,
        &wanted.subresource,
    );
    let handler = info
        .subresource(&wanted.subresource)
        .is_some_and(|s| s.form == SubresourceForm::Handler);
    let response = if handler {
        Box::pin(own_kind(call, verb, request, &query, wish)) as BoxFuture<'_, _>
    } else {
        Box::pin(object(call, verb, (request, place), &query, wish)) as BoxFuture<'_, _>
    }
    .await?;
    Ok(response)
}

/// Requests to collections, objects, and subresources that are the object itself.
///
/// Handlers are boxed: what the largest of them needs would else be set aside for a read.
async fn object(
    call: Call<'_>,
    verb: Verb,
    (request, place): (Request<Arriving>, Place),
    query: &[(String, String)],
    wish: Wish,
) -> ApiResult<Response<Body>> {
    let q = Query(query);
    let (mut parts, incoming) = request.into_parts();
    let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
    match verb {
        Verb::Get => {
            let outcome = handlers::get::get(&call, q.text("resourceVersion")).await?;
            respond(&call, outcome, wish)
        }
        Verb::List => {
            let options = ListOptions::parse(q)?;
            let answer = boxed(handlers::list::list(&call, &options)).await?;
            Ok(answer::sending(list::respond(&call, answer, wish)?, place))
        }
        Verb::Watch => {
            let options = ListOptions::parse(q)?;
            let begun = boxed(handlers::watch::watch(&call, &options)).await?;
            if !websocket::asked_for(&parts.headers) {
                return Ok(watch::respond(&call, begun, wish, place));
            }
            // Messages are JSON whatever else may have been asked for.
            let form = Form {
                encoding: Encoding::Json,
                ..wish.form
            };
            let telling = watch::telling(&call, begun, Wish { form, ..wish }, place);
            websocket::respond(&parts.headers, upgrade, telling)
        }
        Verb::Create => {
            let call = call.with_options(q.write_options("CreateOptions", agent(&parts.headers))?);
            let json = json_body(&parts.headers, incoming).await?;
            let outcome = boxed(handlers::create::create(&call, &json)).await?;
            respond(&call, outcome, wish)
        }
        Verb::Update => {
            let call = call.with_options(q.write_options("UpdateOptions", agent(&parts.headers))?);
            let json = json_body(&parts.headers, incoming).await?;
            let outcome = boxed(handlers::update::update(&call, &json)).await?;
            respond(&call, outcome, wish)
        }
        Verb::Patch => {
            let kind = PatchType::parse(negotiate::media_type(&parts.headers))?;
            let call = call.with_options(q.patch_options(kind, agent(&parts.headers))?);
            let patch = read_body(incoming).await?;
            audit::request_body(&patch);
            let outcome = boxed(handlers::patch::patch(&call, kind, &patch)).await?;
            respond(&call, outcome, wish)
        }
        Verb::Delete => {
            let body = json_body(&parts.headers, incoming).await?;
            let options = q.delete_options(&body)?;
            let call = call.with_options(deleting(&options));
            let outcome = boxed(handlers::delete::delete(&call, options)).await?;
            respond(&call, outcome, wish)
        }
        Verb::DeleteCollection => {
            let body = json_body(&parts.headers, incoming).await?;
            let options = q.delete_options(&body)?;
            let call = call.with_options(deleting(&options));
            let selection = ListOptions::parse(q)?;
            let answer = boxed(handlers::delete::delete_collection(&call, &selection, options)).await?;
            list::respond(&call, answer, wish)
        }
    }
}

fn boxed<'a, T>(handler: impl Future<Output = T> + Send + 'a) -> BoxFuture<'a, T> {
    Box::pin(handler)
}

/// The options of a write that a deletion is.
fn deleting(options: &DeleteOptions) -> WriteOptions {
    WriteOptions {
        dry_run: options.dry_run.as_ref().is_some_and(|d| !d.is_empty()),
        ..WriteOptions::default()
    }
}

/// Requests to subresources with a kind of their own.
async fn own_kind(
    call: Call<'_>,
    verb: Verb,
    request: Request<Arriving>,
    query: &[(String, String)],
    wish: Wish,
) -> ApiResult<Response<Body>> {
    let (parts, incoming) = request.into_parts();
    let q = Query(query);
    let outcome = match verb {
        Verb::Get => handlers::subresource::serve(&call, verb, &[], query).await?,
        Verb::Patch => {
            let kind = PatchType::parse(negotiate::media_type(&parts.headers))?;
            let call = call.with_options(q.patch_options(kind, agent(&parts.headers))?);
            let patch = read_body(incoming).await?;
            audit::request_body(&patch);
            let outcome = handlers::subresource::patch(&call, kind, &patch, query).await?;
            return respond(&call, outcome, wish);
        }
        verb => {
            let call = call.with_options(q.write_options("CreateOptions", agent(&parts.headers))?);
            let json = json_body(&parts.headers, incoming).await?;
            let outcome = handlers::subresource::serve(&call, verb, &json, query).await?;
            return respond(&call, outcome, wish);
        }
    };
    respond(&call, outcome, wish)
}

/// The program that makes the request.
fn agent(headers: &http::HeaderMap) -> &str {
    let agent = headers.get(http::header::USER_AGENT);
    agent.and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The body as JSON, whatever it came as.
async fn json_body(headers: &http::HeaderMap, body: Arriving) -> ApiResult<Bytes> {
    if hyper::body::Body::is_end_stream(&body) {
        return Ok(Bytes::new());
    }
    let encoding = negotiate::body_encoding(headers)?;
    let bytes = read_body(body).await?;
    let json = match encoding {
        Encoding::Yaml if !bytes.is_empty() => body::yaml_to_json(&bytes)?,
        Encoding::Protobuf if !bytes.is_empty() => protobuf::decode(&bytes).map(Bytes::from)?,
        _ => bytes,
    };
    audit::request_body(&json);
    Ok(json)
}

/// An object in the version asked for.
pub fn present(served: &Served, json: Bytes) -> Bytes {
    if served.shows(&json) {
        return json;
    }
    match serde_json::from_slice::<Value>(&json) {
        Ok(mut value) => {
            served.from_storage(&mut value);
            Bytes::from(value.to_string())
        }
        Err(_) => json,
    }
}

fn respond(call: &Call<'_>, outcome: Outcome, wish: Wish) -> ApiResult<Response<Body>> {
    let json = match (wish.form.shape, outcome.own_kind) {
        (Shape::Table, true) => {
            let whole = |json| present(call.served, json);
            table::of_object(call.strategy(), &outcome.json, wish.include, true, &whole)?
        }
        (Shape::Metadata, true) => table::partial(&outcome.json)?,
        (_, true) => present(call.served, outcome.json),
        (_, false) => outcome.json,
    };
    audit::response_body(&json);
    let body = encode(json, wish.form.encoding, wish.pretty)?;
    let mut response = answer(
        outcome.code,
        wish.form.encoding.content_type(),
        full(Bytes::new()),
    );
    let body = maybe_gzip(&mut response, body, wish.gzip);
    *response.body_mut() = body;
    Ok(with_warnings(response, &call.warnings()))
}

async fn connect(
    server: &Arc<Server>,
    served: &Served,
    wanted: &ResourceRequest,
    asked: Asked,
) -> ApiResult<Response<answer::Body>> {
    connect::admission::admit(server, served, wanted, &asked.user, &asked.query).await?;
    let target = connect::Target {
        resource: &wanted.resource,
        namespace: &wanted.namespace,
        name: &wanted.name,
        subresource: &wanted.subresource,
        rest: &wanted.rest,
    };
    connect::serve(&server.kubelets, server.as_ref(), target, asked.request).await
}
