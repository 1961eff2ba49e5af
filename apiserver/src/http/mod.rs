//! REST: one request down the staircase and its answer back up.
//!
//! | module | step |
//! | --- | --- |
//! | [`negotiate`] | which form the caller wants, which form the body has |
//! | [`resources`] | requests to resources: verbs, bodies, answers |
//! | [`list`], [`watch`] | answers that are streams |
//! | [`readable`] | YAML and indented JSON |
//! | [`websocket`] | watches as WebSocket messages |
//! | [`paths`] | everything that is no resource: health, version, discovery, documents |
//! | [`answer`], [`piece`], `date` | bodies and headers of answers |

pub mod answer;
pub mod arriving;
mod date;
pub mod list;
pub mod negotiate;
pub mod paths;
pub mod piece;
pub mod readable;
pub mod resources;
pub mod watch;
pub mod websocket;

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response};
use http_body_util::BodyExt as _;

use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::tls::Peer;

use self::arriving::Arriving;
use crate::aggregator;
use crate::audit;
use crate::audit::event::Origin;
use crate::authentication::{User, impersonation};
use crate::authorization::attributes::{Attributes, Resource, Selectors};
use crate::flow_control::{self, Flow, Place, Pool, cost};
use crate::grpc::GrpcDoor;
use crate::handlers::options::Query;
use crate::metrics::Subject;
use crate::registry::info::Verb;
use crate::request_info::{RequestInfo, ResourceRequest, query_pairs};
use crate::state::Server;
use answer::{Body, refusal};
use negotiate::Encoding;

/// Bodies may not be larger than this.
pub const BODY_LIMIT: usize = 3 << 20;
/// Larger ones are read up to here before they are refused.
const DRAIN_LIMIT: usize = 64 << 20;

/// Where a request came from.
#[derive(Clone)]
pub struct Connection {
    /// Who the client certificate says it is.
    pub peer: Arc<Peer>,
    /// Which proxy it is that vouches for its users, if it is one.
    pub proxy: Option<Arc<str>>,
    /// Address and port.
    pub address: SocketAddr,
}

/// A request, authenticated and taken apart.
pub struct Asked {
    /// Who asks.
    pub user: User,
    /// Query parameters.
    pub query: Vec<(String, String)>,
    /// Whether JSON is to have a line for each value.
    pub pretty: bool,
    /// The request itself, its body unread.
    pub request: Request<Arriving>,
    /// What it has while it is served.
    pub place: Place,
}

/// Answers a request, whatever happens.
pub async fn serve(
    server: Arc<Server>,
    grpc: GrpcDoor,
    connection: Connection,
    mut request: Request<Arriving>,
) -> Response<Body> {
    let id = (!is_grpc(&request))
        .then(|| HeaderValue::try_from(audit::id_of(request.headers())).ok())
        .flatten();
    if let Some(id) = &id {
        // The name the request has from here on, whether its caller gave it one or not.
        request.headers_mut().insert(audit::AUDIT_ID, id.clone());
    }
    // Boxed: the compiler proves here, once, that the future may move between threads.
    let staircase: BoxFuture<'static, Response<Body>> =
        Box::pin(staircase(server, grpc, connection, request));
    let served = AssertUnwindSafe(staircase).catch_unwind().await;
    let mut response = served.unwrap_or_else(|_| {
        // The panic itself has been reported by the panic hook.
        refusal(
            &ApiError::internal("the server panicked while serving this request; see its log"),
            Encoding::Json,
            false,
        )
    });
    if let Some(mut id) = id {
        // No other answer has the same: a connection that remembered them would look through all for each answer
        // (RFC 7541, section 6.2.3).
        id.set_sensitive(true);
        response.headers_mut().insert(audit::AUDIT_ID, id);
    }
    date::mark(response.headers_mut());
    response
}

