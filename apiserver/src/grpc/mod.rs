//! gRPC: `keelson.v1.Resources`, a thin second door into the same handlers.
//!
//! The caller has been authenticated on the way in and travels in the request's extensions. A refusal carries the JSON
//! of its `metav1.Status` as gRPC status details.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`entering`] | takes a call apart, gives it its seats, authorizes it |
//! | [`carried`] | calls about what other servers serve |
//! | [`writes`] | writes, one by one or as items of a batch |
//! | [`watching`] | the stream of a watch |

mod carried;
mod entering;
mod watching;
pub mod writes;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use keelson_api::status::{ApiError, ApiResult};
use keelson_proto::resources as proto;
use keelson_proto::resources::resources_server::{Resources, ResourcesServer};
use tonic::{Code, Request, Response, Status};
use tower::Service as _;

use crate::authentication::User;
use crate::authorization::attributes::{Attributes, Selectors};
use crate::connect::{Body, carried};
use crate::discovery::AggregatedVersion;
use crate::flow_control::Pool;
use crate::handlers;
use crate::handlers::options::{ListOptions, parse_delete_options};
use crate::http::arriving::Arriving;
use crate::http::resources::present;
use crate::registry::catalog::Served;
use crate::registry::info::{SubresourceForm, Verb};
use crate::state::Server;
use crate::storage::delivery::Delivery;
use crate::table;
use entering::WhenFull;
use watching::WatchState;

/// Messages may be this large: a list of a large namespace comes in chunks, a batch does not.
const MESSAGE_LIMIT: usize = 64 << 20;
/// Bytes of items in one message of a list.
const CHUNK: usize = 256 << 10;
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
    pub async fn call(mut self, request: http::Request<Arriving>) -> http::Response<Body> {
        let Ok(response) = self.0.call(request).await;
        response.map(carried)
    }
}

/// The refusal of a call that did not reach the service.
pub fn refusal(error: &ApiError) -> http::Response<Body> {
    let response: http::Response<tonic::body::Body> = status(error).into_http();
    response.map(carried)
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

fn viewed(served: &Served, json: Bytes, view: i32) -> ApiResult<Bytes> {
    if metadata_only(view) {
        table::partial(&json)
    } else {
        Ok(present(served, json))
    }
}

fn answered<T>(result: ApiResult<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| status(&error))
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A list in messages, of which the last says what `end` does. What is kept is kept until it is sent.
fn chunks(
    items: impl Iterator<Item = ApiResult<Bytes>> + Send + 'static,
    end: proto::ListChunk,
    kept: impl Send + 'static,
) -> Streamed<proto::ListChunk> {
    let (mut items, mut end) = (items.peekable(), Some((end, kept)));
    let next = move || {
        end.as_ref()?;
        let (mut chunk, mut size) = (Vec::new(), 0);
        while size < CHUNK {
            match items.next() {
                Some(Ok(json)) => {
                    size += json.len();
                    chunk.push(json);
                }
                Some(Err(error)) => {
                    end = None;
                    return Some(Err(status(&error)));
                }
                None => break,
            }
        }
        let last = match items.peek() {
            None => end.take().map(|(last, _)| last),
            Some(_) => None,
        };
        Some(Ok(proto::ListChunk {
            items: chunk,
            ..last.unwrap_or_default()
        }))
    };
    Box::pin(futures::stream::iter(std::iter::from_fn(next)))
}

#[tonic::async_trait]
impl Resources for Door {
    type ListStream = Streamed<proto::ListChunk>;
    type WatchStream = Streamed<proto::WatchBatch>;

    async fn get(&self, request: Request<proto::GetRequest>) -> Result<Response<proto::Object>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        if let Some(remote) = self.elsewhere(request.target.as_ref()) {
            return answered(self.get_elsewhere((&user, remote), request).await);
        }
        let run = async {
            let entered = self
                .enter(&user, request.target, Verb::Get, Pool::Reading)
                .await?;
            let call = entered.call();
            if entered.subresource()? == Some(SubresourceForm::Handler) {
                let outcome = entered
                    .admitted
                    .noted(handlers::subresource::serve(&call, Verb::Get, &[], &[]))
                    .await?;
                return Ok(entered.object(outcome));
            }
            let outcome = entered
                .admitted
                .noted(handlers::get::get(&call, &request.resource_version))
                .await?;
            Ok(proto::Object {
                json: viewed(&entered.served, outcome.json, request.view)?,
            })
        };
        answered(run.await)
    }

    async fn list(&self, request: Request<proto::ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        if let Some(remote) = self.elsewhere(request.target.as_ref()) {
            return answered(self.list_elsewhere((&user, remote), request).await);
        }
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
                .admitted
                .noted(handlers::list::list(&entered.call(), &options))
                .await?;
            Ok((entered, answer))
        };
        let (mut entered, answer) = run.await.map_err(|error: ApiError| status(&error))?;
        let sending = entered.admitted.sending();
        let view = request.view;
        let end = proto::ListChunk {
            items: Vec::new(),
            resource_version: answer.revision.to_string(),
            r#continue: answer.continue_token.unwrap_or_default(),
            remaining_item_count: answer.remaining.unwrap_or_default(),
        };
        let served = entered.served.clone();
        let items = answer
            .items
            .into_iter()
            .map(move |entry| viewed(&served, entry.object(), view));
        Ok(Response::new(chunks(items, end, (entered, sending))))
    }

    async fn watch(
        &self,
        request: Request<proto::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let user = caller(&request)?;
        let request = request.into_inner();
        if let Some(remote) = self.elsewhere(request.target.as_ref()) {
            return answered(self.watch_elsewhere((&user, remote), request).await);
        }
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
                .admitted
                .noted(handlers::watch::watch(&entered.call(), &options))
                .await?;
            Ok((entered, watch))
        };
        let (mut entered, watch) = run.await.map_err(|error: ApiError| status(&error))?;
        let running = entered
            .admitted
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
        let beginning = entered.admitted.sending();
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
        if let Some(remote) = self.elsewhere(request.target.as_ref()) {
            return answered(self.delete_collection_elsewhere((&user, remote), request).await);
        }
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
                .admitted
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
        answered(run.await)
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
