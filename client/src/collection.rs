//! The verbs of `keelson.v1.Resources` on one collection, in bytes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use keelson_api::names::Gvr;
use keelson_api::object::{Kind, ObjectKey};
use keelson_api::status::ApiError;
use keelson_daemon::backoff::Backoff;
use keelson_proto::resources as wire;
use keelson_proto::resources::resources_client::ResourcesClient;
use serde::Deserialize;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use crate::errors::{from_grpc, is_connection_trouble};
use crate::transport::{Authorize, Transport};
use crate::types::{ApiResource, Discovery, ListParams, Patch, WatchParams};

/// One resource of one version, and the connection to it.
#[derive(Clone)]
pub(crate) struct Collection {
    transport: Arc<Transport>,
    gvr: Gvr,
    view: wire::View,
}

type Grpc = ResourcesClient<Channel>;

/// Calls once more where the connection failed: the first failure is often only how a dead server is discovered.
/// Only for calls that change nothing, or whose repetition changes nothing.
async fn twice<T, F, Fut>(transport: &Transport, call: F) -> Result<T, ApiError>
where
    F: Fn(Grpc, Authorize) -> Fut,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    let (client, authorize) = transport.grpc();
    let first = match call(client, authorize).await {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) => status,
    };
    if !is_connection_trouble(&first) {
        return Err(from_grpc(&first));
    }
    let (client, authorize) = transport.grpc();
    call(client, authorize)
        .await
        .map(Response::into_inner)
        .map_err(|status| from_grpc(&status))
}

impl Collection {
    pub(crate) fn of<K: Kind>(transport: Arc<Transport>) -> Self {
        Collection {
            transport,
            gvr: K::gvr(),
            view: wire::View::Full,
        }
    }

    pub(crate) fn named(transport: Arc<Transport>, gvr: &Gvr) -> Self {
        Collection {
            transport,
            gvr: gvr.clone(),
            view: wire::View::Full,
        }
    }

    /// The same collection, but objects come as their metadata alone.
    pub(crate) fn metadata_only(mut self) -> Self {
        self.view = wire::View::Metadata;
        self
    }

    pub(crate) fn gvr(&self) -> &Gvr {
        &self.gvr
    }

