//! The one task that follows the store: it loads everything at one revision, then applies every event in order.
//!
//! One watch covers the whole of the store's prefix, so "the cache has reached revision R" is one number for all resources.
//! When the stream breaks it is resumed after the last revision applied; when that revision has been compacted away
//! everything is loaded again and all watchers have to start over.
//!
//! Definitions of custom resources pass through here as everything else does. What they mean for the feed, another
//! place where objects lie, holds from the next event on.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause;
use keelson_api::status::{ApiError, ApiResult};
use keelson_daemon::backoff::Backoff;
use keelson_proto::etcd::watch_request::RequestUnion;
use keelson_proto::etcd::{WatchCreateRequest, WatchProgressRequest, WatchRequest};
use keelson_proto::mvcc::event::EventType as Happened;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::cache::{Entries, ResourceCache};
use super::entry::{Entry, EventType};
use super::store::{Store, StoreError, prefix_end};
use crate::custom::definition::PREFIX as DEFINITIONS;
use crate::custom::{Change, CustomResources, Prepared};

/// Keys in one page of the first load.
const PAGE: i64 = 2000;
/// How long a read waits for the cache to catch up with the store before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a read waits for a revision that its caller has named, and that may never come.
const PATIENCE_WITH_CALLERS: Duration = Duration::from_secs(3);
/// A revision that no event leads to (a write outside of the prefix) is learned by asking.
const ASK_AFTER: Duration = Duration::from_millis(20);
/// How often watchers are looked through for due bookmarks.
const TICK: Duration = Duration::from_secs(5);

/// Where a resource's keys begin, and its cache.
type ByPrefix = HashMap<&'static str, Arc<ResourceCache>>;

/// How far the caches are.
#[derive(Clone)]
pub struct Feed {
    reached: watch::Receiver<i64>,
    ask: mpsc::Sender<()>,
}

impl Feed {
    /// Starts following the store until `shutdown`.
    pub fn start(
        store: Store,
        caches: Vec<Arc<ResourceCache>>,
        custom: CustomResources,
        shutdown: CancellationToken,
    ) -> Self {
        let (progress, reached) = watch::channel(0);
        let (ask, asked) = mpsc::channel(1);
        let by_prefix = caches
            .iter()
            .map(|c| (c.info().storage_prefix, c.clone()))
            .collect();
        let mut follower = Follower {
            store,
            cluster: 0,
            by_prefix,
            custom,
            progress,
            asked,
        };
        tokio::spawn(async move { shutdown.run_until_cancelled(follower.run()).await });
        Self { reached, ask }
    }

    /// The revision everything up to which is in the caches; 0 before the first load.
    pub fn reached(&self) -> i64 {
        *self.reached.borrow()
    }

    /// Whether the first load is done.
    pub fn loaded(&self) -> bool {
        self.reached() > 0
    }

    /// Waits until the caches show a revision of the store's.
    ///
    /// # Errors
    /// 504 when that takes too long.
    pub async fn catch_up_with(&self, revision: i64) -> ApiResult<()> {
        self.wait_for(revision, PATIENCE).await
    }

    /// Waits until the caches show a revision the caller has seen elsewhere, or made up.
    ///
    /// # Errors
    /// 504 when that takes too long.
    pub async fn wait_for_named(&self, revision: i64) -> ApiResult<()> {
        self.wait_for(revision, PATIENCE_WITH_CALLERS).await
    }

    async fn wait_for(&self, revision: i64, patience: Duration) -> ApiResult<()> {
        if self.reached() >= revision {
            return Ok(());
        }
        let mut reached = self.reached.clone();
        let begun = Instant::now();
        loop {
            let waited = tokio::time::timeout(ASK_AFTER, reached.wait_for(|r| *r >= revision)).await;
            match waited {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(_)) => return Err(ApiError::service_unavailable("the server is shutting down")),
                // Full means that somebody already asked.
                Err(_) => drop(self.ask.try_send(())),
            }
            if begun.elapsed() > patience {
                return Err(too_large(revision, self.reached()));
            }
        }
    }
}

