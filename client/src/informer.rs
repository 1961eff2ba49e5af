//! A reflector, its store and its subscribers.

use std::any::Any;
use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use keelson_api::names::{Gvk, Gvr};
use keelson_api::object::{Kind, Object, ObjectKey};
use keelson_api::status::ApiError;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::Client;
use crate::collection::{Collection, decode, encode};
use crate::errors::from_grpc;
use crate::reflector::{self, Sink, Source};
use crate::resource;
use crate::store::{Indexer, Store};
use crate::types::{ListParams, WatchEvent, WatchParams};

/// Which objects an informer keeps. The default is all of them.
#[derive(Clone, Debug, Default)]
pub struct InformerOptions {
    /// Only this namespace; empty: all.
    pub namespace: String,
    /// Only what these labels select.
    pub label_selector: String,
    /// Only what these fields select.
    pub field_selector: String,
}

/// One change of a store.
#[derive(Debug)]
pub enum Event<K> {
    /// An object is new.
    Added(Arc<K>),
    /// An object changed.
    Updated {
        /// What it was.
        old: Arc<K>,
        /// What it is.
        new: Arc<K>,
    },
    /// An object is gone; its last known state.
    Deleted(Arc<K>),
}

impl<K> Event<K> {
    /// The object's latest known state.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Event::Added(object) | Event::Updated { new: object, .. } | Event::Deleted(object) => object,
        }
    }
}

/// Objects of one kind, kept current by a list and a watch. Cheap to clone; every clone shows the same store.
///
/// Objects come without `metadata.managedFields`: nobody but the server has use for them, and they are half the bytes.
/// (The server keeps an object's managed fields when an update leaves them out.)
pub struct Informer<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Informer {
            shared: self.shared.clone(),
        }
    }
}

type Handler<K> = Box<dyn Fn(&Event<K>) + Send + Sync>;

struct Shared<K> {
    store: Store<K>,
    /// Held while the store changes and subscribers are told, so that a new subscriber misses and repeats nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

impl<K: Kind> Informer<K> {
    /// Starts listing and watching in a task of its own, which ends with `shutdown`.
    pub fn start(
        client: &Client,
        options: InformerOptions,
        indexers: Vec<Indexer<K>>,
        shutdown: &CancellationToken,
    ) -> Informer<K> {
        Self::start_trimmed(client, options, indexers, |_| {}, shutdown)
    }

    /// Like [`Informer::start`], but `trim` may first take out of each object what is never looked at, so that it is
    /// not kept in memory. Trimmed objects must not be written back.
    pub fn start_trimmed(
        client: &Client,
        options: InformerOptions,
        indexers: Vec<Indexer<K>>,
        trim: fn(&mut K),
        shutdown: &CancellationToken,
    ) -> Informer<K> {
        let collection = Collection::of::<K>(client.transport.clone());
        start(collection, options, indexers, trim, shutdown)
    }
}

impl<K> Informer<K> {
    /// What is known, as of the latest event.
    pub fn store(&self) -> &Store<K> {
        &self.shared.store
    }

    /// Whether the first list is in the store.
    pub fn has_synced(&self) -> bool {
        *self.shared.synced.borrow()
    }

    /// Waits until the first list is in the store.
    pub async fn synced(&self) {
        // The sender lives as long as `self`: this cannot fail.
        let _ = self.shared.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Calls `handler` with every change, in order. What exists already comes first, as [`Event::Added`].
    ///
    /// The handler runs in the informer's task: keep it short (put a key into a queue), and do not subscribe from it.
    pub fn subscribe(&self, handler: impl Fn(&Event<K>) + Send + Sync + 'static) {
        let mut handlers = self.shared.handlers.lock();
        for object in self.shared.store.list() {
            handler(&Event::Added(object));
        }
        handlers.push(Box::new(handler));
    }
}

/// Like [`Informer`], for any resource, keeping only objects' metadata.
#[derive(Clone)]
pub struct MetadataInformer {
    informer: Informer<PartialObjectMetadata>,
}

impl MetadataInformer {
    /// Starts listing and watching in a task of its own, which ends with `shutdown`.
    pub fn start(
        client: &Client,
        gvr: &Gvr,
        options: InformerOptions,
        shutdown: &CancellationToken,
    ) -> MetadataInformer {
        let collection = Collection::named(client.transport.clone(), gvr).metadata_only();
        MetadataInformer {
            informer: start(collection, options, Vec::new(), |_| {}, shutdown),
        }
    }

