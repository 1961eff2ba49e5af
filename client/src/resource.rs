//! The verbs, typed.

use std::marker::PhantomData;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::names::Gvr;
use keelson_api::object::{Object, ObjectKey, Unstructured};
use keelson_api::status::ApiError;
use keelson_proto::resources as wire;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::collection::{Collection, decode, encode};
use crate::errors::from_grpc;
use crate::types::{ListParams, ObjectList, Patch, WatchEvent, WatchParams, Write};

/// The annotation of the bookmark that ends a watch's initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// One collection of objects. An empty namespace is cluster scope, or all namespaces.
///
/// Connection trouble is an [`ApiError`] with reason `ServiceUnavailable`; reads have then been tried twice.
#[derive(Clone)]
pub struct ResourceClient<K> {
    collection: Collection,
    kind: PhantomData<fn() -> K>,
}

/// A collection whose kind is known only at run time.
pub type DynamicClient = ResourceClient<Unstructured>;

impl<K: Object> ResourceClient<K> {
    pub(crate) fn new(collection: Collection) -> Self {
        ResourceClient {
            collection,
            kind: PhantomData,
        }
    }

    /// Which resource this is.
    pub fn gvr(&self) -> &Gvr {
        self.collection.gvr()
    }

    /// The object as it is now.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<K, ApiError> {
        K::decode(&self.collection.get(namespace, name).await?)
    }

    /// A subresource of the object, `scale` for example.
    pub async fn get_subresource<R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
    ) -> Result<R, ApiError> {
        decode(
            &self
                .collection
                .get_part(&key.namespace, &key.name, subresource)
                .await?,
        )
    }

    /// A consistent list.
    pub async fn list(&self, namespace: &str, params: &ListParams) -> Result<ObjectList<K>, ApiError> {
        let mut list = ObjectList {
            items: Vec::new(),
            resource_version: String::new(),
            continue_token: String::new(),
        };
        let (version, token) = self
            .collection
            .list(namespace, params, |bytes| list.push(bytes))
            .await?;
        list.resource_version = version;
        list.continue_token = token;
        Ok(list)
    }

    /// The changes after `params.resource_version`. The stream ends when the server ends the watch or with an error;
    /// an error for which [`ApiError::is_expired`] holds means that the version is too old: list again.
    pub async fn watch(
        &self,
        namespace: &str,
        params: &WatchParams,
    ) -> Result<impl Stream<Item = Result<WatchEvent<K>, ApiError>> + Send + use<K>, ApiError> {
        let batches = self.collection.watch(namespace, params).await?;
        Ok(batches.flat_map(|batch| {
            let events = match batch {
                Ok(batch) => batch.events.into_iter().map(event).collect(),
                Err(status) => vec![Err(from_grpc(&status))],
            };
            stream::iter(events)
        }))
    }

    /// Creates an object; its namespace is in its metadata.
    pub async fn create(&self, object: &K) -> Result<K, ApiError> {
        let request = self.collection.creation(&object.key(), "", object.encode()?);
        K::decode(&self.collection.create(request).await?)
    }

    /// Replaces an object. With a resource version in its metadata, only if nobody changed it since.
    pub async fn update(&self, object: &K) -> Result<K, ApiError> {
        let request = self.collection.replacement(&object.key(), "", object.encode()?);
        K::decode(&self.collection.update(request).await?)
    }

    /// Replaces an object's status, and nothing else of it.
    pub async fn update_status(&self, object: &K) -> Result<K, ApiError> {
        let request = self
            .collection
            .replacement(&object.key(), "status", object.encode()?);
        K::decode(&self.collection.update(request).await?)
    }

    /// Changes a part of an object.
    pub async fn patch(&self, key: &ObjectKey, patch: Patch) -> Result<K, ApiError> {
        let request = self.collection.patching(key, "", &patch)?;
        K::decode(&self.collection.patch(request).await?)
    }

    /// Changes a part of an object's status.
    pub async fn patch_status(&self, key: &ObjectKey, patch: Patch) -> Result<K, ApiError> {
        let request = self.collection.patching(key, "status", &patch)?;
        K::decode(&self.collection.patch(request).await?)
    }

    /// Deletes an object, or marks it for deletion if somebody holds it.
    pub async fn delete(&self, key: &ObjectKey, options: &DeleteOptions) -> Result<(), ApiError> {
        let request = self.collection.deletion(key, encode(options)?);
        self.collection.delete(request).await.map(|_| ())
    }

    /// Deletes every object of a list.
    pub async fn delete_collection(
        &self,
        namespace: &str,
        params: &ListParams,
        options: &DeleteOptions,
    ) -> Result<(), ApiError> {
        self.collection
            .delete_collection(namespace, params, encode(options)?)
            .await
    }

    /// Posts to a subresource: binding, eviction, token.
    pub async fn create_subresource<B: Serialize, R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &B,
    ) -> Result<R, ApiError> {
        let request = self.collection.creation(key, subresource, encode(body)?);
        decode(&self.collection.create(request).await?)
    }

    /// Replaces a subresource: scale, finalize.
    pub async fn update_subresource<B: Serialize, R: DeserializeOwned>(
        &self,
        key: &ObjectKey,
        subresource: &str,
        body: &B,
    ) -> Result<R, ApiError> {
        let request = self.collection.replacement(key, subresource, encode(body)?);
        decode(&self.collection.update(request).await?)
    }

    /// Many writes in one round trip. Each stands alone; the results are in the order of the writes.
    pub async fn batch(&self, writes: Vec<Write<K>>) -> Result<Vec<Result<Value, ApiError>>, ApiError> {
        let results = self.batch_raw(writes).await?;
        Ok(results
            .into_iter()
            .map(|result| result.and_then(|json| decode(&json)))
            .collect())
    }

    /// Like [`ResourceClient::batch`], for callers who want to read only a part of each answer.
    pub async fn batch_as<R: DeserializeOwned>(
        &self,
        writes: Vec<Write<K>>,
    ) -> Result<Vec<Result<R, ApiError>>, ApiError> {
        let results = self.batch_raw(writes).await?;
        Ok(results
            .into_iter()
            .map(|result| result.and_then(|json| decode(&json)))
            .collect())
    }

    /// Like [`ResourceClient::batch`], for callers who want to know only whether each write was accepted.
    pub async fn batch_discard(&self, writes: Vec<Write<K>>) -> Result<Vec<Result<(), ApiError>>, ApiError> {
        let results = self.batch_raw(writes).await?;
        Ok(results.into_iter().map(|result| result.map(|_| ())).collect())
    }

    async fn batch_raw(
        &self,
        writes: Vec<Write<K>>,
    ) -> Result<Vec<Result<bytes::Bytes, ApiError>>, ApiError> {
        let writes = writes
            .into_iter()
            .map(|write| self.wire(write))
            .collect::<Result<_, _>>()?;
        self.collection.batch(writes).await
    }

    fn wire(&self, write: Write<K>) -> Result<wire::batch_item::Write, ApiError> {
        use wire::batch_item::Write as Item;
        Ok(match write {
            Write::Create(object) => {
                Item::Create(self.collection.creation(&object.key(), "", object.encode()?))
            }
            Write::Update(object) => {
                Item::Update(self.collection.replacement(&object.key(), "", object.encode()?))
            }
            Write::UpdateStatus(object) => Item::Update(self.collection.replacement(
                &object.key(),
                "status",
                object.encode()?,
            )),
            Write::Subresource { key, name, body } => {
                Item::Create(self.collection.creation(&key, &name, encode(&body)?))
            }
            Write::Patch {
                key,
                subresource,
                patch,
            } => Item::Patch(self.collection.patching(&key, &subresource, &patch)?),
            Write::Delete { key, options } => Item::Delete(self.collection.deletion(&key, encode(&options)?)),
        })
    }
}

/// One event from the wire.
pub(crate) fn event<K: Object>(event: wire::WatchEvent) -> Result<WatchEvent<K>, ApiError> {
    Ok(match event.r#type() {
        wire::EventType::Added => WatchEvent::Added(K::decode(&event.object)?),
        wire::EventType::Modified => WatchEvent::Modified(K::decode(&event.object)?),
        wire::EventType::Deleted => WatchEvent::Deleted(K::decode(&event.object)?),
        wire::EventType::Bookmark => bookmark(&event.object)?,
        wire::EventType::Error => {
            let error = ApiError::from_json(&event.object);
            return Err(
                error.unwrap_or_else(|| ApiError::service_unavailable("the watch failed without saying why"))
            );
        }
    })
}

fn bookmark<K>(json: &[u8]) -> Result<WatchEvent<K>, ApiError> {
    let object: Value = decode(json)?;
    let metadata = &object["metadata"];
    Ok(WatchEvent::Bookmark {
        resource_version: metadata["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
        initial_events_end: metadata["annotations"][INITIAL_EVENTS_END] == "true",
    })
}
