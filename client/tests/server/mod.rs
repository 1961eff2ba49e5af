//! A small apiserver: one store in memory behind `keelson.v1.Resources`, over TLS.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::names::GroupResource;
use keelson_api::status::ApiError;
use keelson_daemon::tls::ServerTls;
use keelson_proto::resources as wire;
use keelson_proto::resources::resources_server::{Resources, ResourcesServer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

pub fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some("default".into()),
            uid: Some(name.into()),
            ..Default::default()
        },
        data: Some(BTreeMap::from([("key".into(), value.into())])),
        ..Default::default()
    }
}

/// Signs servers' certificates.
pub struct Authority(rcgen::Issuer<'static, rcgen::KeyPair>, String);

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority(rcgen::Issuer::new(params, key), pem)
    }

    pub fn pem(&self) -> Vec<u8> {
        self.1.clone().into_bytes()
    }

    fn server(&self) -> ServerTls {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert_file, key_file) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
        std::fs::write(&cert_file, certificate.pem()).unwrap();
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        ServerTls::load(&cert_file, &key_file, None).unwrap()
    }
}

/// What is stored: objects by resource, namespace and name, and every event since the last compaction.
#[derive(Default)]
struct Store {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<(String, String, String), Value>,
    log: Vec<(u64, String, wire::WatchEvent)>,
    lists: usize,
    token: Option<String>,
}

pub struct State {
    store: Mutex<Arc<Mutex<Store>>>,
    changed: Mutex<watch::Sender<u64>>,
    break_watches: watch::Sender<u64>,
}

impl State {
    fn store(&self) -> Arc<Mutex<Store>> {
        self.store.lock().clone()
    }

    fn write(&self, resource: &str, kind: wire::EventType, mut object: Value) -> Value {
        let store = self.store();
        let mut store = store.lock();
        store.revision += 1;
        let revision = store.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (resource.to_owned(), text("namespace"), text("name"));
        match kind {
            wire::EventType::Deleted => drop(store.objects.remove(&key)),
            _ => drop(store.objects.insert(key, object.clone())),
        }
        let event = wire::WatchEvent {
            r#type: kind.into(),
            object: object.to_string().into_bytes().into(),
        };
        store.log.push((revision, resource.to_owned(), event));
        drop(store);
        self.changed.lock().send_replace(revision);
        object
    }

    pub fn create(&self, object: ConfigMap) {
        self.write(
            "configmaps",
            wire::EventType::Added,
            serde_json::to_value(object).unwrap(),
        );
    }

    pub fn compact_and_break_watches(&self) {
        let store = self.store();
        let mut store = store.lock();
        store.revision += 1;
        store.compacted = store.revision;
        store.log.clear();
        drop(store);
        self.break_watches.send_modify(|n| *n += 1);
    }

    pub fn lists(&self) -> usize {
        self.store().lock().lists
    }

    pub fn last_token(&self) -> Option<String> {
        self.store().lock().token.clone()
    }

    fn of(&self, resource: &str) -> Vec<Value> {
        let store = self.store();
        let store = store.lock();
        store
            .objects
            .iter()
            .filter(|(key, _)| key.0 == resource)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn events(&self) -> Vec<Value> {
        self.of("events")
    }

    pub fn holder(&self, lease: &str) -> Option<String> {
        let lease = self
            .of("leases")
            .into_iter()
            .find(|object| object["metadata"]["name"] == lease)?;
        lease["spec"]["holderIdentity"]
            .as_str()
            .filter(|holder| !holder.is_empty())
            .map(str::to_owned)
    }

    fn get(&self, target: &wire::Target) -> Result<Value, ApiError> {
        let key = (
            target.resource.clone(),
            target.namespace.clone(),
            target.name.clone(),
        );
        let found = self.store().lock().objects.get(&key).cloned();
        found.ok_or_else(|| ApiError::not_found(&GroupResource::core(target.resource.clone()), &target.name))
    }

    fn post(&self, request: &wire::CreateRequest) -> Result<Value, ApiError> {
        let target = request.target.clone().unwrap_or_default();
        let object: Value = serde_json::from_slice(&request.json).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self
            .get(&wire::Target {
                name: name.clone(),
                ..target.clone()
            })
            .is_ok()
        {
            return Err(ApiError::already_exists(
                &GroupResource::core(target.resource),
                &name,
            ));
        }
        Ok(self.write(&target.resource, wire::EventType::Added, object))
    }

    fn put(&self, request: &wire::UpdateRequest) -> Result<Value, ApiError> {
        let target = request.target.clone().unwrap_or_default();
        let object: Value = serde_json::from_slice(&request.json).unwrap();
        let current = self.get(&target)?;
        if current["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
            return Err(ApiError::conflict(
                &GroupResource::core(target.resource),
                &target.name,
                "changed",
            ));
        }
        Ok(self.write(&target.resource, wire::EventType::Modified, object))
    }

    fn patch(&self, request: &wire::PatchRequest) -> Result<Value, ApiError> {
        let target = request.target.clone().unwrap_or_default();
        let mut object = self.get(&target)?;
        let patch: serde_json::Map<String, Value> = serde_json::from_slice(&request.body).unwrap();
        for (field, value) in patch {
            object[field] = value;
        }
        Ok(self.write(&target.resource, wire::EventType::Modified, object))
    }
}

fn refuse(error: ApiError) -> Status {
    Status::with_details(Code::Unknown, error.message(), error.to_json().into())
}

fn answer(result: Result<Value, ApiError>) -> Result<Response<wire::Object>, Status> {
    let object = result.map_err(refuse)?;
    Ok(Response::new(wire::Object {
        json: object.to_string().into_bytes().into(),
    }))
}

struct Service(Arc<State>);

type Chunks = Pin<Box<dyn Stream<Item = Result<wire::ListChunk, Status>> + Send>>;
type Batches = Pin<Box<dyn Stream<Item = Result<wire::WatchBatch, Status>> + Send>>;

#[async_trait::async_trait]
impl Resources for Service {
    async fn get(&self, request: Request<wire::GetRequest>) -> Result<Response<wire::Object>, Status> {
        let token = request
            .metadata()
            .get("authorization")
            .and_then(|token| token.to_str().ok());
        self.0.store().lock().token = token.map(str::to_owned);
        answer(self.0.get(&request.into_inner().target.unwrap_or_default()))
    }

