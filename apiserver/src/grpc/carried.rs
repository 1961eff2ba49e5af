//! Calls about what other servers serve: each becomes a request to the server of its group version, as a REST client
//! would make it, in its caller's name.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use http_body_util::BodyExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ListMeta;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::validation::path_segment;
use keelson_proto::resources as proto;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::entering::Admitted;
use super::{Door, Streamed, chunks, metadata_only, status};
use crate::aggregator::proxy::introduce;
use crate::aggregator::remote::Remote;
use crate::authentication::User;
use crate::authorization::attributes::Selectors;
use crate::connect::forward::{self, Answering};
use crate::flow_control::Pool;
use crate::registry::info::Verb;
use crate::table;

/// How long an answer may take, unless it is a watch: as long as upstream's `--request-timeout`.
const PATIENCE: Duration = Duration::from_secs(60);
/// One event of a watch may not be larger than this.
const LINE_MAX: usize = 32 << 20;
const JSON: &str = "application/json";

/// What another server is asked.
struct Question {
    method: Method,
    accept: String,
    query: String,
    content_type: String,
    body: Bytes,
}

impl Question {
    fn new(method: Method) -> Self {
        Self {
            method,
            accept: JSON.to_owned(),
            query: String::new(),
            content_type: JSON.to_owned(),
            body: Bytes::new(),
        }
    }

    /// With these parameters, as far as they say something.
    fn with(mut self, parameters: &[(&str, &str)]) -> Self {
        let given = parameters.iter().filter(|(_, value)| !value.is_empty());
        self.query = form_urlencoded::Serializer::new(self.query)
            .extend_pairs(given)
            .finish();
        self
    }

    fn choosing(self, options: Option<&proto::WriteOptions>) -> Self {
        let Some(options) = options else { return self };
        self.with(&[
            ("dryRun", if options.dry_run { "All" } else { "" }),
            ("force", if options.force { "true" } else { "" }),
            ("fieldManager", &options.field_manager),
            ("fieldValidation", &options.field_validation),
        ])
    }

    fn bringing(self, body: Bytes) -> Self {
        Self { body, ..self }
    }

    /// In the form the caller wants: servers that cannot give metadata alone give all of it.
    fn viewed(mut self, view: i32, kind: &str) -> Self {
        if metadata_only(view) {
            self.accept = format!("{JSON};as={kind};g=meta.k8s.io;v=v1,{JSON}");
        }
        self
    }

    /// A write, its verb, and what it is about.
    fn of(write: proto::batch_item::Write) -> (Verb, Option<proto::Target>, Self) {
        use proto::batch_item::Write;
        match write {
            Write::Create(request) => {
                let question = Self::new(Method::POST).choosing(request.options.as_ref());
                (Verb::Create, request.target, question.bringing(request.json))
            }
            Write::Update(request) => {
                let question = Self::new(Method::PUT).choosing(request.options.as_ref());
                (Verb::Update, request.target, question.bringing(request.json))
            }
            Write::Patch(request) => {
                let question = Self {
                    content_type: request.content_type,
                    ..Self::new(Method::PATCH).choosing(request.options.as_ref())
                };
                (Verb::Patch, request.target, question.bringing(request.body))
            }
            Write::Delete(request) => {
                let question = Self::new(Method::DELETE).bringing(request.options);
                (Verb::Delete, request.target, question)
            }
        }
    }
}

/// Where a server has what a call is about. A name that would be another path for that server is refused: the caller may
/// do what it asks for with that name, and nothing else.
fn path(target: &proto::Target, verb: Verb) -> ApiResult<String> {
    let mut path = format!("/apis/{}/{}", target.group, target.version);
    let name = match verb {
        // POST to a collection: the name is in the object.
        Verb::Create if target.subresource.is_empty() => "",
        _ => &target.name,
    };
    let namespaces = if target.namespace.is_empty() {
        ""
    } else {
        "namespaces"
    };
    let parts = [
        namespaces,
        &target.namespace,
        &target.resource,
        name,
        &target.subresource,
    ];
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        if let Some(complaint) = path_segment(part).into_iter().next() {
            return Err(ApiError::bad_request(format!("{part:?}: {complaint}")));
        }
        path.push('/');
        // A form has spaces as plus signs, a path has them as all else.
        for piece in form_urlencoded::byte_serialize(part.as_bytes()) {
            path.push_str(&piece.replace('+', "%20"));
        }
    }
    Ok(path)
}