fn too_large(revision: i64, reached: i64) -> ApiError {
    let text = format!("Too large resource version: {revision}, current: {reached}");
    ApiError::timeout(&text, 1).with_cause(StatusCause {
        reason: Some("ResourceVersionTooLarge".to_owned()),
        message: Some("Too large resource version".to_owned()),
        field: None,
    })
}

struct Follower {
    store: Store,
    /// Which group of stores the caches were loaded from; another one's revisions mean something else.
    cluster: u64,
    by_prefix: ByPrefix,
    custom: CustomResources,
    progress: watch::Sender<i64>,
    asked: mpsc::Receiver<()>,
}

/// What the store held at one revision.
struct Read {
    loaded: HashMap<&'static str, Entries>,
    revision: i64,
    /// Which group of stores said so; 0 when that was not asked.
    cluster: u64,
    /// Resources of which something cannot be decrypted, and why.
    unreadable: HashMap<&'static str, String>,
}

/// Why following ended.
enum Broken {
    /// The stream broke; it can be resumed.
    Stream(String),
    /// The revision to resume from is gone, or the store is not the one it was.
    History(String),
}

impl Follower {
    async fn run(&mut self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
        loop {
            if *self.progress.borrow() == 0
                && let Err(error) = self.load().await
            {
                tracing::warn!(%error, "cannot load from the store");
                tokio::time::sleep(backoff.next_wait()).await;
                continue;
            }
            let begun = Instant::now();
            match self.follow().await {
                Broken::Stream(reason) => tracing::warn!(reason, "the watch on the store broke"),
                Broken::History(reason) => {
                    tracing::warn!(reason, "loading everything from the store again");
                    self.progress.send_replace(0);
                }
            }
            if begun.elapsed() > Duration::from_secs(10) {
                backoff.reset();
            }
            tokio::time::sleep(backoff.next_wait()).await;
        }
    }

    async fn load(&mut self) -> Result<(), StoreError> {
        // What is defined says where objects lie: definitions come first.
        let only = self.by_prefix.get_key_value(DEFINITIONS);
        let only: ByPrefix = only
            .map(|(prefix, cache)| (*prefix, cache.clone()))
            .into_iter()
            .collect();
        let definitions = self.read(&only, DEFINITIONS, 0).await?;
        let revision = definitions.revision;
        let prepared = self.define_all(definitions.loaded.get(DEFINITIONS));
        let mut everything = self.read(&self.by_prefix, "", revision).await?;
        // The same bytes, which the definitions in use hold on to.
        everything.loaded.extend(definitions.loaded);
        self.cluster = definitions.cluster;
        for (prefix, entries) in everything.loaded {
            if let Some(cache) = self.by_prefix.get(prefix) {
                cache.load(entries, revision);
                if let Some(why) = everything.unreadable.remove(prefix) {
                    cache.fail(why);
                }
            }
        }
        prepared.into_iter().for_each(|one| self.custom.publish(one));
        self.progress.send_replace(revision);
        tracing::info!(revision, "caches loaded");
        Ok(())
    }

    /// Takes every definition into account, and no other.
    fn define_all(&mut self, definitions: Option<&Entries>) -> Vec<Prepared> {
        let definitions: Vec<&Arc<Entry>> = definitions.iter().flat_map(|d| d.values()).collect();
        let names: Vec<&str> = definitions.iter().map(|entry| entry.name()).collect();
        for gone in self.custom.keep_only(&names) {
            self.by_prefix.remove(gone);
        }
        let mut prepared = Vec::new();
        for entry in definitions {
            match self.custom.written(entry.name(), &entry.object()) {
                Change::None => {}
                Change::Withdraw(prefix) => drop(self.by_prefix.remove(prefix)),
                Change::Serve(one) => {
                    self.by_prefix
                        .insert(one.cache().info().storage_prefix, one.cache().clone());
                    prepared.push(*one);
                }
            }
        }
        prepared
    }