    fn target(&self, namespace: &str, name: &str, subresource: &str) -> Option<wire::Target> {
        Some(wire::Target {
            group: self.gvr.group.to_string(),
            version: self.gvr.version.to_string(),
            resource: self.gvr.resource.to_string(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    fn options(&self) -> Option<wire::WriteOptions> {
        Some(wire::WriteOptions {
            field_manager: self.transport.manager.clone(),
            ..Default::default()
        })
    }

    pub(crate) async fn get(&self, namespace: &str, name: &str) -> Result<Bytes, ApiError> {
        self.get_part(namespace, name, "").await
    }

    /// The object, or a subresource of it.
    pub(crate) async fn get_part(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
    ) -> Result<Bytes, ApiError> {
        let request = wire::GetRequest {
            target: self.target(namespace, name, subresource),
            resource_version: String::new(),
            view: self.view.into(),
        };
        let object = twice(&self.transport, |mut client, authorize| {
            let request = authorize.request(request.clone());
            async move { client.get(request).await }
        })
        .await?;
        Ok(object.json)
    }

    /// Lists, handing each item to `item` as it arrives. Returns the resource version and the continue token.
    pub(crate) async fn list(
        &self,
        namespace: &str,
        params: &ListParams,
        mut item: impl FnMut(&[u8]) -> Result<(), ApiError>,
    ) -> Result<(String, String), ApiError> {
        let request = wire::ListRequest {
            target: self.target(namespace, "", ""),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
            resource_version: params.resource_version.clone(),
            resource_version_match: String::new(),
            limit: params.limit,
            r#continue: params.continue_token.clone(),
            view: self.view.into(),
        };
        let mut stream = twice(&self.transport, |mut client, authorize| {
            let request = authorize.request(request.clone());
            async move { client.list(request).await }
        })
        .await?;
        let mut end = None;
        while let Some(chunk) = stream.message().await.map_err(|status| from_grpc(&status))? {
            for bytes in &chunk.items {
                item(bytes)?;
            }
            if !chunk.resource_version.is_empty() {
                end = Some((chunk.resource_version, chunk.r#continue));
            }
        }
        end.ok_or_else(|| ApiError::service_unavailable("the list ended without its resource version"))
    }

    pub(crate) async fn watch(
        &self,
        namespace: &str,
        params: &WatchParams,
    ) -> Result<Streaming<wire::WatchBatch>, ApiError> {
        let request = wire::WatchRequest {
            target: self.target(namespace, "", ""),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
            resource_version: params.resource_version.clone(),
            allow_bookmarks: params.bookmarks,
            send_initial_events: params.send_initial_events,
            view: self.view.into(),
        };
        twice(&self.transport, |mut client, authorize| {
            let request = authorize.request(request.clone());
            async move { client.watch(request).await }
        })
        .await
    }

    pub(crate) fn creation(&self, key: &ObjectKey, subresource: &str, json: Vec<u8>) -> wire::CreateRequest {
        // A name in the target belongs to a subresource; for a new object it is in the object.
        let name = if subresource.is_empty() { "" } else { &key.name };
        wire::CreateRequest {
            target: self.target(&key.namespace, name, subresource),
            json: json.into(),
            options: self.options(),
        }
    }

    pub(crate) fn replacement(
        &self,
        key: &ObjectKey,
        subresource: &str,
        json: Vec<u8>,
    ) -> wire::UpdateRequest {
        wire::UpdateRequest {
            target: self.target(&key.namespace, &key.name, subresource),
            json: json.into(),
            options: self.options(),
        }
    }

    pub(crate) fn patching(
        &self,
        key: &ObjectKey,
        subresource: &str,
        patch: &Patch,
    ) -> Result<wire::PatchRequest, ApiError> {
        let mut options = self.options();
        if let (Patch::Apply { manager, force, .. }, Some(options)) = (patch, options.as_mut()) {
            options.field_manager = manager.clone();
            options.force = *force;
        }
        Ok(wire::PatchRequest {
            target: self.target(&key.namespace, &key.name, subresource),
            content_type: patch.content_type().to_owned(),
            body: encode(patch.body())?.into(),
            options,
        })
    }

    pub(crate) fn deletion(&self, key: &ObjectKey, options: Vec<u8>) -> wire::DeleteRequest {
        wire::DeleteRequest {
            target: self.target(&key.namespace, &key.name, ""),
            options: options.into(),
        }
    }

    pub(crate) async fn create(&self, request: wire::CreateRequest) -> Result<Bytes, ApiError> {
        patiently(|| async {
            let (mut client, authorize) = self.transport.grpc();
            written(client.create(authorize.request(request.clone())).await)
        })
        .await
    }

    pub(crate) async fn update(&self, request: wire::UpdateRequest) -> Result<Bytes, ApiError> {
        patiently(|| async {
            let (mut client, authorize) = self.transport.grpc();
            written(client.update(authorize.request(request.clone())).await)
        })
        .await
    }

    pub(crate) async fn patch(&self, request: wire::PatchRequest) -> Result<Bytes, ApiError> {
        patiently(|| async {
            let (mut client, authorize) = self.transport.grpc();
            written(client.patch(authorize.request(request.clone())).await)
        })
        .await
    }

    pub(crate) async fn delete(&self, request: wire::DeleteRequest) -> Result<Bytes, ApiError> {
        patiently(|| async {
            let (mut client, authorize) = self.transport.grpc();
            written(client.delete(authorize.request(request.clone())).await)
        })
        .await
    }

    pub(crate) async fn delete_collection(
        &self,
        namespace: &str,
        params: &ListParams,
        options: Vec<u8>,
    ) -> Result<(), ApiError> {
        let request = wire::DeleteCollectionRequest {
            target: self.target(namespace, "", ""),
            options: options.into(),
            label_selector: params.label_selector.clone(),
            field_selector: params.field_selector.clone(),
        };
        let (mut client, authorize) = self.transport.grpc();
        written(client.delete_collection(authorize.request(request)).await).map(|_| ())
    }

    /// Many writes in one round trip; the results are in the writes' order. Those that the server had no place for are
    /// sent again.
    pub(crate) async fn batch(
        &self,
        writes: Vec<wire::batch_item::Write>,
    ) -> Result<Vec<Result<Bytes, ApiError>>, ApiError> {
        let mut results = Vec::with_capacity(writes.len());
        let mut backoff = patience();
        let mut items: Vec<_> = writes
            .into_iter()
            .map(|write| wire::BatchItem { write: Some(write) })
            .collect();
        // Which of the results the items are.
        let mut places: Vec<usize> = (0..items.len()).collect();
        for attempt in 1.. {
            let answers = self.batch_once(items.clone()).await?;
            let (mut left, mut left_places) = (Vec::new(), Vec::new());
            for ((item, place), answer) in items.into_iter().zip(places).zip(answers) {
                match answer {
                    Err(error) if attempt < ATTEMPTS && is_overload(&error) => {
                        left.push(item);
                        left_places.push(place);
                    }
                    answer => results.push((place, answer)),
                }
            }
            if left.is_empty() {
                break;
            }
            (items, places) = (left, left_places);
            tokio::time::sleep(backoff.next_wait()).await;
        }
        results.sort_unstable_by_key(|(place, _)| *place);
        Ok(results.into_iter().map(|(_, result)| result).collect())
    }

    async fn batch_once(
        &self,
        items: Vec<wire::BatchItem>,
    ) -> Result<Vec<Result<Bytes, ApiError>>, ApiError> {
        let wanted = items.len();
        let (mut client, authorize) = self.transport.grpc();
        let response = client
            .batch(authorize.request(wire::BatchRequest { items }))
            .await;
        let results = response
            .map_err(|status| from_grpc(&status))?
            .into_inner()
            .results;
        if results.len() != wanted {
            let got = results.len();
            return Err(ApiError::internal(format_args!(
                "a batch of {wanted} writes was answered with {got} results"
            )));
        }
        let result = |result: wire::BatchResult| {
            if result.code < 400 {
                return Ok(result.json);
            }
            let code = u16::try_from(result.code).unwrap_or(500);
            Err(ApiError::from_json(&result.json).unwrap_or_else(|| ApiError::new(code, "", "")))
        };
        Ok(results.into_iter().map(result).collect())
    }
}

/// How often a write is tried that the server has no place for.
const ATTEMPTS: u32 = 10;

/// The waits between such attempts: places come free within milliseconds, unless the server is in trouble.
fn patience() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

/// Whether the server refused because it had too much to do at that moment. (With a cause it is about the object: a
/// disruption budget, say.)
fn is_overload(error: &ApiError) -> bool {
    error.is_too_many_requests() && error.causes().is_empty()
}

/// Writes, again and again while the server has no place for it.
async fn patiently<F, Fut>(write: F) -> Result<Bytes, ApiError>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Result<Bytes, ApiError>>,
{
    let mut backoff = patience();
    for _ in 1..ATTEMPTS {
        match write().await {
            Err(error) if is_overload(&error) => tokio::time::sleep(backoff.next_wait()).await,
            result => return result,
        }
    }
    write().await
}

fn written(response: Result<Response<wire::Object>, Status>) -> Result<Bytes, ApiError> {
    response
        .map(|object| object.into_inner().json)
        .map_err(|status| from_grpc(&status))
}

/// JSON of a value that is not an object of the API.
pub(crate) fn encode<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value)
        .map_err(|error| ApiError::bad_request(format!("cannot encode the request: {error}")))
}

/// A value that is not an object of the API, from JSON.
pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ApiError::internal(format_args!("cannot decode the server's answer: {error}")))
}

/// Every resource the server serves, from its aggregated discovery document.
pub(crate) async fn discover(transport: &Transport) -> Result<Discovery, ApiError> {
    let document = twice(transport, |mut client, authorize| async move {
        client.discover(authorize.request(wire::DiscoverRequest {})).await
    })
    .await?;
    let groups: GroupList = decode(&document.json)?;
    Ok(groups.flatten())
}

/// What is said of a group version was so once.
const STALE: &str = "Stale";

#[derive(Deserialize)]
struct GroupList {
    #[serde(default)]
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: GroupName,
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize, Default)]
struct GroupName {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct GroupVersion {
    version: String,
    #[serde(default)]
    freshness: String,
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    resource: String,
    #[serde(default, rename = "responseKind")]
    response_kind: ResponseKind,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    verbs: Vec<String>,
}

#[derive(Deserialize, Default)]
struct ResponseKind {
    #[serde(default)]
    kind: String,
}

impl GroupList {
    fn flatten(self) -> Discovery {
        let mut all = Discovery::default();
        for group in self.items {
            for version in group.versions {
                if version.freshness == STALE {
                    all.stale
                        .push(format!("{}/{}", group.metadata.name, version.version));
                    continue;
                }
                all.resources
                    .extend(version.resources.into_iter().map(|resource| ApiResource {
                        group: group.metadata.name.clone(),
                        version: version.version.clone(),
                        kind: resource.response_kind.kind,
                        plural: resource.resource,
                        namespaced: resource.scope == "Namespaced",
                        verbs: resource.verbs,
                    }));
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discovery_is_flattened() {
        let text = r#"{"kind":"APIGroupDiscoveryList","items":[
            {"metadata":{"creationTimestamp":null},"versions":[{"version":"v1","resources":[
                {"resource":"pods","responseKind":{"group":"","version":"","kind":"Pod"},"scope":"Namespaced",
                 "verbs":["get","list"],"subresources":[]}]}]},
            {"metadata":{"name":"apps"},"versions":[{"version":"v1","freshness":"Current","resources":[
                {"resource":"deployments","responseKind":{"kind":"Deployment"},"scope":"Namespaced","verbs":["get"]}]}]},
            {"metadata":{"name":"other"},"versions":[{"version":"v1beta1","freshness":"Stale","resources":[
                {"resource":"things","responseKind":{"kind":"Thing"},"scope":"Namespaced","verbs":["get"]}]}]}]}"#;
        let found = decode::<GroupList>(text.as_bytes()).unwrap().flatten();
        assert_eq!(found.stale, ["other/v1beta1"]);
        let all = found.resources;
        assert_eq!(all.len(), 2);
        assert_eq!(
            (all[0].group.as_str(), all[0].plural.as_str(), all[0].namespaced),
            ("", "pods", true)
        );
        assert_eq!(
            (all[1].group.as_str(), all[1].kind.as_str()),
            ("apps", "Deployment")
        );
    }
}