async fn staircase(
    server: Arc<Server>,
    grpc: GrpcDoor,
    connection: Connection,
    request: Request<Arriving>,
) -> Response<Body> {
    let begun = Instant::now();
    let encoding = negotiate::form(request.headers(), false).map_or(Encoding::Json, |form| form.encoding);
    let origin = server.audit.enabled().then(|| {
        let id = audit::id_of(request.headers());
        Arc::new(Origin::new(
            id,
            request.uri(),
            request.headers(),
            connection.address,
        ))
    });
    let authenticated: BoxFuture<'_, ApiResult<User>> = Box::pin(server.authenticator.authenticate(
        &server,
        &connection,
        request.uri().path(),
        request.headers(),
    ));
    let authenticated = authenticated.await;
    if is_grpc(&request) {
        return match authenticated {
            Ok(user) => call(&server, grpc, user, origin, request).await,
            Err(error) => crate::grpc::refusal(&error),
        };
    }

    let info = RequestInfo::parse(request.uri().path());
    let query = query_pairs(request.uri().query());
    let pretty = negotiate::pretty(request.headers(), Query(&query));
    let watch = Query(&query).flag("watch");
    let selectors = (
        Query(&query).text("labelSelector").to_owned(),
        Query(&query).text("fieldSelector").to_owned(),
    );
    let path = request.uri().path().to_owned();
    let lower_method = request.method().as_str().to_ascii_lowercase();
    let (verb, attributes, subject) = match &info {
        RequestInfo::NonResource => {
            let subject = Subject {
                verb: static_method(request.method()),
                ..Subject::default()
            };
            (None, Attributes::path(&lower_method, &path), subject)
        }
        RequestInfo::Resource(wanted) => {
            let verb = wanted.verb(request.method(), watch);
            let attributes = Attributes::resource(
                match verb {
                    Some(verb) => verb.as_str(),
                    None => &lower_method,
                },
                Resource {
                    group: &wanted.group,
                    version: &wanted.version,
                    resource: &wanted.resource,
                    subresource: &wanted.subresource,
                    namespace: &wanted.namespace,
                    name: &wanted.name,
                },
            )
            .selecting(Selectors {
                label: &selectors.0,
                field: &selectors.1,
            });
            (verb, attributes, subject(wanted, verb, request.method()))
        }
    };
    let user = match authenticated {
        Ok(user) => user,
        Err(error) => {
            if let Some(origin) = &origin {
                let message = match authentication_tried(&connection, request.headers()) {
                    "" => "Authentication failed, no credentials provided".to_owned(),
                    tried => format!("Authentication failed, attempted: {tried}"),
                };
                server.audit.refused(origin, &attributes, &message);
            }
            return refusal(&error, encoding, pretty);
        }
    };
    let mut flow = Flow::default();
    let noted = match origin {
        Some(origin) => server.audit.begin(&origin, &user, &attributes),
        None => Ok(None),
    };
    let record = match noted {
        Ok(record) => record,
        Err(error) => return refusal(&error, encoding, pretty),
    };
    let acting = impersonation::act_as(&server.authorizer, request.headers(), &user).await;
    let response = match acting {
        Err(error) => Err(error),
        Ok(acting) => {
            if let (Some(record), Some(acting)) = (&record, &acting) {
                record.acting_as(acting);
            }
            let user = acting.unwrap_or(user);
            flow = server.flow.flow(&user, &attributes);
            let asked = Asked {
                user: user.clone(),
                query,
                pretty,
                request,
                place: Place::free(),
            };
            let who = (&user, &attributes, &flow);
            let served: BoxFuture<'_, ApiResult<Response<Body>>> = match &info {
                RequestInfo::NonResource => Box::pin(non_resource(&server, who, asked)),
                RequestInfo::Resource(wanted) => Box::pin(resource(&server, who, wanted, verb, asked)),
            };
            match &record {
                None => served.await,
                Some(record) => audit::scope(Some(record.clone()), served).await,
            }
        }
    };
    let mut response = response.unwrap_or_else(|error| {
        if let Some(record) = &record {
            record.failed(error.code(), error.to_json().into());
        }
        match flow_control::is_refusal(&error) {
            true => answer::too_many_requests(&error),
            false => refusal(&error, encoding, pretty),
        }
    });
    flow.mark(response.headers_mut());
    let code = response.status().as_u16();
    let response = match &record {
        None => response,
        Some(record) => {
            record.answered(code);
            if matches!(subject.verb, "WATCH" | "CONNECT") {
                record.follow(response)
            } else {
                record.complete();
                response
            }
        }
    };
    server.metrics.answered(subject, code, begun);
    response
}

