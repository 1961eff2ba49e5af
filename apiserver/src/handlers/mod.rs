//! The verbs, written once for every resource and for both doors (REST and gRPC).
//!
//! | module | verb |
//! | --- | --- |
//! | [`create`], [`get`], [`list`], [`watch`], [`update`], [`patch`], [`delete`] | what their names say |
//! | [`apply`] | PATCH with a configuration to apply |
//! | [`managers`] | who manages which fields |
//! | [`subresource`] | subresources with a kind of their own |
//! | [`body`] | from a request's bytes to an object |
//! | [`convert`] | objects whose versions a webhook converts |
//! | [`options`] | parameters of requests, and what is wrong with them |
//!
//! Authorization has happened before a call arrives here; admission happens inside.

pub mod apply;
pub mod body;
pub mod convert;
pub mod create;
pub mod delete;
pub mod get;
pub mod list;
pub mod managers;
pub mod options;
pub mod patch;
pub mod subresource;
pub mod update;
pub mod watch;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use keelson_api::names::GroupResource;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};

use crate::authentication::User;
use crate::registry::catalog::Served;
use crate::registry::info::{Lifetime, ResourceInfo};
use crate::registry::strategy::{ErasedStrategy, RequestContext, Warnings};
use crate::state::{Server, cache_key};
use crate::storage::entry::with_version;
use crate::storage::store::Stored;
use options::WriteOptions;

/// One request to an object or a collection, authenticated and authorized.
pub struct Call<'a> {
    /// The server.
    pub server: &'a Arc<Server>,
    /// The resource, in the form asked for.
    pub served: &'a Served,
    /// Who asks.
    pub user: &'a User,
    /// Empty for cluster scope and for all namespaces.
    pub namespace: &'a str,
    /// Empty for collections.
    pub name: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// Dry run, field validation, field manager.
    pub options: WriteOptions,
    /// Time of the request, to the second, as timestamps in objects are.
    pub now: Timestamp,
    warnings: Warnings,
}

impl<'a> Call<'a> {
    /// A call with the usual options.
    pub fn new(
        server: &'a Arc<Server>,
        served: &'a Served,
        user: &'a User,
        namespace: &'a str,
        name: &'a str,
        subresource: &'a str,
    ) -> Self {
        let call = Self {
            server,
            served,
            user,
            namespace,
            name,
            subresource,
            options: WriteOptions::default(),
            now: keelson_api::time::now().0,
            warnings: Warnings::default(),
        };
        if let Some(text) = served.deprecation() {
            call.warn(text.to_owned());
        }
        call
    }

    /// The same call with these options.
    pub fn with_options(mut self, options: WriteOptions) -> Self {
        self.options = options;
        self
    }

