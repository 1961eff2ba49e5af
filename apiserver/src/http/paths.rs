//! Everything that is no resource: health, version, metrics, discovery, the API's documents.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, Method, Response};
use keelson_api::status::ApiResult;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Body, answer, encode, full, maybe_gzip, text};
use super::negotiate::{self, Encoding};
use crate::authentication::service_account::ServiceAccountTokens;
use crate::discovery::{AggregatedVersion, Document};
use crate::handlers::options::Query;
use crate::state::Server;
use crate::{health, version};

/// Media types of the OpenAPI v2 document in protobuf: today's spelling, and the one older clients ask for.
const GNOSTIC: &[&str] = &[
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// Serves a path that is no resource.
pub async fn serve(server: &Arc<Server>, asked: &Asked) -> ApiResult<Response<Body>> {
    let path = asked.request.uri().path();
    let trimmed = path.trim_end_matches('/');
    let readable = matches!(*asked.request.method(), Method::GET | Method::HEAD);
    if !readable {
        return Ok(not_found());
    }
    let headers = asked.request.headers();
    let first = trimmed
        .trim_start_matches('/')
        .split('/')
        .next()
        .unwrap_or_default();
    match first {
        "" => Ok(json_answer(headers, &root(server))?),
        "healthz" | "livez" | "readyz" => Ok(health::answer(server, trimmed, Query(&asked.query)).await),
        "version" if trimmed == "/version" => Ok(json_answer(headers, &version::document())?),
        "metrics" if trimmed == "/metrics" => Ok(answer(
            200,
            keelson_daemon::metrics::CONTENT_TYPE,
            full(server.metrics.encode()),
        )),
        "api" | "apis" => discovery(server, trimmed, headers, asked.pretty),
        "openapi" => Ok(openapi(server, trimmed, headers)),
        ".well-known" if trimmed == "/.well-known/openid-configuration" => {
            Ok(of_tokens(server, "application/json", |tokens| {
                openid_configuration(server, tokens)
            }))
        }
        "openid" if trimmed == "/openid/v1/jwks" => Ok(of_tokens(
            server,
            "application/jwk-set+json",
            ServiceAccountTokens::jwks,
        )),
        _ => Ok(not_found()),
    }
}

fn not_found() -> Response<Body> {
    text(404, "404 page not found\n")
}

fn root(server: &Server) -> Value {
    let mut paths: Vec<String> = vec![
        "/.well-known/openid-configuration".into(),
        "/api".into(),
        "/api/v1".into(),
        "/apis".into(),
    ];
    for (group, versions) in server.discovery().groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    for path in [
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ] {
        paths.push(path.into());
    }
    json!({"paths": paths})
}

fn json_answer(headers: &HeaderMap, value: &Value) -> ApiResult<Response<Body>> {
    let encoding = negotiate::form(headers, false).map_or(Encoding::Json, |form| form.encoding);
    let body = encode(
        Bytes::from(value.to_string()),
        encoding,
        encoding == Encoding::Json,
    )?;
    Ok(answer(200, encoding.content_type(), full(body)))
}

/// A document that changes rarely: callers that have it already are told so, without making it.
fn document(
    headers: &HeaderMap,
    content_type: &'static str,
    etag: &str,
    body: impl FnOnce() -> Bytes,
) -> Response<Body> {
    let quoted = format!("\"{etag}\"");
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().trim_start_matches("W/") == quoted);
    let mut response = answer(if known { 304 } else { 200 }, content_type, full(Bytes::new()));
    if let Ok(value) = HeaderValue::from_str(&quoted) {
        response.headers_mut().insert(ETAG, value);
    }
    if !known {
        let body = maybe_gzip(&mut response, body(), negotiate::accepts_gzip(headers));
        *response.body_mut() = body;
    }
    response
}

fn discovery(server: &Server, path: &str, headers: &HeaderMap, pretty: bool) -> ApiResult<Response<Body>> {
    let documents = server.discovery();
    if path == "/api" || path == "/apis" {
        for entry in negotiate::accepted(headers) {
            if entry.parameter("as") == "APIGroupDiscoveryList"
                && entry.parameter("g") == "apidiscovery.k8s.io"
            {
                let version = match entry.parameter("v") {
                    "v2" => AggregatedVersion::V2,
                    "v2beta1" => AggregatedVersion::V2Beta1,
                    _ => continue,
                };
                if !entry.covers("application/json") {
                    continue;
                }
                let Document { json, etag } = documents.aggregated(path == "/api", version);
                let body = encode(json.clone(), Encoding::Json, pretty)?;
                let mut response = document(headers, version.content_type(), etag, || body);
                response
                    .headers_mut()
                    .insert(http::header::VARY, HeaderValue::from_static("Accept"));
                return Ok(response);
            }
        }
    }
    let Some(Document { json, etag }) = documents.plain(path) else {
        return Ok(not_found());
    };
    let encoding = negotiate::form(headers, false)?.encoding;
    let body = encode(json.clone(), encoding, pretty)?;
    Ok(document(headers, encoding.content_type(), etag, || body))
}

fn openapi(server: &Server, path: &str, headers: &HeaderMap) -> Response<Body> {
    let (documents, catalog) = (&server.openapi, &server.catalog);
    let others = server.aggregator.table();
    match path {
        "/openapi/v2" => {
            let accepted = negotiate::accepted(headers);
            let protobuf = accepted.iter().any(|a| GNOSTIC.contains(&a.media_type));
            let found = documents.v2(catalog, &others, protobuf);
            let content_type = if protobuf { GNOSTIC[0] } else { "application/json" };
            let etag = found.etag.clone();
            document(headers, content_type, &etag, || found.bytes())
        }
        "/openapi/v3" => {
            let found = documents.v3_index(catalog, &others);
            document(headers, "application/json", &found.etag, || found.json.clone())
        }
        path => match path
            .strip_prefix("/openapi/v3/")
            .and_then(|path| documents.v3(catalog, path))
        {
            None => not_found(),
            Some(found) => {
                let etag = found.etag.clone();
                document(headers, "application/json", &etag, || found.bytes())
            }
        },
    }
}

/// What those who check tokens ask for: the same text for everybody, which they may keep for a while.
fn of_tokens(
    server: &Server,
    content_type: &'static str,
    document: impl FnOnce(&ServiceAccountTokens) -> Value,
) -> Response<Body> {
    let Some(tokens) = &server.authenticator.service_accounts else {
        return not_found();
    };
    let mut response = answer(200, content_type, full(document(tokens).to_string()));
    let for_an_hour = HeaderValue::from_static("public, max-age=3600");
    response.headers_mut().insert(CACHE_CONTROL, for_an_hour);
    response
}

fn openid_configuration(server: &Server, tokens: &ServiceAccountTokens) -> Value {
    let address = server.config.advertised();
    let host = if address.is_ipv6() {
        format!("[{address}]")
    } else {
        address.to_string()
    };
    json!({
        "issuer": server.config.issuer(),
        "jwks_uri": format!("https://{host}:{}/openid/v1/jwks", server.config.secure_port),
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": tokens.algorithms(),
    })
}