/// A call that is carried to another server.
struct Carried {
    admitted: Admitted,
    remote: Arc<Remote>,
    path: String,
}

impl Carried {
    async fn begin(&self, question: Question) -> ApiResult<Answering> {
        let unreachable =
            |why: &str| ApiError::service_unavailable(format!("error trying to reach service: {why}"));
        if !self.remote.available {
            return Err(ApiError::service_unavailable("service unavailable"));
        }
        let Question {
            method,
            accept,
            query,
            content_type,
            body,
        } = question;
        self.admitted.brings(&body);
        let separator = if query.is_empty() { "" } else { "?" };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{separator}{query}", self.path))
            .body(body)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let headers = request.headers_mut();
        let media = |text: &str| {
            HeaderValue::from_str(text).map_err(|error| ApiError::bad_request(format!("{text:?}: {error}")))
        };
        headers.insert(ACCEPT, media(&accept)?);
        headers.insert(CONTENT_TYPE, media(&content_type)?);
        introduce(headers, &self.admitted.user);
        let asking = async {
            let backend = self.remote.backend(&self.admitted.server).await?;
            let begun = forward::begin(&backend, request).await;
            let answering = begun.map_err(|why| unreachable(&why))?;
            let code = answering.status().as_u16();
            if code < 400 {
                return Ok(answering);
            }
            let body = answering.whole().await.map_err(|why| unreachable(&why))?;
            Err(ApiError::from_json(&body)
                .unwrap_or_else(|| ApiError::new(code, "", String::from_utf8_lossy(&body))))
        };
        tokio::time::timeout(PATIENCE, asking)
            .await
            .unwrap_or_else(|_| Err(unreachable("context deadline exceeded")))
    }

    /// The code and the body of the answer.
    async fn ask(&self, question: Question) -> ApiResult<(u16, Bytes)> {
        self.admitted
            .noted(async {
                let answering = self.begin(question).await?;
                let code = answering.status().as_u16();
                let whole = tokio::time::timeout(PATIENCE, answering.whole())
                    .await
                    .unwrap_or_else(|_| Err("context deadline exceeded".to_owned()));
                let body = whole.map_err(ApiError::service_unavailable)?;
                self.admitted.gives(code, &body);
                Ok((code, body))
            })
            .await
    }
}

/// A part of an answer that is an object, in the form the caller wants.
fn viewed(answer: &Bytes, object: &[u8], view: i32) -> ApiResult<Bytes> {
    if metadata_only(view) {
        table::partial(object)
    } else {
        Ok(answer.slice_ref(object))
    }
}

/// A list as it travels.
#[derive(Deserialize)]
struct List<'a> {
    #[serde(default)]
    metadata: ListMeta,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

impl Door {
    /// Who serves what a call is about, if it is not this server.
    pub(super) fn elsewhere(&self, target: Option<&proto::Target>) -> Option<Arc<Remote>> {
        let target = target?;
        self.server.aggregator.find(&target.group, &target.version)
    }

