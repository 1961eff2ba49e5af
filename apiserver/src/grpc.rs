//! gRPC: `keelson.v1.Resources`, a thin second door into the same handlers.
//!
//! The caller has been authenticated on the way in and travels in the request's extensions. A refusal carries the JSON
//! of its `metav1.Status` as gRPC status details.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict::FieldValidation;
use keelson_proto::resources as proto;
use keelson_proto::resources::resources_server::{Resources, ResourcesServer};
use tonic::{Code, Request, Response, Status};
use tower::Service as _;

use crate::audit::{self, Record};
use crate::authentication::User;
use crate::authorization::attributes::{Attributes, Resource, Selectors};
use crate::discovery::AggregatedVersion;
use crate::flow_control::{self, Place, Pool, Sending, cost};
use crate::handlers::managers::Tracking;
use crate::handlers::options::{ListOptions, Query, WriteOptions, parse_delete_options};
use crate::handlers::patch::PatchType;
use crate::handlers::{self, Call, Outcome};
use crate::http::answer::Body;
use crate::http::resources::present;
use crate::metrics::Running;
use crate::registry::catalog::Served;
use crate::registry::info::{SubresourceForm, Verb};
use crate::state::Server;
use crate::storage::cache::Signal;
use crate::storage::delivery::Delivery;
use crate::storage::entry::{CLOSING, EventType};
use crate::table;

/// Messages may be this large: a list of a large namespace comes in chunks, a batch does not.
const MESSAGE_LIMIT: usize = 64 << 20;
/// Bytes of items in one message of a list.
const CHUNK: usize = 256 << 10;
/// Events in one message of a watch.
const BATCH: usize = 256;
/// How soon a write of a batch that found no room is tried again.
const COME_AGAIN: Duration = Duration::from_secs(1);
/// Writes of a batch under way at the same time.
const CONCURRENCY: usize = 64;

/// The service, ready to take requests.
#[derive(Clone)]
pub struct GrpcDoor(ResourcesServer<Door>);

impl GrpcDoor {
    /// A door into this server.
    pub fn new(server: Arc<Server>) -> Self {
        let service = ResourcesServer::new(Door {
            server,
            when_full: WhenFull::Refuse,
        })
        .max_decoding_message_size(MESSAGE_LIMIT)
        .max_encoding_message_size(MESSAGE_LIMIT);
        Self(service)
    }

    /// Serves one call.
    pub async fn call(mut self, request: http::Request<Incoming>) -> http::Response<Body> {
        let Ok(response) = self.0.call(request).await;
        response.map(|body| body.map_err(|status| Box::new(status) as Box<_>).boxed_unsync())
    }
}

/// The refusal of a call that did not reach the service.
pub fn refusal(error: &ApiError) -> http::Response<Body> {
    let response: http::Response<tonic::body::Body> = status(error).into_http();
    response.map(|body| body.map_err(|status| Box::new(status) as Box<_>).boxed_unsync())
}

/// A refusal as gRPC has it.
fn status(error: &ApiError) -> Status {
    let code = match error.code() {
        400 | 422 | 415 | 406 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        405 => Code::Unimplemented,
        409 if error.is_already_exists() => Code::AlreadyExists,
        409 => Code::Aborted,
        410 => Code::OutOfRange,
        429 => Code::ResourceExhausted,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    Status::with_details(code, error.message(), Bytes::from(error.to_json()))
}

struct Door {
    server: Arc<Server>,
    when_full: WhenFull,
}

/// What becomes of a call for which there is no room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum WhenFull {
    /// Its caller is told to come again.
    Refuse,
    /// It is tried again here.
    ComeAgain,
}

/// A call taken apart, authorized, and counted.
struct Entered {
    server: Arc<Server>,
    served: Served,
    user: User,
    target: proto::Target,
    place: Place,
    _running: Option<Running>,
    audit: Option<Arc<Record>>,
}

impl Entered {
    /// Serves the call, and has whoever records it know what came of it.
    async fn noted<T>(&self, serving: impl Future<Output = ApiResult<T>>) -> ApiResult<T> {
        let Some(record) = &self.audit else {
            return serving.await;
        };
        let result = audit::scope(Some(record.clone()), serving).await;
        if let Err(error) = &result {
            record.failed(error.code(), error.to_json().into());
        }
        result
    }

