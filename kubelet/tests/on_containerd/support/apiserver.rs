//! `keelson.v1.Resources` over objects in memory: enough of it for a kubelet.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use keelson_api::ApiError;
use keelson_api::names::GroupResource;
use keelson_daemon::tls::ServerTls;
use keelson_proto::resources as wire;
use keelson_proto::resources::resources_server::{Resources, ResourcesServer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast;
use tonic::{Code, Request, Response, Status};

use super::pki::Pki;

type Key = (String, String, String);

#[derive(Clone)]
struct Change {
    kind: wire::EventType,
    resource: String,
    object: Value,
}

struct Inner {
    objects: BTreeMap<Key, Value>,
    version: u64,
}

/// The server.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Mutex<Inner>>,
    changes: broadcast::Sender<Change>,
    port: u16,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn key(resource: &str, object: &Value) -> Key {
    (
        resource.into(),
        text(&object["metadata"]["namespace"]),
        text(&object["metadata"]["name"]),
    )
}

fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, value) in patch {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

fn selected(object: &Value, namespace: &str, fields: &str) -> bool {
    if !namespace.is_empty() && object["metadata"]["namespace"] != namespace {
        return false;
    }
    fields.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (path, wanted) = part.split_once('=').unwrap_or((part, ""));
        let found = path.split('.').fold(object, |value, name| &value[name]);
        found.as_str().unwrap_or_default() == wanted
    })
}

fn refuse(error: ApiError) -> Status {
    let code = if error.is_not_found() {
        Code::NotFound
    } else {
        Code::InvalidArgument
    };
    Status::with_details(code, error.message().to_owned(), error.to_json().into())
}

fn bytes(object: &Value) -> bytes::Bytes {
    serde_json::to_vec(object).expect("JSON").into()
}