    /// What the store holds below a prefix (empty: all) at a revision (0: now), by resource.
    async fn read(&self, caches: &ByPrefix, prefix: &str, mut revision: i64) -> Result<Read, StoreError> {
        let mut cluster = 0;
        let mut unreadable = HashMap::new();
        let root = self.store.root();
        let scope = match prefix {
            "" => root.clone(),
            prefix => format!("{root}{prefix}/"),
        };
        let mut loaded: HashMap<&'static str, Entries> =
            caches.keys().map(|p| (*p, Entries::new())).collect();
        let mut start = scope.clone();
        loop {
            let page = self.store.page(&scope, &start, revision, PAGE).await?;
            if let Some(header) = page.header.as_ref().filter(|_| revision == 0) {
                revision = header.revision;
                cluster = header.cluster_id;
            }
            if let Some(last) = page.kvs.last() {
                start = format!("{}\0", String::from_utf8_lossy(&last.key));
            }
            for kv in &page.kvs {
                let Some((cache, key)) = locate(caches, &root, &kv.key) else {
                    continue;
                };
                let prefix = cache.info().storage_prefix;
                if unreadable.contains_key(prefix) {
                    continue;
                }
                let value = match self.store.open(&kv.key, kv.value.clone()).await {
                    Ok(opened) => opened.value,
                    Err(error) => {
                        tracing::error!(resource = cache.info().plural, %error, "objects cannot be read");
                        unreadable.insert(prefix, error.to_string());
                        continue;
                    }
                };
                let key: Arc<str> = key.into();
                let strategy = cache.strategy().as_ref();
                match Entry::new(strategy, key.clone(), kv.mod_revision, &value, EventType::Added) {
                    Ok(entry) => {
                        if let Some(entries) = loaded.get_mut(prefix) {
                            entries.insert(key, Arc::new(entry));
                        }
                    }
                    Err(error) => tracing::error!(
                        key = %String::from_utf8_lossy(&kv.key), error, "stored object cannot be read"
                    ),
                }
            }
            if !page.more {
                return Ok(Read {
                    loaded,
                    revision,
                    cluster,
                    unreadable,
                });
            }
        }
    }

    /// A definition was written or removed at a revision everything up to which has been applied.
    async fn defined(&mut self, name: &str, written: bool, revision: i64) -> Result<(), StoreError> {
        let change = if written {
            let entry = self.by_prefix.get(DEFINITIONS).and_then(|cache| cache.get(name));
            match entry {
                Some(entry) => self.custom.written(name, &entry.object()),
                None => Change::None,
            }
        } else {
            self.custom.removed(name)
        };
        match change {
            Change::None => {}
            Change::Withdraw(prefix) => drop(self.by_prefix.remove(prefix)),
            Change::Serve(prepared) => {
                let (cache, prefix) = (prepared.cache().clone(), prepared.cache().info().storage_prefix);
                if prepared.load {
                    let only = ByPrefix::from([(prefix, cache.clone())]);
                    let mut read = self.read(&only, prefix, revision).await?;
                    let entries = read.loaded.remove(prefix).unwrap_or_default();
                    match self.by_prefix.contains_key(prefix) {
                        // Its watchers stay: nothing has happened to the objects.
                        true => cache.refresh(entries),
                        false => cache.load(entries, revision),
                    }
                    if let Some(why) = read.unreadable.remove(prefix) {
                        cache.fail(why);
                    }
                }
                self.by_prefix.insert(prefix, cache);
                self.custom.publish(*prepared);
            }
        }
        Ok(())
    }

    /// Loads once more what could not be decrypted. Everything up to `revision` has been applied.
    async fn try_again(&self, revision: i64) -> Result<(), StoreError> {
        for (prefix, cache) in &self.by_prefix {
            if cache.readable().is_ok() {
                continue;
            }
            let only = ByPrefix::from([(*prefix, cache.clone())]);
            let mut read = self.read(&only, prefix, revision).await?;
            if read.unreadable.is_empty() {
                tracing::info!(resource = cache.info().plural, "objects can be read again");
                cache.load(read.loaded.remove(prefix).unwrap_or_default(), revision);
            }
        }
        Ok(())
    }