    /// What the call brings.
    fn brings(&self, json: &Bytes) {
        if let Some(record) = &self.audit {
            record.request_body(json);
        }
    }

    fn call(&self) -> Call<'_> {
        let target = &self.target;
        Call::new(
            &self.server,
            &self.served,
            &self.user,
            &target.namespace,
            &target.name,
            &target.subresource,
        )
    }

    /// Keeps its place until what it answers is sent.
    fn sending(&mut self) -> Sending {
        std::mem::replace(&mut self.place, Place::free()).while_sending()
    }

    fn object(&self, outcome: Outcome) -> proto::Object {
        if let Some(record) = &self.audit {
            record.answered(outcome.code);
            record.response_body(&outcome.json);
        }
        let json = if outcome.own_kind {
            present(&self.served, outcome.json)
        } else {
            outcome.json
        };
        proto::Object { json }
    }

    fn subresource(&self) -> ApiResult<Option<SubresourceForm>> {
        match self.target.subresource.as_str() {
            "" => Ok(None),
            name => match self.served.info().subresource(name).map(|s| s.form) {
                None | Some(SubresourceForm::Connect) => Err(ApiError::no_such_resource()),
                form => Ok(form),
            },
        }
    }
}

impl Door {
    async fn enter(
        &self,
        user: &User,
        target: Option<proto::Target>,
        verb: Verb,
        pool: Pool,
    ) -> ApiResult<Entered> {
        self.enter_selecting(user, target, verb, pool, (Selectors::default(), 0))
            .await
    }