impl FakeApi {
    pub async fn serve(pki: &Pki) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let inner = Arc::new(Mutex::new(Inner {
            objects: BTreeMap::new(),
            version: 1,
        }));
        let api = Self {
            inner,
            changes: broadcast::channel(4096).0,
            port,
        };
        api.create("services", json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}}));
        let tls = ServerTls::load(
            &pki.path("server.crt"),
            &pki.path("server.key"),
            Some(&pki.path("ca.crt")),
        )
        .expect("TLS");
        let service = tonic::service::Routes::new(ResourcesServer::new(api.clone())).prepare();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let (tls, service) = (tls.clone(), service.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.acceptor().accept(stream).await else {
                        return;
                    };
                    let service = TowerToHyperService::new(service);
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        api
    }

    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    pub fn create(&self, resource: &str, mut object: Value) -> Value {
        let mut inner = self.inner.lock();
        inner.version += 1;
        let version = inner.version;
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!(
                "00000000-0000-4000-8000-{version:06}{:06}",
                std::process::id() % 1_000_000
            ));
        }
        if object["metadata"]["creationTimestamp"].is_null() {
            object["metadata"]["creationTimestamp"] = json!(keelson_api::time::now());
        }
        self.put(&mut inner, resource, object, wire::EventType::Added)
    }

    fn put(&self, inner: &mut Inner, resource: &str, mut object: Value, kind: wire::EventType) -> Value {
        inner.version += 1;
        object["metadata"]["resourceVersion"] = json!(inner.version.to_string());
        inner.objects.insert(key(resource, &object), object.clone());
        let _ = self.changes.send(Change {
            kind,
            resource: resource.into(),
            object: object.clone(),
        });
        object
    }

    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.inner
            .lock()
            .objects
            .get(&(resource.into(), namespace.into(), name.into()))
            .cloned()
    }

    pub fn list(&self, resource: &str) -> Vec<Value> {
        self.inner
            .lock()
            .objects
            .iter()
            .filter(|((kind, ..), _)| kind == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn events(&self) -> Vec<String> {
        let all = self.list("events");
        all.iter()
            .map(|event| {
                format!(
                    "{} {} {}",
                    text(&event["involvedObject"]["name"]),
                    text(&event["reason"]),
                    text(&event["message"])
                )
            })
            .collect()
    }

    pub fn patch(&self, resource: &str, namespace: &str, name: &str, patch: &Value) -> Option<Value> {
        let mut inner = self.inner.lock();
        let mut object = inner
            .objects
            .get(&(resource.into(), namespace.into(), name.into()))?
            .clone();
        merge(&mut object, patch);
        Some(self.put(&mut inner, resource, object, wire::EventType::Modified))
    }

    pub fn mark_deleted(&self, namespace: &str, name: &str, grace: i64) {
        let now = keelson_api::time::now();
        self.patch(
            "pods",
            namespace,
            name,
            &json!({"metadata": {"deletionTimestamp": now, "deletionGracePeriodSeconds": grace}}),
        );
    }

    pub fn remove(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let mut inner = self.inner.lock();
        let object = inner
            .objects
            .remove(&(resource.into(), namespace.into(), name.into()))?;
        inner.version += 1;
        let _ = self.changes.send(Change {
            kind: wire::EventType::Deleted,
            resource: resource.into(),
            object: object.clone(),
        });
        Some(object)
    }

    fn write_patch(&self, request: &wire::PatchRequest) -> Result<Value, ApiError> {
        let target = request.target.clone().unwrap_or_default();
        let missing = || ApiError::not_found(&GroupResource::core("objects"), &target.name);
        let old = self
            .get(&target.resource, &target.namespace, &target.name)
            .ok_or_else(missing)?;
        let body: Value = serde_json::from_slice(&request.body)
            .map_err(|error| ApiError::bad_request(error.to_string()))?;
        let uid = &body["metadata"]["uid"];
        if !uid.is_null() && *uid != old["metadata"]["uid"] {
            return Err(ApiError::conflict(
                &GroupResource::core("pods"),
                &target.name,
                "the UID is another",
            ));
        }
        self.patch(&target.resource, &target.namespace, &target.name, &body)
            .ok_or_else(missing)
    }
}

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Answer<T> = Result<Response<T>, Status>;

fn object(value: &Value) -> Response<wire::Object> {
    Response::new(wire::Object { json: bytes(value) })
}

#[tonic::async_trait]
impl Resources for FakeApi {
    type ListStream = Streamed<wire::ListChunk>;
    type WatchStream = Streamed<wire::WatchBatch>;

    async fn get(&self, request: Request<wire::GetRequest>) -> Answer<wire::Object> {
        let target = request.into_inner().target.unwrap_or_default();
        let found = FakeApi::get(self, &target.resource, &target.namespace, &target.name);
        found
            .map(|value| object(&value))
            .ok_or_else(|| refuse(ApiError::not_found(&GroupResource::core("objects"), &target.name)))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Answer<Self::ListStream> {
        let request = request.into_inner();
        let target = request.target.unwrap_or_default();
        let inner = self.inner.lock();
        let items = inner
            .objects
            .iter()
            .filter(|((kind, ..), value)| {
                *kind == target.resource && selected(value, &target.namespace, &request.field_selector)
            })
            .map(|(_, value)| bytes(value))
            .collect();
        let chunk = wire::ListChunk {
            items,
            resource_version: inner.version.to_string(),
            ..Default::default()
        };
        Ok(Response::new(stream::iter([Ok(chunk)]).boxed()))
    }

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let request = request.into_inner();
        let target = request.target.unwrap_or_default();
        let since: u64 = request.resource_version.parse().unwrap_or(0);
        let inner = self.inner.lock();
        let receiver = self.changes.subscribe();
        // What changed between the list and now comes first.
        let missed: Vec<Change> = inner
            .objects
            .iter()
            .filter(|((kind, ..), value)| {
                *kind == target.resource
                    && text(&value["metadata"]["resourceVersion"])
                        .parse::<u64>()
                        .is_ok_and(|version| version > since)
            })
            .map(|((kind, ..), value)| Change {
                kind: wire::EventType::Modified,
                resource: kind.clone(),
                object: value.clone(),
            })
            .collect();
        drop(inner);
        let live = stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.ok().map(|change| (change, receiver))
        });
        let events = stream::iter(missed).chain(live).filter_map(move |change| {
            let fits = change.resource == target.resource
                && selected(&change.object, &target.namespace, &request.field_selector);
            let event = wire::WatchEvent {
                r#type: change.kind.into(),
                object: bytes(&change.object),
            };
            futures::future::ready(fits.then(|| Ok(wire::WatchBatch { events: vec![event] })))
        });
        Ok(Response::new(events.boxed()))
    }

    async fn create(&self, request: Request<wire::CreateRequest>) -> Answer<wire::Object> {
        let request = request.into_inner();
        let target = request.target.unwrap_or_default();
        let value: Value = serde_json::from_slice(&request.json)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if target.subresource == "token" {
            let end = keelson_api::time::after(jiff::Timestamp::now(), std::time::Duration::from_secs(3600));
            let token = format!("token-of-{}", target.name);
            return Ok(object(
                &json!({"metadata": {}, "spec": value["spec"], "status": {"token": token, "expirationTimestamp": keelson_api::time::rfc3339(end)}}),
            ));
        }
        let name = text(&value["metadata"]["name"]);
        if FakeApi::get(self, &target.resource, &target.namespace, &name).is_some() {
            return Err(refuse(ApiError::already_exists(
                &GroupResource::core("objects"),
                &name,
            )));
        }
        Ok(object(&FakeApi::create(self, &target.resource, value)))
    }

    async fn update(&self, _: Request<wire::UpdateRequest>) -> Answer<wire::Object> {
        Err(Status::unimplemented("update"))
    }

    async fn patch(&self, request: Request<wire::PatchRequest>) -> Answer<wire::Object> {
        self.write_patch(request.get_ref())
            .map(|value| object(&value))
            .map_err(refuse)
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::Object> {
        let target = request.into_inner().target.unwrap_or_default();
        let gone = self.remove(&target.resource, &target.namespace, &target.name);
        gone.map(|value| object(&value))
            .ok_or_else(|| refuse(ApiError::not_found(&GroupResource::core("pods"), &target.name)))
    }

    async fn delete_collection(&self, _: Request<wire::DeleteCollectionRequest>) -> Answer<wire::Object> {
        Err(Status::unimplemented("deletecollection"))
    }

    async fn batch(&self, request: Request<wire::BatchRequest>) -> Answer<wire::BatchResponse> {
        use wire::batch_item::Write;
        let results = request.into_inner().items.into_iter().map(|item| {
            let result = match item.write {
                Some(Write::Create(create)) => {
                    let value: Value = serde_json::from_slice(&create.json).unwrap_or_default();
                    Ok(FakeApi::create(
                        self,
                        &create.target.unwrap_or_default().resource,
                        value,
                    ))
                }
                Some(Write::Patch(patch)) => self.write_patch(&patch),
                _ => Err(ApiError::bad_request("not in this test")),
            };
            match result {
                Ok(value) => wire::BatchResult {
                    code: 200,
                    json: bytes(&value),
                },
                Err(error) => wire::BatchResult {
                    code: i32::from(error.code()),
                    json: error.to_json().into(),
                },
            }
        });
        Ok(Response::new(wire::BatchResponse {
            results: results.collect(),
        }))
    }

    async fn discover(&self, _: Request<wire::DiscoverRequest>) -> Answer<wire::Object> {
        Err(Status::unimplemented("discover"))
    }
}