    /// What is known, as of the latest event.
    pub fn store(&self) -> &Store<PartialObjectMetadata> {
        self.informer.store()
    }

    /// Whether the first list is in the store.
    pub fn has_synced(&self) -> bool {
        self.informer.has_synced()
    }

    /// Waits until the first list is in the store.
    pub async fn synced(&self) {
        self.informer.synced().await;
    }

    /// Calls `handler` with every change, as [`Informer::subscribe`] does.
    pub fn subscribe(&self, handler: impl Fn(&Event<PartialObjectMetadata>) + Send + Sync + 'static) {
        self.informer.subscribe(handler);
    }
}

/// An object reduced to its metadata.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PartialObjectMetadata {
    /// Of the object itself where the server says so, otherwise `meta.k8s.io/v1`.
    #[serde(default)]
    pub api_version: String,
    /// Of the object itself where the server says so, otherwise `PartialObjectMetadata`.
    #[serde(default)]
    pub kind: String,
    /// The metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl Object for PartialObjectMetadata {
    fn gvk(&self) -> Gvk {
        Gvk::from_api_version(&self.api_version, &self.kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn encode(&self) -> Result<Vec<u8>, ApiError> {
        encode(self)
    }

    fn decode(bytes: &[u8]) -> Result<Self, ApiError> {
        decode(bytes)
    }

    fn become_decoded(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        *self = Self::decode(bytes)?;
        Ok(())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn clone_box(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }
}

fn start<T: Object>(
    collection: Collection,
    options: InformerOptions,
    indexers: Vec<Indexer<T>>,
    trim: fn(&mut T),
    shutdown: &CancellationToken,
) -> Informer<T> {
    let source = Remote {
        collection,
        options,
        trim,
    };
    let informer = Informer {
        shared: Arc::new(Shared::new(indexers)),
    };
    tokio::spawn(reflector::run(source, informer.shared.clone(), shutdown.clone()));
    informer
}

impl<K> Shared<K> {
    fn new(indexers: Vec<Indexer<K>>) -> Self {
        Shared {
            store: Store::new(indexers),
            handlers: Mutex::new(Vec::new()),
            synced: watch::Sender::new(false),
        }
    }
}

fn tell<K>(handlers: &[Handler<K>], event: &Event<K>) {
    for handler in handlers {
        handler(event);
    }
}

impl<K: Object> Shared<K> {
    fn put(&self, handlers: &[Handler<K>], item: K) {
        let new = Arc::new(item);
        let event = match self.store.insert(new.key(), new.clone()) {
            None => Event::Added(new),
            Some(old) => Event::Updated { old, new },
        };
        tell(handlers, &event);
    }
}

impl<K: Object> Sink<K> for Shared<K> {
    fn replace(&self, items: Vec<K>) {
        let handlers = self.handlers.lock();
        let mut gone: std::collections::HashSet<ObjectKey> = self.store.keys().into_iter().collect();
        for item in items {
            let key = item.key();
            gone.remove(&key);
            // A relist repeats what did not change; that is not an event.
            let known = self.store.get(&key);
            let same = known.is_some_and(|old| {
                old.resource_version() == item.resource_version() && !item.resource_version().is_empty()
            });
            if !same {
                self.put(&handlers, item);
            }
        }
        for key in gone {
            if let Some(old) = self.store.remove(&key) {
                tell(&handlers, &Event::Deleted(old));
            }
        }
        self.synced.send_replace(true);
    }

    fn apply(&self, item: K) {
        let handlers = self.handlers.lock();
        self.put(&handlers, item);
    }

    fn delete(&self, item: K) {
        let handlers = self.handlers.lock();
        if self.store.remove(&item.key()).is_some() {
            tell(&handlers, &Event::Deleted(Arc::new(item)));
        }
    }
}

/// The apiserver as a source.
struct Remote<T> {
    collection: Collection,
    options: InformerOptions,
    trim: fn(&mut T),
}

fn lean<T: Object>(mut item: T, trim: fn(&mut T)) -> T {
    item.meta_mut().managed_fields = None;
    trim(&mut item);
    item
}

impl<T: Object> Source for Remote<T> {
    type Item = T;

    async fn list(&self) -> Result<(Vec<T>, String), ApiError> {
        let params = ListParams {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            ..Default::default()
        };
        let mut items = Vec::new();
        let item = |bytes: &[u8]| {
            items.push(lean(T::decode(bytes)?, self.trim));
            Ok(())
        };
        let (version, _) = self
            .collection
            .list(&self.options.namespace, &params, item)
            .await?;
        Ok((items, version))
    }

    async fn watch(
        &self,
        version: &str,
    ) -> Result<BoxStream<'static, Result<WatchEvent<T>, ApiError>>, ApiError> {
        let params = WatchParams {
            label_selector: self.options.label_selector.clone(),
            field_selector: self.options.field_selector.clone(),
            resource_version: version.to_owned(),
            bookmarks: true,
            send_initial_events: false,
        };
        let trim = self.trim;
        let batches = self.collection.watch(&self.options.namespace, &params).await?;
        let events = batches
            .map_err(|status| from_grpc(&status))
            .map_ok(|batch| stream::iter(batch.events.into_iter().map(resource::event::<T>)))
            .try_flatten()
            .map_ok(move |event| match event {
                WatchEvent::Added(item) => WatchEvent::Added(lean(item, trim)),
                WatchEvent::Modified(item) => WatchEvent::Modified(lean(item, trim)),
                other => other,
            });
        Ok(events.boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use std::collections::VecDeque;

    fn object(name: &str, version: &str) -> ConfigMap {
        let metadata = ObjectMeta {
            name: Some(name.into()),
            namespace: Some("n".into()),
            resource_version: Some(version.into()),
            ..Default::default()
        };
        ConfigMap {
            metadata,
            ..Default::default()
        }
    }

    enum Reply {
        List(Vec<ConfigMap>, &'static str),
        Watch(&'static str, Vec<Result<WatchEvent<ConfigMap>, ApiError>>),
        WatchForever(&'static str),
    }

    /// Answers from a script, and checks the version each watch starts from.
    struct Script(Mutex<VecDeque<Reply>>);

    impl Source for Arc<Script> {
        type Item = ConfigMap;

        async fn list(&self) -> Result<(Vec<ConfigMap>, String), ApiError> {
            match self.0.lock().pop_front() {
                Some(Reply::List(items, version)) => Ok((items, version.into())),
                _ => panic!("unexpected list"),
            }
        }

        async fn watch(
            &self,
            version: &str,
        ) -> Result<BoxStream<'static, Result<WatchEvent<ConfigMap>, ApiError>>, ApiError> {
            match self.0.lock().pop_front() {
                Some(Reply::Watch(from, events)) => {
                    assert_eq!(from, version);
                    Ok(stream::iter(events).boxed())
                }
                Some(Reply::WatchForever(from)) => {
                    assert_eq!(from, version);
                    Ok(stream::pending().boxed())
                }
                _ => panic!("unexpected watch from {version}"),
            }
        }
    }

    #[tokio::test]
    async fn changes_survive_drops_and_expiry() {
        let bookmark = WatchEvent::Bookmark {
            resource_version: "20".into(),
            initial_events_end: false,
        };
        let script = Arc::new(Script(Mutex::new(VecDeque::from([
            Reply::List(vec![object("a", "1"), object("b", "2")], "10"),
            Reply::Watch(
                "10",
                vec![Ok(WatchEvent::Modified(object("a", "11"))), Ok(bookmark)],
            ),
            Reply::Watch("20", vec![Err(ApiError::service_unavailable("dropped"))]),
            Reply::Watch("20", vec![Err(ApiError::expired("compacted"))]),
            Reply::List(vec![object("a", "11"), object("c", "30")], "31"),
            Reply::Watch("31", vec![Ok(WatchEvent::Deleted(object("a", "32")))]),
            Reply::WatchForever("32"),
        ]))));
        let informer = Informer {
            shared: Arc::new(Shared::<ConfigMap>::new(Vec::new())),
        };
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        informer.subscribe(move |event| {
            let what = match event {
                Event::Added(_) => "+",
                Event::Updated { .. } => "~",
                Event::Deleted(_) => "-",
            };
            log.lock().push(format!(
                "{what}{}@{}",
                event.object().name(),
                event.object().resource_version()
            ));
        });
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(reflector::run(
            script.clone(),
            informer.shared.clone(),
            shutdown.clone(),
        ));
        informer.synced().await;
        while !script.0.lock().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        shutdown.cancel();
        task.await.unwrap();
        assert_eq!(*seen.lock(), ["+a@1", "+b@2", "~a@11", "+c@30", "-b@2", "-a@32"]);

        let replayed = Arc::new(Mutex::new(Vec::new()));
        let log = replayed.clone();
        informer.subscribe(move |event| log.lock().push(event.object().name().to_owned()));
        assert_eq!(*replayed.lock(), ["c"]);
    }
}