    async fn enter_selecting(
        &self,
        user: &User,
        target: Option<proto::Target>,
        verb: Verb,
        pool: Pool,
        (selectors, limit): (Selectors<'_>, usize),
    ) -> ApiResult<Entered> {
        let target = target.ok_or_else(|| ApiError::bad_request("the request names no target"))?;
        let attributes = Attributes::resource(
            verb.as_str(),
            Resource {
                group: &target.group,
                version: &target.version,
                resource: &target.resource,
                subresource: &target.subresource,
                namespace: &target.namespace,
                // POST to a collection: the name is in the object.
                name: match verb {
                    Verb::Create if target.subresource.is_empty() => "",
                    _ => &target.name,
                },
            },
        )
        .selecting(selectors);
        let place = self.place(user, &attributes, pool, limit).await?;
        let audit = audit::origin().and_then(|o| self.server.audit.begin(&o, user, &attributes));
        let checked = audit::scope(audit.clone(), self.server.authorizer.check(user, &attributes)).await;
        if let (Some(record), Err(error)) = (&audit, &checked) {
            record.failed(error.code(), error.to_json().into());
        }
        checked?;
        let served = self
            .server
            .find(&target.group, &target.version, &target.resource)
            .await?
            .into_owned();
        let info = served.info();
        if !info.namespaced() && !target.namespace.is_empty() {
            return Err(ApiError::bad_request(format!(
                "{} do not live in namespaces",
                info.plural
            )));
        }
        let in_all = target.namespace.is_empty() && (verb == Verb::Create || !target.name.is_empty());
        if info.namespaced() && in_all {
            return Err(ApiError::bad_request(format!(
                "{} live in namespaces: name one",
                info.plural
            )));
        }
        let running = self.server.metrics.enter(pool);
        Ok(Entered {
            server: self.server.clone(),
            served,
            user: user.clone(),
            target,
            place,
            _running: running,
            audit,
        })
    }

    /// Takes seats for a call, of which a list wants `limit` objects.
    async fn place(
        &self,
        user: &User,
        attributes: &Attributes<'_>,
        pool: Pool,
        limit: usize,
    ) -> ApiResult<Place> {
        let server = &self.server;
        let flow = server.flow.flow(user, attributes);
        let seats = match attributes.verb {
            "list" | "deletecollection" => cost::of_list(server, attributes, limit),
            _ => 1,
        };
        loop {
            match server.flow.enter(&flow, (user, attributes), pool, seats).await {
                Err(error) if self.when_full == WhenFull::ComeAgain && flow_control::is_refusal(&error) => {
                    tokio::time::sleep(COME_AGAIN).await;
                }
                done => return done,
            }
        }
    }

    async fn write(&self, user: &User, write: proto::batch_item::Write) -> ApiResult<(u16, Bytes)> {
        use proto::batch_item::Write;
        let answer = |entered: &Entered, outcome: Outcome| (outcome.code, entered.object(outcome).json);
        match write {
            Write::Create(request) => {
                let mut target = request.target;
                let entered = self
                    .enter(user, target.take(), Verb::Create, Pool::Writing)
                    .await?;
                // POST to a collection: the name is in the object.
                let name_in_path = !entered.target.subresource.is_empty();
                let target = &entered.target;
                let name = if name_in_path { target.name.as_str() } else { "" };
                let call = Call::new(
                    &entered.server,
                    &entered.served,
                    user,
                    &target.namespace,
                    name,
                    &target.subresource,
                )
                .with_options(options(request.options)?);
                entered.brings(&request.json);
                let outcome = match entered.subresource()? {
                    None => {
                        entered
                            .noted(handlers::create::create(&call, &request.json))
                            .await?
                    }
                    Some(_) => {
                        entered
                            .noted(handlers::subresource::serve(
                                &call,
                                Verb::Create,
                                &request.json,
                                &[],
                            ))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Update(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Update, Pool::Writing)
                    .await?;
                let call = entered.call().with_options(options(request.options)?);
                entered.brings(&request.json);
                let outcome = match entered.subresource()? {
                    Some(SubresourceForm::Handler) => {
                        entered
                            .noted(handlers::subresource::serve(
                                &call,
                                Verb::Update,
                                &request.json,
                                &[],
                            ))
                            .await?
                    }
                    _ => {
                        entered
                            .noted(handlers::update::update(&call, &request.json))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Patch(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Patch, Pool::Writing)
                    .await?;
                let kind = PatchType::parse(&request.content_type)?;
                let options = WriteOptions {
                    tracking: kind.tracking(),
                    ..options(request.options)?
                };
                if kind == PatchType::Apply && options.field_manager.is_empty() {
                    return Err(ApiError::bad_request("fieldManager is required for apply patch"));
                }
                let call = entered.call().with_options(options);
                entered.brings(&request.body);
                let outcome = match entered.subresource()? {
                    Some(SubresourceForm::Handler) => {
                        entered
                            .noted(handlers::subresource::patch(&call, kind, &request.body, &[]))
                            .await?
                    }
                    _ => {
                        entered
                            .noted(handlers::patch::patch(&call, kind, &request.body))
                            .await?
                    }
                };
                Ok(answer(&entered, outcome))
            }
            Write::Delete(request) => {
                let entered = self
                    .enter(user, request.target, Verb::Delete, Pool::Writing)
                    .await?;
                let options = Query(&[]).delete_options(&request.options)?;
                let outcome = entered
                    .noted(handlers::delete::delete(&entered.call(), options))
                    .await?;
                Ok(answer(&entered, outcome))
            }
        }
    }

    /// One write; a panic in it is an answer, too.
    async fn caught(&self, user: &User, write: proto::batch_item::Write) -> ApiResult<(u16, Bytes)> {
        std::panic::AssertUnwindSafe(self.write(user, write))
            .catch_unwind()
            .await
            .unwrap_or_else(|_| {
                Err(ApiError::internal(
                    "the server panicked while serving this request",
                ))
            })
    }
}

fn options(options: Option<proto::WriteOptions>) -> ApiResult<WriteOptions> {
    let options = options.unwrap_or_default();
    let field_validation = FieldValidation::parse(&options.field_validation)
        .ok_or_else(|| ApiError::bad_request(format!("fieldValidation: {:?}", options.field_validation)))?;
    Ok(WriteOptions {
        dry_run: options.dry_run,
        field_manager: options.field_manager,
        field_validation,
        force: options.force,
        tracking: Tracking::Manager,
    })
}

fn caller<T>(request: &Request<T>) -> Result<User, Status> {
    request
        .extensions()
        .get::<User>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("Unauthorized"))
}

fn metadata_only(view: i32) -> bool {
    view == proto::View::Metadata as i32
}

fn viewed(entered: &Entered, json: Bytes, view: i32) -> ApiResult<Bytes> {
    if metadata_only(view) {
        table::partial(&json)
    } else {
        Ok(present(&entered.served, json))
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Resources for Door {
    type ListStream = Streamed<proto::ListChunk>;
    type WatchStream = Streamed<proto::WatchBatch>;

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        let run = async {
            let entered = self
                .enter(&user, request.target, Verb::Get, Pool::Reading)
                .await?;
            let call = entered.call();
            if entered.subresource()? == Some(SubresourceForm::Handler) {
                let outcome = entered
                    .noted(handlers::subresource::serve(&call, Verb::Get, &[], &[]))
                    .await?;
                return Ok(entered.object(outcome));
            }
            let outcome = entered
                .noted(handlers::get::get(&call, &request.resource_version))
                .await?;
            Ok(proto::Object {
                json: viewed(&entered, outcome.json, request.view)?,
            })
        };
        run.await
            .map(Response::new)
            .map_err(|error: ApiError| status(&error))
    }

    async fn list(&self, request: Request<proto::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        let run = async {
            let selectors = Selectors {
                label: &request.label_selector,
                field: &request.field_selector,
            };
            let entered = self
                .enter_selecting(
                    &user,
                    request.target,
                    Verb::List,
                    Pool::Reading,
                    (selectors, usize::try_from(request.limit).unwrap_or_default()),
                )
                .await?;
            let options = ListOptions {
                label_selector: request.label_selector,
                field_selector: request.field_selector,
                resource_version: request.resource_version,
                resource_version_match: request.resource_version_match,
                limit: request.limit.max(0),
                continue_token: request.r#continue,
                ..ListOptions::default()
            };
            let answer = entered
                .noted(handlers::list::list(&entered.call(), &options))
                .await?;
            Ok((entered, answer))
        };
        let (mut entered, answer) = run.await.map_err(|error: ApiError| status(&error))?;
        let sending = entered.sending();
        let view = request.view;
        let revision = answer.revision.to_string();
        let end = (
            answer.continue_token.unwrap_or_default(),
            answer.remaining.unwrap_or_default(),
        );
        let state = (
            (entered, sending),
            answer.items.into_iter().peekable(),
            Some((revision, end)),
        );
        let stream = futures::stream::unfold(state, move |(entered, mut items, mut end)| async move {
            end.as_ref()?;
            let (mut chunk, mut size) = (proto::ListChunk::default(), 0);
            while size < CHUNK {
                let Some(entry) = items.next() else { break };
                match viewed(&entered.0, entry.object(), view) {
                    Ok(json) => {
                        size += json.len();
                        chunk.items.push(json);
                    }
                    Err(error) => return Some((Err(status(&error)), (entered, items, None))),
                }
            }
            if items.peek().is_none()
                && let Some((revision, (token, remaining))) = end.take()
            {
                chunk.resource_version = revision;
                chunk.r#continue = token;
                chunk.remaining_item_count = remaining;
            }
            Some((Ok(chunk), (entered, items, end)))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        let view = request.view;
        let run = async {
            let selectors = Selectors {
                label: &request.label_selector,
                field: &request.field_selector,
            };
            let entered = self
                .enter_selecting(
                    &user,
                    request.target,
                    Verb::Watch,
                    Pool::Beginning,
                    (selectors, 0),
                )
                .await?;
            let initial = request.send_initial_events;
            let options = ListOptions {
                label_selector: request.label_selector,
                field_selector: request.field_selector,
                resource_version: request.resource_version,
                resource_version_match: if initial {
                    "NotOlderThan".into()
                } else {
                    String::new()
                },
                allow_bookmarks: request.allow_bookmarks,
                send_initial_events: initial.then_some(true),
                ..ListOptions::default()
            };
            let watch = entered
                .noted(handlers::watch::watch(&entered.call(), &options))
                .await?;
            Ok((entered, watch))
        };
        let (mut entered, watch) = run.await.map_err(|error: ApiError| status(&error))?;
        let running = entered
            .server
            .metrics
            .watch(entered.served.group(), entered.served.info().plural);
        let watching = match watch.watching {
            Ok(watching) => watching,
            Err(error) => {
                let event = proto::WatchEvent {
                    r#type: proto::EventType::Error as i32,
                    object: error.to_json().into(),
                };
                let batch = proto::WatchBatch { events: vec![event] };
                return Ok(Response::new(Box::pin(futures::stream::once(async move {
                    Ok(batch)
                }))));
            }
        };
        let beginning = entered.sending();
        let state = WatchState {
            beginning: (!watching.initial.is_empty()).then_some(beginning),
            entered,
            view,
            initial: watching.initial.into_iter(),
            initial_end: watch.initial_end,
            backlog: watching.backlog,
            delivery: Delivery::new(watching.queue),
            deadline: tokio::time::Instant::now() + watch.timeout,
            _running: running,
        };
        let stream = futures::stream::unfold(state, |mut state| async move {
            let batch = state.next().await?;
            Some((Ok(batch), state))
        });
        Ok(Response::new(Box::pin(stream)))
    }

    async fn create(
        &self,
        request: Request<proto::CreateRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        self.one(&user, proto::batch_item::Write::Create(request.into_inner()))
            .await
    }

    async fn update(
        &self,
        request: Request<proto::UpdateRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        self.one(&user, proto::batch_item::Write::Update(request.into_inner()))
            .await
    }

    async fn patch(&self, request: Request<proto::PatchRequest>) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        self.one(&user, proto::batch_item::Write::Patch(request.into_inner()))
            .await
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        self.one(&user, proto::batch_item::Write::Delete(request.into_inner()))
            .await
    }

    async fn delete_collection(
        &self,
        request: Request<proto::DeleteCollectionRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        let run = async {
            let selectors = Selectors {
                label: &request.label_selector,
                field: &request.field_selector,
            };
            let entered = self
                .enter_selecting(
                    &user,
                    request.target,
                    Verb::DeleteCollection,
                    Pool::Writing,
                    (selectors, 0),
                )
                .await?;
            let options = if request.options.is_empty() {
                Default::default()
            } else {
                parse_delete_options(&request.options)?
            };
            let selection = ListOptions {
                label_selector: request.label_selector,
                field_selector: request.field_selector,
                ..ListOptions::default()
            };
            let answer = entered
                .noted(handlers::delete::delete_collection(
                    &entered.call(),
                    &selection,
                    options,
                ))
                .await?;
            let status = serde_json::json!({
                "kind": "Status", "apiVersion": "v1", "metadata": table::list_meta(&answer), "status": "Success",
            });
            Ok(proto::Object {
                json: Bytes::from(status.to_string()),
            })
        };
        run.await
            .map(Response::new)
            .map_err(|error: ApiError| status(&error))
    }

    async fn batch(
        &self,
        request: Request<proto::BatchRequest>,
    ) -> Result<Response<proto::BatchResponse>, Status> {
        let user = &caller(&request)?;
        let items = request.into_inner().items;
        // Its sender waits for all of them: a refusal would only bring the same ones again.
        let door = &Door {
            server: self.server.clone(),
            when_full: WhenFull::ComeAgain,
        };
        let writes = items.into_iter().map(|item| async move {
            let result = match item.write {
                Some(write) => door.caught(user, write).await,
                None => Err(ApiError::bad_request("an item of the batch says nothing")),
            };
            match result {
                Ok((code, json)) => proto::BatchResult {
                    code: i32::from(code),
                    json,
                },
                Err(error) => proto::BatchResult {
                    code: i32::from(error.code()),
                    json: error.to_json().into(),
                },
            }
        });
        let writes: Vec<futures::future::BoxFuture<'_, proto::BatchResult>> =
            writes.map(|write| Box::pin(write) as _).collect();
        let results = futures::stream::iter(writes)
            .buffered(CONCURRENCY)
            .collect()
            .await;
        Ok(Response::new(proto::BatchResponse { results }))
    }

    async fn discover(
        &self,
        request: Request<proto::DiscoverRequest>,
    ) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        let attributes = Attributes::path("get", "/apis");
        self.server
            .authorizer
            .check(&user, &attributes)
            .await
            .map_err(|error| status(&error))?;
        let discovery = self.server.discovery();
        let parse = |core| {
            serde_json::from_slice::<serde_json::Value>(
                &discovery.aggregated(core, AggregatedVersion::V2).json,
            )
        };
        let (Ok(mut all), Ok(mut named)) = (parse(true), parse(false)) else {
            return Err(Status::internal("the discovery documents cannot be read"));
        };
        if let (Some(all), Some(named)) = (all["items"].as_array_mut(), named["items"].as_array_mut()) {
            all.append(named);
        }
        Ok(Response::new(proto::Object {
            json: Bytes::from(all.to_string()),
        }))
    }
}

impl Door {
    async fn one(
        &self,
        user: &User,
        write: proto::batch_item::Write,
    ) -> Result<Response<proto::Object>, Status> {
        let (_, json) = self.caught(user, write).await.map_err(|error| status(&error))?;
        Ok(Response::new(proto::Object { json }))
    }
}

struct WatchState {
    entered: Entered,
    view: i32,
    initial: std::vec::IntoIter<Arc<crate::storage::entry::Entry>>,
    initial_end: Option<i64>,
    backlog: Vec<Signal>,
    delivery: Delivery,
    deadline: tokio::time::Instant,
    _running: Running,
    /// Until the initial objects are sent.
    beginning: Option<Sending>,
}

impl WatchState {
    async fn next(&mut self) -> Option<proto::WatchBatch> {
        let mut batch = proto::WatchBatch::default();
        for entry in self.initial.by_ref().take(BATCH) {
            batch
                .events
                .push(event(&self.entered, self.view, EventType::Added, entry.object()));
        }
        if self.initial.len() == 0
            && let Some(revision) = self.initial_end.take()
        {
            batch
                .events
                .push(self.bookmark(revision, r#","annotations":{"k8s.io/initial-events-end":"true"}"#));
        }
        if !batch.events.is_empty() {
            return Some(batch);
        }
        self.beginning = None;
        if self.backlog.is_empty() {
            tokio::select! {
                biased;
                count = self.delivery.next(&mut self.backlog) => {
                    if count == 0 {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(self.deadline) => return None,
                () = self.entered.server.shutdown.cancelled() => return None,
            }
        }
        for signal in std::mem::take(&mut self.backlog) {
            batch.events.push(match signal {
                Signal::Bookmark(revision) => self.bookmark(revision, ""),
                Signal::Failed(error) => proto::WatchEvent {
                    r#type: proto::EventType::Error as i32,
                    object: error.to_json().into(),
                },
                Signal::Event(kind, happened) => {
                    let line = happened.line(kind);
                    let object = line.slice(kind.opening().len()..line.len() - CLOSING.len());
                    event(&self.entered, self.view, kind, object)
                }
            });
        }
        Some(batch)
    }

    fn bookmark(&self, revision: i64, annotations: &str) -> proto::WatchEvent {
        let (kind, version) = match metadata_only(self.view) {
            true => ("PartialObjectMetadata", "meta.k8s.io/v1".to_owned()),
            false => (self.entered.served.info().kind, self.entered.served.api_version()),
        };
        let object = format!(
            r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#
        );
        proto::WatchEvent {
            r#type: proto::EventType::Bookmark as i32,
            object: object.into(),
        }
    }
}

fn event(entered: &Entered, view: i32, kind: EventType, object: Bytes) -> proto::WatchEvent {
    let r#type = match kind {
        EventType::Added => proto::EventType::Added,
        EventType::Modified => proto::EventType::Modified,
        EventType::Deleted => proto::EventType::Deleted,
    };
    match viewed(entered, object, view) {
        Ok(object) => proto::WatchEvent {
            r#type: r#type as i32,
            object,
        },
        Err(error) => proto::WatchEvent {
            r#type: proto::EventType::Error as i32,
            object: error.to_json().into(),
        },
    }
}
