//! What every request shares: the resources served, their caches, the store, admission and configuration.
//!
//! Kinds and admission plugins use [`Server`] to look at other objects and, rarely, to change them. Reads come in two
//! sorts: `cached*` answers from the watch cache at once and may lag behind by a moment, `fresh*` first makes sure that
//! the cache has seen everything written before the call. Writes go through the same handlers as requests do.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::apply::Shapes;
use keelson_api::object::Kind;
use keelson_api::status::{ApiError, ApiResult};

use tokio_util::sync::CancellationToken;

use crate::admission::chain::Chain;
use crate::admission::{Attributes, Operation};
use crate::aggregator::Aggregator;
use crate::audit::AuditLog;
use crate::authentication::{Authenticator, User};
use crate::authorization::Authorizer;
use crate::config::Config;
use crate::connect::{KubeletAccess, Lookup};
use crate::flow_control::FlowControl;
use crate::handlers::managers::Tracking;
use crate::handlers::options::WriteOptions;
use crate::handlers::update::{Base, Extent};
use crate::handlers::{self, Call};
use crate::metrics::ServerMetrics;
use crate::registry::catalog::{Catalog, Served};
use crate::registry::strategy::RequestContext;
use crate::storage::cache::{ResourceCache, select};
use crate::storage::entry::Entry;
use crate::storage::feed::Feed;
use crate::storage::filter::Filter;
use crate::storage::freshness::Freshness;
use crate::storage::store::Store;
use crate::{discovery, openapi};

/// The manager of what the server itself makes.
const MANAGER: &str = "kube-apiserver";

/// Everything requests share.
pub struct Server {
    /// The command line.
    pub config: Config,
    /// The store itself; objects are better read through the caches.
    pub store: Store,
    /// Every resource.
    pub catalog: Catalog,
    /// How far the caches are.
    pub feed: Feed,
    /// How far the store is.
    pub freshness: Freshness,
    /// What new objects were like.
    pub shapes: Shapes,
    /// Plugins.
    pub admission: Chain,
    /// Who is calling.
    pub authenticator: Authenticator,
    /// Who may do what.
    pub authorizer: Authorizer,
    /// How much at a time.
    pub flow: FlowControl,
    /// Who did what.
    pub audit: AuditLog,
    /// How kubelets are reached.
    pub kubelets: KubeletAccess,
    /// Figures.
    pub metrics: ServerMetrics,
    /// Discovery documents.
    pub discovery: discovery::Published,
    /// OpenAPI documents.
    pub openapi: openapi::Documents,
    /// Group versions that other servers serve.
    pub aggregator: Aggregator,
    /// Cancelled when the server stops.
    pub shutdown: CancellationToken,
}