    /// The resource.
    pub fn info(&self) -> &'static ResourceInfo {
        self.served.info()
    }

    /// What is known about the kind.
    pub fn strategy(&self) -> &dyn ErasedStrategy {
        self.served.strategy()
    }

    /// How messages name the resource: in the group asked for.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(self.served.group(), self.info().plural)
    }

    /// The context strategies and plugins get; `name` may have been generated.
    pub fn context<'c>(&'c self, name: &'c str) -> RequestContext<'c> {
        RequestContext {
            user: self.user,
            info: self.info(),
            alias: self.served.alias,
            namespace: self.namespace,
            name,
            subresource: self.subresource,
            dry_run: self.options.dry_run,
            manager: &self.options.field_manager,
            force: self.options.force,
            now: self.now,
            server: self.server,
            warnings: &self.warnings,
        }
    }

    /// Tells the caller something besides the answer.
    pub fn warn(&self, text: String) {
        self.warnings.add(text);
    }

    /// Everything the caller is to be told.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.all()
    }

    /// The object's key in the cache.
    pub fn cache_key(&self) -> String {
        cache_key(self.namespace, self.name)
    }

    /// The object's key in the store.
    pub fn store_key(&self, name: &str) -> String {
        self.server
            .store
            .key(self.info().storage_prefix, &cache_key(self.namespace, name))
    }

    /// The lease new bytes are written under.
    async fn lease(&self) -> ApiResult<i64> {
        match self.info().lifetime {
            Lifetime::Forever | Lifetime::Answered | Lifetime::CarriedOut | Lifetime::Observed => Ok(0),
            Lifetime::Events => Ok(self
                .server
                .store
                .event_lease(self.server.config.event_ttl)
                .await?),
        }
    }

    fn not_found(&self) -> ApiError {
        ApiError::not_found(&self.group_resource(), self.name)
    }

    fn decode_stored(&self, json: &[u8], revision: i64) -> ApiResult<Box<dyn Object>> {
        let mut object = self.strategy().decode(json).map_err(|error| {
            ApiError::internal(format_args!(
                "{} {} in the store cannot be read: {error}",
                self.info().kind,
                self.name
            ))
        })?;
        object.meta_mut().resource_version = Some(revision.to_string());
        Ok(object)
    }

    /// The object as the cache has it; the store is asked when it has none.
    async fn current(&self) -> ApiResult<Current> {
        match self.served.cache.get(&self.cache_key()) {
            Some(entry) => {
                let stored = (!entry.revised()).then(|| entry.object());
                let shown = convert::entry(self.server, self.served, entry).await?;
                let json = shown.object();
                let object = self.decode_stored(&json, shown.revision)?;
                Ok(Current {
                    object,
                    json,
                    stored,
                    revision: shown.revision,
                    verified: false,
                    stale: false,
                })
            }
            None => self.current_in_store().await?.ok_or_else(|| self.not_found()),
        }
    }

    /// The object as the store has it.
    async fn current_in_store(&self) -> ApiResult<Option<Current>> {
        match self.server.store.get(&self.store_key(self.name)).await? {
            Some(stored) => self.stored_as_current(stored).await.map(Some),
            None => Ok(None),
        }
    }

    async fn stored_as_current(&self, stored: Stored) -> ApiResult<Current> {
        let (revision, stale) = (stored.revision, stored.stale);
        let stored = with_version(&stored.value, revision);
        let json = match self.served.converter() {
            Some(_) => with_version(&convert::from_store(self, &stored).await?, revision),
            None => stored.clone(),
        };
        let object = self.decode_stored(&json, revision)?;
        Ok(Current {
            object,
            json,
            stored: Some(stored),
            revision,
            verified: true,
            stale,
        })
    }
}

/// An object that is about to be changed or removed.
struct Current {
    object: Box<dyn Object>,
    /// As the handlers show it.
    json: Bytes,
    /// As it is stored, with its version; `None` where that is another form than what was read of it.
    stored: Option<Bytes>,
    revision: i64,
    /// Whether the store itself said so, during this request.
    verified: bool,
    /// Whether the store's bytes are to be written again even if nothing changes. Only the store knows.
    stale: bool,
}

/// What a verb that answers one object came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// HTTP status.
    pub code: u16,
    /// JSON of the object in its stored version, or of a kind of its own.
    pub json: Bytes,
    /// Whether `json` is the resource's own kind (and not a Status, Scale, ...).
    pub own_kind: bool,
}

impl Outcome {
    /// An object of the resource's kind.
    pub fn object(code: u16, json: Bytes) -> Self {
        Self {
            code,
            json,
            own_kind: true,
        }
    }

    /// Something else.
    pub fn other(code: u16, json: Bytes) -> Self {
        Self {
            code,
            json,
            own_kind: false,
        }
    }
}

/// JSON of the handlers' form: without `metadata.resourceVersion`, which the store itself counts.
fn encode(object: &mut dyn Object) -> ApiResult<Bytes> {
    let version = object.meta_mut().resource_version.take();
    let json = object.encode();
    object.meta_mut().resource_version = version;
    Ok(Bytes::from(json?))
}
