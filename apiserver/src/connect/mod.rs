//! Subresources that open a connection to something else: `log`, `exec`, `attach`, `portforward` and `proxy`.
//!
//! - [`kubelet`]: reaching a node's kubelet: its address, our identity there
//! - [`pod`]: which kubelet path answers a pod's `log`, `exec`, `attach` and `portforward`
//! - [`proxy`]: `pods/proxy`, `services/proxy` and `nodes/proxy`
//! - [`endpoints`]: which endpoint of a service
//! - [`admission`]: whether anybody minds
//! - [`forward`]: one HTTP request carried to another server, upgraded connections included
//!
//! Authentication, authorization and audit have happened before a call arrives here.

pub mod admission;
pub mod endpoints;
pub mod forward;
pub mod kubelet;
pub mod pod;
pub mod proxy;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use keelson_api::names::GroupResource;
use keelson_api::status::{ApiError, ApiResult};

use crate::http::arriving::Arriving;
use crate::http::piece::Piece;

pub use kubelet::KubeletAccess;

/// What travels back to the client.
pub type Body = UnsyncBoxBody<Piece, BodyError>;

/// Why it ends early.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// A body that somebody else makes.
pub fn carried<B>(body: B) -> Body
where
    B: hyper::body::Body<Data = Bytes, Error: Into<BodyError>> + Send + 'static,
{
    body.map_frame(|frame| frame.map_data(Piece::from))
        .map_err(Into::into)
        .boxed_unsync()
}

/// The objects that decide where a connection goes.
#[async_trait]
pub trait Lookup: Send + Sync {
    /// A pod, or the 404 for it.
    async fn pod(&self, namespace: &str, name: &str) -> ApiResult<Pod>;
    /// A node, or the 404 for it.
    async fn node(&self, name: &str) -> ApiResult<Node>;
    /// A service, or the 404 for it.
    async fn service(&self, namespace: &str, name: &str) -> ApiResult<Service>;
    /// The endpoint slices of a service.
    async fn endpoint_slices(&self, namespace: &str, service: &str) -> ApiResult<Vec<EndpointSlice>>;
}

/// One request to a connecting subresource.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// `pods`, `services` or `nodes`.
    pub resource: &'a str,
    /// Empty for nodes.
    pub namespace: &'a str,
    /// The parent's name; for `proxy` it may carry a scheme and a port, as in `https:web:443`.
    pub name: &'a str,
    /// `log`, `exec`, ...
    pub subresource: &'a str,
    /// What follows `/proxy` in the request's path, with its leading slash; else empty.
    pub rest: &'a str,
}

/// Whether the subresource is one of those that this module carries out.
#[must_use]
pub fn handles(resource: &str, subresource: &str) -> bool {
    matches!(
        (resource, subresource),
        ("pods", "log" | "exec" | "attach" | "portforward" | "proxy") | ("services" | "nodes", "proxy")
    )
}

/// Carries the request to where the target lives.
///
/// # Errors
/// The `Status` Kubernetes gives: 404 for parents that are not there, 400 for parameters that make no sense,
/// 500 or 503 for a node or backend that does not answer.
pub async fn serve(
    access: &KubeletAccess,
    lookup: &dyn Lookup,
    target: Target<'_>,
    request: Request<Arriving>,
) -> ApiResult<Response<Body>> {
    match (target.resource, target.subresource) {
        ("pods", "log") => pod::log(access, lookup, target, request).await,
        ("pods", "exec" | "attach" | "portforward") => pod::stream(access, lookup, target, request).await,
        (_, "proxy") => proxy::serve(access, lookup, target, request).await,
        _ => Err(ApiError::method_not_supported(
            &GroupResource::new("", target.resource.to_owned()),
            target.subresource,
        )),
    }
}