    async fn carry(
        &self,
        (user, remote): (&User, Arc<Remote>),
        (verb, pool): (Verb, Pool),
        target: Option<proto::Target>,
        selecting: (Selectors<'_>, usize),
    ) -> ApiResult<Carried> {
        let admitted = self.admit(user, target, verb, pool, selecting).await?;
        let path = path(&admitted.target, verb)?;
        Ok(Carried {
            admitted,
            remote,
            path,
        })
    }

    pub(super) async fn get_elsewhere(
        &self,
        who: (&User, Arc<Remote>),
        request: proto::GetRequest,
    ) -> ApiResult<proto::Object> {
        let carried = self
            .carry(
                who,
                (Verb::Get, Pool::Reading),
                request.target,
                Default::default(),
            )
            .await?;
        let question = Question::new(Method::GET)
            .with(&[("resourceVersion", &request.resource_version)])
            .viewed(request.view, "PartialObjectMetadata");
        let (_, body) = carried.ask(question).await?;
        let json = viewed(&body, &body, request.view)?;
        Ok(proto::Object { json })
    }

    pub(super) async fn list_elsewhere(
        &self,
        who: (&User, Arc<Remote>),
        request: proto::ListRequest,
    ) -> ApiResult<Streamed<proto::ListChunk>> {
        let selectors = Selectors {
            label: &request.label_selector,
            field: &request.field_selector,
        };
        let limit = usize::try_from(request.limit).unwrap_or_default();
        let carried = self
            .carry(
                who,
                (Verb::List, Pool::Reading),
                request.target,
                (selectors, limit),
            )
            .await?;
        let limit = if limit == 0 {
            String::new()
        } else {
            limit.to_string()
        };
        let question = Question::new(Method::GET)
            .with(&[
                ("labelSelector", &request.label_selector),
                ("fieldSelector", &request.field_selector),
                ("resourceVersion", &request.resource_version),
                ("resourceVersionMatch", &request.resource_version_match),
                ("limit", &limit),
                ("continue", &request.r#continue),
            ])
            .viewed(request.view, "PartialObjectMetadataList");
        let (_, body) = carried.ask(question).await?;
        let list: List<'_> = serde_json::from_slice(&body).map_err(ApiError::internal)?;
        let items: Vec<_> = list
            .items
            .unwrap_or_default()
            .into_iter()
            .map(|item| viewed(&body, item.get().as_bytes(), request.view))
            .collect();
        let end = proto::ListChunk {
            items: Vec::new(),
            resource_version: list.metadata.resource_version.unwrap_or_default(),
            r#continue: list.metadata.continue_.unwrap_or_default(),
            remaining_item_count: list.metadata.remaining_item_count.unwrap_or_default(),
        };
        Ok(chunks(items.into_iter(), end, carried))
    }

    pub(super) async fn watch_elsewhere(
        &self,
        who: (&User, Arc<Remote>),
        request: proto::WatchRequest,
    ) -> ApiResult<Streamed<proto::WatchBatch>> {
        let selectors = Selectors {
            label: &request.label_selector,
            field: &request.field_selector,
        };
        let mut carried = self
            .carry(
                who,
                (Verb::Watch, Pool::Beginning),
                request.target,
                (selectors, 0),
            )
            .await?;
        let yes = |wanted: bool| if wanted { "true" } else { "" };
        let matching = if request.send_initial_events {
            "NotOlderThan"
        } else {
            ""
        };
        let question = Question::new(Method::GET)
            .with(&[
                ("watch", "true"),
                ("labelSelector", &request.label_selector),
                ("fieldSelector", &request.field_selector),
                ("resourceVersion", &request.resource_version),
                ("resourceVersionMatch", matching),
                ("allowWatchBookmarks", yes(request.allow_bookmarks)),
                ("sendInitialEvents", yes(request.send_initial_events)),
            ])
            .viewed(request.view, "PartialObjectMetadata");
        let answering = carried.admitted.noted(carried.begin(question)).await?;
        carried.admitted.give_up_seats();
        let events = Events {
            carried,
            answering,
            read: BytesMut::new(),
            view: request.view,
        };
        Ok(Box::pin(futures::stream::unfold(Some(events), |events| async {
            let mut events = events?;
            match events.next().await? {
                Ok(batch) => Some((Ok(batch), Some(events))),
                Err(error) => Some((Err(status(&error)), None)),
            }
        })))
    }

    pub(super) async fn write_elsewhere(
        &self,
        who: (&User, Arc<Remote>),
        write: proto::batch_item::Write,
    ) -> ApiResult<(u16, Bytes)> {
        let (verb, target, question) = Question::of(write);
        let carried = self
            .carry(who, (verb, Pool::Writing), target, Default::default())
            .await?;
        carried.ask(question).await
    }

    pub(super) async fn delete_collection_elsewhere(
        &self,
        who: (&User, Arc<Remote>),
        request: proto::DeleteCollectionRequest,
    ) -> ApiResult<proto::Object> {
        let selectors = Selectors {
            label: &request.label_selector,
            field: &request.field_selector,
        };
        let asked = (Verb::DeleteCollection, Pool::Writing);
        let carried = self.carry(who, asked, request.target, (selectors, 0)).await?;
        let question = Question::new(Method::DELETE)
            .with(&[
                ("labelSelector", &request.label_selector),
                ("fieldSelector", &request.field_selector),
            ])
            .bringing(request.options);
        let (_, json) = carried.ask(question).await?;
        Ok(proto::Object { json })
    }
}

/// An event as a watch's line has it.
#[derive(Deserialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(borrow)]
    object: &'a RawValue,
}

/// The events of a watch that another server answers.
struct Events {
    carried: Carried,
    answering: Answering,
    read: BytesMut,
    view: i32,
}

impl Events {
    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<ApiResult<proto::WatchBatch>> {
        while self.read.len() <= LINE_MAX {
            let frame = tokio::select! {
                frame = self.answering.body().frame() => frame?,
                () = self.carried.admitted.server.shutdown.cancelled() => return None,
            };
            // A watch that breaks off is begun again by whoever watches.
            let frame = frame.ok()?;
            let Some(data) = frame.data_ref() else { continue };
            let before = self.read.len();
            self.read.extend_from_slice(data);
            if let Some(end) = memchr::memrchr(b'\n', data) {
                let lines = self.read.split_to(before + end + 1).freeze();
                return Some(self.batch(&lines));
            }
        }
        Some(Err(ApiError::internal("an event is too large")))
    }