/// A call through the gRPC door.
async fn call(
    server: &Arc<Server>,
    grpc: GrpcDoor,
    user: User,
    origin: Option<Arc<Origin>>,
    mut request: Request<Arriving>,
) -> Response<Body> {
    let user = match impersonation::act_as(&server.authorizer, request.headers(), &user).await {
        Ok(acting) => acting.unwrap_or(user),
        Err(error) => return crate::grpc::refusal(&error),
    };
    request.extensions_mut().insert(user);
    match origin {
        Some(origin) => audit::from(origin, grpc.call(request)).await,
        None => grpc.call(request).await,
    }
}

/// What a caller who is nobody tried to prove it is somebody with.
fn authentication_tried(connection: &Connection, headers: &http::HeaderMap) -> &'static str {
    if headers.contains_key(http::header::AUTHORIZATION) {
        "bearer"
    } else if matches!(*connection.peer, Peer::Anonymous) {
        ""
    } else {
        "x509"
    }
}

async fn non_resource(
    server: &Arc<Server>,
    (user, attributes, flow): (&User, &Attributes<'_>, &Flow),
    mut asked: Asked,
) -> ApiResult<Response<Body>> {
    asked.place = server
        .flow
        .enter(flow, (user, attributes), Pool::Reading, 1)
        .await?;
    server.authorizer.check(user, attributes).await?;
    if let Some(remote) = server.aggregator.of_path(asked.request.uri().path()) {
        return Ok(aggregator::proxy::serve(server, user, &remote, asked.request).await);
    }
    paths::serve(server, &asked).await
}

async fn resource(
    server: &Arc<Server>,
    (user, attributes, flow): (&User, &Attributes<'_>, &Flow),
    wanted: &ResourceRequest,
    verb: Option<Verb>,
    mut asked: Asked,
) -> ApiResult<Response<Body>> {
    let connects = crate::connect::handles(&wanted.resource, &wanted.subresource) && wanted.group.is_empty();
    let remote = server.aggregator.find(&wanted.group, &wanted.version);
    let upgrades = remote.is_some() && asked.request.headers().contains_key(http::header::UPGRADE);
    let pool = match verb {
        _ if connects || upgrades => Pool::Unlimited,
        Some(Verb::Watch) => Pool::Beginning,
        Some(verb) if verb.mutates() => Pool::Writing,
        _ => Pool::Reading,
    };
    let seats = cost::seats(server, attributes, verb, &asked.query);
    asked.place = server.flow.enter(flow, (user, attributes), pool, seats).await?;
    let _running = server.metrics.enter(pool);
    server.authorizer.check(user, attributes).await?;
    if let Some(remote) = remote {
        return Ok(aggregator::proxy::serve(server, user, &remote, asked.request).await);
    }
    resources::serve(server, wanted, verb, asked).await
}

fn is_grpc(request: &Request<Arriving>) -> bool {
    negotiate::media_type(request.headers()).starts_with("application/grpc")
}

fn static_method(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "OTHER",
    }
}

fn subject(wanted: &ResourceRequest, verb: Option<Verb>, method: &Method) -> Subject {
    let verb = match verb {
        _ if crate::connect::handles(&wanted.resource, &wanted.subresource) => "CONNECT",
        Some(Verb::List) => "LIST",
        Some(Verb::Watch) => "WATCH",
        Some(Verb::DeleteCollection) => "DELETECOLLECTION",
        _ => static_method(method),
    };
    Subject {
        verb,
        group: wanted.group.clone(),
        version: wanted.version.clone(),
        resource: wanted.resource.clone(),
        subresource: wanted.subresource.clone(),
    }
}

/// The whole body, or the 413 for it.
///
/// What is too large is read on for a while and thrown away: a client that is still writing does not see an answer.
pub async fn read_body(mut body: Arriving) -> ApiResult<Bytes> {
    let announced = hyper::body::Body::size_hint(&body).lower();
    let mut whole = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| ApiError::bad_request(format!("the body could not be read: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        size += data.len();
        if size <= BODY_LIMIT {
            if whole.is_empty() {
                if hyper::body::Body::is_end_stream(&body) {
                    return Ok(data);
                }
                whole.reserve(usize::try_from(announced).unwrap_or(BODY_LIMIT).min(BODY_LIMIT));
            }
            whole.extend_from_slice(&data);
        } else if size > DRAIN_LIMIT {
            break;
        }
    }
    if size > BODY_LIMIT {
        return Err(ApiError::request_entity_too_large(format_args!(
            "limit is {BODY_LIMIT}"
        )));
    }
    Ok(whole.freeze())
}