impl Server {
    /// The resource of that name in that group version. A definition that was written before the call counts.
    pub async fn find(&self, group: &str, version: &str, plural: &str) -> ApiResult<Cow<'_, Served>> {
        if let Some(served) = self.catalog.find(group, version, plural) {
            return Ok(served);
        }
        // Only groups with a dot can be those of definitions; another server may know of one a moment earlier.
        if group.contains('.') {
            self.catch_up().await?;
        }
        self.catalog
            .find(group, version, plural)
            .ok_or_else(ApiError::no_such_resource)
    }

    /// What discovery says now.
    pub fn discovery(&self) -> Arc<discovery::Documents> {
        self.discovery.of(&self.catalog, &self.aggregator)
    }

    fn cache_of<K: Kind>(&self) -> ApiResult<&Arc<ResourceCache>> {
        self.catalog
            .of::<K>()
            .ok_or_else(|| ApiError::internal(format_args!("{} is not served", K::KIND)))
    }

    fn served_of<K: Kind>(&self) -> ApiResult<Served> {
        Ok(Served::stored(self.cache_of::<K>()?.clone()))
    }

    /// An object from the cache, which may lag behind by a moment.
    pub fn cached<K: Kind>(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let entry = self.catalog.of::<K>()?.get(&cache_key(namespace, name))?;
        entry.typed()
    }

    /// Whether the cache has such an object.
    pub fn exists<K: Kind>(&self, namespace: &str, name: &str) -> bool {
        self.catalog
            .of::<K>()
            .is_some_and(|cache| cache.get(&cache_key(namespace, name)).is_some())
    }

    /// The objects of a namespace (empty: all) from the cache. For kinds with few objects: they stay decoded.
    pub fn cached_list<K: Kind>(&self, namespace: &str) -> Vec<Arc<K>> {
        self.select::<K, _>(namespace, Entry::typed)
    }

    fn select<K: Kind, T>(&self, namespace: &str, read: impl Fn(&Entry) -> Option<T>) -> Vec<T> {
        let Some(cache) = self.catalog.of::<K>() else {
            return Vec::new();
        };
        let (entries, _) = cache.snapshot(|| self.feed.reached());
        if entries.is_empty() {
            return Vec::new();
        }
        let filter = Filter::namespace(namespace);
        select(&entries, &filter, None)
            .filter_map(|entry| read(entry))
            .collect()
    }

    /// An object as it is now, or the 404 for it.
    pub async fn fresh<K: Kind>(&self, namespace: &str, name: &str) -> ApiResult<K> {
        self.catch_up().await?;
        self.catalog
            .of::<K>()
            .and_then(|cache| cache.get(&cache_key(namespace, name)))
            .and_then(|entry| entry.read())
            .ok_or_else(|| ApiError::not_found(&K::group_resource(), name))
    }

    /// The objects of a namespace (empty: all) as they are now.
    pub async fn fresh_list<K: Kind>(&self, namespace: &str) -> ApiResult<Vec<K>> {
        self.catch_up().await?;
        Ok(self.select::<K, _>(namespace, Entry::read))
    }

    /// Waits until the caches show everything written before this call.
    pub async fn catch_up(&self) -> ApiResult<i64> {
        let revision = self.freshness.revision().await?;
        self.feed.catch_up_with(revision).await?;
        Ok(revision)
    }

    /// Creates an object on behalf of the server itself.
    pub async fn create<K: Kind>(self: &Arc<Self>, object: &K) -> ApiResult<K> {
        let served = self.served_of::<K>()?;
        let user = User::loopback();
        let meta = object.metadata();
        let call = Call::new(
            self,
            &served,
            &user,
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
            "",
        );
        let call = call.with_options(WriteOptions {
            field_manager: MANAGER.to_owned(),
            tracking: Tracking::Manager,
            ..WriteOptions::default()
        });
        let outcome = handlers::create::create_object(&call, Box::new(object.clone())).await?;
        typed(&outcome.json)
    }

    /// Changes an object through `change`, again and again until nobody else changed it in between. `change` may refuse.
    /// `subresource` is empty or `status` and the like. The strategy's rules hold, admission runs as for `user`.
    pub async fn update<K: Kind>(
        self: &Arc<Self>,
        user: &User,
        (namespace, name, subresource): (&str, &str, &str),
        mut change: impl FnMut(&mut K) -> ApiResult<()> + Send,
    ) -> ApiResult<K> {
        let served = self.served_of::<K>()?;
        let call = Call::new(self, &served, user, namespace, name, subresource);
        let outcome = handlers::update::update_with(&call, Base::Present, Extent::Whole, |old| {
            let mut new = old.clone_box();
            let typed = new
                .downcast_mut::<K>()
                .ok_or_else(|| ApiError::internal("an object of another type"))?;
            change(typed)?;
            Ok(new)
        })
        .await?;
        typed(&outcome.json)
    }

    /// Deletes an object on behalf of `user`.
    pub async fn delete<K: Kind>(
        self: &Arc<Self>,
        user: &User,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> ApiResult<()> {
        let served = self.served_of::<K>()?;
        let call = Call::new(self, &served, user, namespace, name, "");
        handlers::delete::delete(&call, options).await.map(drop)
    }

    /// Runs admission for a subresource with a kind of its own.
    pub async fn admit(
        &self,
        ctx: &RequestContext<'_>,
        operation: Operation,
        body: &serde_json::Value,
    ) -> ApiResult<()> {
        if !self.admission.handles(operation, ctx.info, ctx.subresource) {
            return Ok(());
        }
        let mut attributes = Attributes {
            ctx,
            operation,
            object: None,
            old: None,
            body: Some(body),
            turns: Default::default(),
        };
        self.admission.mutate(&mut attributes).await?;
        self.admission.validate(&attributes).await
    }
}

/// What an object is called in its cache.
pub fn cache_key(namespace: &str, name: &str) -> String {
    if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    }
}

fn typed<K: Kind>(json: &[u8]) -> ApiResult<K> {
    serde_json::from_slice(json).map_err(ApiError::internal)
}

#[async_trait]
impl Lookup for Server {
    async fn pod(&self, namespace: &str, name: &str) -> ApiResult<Pod> {
        self.fresh(namespace, name).await
    }

    async fn node(&self, name: &str) -> ApiResult<Node> {
        self.fresh("", name).await
    }

    async fn service(&self, namespace: &str, name: &str) -> ApiResult<Service> {
        self.fresh(namespace, name).await
    }

    async fn endpoint_slices(&self, namespace: &str, service: &str) -> ApiResult<Vec<EndpointSlice>> {
        let slices = self.fresh_list::<EndpointSlice>(namespace).await?;
        let of_service = |slice: &EndpointSlice| {
            slice
                .metadata
                .labels
                .as_ref()
                .and_then(|l| l.get("kubernetes.io/service-name"))
                .is_some_and(|s| s == service)
        };
        Ok(slices.into_iter().filter(of_service).collect())
    }
}