    fn batch(&self, lines: &Bytes) -> ApiResult<proto::WatchBatch> {
        let mut events = Vec::new();
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Line<'_> = serde_json::from_slice(line).map_err(ApiError::internal)?;
            let kind = proto::EventType::from_str_name(line.r#type)
                .ok_or_else(|| ApiError::internal(format_args!("an event of type {:?}", line.r#type)))?;
            let view = match kind {
                proto::EventType::Error => proto::View::Full as i32,
                _ => self.view,
            };
            events.push(proto::WatchEvent {
                r#type: kind as i32,
                object: viewed(lines, line.object.get().as_bytes(), view)?,
            });
        }
        Ok(proto::WatchBatch { events })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(namespace: &str, name: &str, subresource: &str) -> proto::Target {
        proto::Target {
            group: "example.com".to_owned(),
            version: "v1".to_owned(),
            resource: "things".to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        }
    }

    #[test]
    fn targets_are_paths() {
        let at = |namespace, name, subresource, verb| path(&target(namespace, name, subresource), verb).ok();
        let is = |text: &str| Some(format!("/apis/example.com/v1/{text}"));
        assert_eq!(at("", "", "", Verb::List), is("things"));
        assert_eq!(at("a", "b", "", Verb::Get), is("namespaces/a/things/b"));
        assert_eq!(
            at("a", "b", "status", Verb::Update),
            is("namespaces/a/things/b/status")
        );
        assert_eq!(at("a", "b", "", Verb::Create), is("namespaces/a/things"));
        assert_eq!(
            at("", "a b:c?d=e#f", "", Verb::Get),
            is("things/a%20b%3Ac%3Fd%3De%23f")
        );
    }

    #[test]
    fn a_name_is_no_way_to_another_path() {
        for name in ["..", "a/b", "a%2fb"] {
            let refused = path(&target("a", name, ""), Verb::Get).expect_err(name);
            assert_eq!(refused.code(), 400);
        }
    }
}
