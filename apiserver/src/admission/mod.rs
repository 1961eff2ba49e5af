//! Admission: plugins that change or refuse a request after authorization and before it is written.
//!
//! A plugin is a file of this folder and a line in [`chain::default_plugins`].

pub mod certificates;
pub mod chain;
pub mod config;
pub mod default_ingress_class;
pub mod default_storage_class;
pub mod default_toleration_seconds;
pub mod expressions;
pub mod limit_ranger;
pub mod matching;
pub mod namespace_lifecycle;
pub mod node_restriction;
pub mod persistent_volume_claim_resize;
pub mod pod_security;
pub mod policies;
pub mod priority;
pub mod refusal;
pub mod request;
pub mod resource_quota;
pub mod runtime_class;
pub mod service_account;
pub mod storage_object_in_use_protection;
pub mod taint_nodes_by_condition;
pub mod turns;
pub mod webhooks;

use async_trait::async_trait;
use keelson_api::object::{Kind, Object};
use keelson_api::status::ApiResult;
use serde_json::Value;

use crate::registry::info::ResourceInfo;
use crate::registry::strategy::RequestContext;
use turns::Turns;

/// What is about to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// A new object, or POST to a subresource.
    Create,
    /// A changed object.
    Update,
    /// A deletion.
    Delete,
    /// A connection (exec, proxy, ...).
    Connect,
}

/// One request as plugins see it. Resource, subresource, namespace, name, user and dry run are in `ctx`.
pub struct Attributes<'a> {
    /// Who, what, when, and the server's caches.
    pub ctx: &'a RequestContext<'a>,
    /// What is about to be done.
    pub operation: Operation,
    /// The new object, absent for deletions and for subresources with a kind of their own.
    pub object: Option<&'a mut dyn Object>,
    /// The object as stored, for updates and deletions.
    pub old: Option<&'a dyn Object>,
    /// Body of a subresource with a kind of its own (Binding, Eviction, Scale).
    pub body: Option<&'a Value>,
    /// Who has changed the object, and who is to look at it once more.
    pub turns: Turns,
}

impl Attributes<'_> {
    /// The new object if it is a `K`.
    pub fn object<K: Kind>(&self) -> Option<&K> {
        self.object.as_deref().and_then(|o| o.downcast_ref())
    }

    /// The new object if it is a `K`, to change.
    pub fn object_mut<K: Kind>(&mut self) -> Option<&mut K> {
        self.object.as_deref_mut().and_then(|o| o.downcast_mut())
    }

    /// The new object as it would be stored now; nothing if there is none.
    fn encoded(&self) -> ApiResult<Vec<u8>> {
        self.object
            .as_deref()
            .map_or(Ok(Vec::new()), |object| object.encode())
    }

    /// The stored object if it is a `K`.
    pub fn old<K: Kind>(&self) -> Option<&K> {
        self.old.and_then(|o| o.downcast_ref())
    }
}

/// One plugin.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Upstream's name, as in `--enable-admission-plugins`.
    fn name(&self) -> &'static str;

    /// Whether it wants to see such requests; called before any object is decoded.
    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool;

    /// Changes the object, or refuses.
    async fn mutate(&self, _attributes: &mut Attributes<'_>) -> ApiResult<()> {
        Ok(())
    }

    /// Looks at the final object, and refuses what must not be.
    async fn validate(&self, _attributes: &Attributes<'_>) -> ApiResult<()> {
        Ok(())
    }
}