    type ListStream = Chunks;

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<Chunks>, Status> {
        let target = request.into_inner().target.unwrap_or_default();
        let items = self
            .0
            .of(&target.resource)
            .into_iter()
            .map(|object| object.to_string().into_bytes().into());
        let items = wire::ListChunk {
            items: items.collect(),
            ..Default::default()
        };
        let store = self.0.store();
        let mut store = store.lock();
        store.lists += 1;
        let end = wire::ListChunk {
            resource_version: store.revision.to_string(),
            ..Default::default()
        };
        Ok(Response::new(stream::iter([Ok(items), Ok(end)]).boxed()))
    }

    type WatchStream = Batches;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Result<Response<Batches>, Status> {
        let request = request.into_inner();
        let resource = request.target.unwrap_or_default().resource;
        let from: u64 = request.resource_version.parse().unwrap();
        if from < self.0.store().lock().compacted {
            return Err(refuse(ApiError::expired("too old resource version")));
        }
        let changes = self.0.changed.lock().subscribe();
        let broken = self.0.break_watches.subscribe();
        let state = self.0.clone();
        let batches = stream::unfold((from, changes, broken), move |(from, mut changes, mut broken)| {
            let (state, resource) = (state.clone(), resource.clone());
            async move {
                loop {
                    changes.borrow_and_update();
                    let store = state.store();
                    let (revision, events) = {
                        let store = store.lock();
                        let new = store
                            .log
                            .iter()
                            .filter(|(at, of, _)| *at > from && *of == resource);
                        (
                            store.revision,
                            new.map(|(_, _, event)| event.clone()).collect::<Vec<_>>(),
                        )
                    };
                    if !events.is_empty() {
                        return Some((Ok(wire::WatchBatch { events }), (revision, changes, broken)));
                    }
                    tokio::select! {
                        biased;
                        _ = broken.changed() => return None,
                        _ = changes.changed() => {}
                    }
                }
            }
        });
        Ok(Response::new(batches.boxed()))
    }

    async fn create(&self, request: Request<wire::CreateRequest>) -> Result<Response<wire::Object>, Status> {
        answer(self.0.post(request.get_ref()))
    }

    async fn update(&self, request: Request<wire::UpdateRequest>) -> Result<Response<wire::Object>, Status> {
        answer(self.0.put(request.get_ref()))
    }

    async fn patch(&self, request: Request<wire::PatchRequest>) -> Result<Response<wire::Object>, Status> {
        answer(self.0.patch(request.get_ref()))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Result<Response<wire::Object>, Status> {
        let target = request.into_inner().target.unwrap_or_default();
        let object = self.0.get(&target).map_err(refuse)?;
        answer(Ok(self.0.write(
            &target.resource,
            wire::EventType::Deleted,
            object,
        )))
    }

    async fn delete_collection(
        &self,
        _: Request<wire::DeleteCollectionRequest>,
    ) -> Result<Response<wire::Object>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn batch(
        &self,
        request: Request<wire::BatchRequest>,
    ) -> Result<Response<wire::BatchResponse>, Status> {
        use wire::batch_item::Write;
        let result = |item: wire::BatchItem| {
            let result = match item.write {
                Some(Write::Create(create)) => self.0.post(&create),
                Some(Write::Update(update)) => self.0.put(&update),
                Some(Write::Patch(patch)) => self.0.patch(&patch),
                _ => Err(ApiError::bad_request("not here")),
            };
            match result {
                Ok(object) => wire::BatchResult {
                    code: 200,
                    json: object.to_string().into_bytes().into(),
                },
                Err(error) => wire::BatchResult {
                    code: error.code().into(),
                    json: error.to_json().into(),
                },
            }
        };
        let results = request.into_inner().items.into_iter().map(result).collect();
        Ok(Response::new(wire::BatchResponse { results }))
    }

    async fn discover(&self, _: Request<wire::DiscoverRequest>) -> Result<Response<wire::Object>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

/// A running server. All its connections end when it is stopped or dropped.
pub struct Server {
    address: SocketAddr,
    pub state: Arc<State>,
    stop: CancellationToken,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    pub async fn start(authority: &Authority) -> Self {
        let tls = authority.server();
        let state = Arc::new(State {
            store: Mutex::default(),
            changed: Mutex::new(watch::Sender::new(0)),
            break_watches: watch::Sender::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let routes = tonic::service::Routes::new(ResourcesServer::new(Service(state.clone()))).prepare();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                    let (acceptor, routes, stop) = (tls.acceptor(), routes.clone(), stop.clone());
                    tokio::spawn(async move {
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let builder = auto::Builder::new(TokioExecutor::new());
                        let service = TowerToHyperService::new(routes);
                        let connection = builder.serve_connection(TokioIo::new(stream), service);
                        let _ = stop.run_until_cancelled(connection).await;
                    });
                }
            }
        });
        Server {
            address,
            state,
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Serves the other server's store.
    pub fn share(&self, other: &Server) {
        *self.state.store.lock() = other.state.store();
        *self.state.changed.lock() = other.state.changed.lock().clone();
    }

    pub async fn stop(&self) {
        self.stop.cancel();
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}
