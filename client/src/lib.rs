//! Talking to the apiserver: what every component needs and none writes twice.
//!
//! ```text
//! config.rs       where the apiservers are and who we are: kubeconfig files
//! credentials.rs  certificates and tokens, read again when their files change
//! transport.rs    one HTTP/2 connection over mTLS: dialled lazily, kept alive, failing over between servers
//! errors.rs       gRPC statuses to API errors
//! collection.rs   the verbs of `keelson.v1.Resources` on one collection, in bytes
//! resource.rs     the verbs typed: ResourceClient<K>, DynamicClient
//! types.rs        parameters and results of the verbs
//! store.rs        what an informer knows: objects by key and by index
//! reflector.rs    list, then watch, then watch again: the state machine that keeps a store current
//! informer.rs     Informer<K> and MetadataInformer: a reflector, its store and its subscribers
//! queue.rs        WorkQueue: deduplicating, delayed, rate-limited; run_workers
//! leader.rs       leader election on Lease objects
//! events.rs       EventRecorder: events aggregated, counted and written in batches
//! ```
#![forbid(unsafe_code)]

mod collection;
pub mod config;
mod credentials;
mod errors;
pub mod events;
pub mod informer;
pub mod leader;
pub mod queue;
mod reflector;
pub mod resource;
pub mod store;
mod transport;
pub mod types;

use std::sync::Arc;

use keelson_api::names::Gvr;
use keelson_api::object::Kind;
use keelson_api::status::ApiError;

pub use config::{ClientConfig, ConfigError, LiveToken, TokenSource};
pub use events::{EventKind, EventRecorder};
pub use informer::{Event, Informer, InformerOptions, MetadataInformer, PartialObjectMetadata};
pub use leader::{LeaderConfig, LeaderError, run_as_leader};
pub use queue::{ReconcileError, WorkQueue, run_workers};
pub use resource::{DynamicClient, ResourceClient};
pub use store::{Indexer, Store};
pub use types::{ApiResource, Discovery, ListParams, ObjectList, Patch, WatchEvent, WatchParams, Write};

use collection::Collection;
use transport::Transport;

/// A connection to the apiserver. Cheap to clone; nothing is dialled before the first call.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
}

impl Client {
    /// Checks `config` and loads the credentials it names. No connection is made yet.
    pub fn new(config: ClientConfig) -> Result<Client, ConfigError> {
        Ok(Client {
            transport: Arc::new(Transport::new(config)?),
        })
    }

    /// The same connection for whom the token is of. It counts only where the connection itself shows no certificate.
    #[must_use]
    pub fn with_bearer(&self, token: LiveToken) -> Client {
        Client {
            transport: Arc::new(self.transport.with_bearer(token)),
        }
    }

    /// The collection of a kind known at compile time.
    pub fn resource<K: Kind>(&self) -> ResourceClient<K> {
        ResourceClient::new(Collection::of::<K>(self.transport.clone()))
    }

    /// The collection of a kind known only at run time.
    pub fn dynamic(&self, gvr: &Gvr) -> DynamicClient {
        DynamicClient::new(Collection::named(self.transport.clone(), gvr))
    }

    /// What the server serves.
    pub async fn discover(&self) -> Result<Discovery, ApiError> {
        collection::discover(&self.transport).await
    }
}