    /// Applies events until something breaks.
    async fn follow(&mut self) -> Broken {
        let root = self.store.root();
        let from = *self.progress.borrow() + 1;
        let (requests, outbox) = mpsc::channel(8);
        let create = WatchCreateRequest {
            key: root.clone().into(),
            range_end: prefix_end(root.as_bytes()),
            start_revision: from,
            progress_notify: true,
            ..Default::default()
        };
        let request = |union| WatchRequest {
            request_union: Some(union),
        };
        if requests
            .send(request(RequestUnion::CreateRequest(create)))
            .await
            .is_err()
        {
            return Broken::Stream("cannot queue the request".into());
        }
        let mut stream = match self.store.watches().watch(ReceiverStream::new(outbox)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) => return Broken::Stream(status.to_string()),
        };
        let mut tick = tokio::time::interval(TICK);
        loop {
            let answer = tokio::select! {
                answer = stream.message() => match answer {
                    Ok(Some(answer)) => answer,
                    Ok(None) => return Broken::Stream("the store closed it".into()),
                    Err(status) => return Broken::Stream(status.to_string()),
                },
                _ = self.asked.recv() => {
                    // A full queue means that a question is already on its way.
                    let _ = requests.try_send(request(RequestUnion::ProgressRequest(WatchProgressRequest {})));
                    continue;
                }
                _ = tick.tick() => {
                    let reached = *self.progress.borrow();
                    let now = Instant::now();
                    self.by_prefix.values().for_each(|cache| cache.bookmark(reached, now));
                    if let Err(error) = self.try_again(reached).await {
                        return Broken::History(format!("what could not be read cannot be loaded: {error}"));
                    }
                    continue;
                }
            };
            if answer.canceled {
                return if answer.compact_revision > 0 {
                    Broken::History(format!("compacted up to {}", answer.compact_revision))
                } else {
                    Broken::Stream(answer.cancel_reason)
                };
            }
            let revision = answer.header.as_ref().map(|h| h.revision).unwrap_or_default();
            if answer.created {
                let cluster = answer.header.as_ref().map(|h| h.cluster_id).unwrap_or_default();
                if cluster != self.cluster {
                    return Broken::History(format!(
                        "this is another store: {cluster:x}, not {:x}",
                        self.cluster
                    ));
                }
                if revision < from - 1 {
                    return Broken::History(format!("the store is at {revision}, behind {}", from - 1));
                }
                continue;
            }
            let last = answer
                .events
                .last()
                .and_then(|e| e.kv.as_ref())
                .map(|kv| kv.mod_revision);
            let fragment = answer.fragment;
            for event in answer.events {
                let put = event.r#type() == Happened::Put;
                let Some(kv) = event.kv else { continue };
                let Some((cache, key)) = locate(&self.by_prefix, &root, &kv.key) else {
                    continue;
                };
                if put {
                    // What has failed is loaded as a whole.
                    if cache.readable().is_err() {
                        continue;
                    }
                    match self.store.open(&kv.key, kv.value).await {
                        Ok(opened) => cache.put(key, kv.mod_revision, &opened.value),
                        Err(error) => {
                            tracing::error!(resource = cache.info().plural, %error, "an object cannot be read");
                            cache.fail(error.to_string());
                        }
                    }
                } else {
                    cache.remove(key, kv.mod_revision);
                }
                if cache.info().storage_prefix == DEFINITIONS {
                    let (name, revision) = (key.to_owned(), kv.mod_revision);
                    if let Err(error) = self.defined(&name, put, revision).await {
                        return Broken::History(format!("objects of {name} cannot be read: {error}"));
                    }
                }
            }
            if !fragment {
                let reached = last.unwrap_or(revision);
                self.progress.send_if_modified(|now| {
                    let further = reached > *now;
                    *now = reached.max(*now);
                    further
                });
            }
        }
    }
}

/// Which cache a key of the store belongs to, and what it is called there.
fn locate<'a, 'k>(
    caches: &'a ByPrefix,
    root: &str,
    key: &'k [u8],
) -> Option<(&'a Arc<ResourceCache>, &'k str)> {
    let key = std::str::from_utf8(key).ok()?.strip_prefix(root)?;
    let (first, rest) = key.split_once('/')?;
    // `services/specs` and `services/endpoints` share their first part, other resources have only one.
    if let Some((second, name)) = rest.split_once('/')
        && let Some(cache) = caches.get(&key[..first.len() + 1 + second.len()])
    {
        return Some((cache, name));
    }
    caches.get(first).map(|cache| (cache, rest))
}
