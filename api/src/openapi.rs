//! The OpenAPI documents a server publishes about what it serves.
//!
//! | document | who reads it |
//! | --- | --- |
//! | [`v3_document`] | kubectl: explain, field validation, apply; one per group and version |
//! | [`v2_document`] | older clients and code generators |
//! | [`v2_protobuf`] | kubectl, for client-side validation and merge keys |
//!
//! Shapes, defaults and merge keys come from [`crate::schema`], descriptions of types from `k8s-openapi`. Documents
//! are large: build one when it is asked for, keep its bytes if at all, and drop the rest.

mod custom;
mod definitions;
mod descriptions;
mod gnostic;
mod operations;
mod parameters;
mod v2;
mod v3;

use crate::names::{Gvk, Name};
pub use custom::Custom;

/// The media type that [`v2_protobuf`] is answered with.
pub const V2_PROTOBUF_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// The media type that kubectl asks for [`v2_protobuf`] with. It is no valid one: Go refuses it in an answer.
pub const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A resource the server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: Name,
    /// The version.
    pub version: Name,
    /// The kind.
    pub kind: Name,
    /// The plural name, as in paths.
    pub plural: Name,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// What can be done: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verbs: Vec<Name>,
    /// What else hangs below an object.
    pub subresources: Vec<Subresource>,
    /// Set for resources whose type is not among the built-in ones.
    pub custom: Option<Custom>,
}

/// Something below an object: `status`, `scale`, `log`, `exec`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// The name, as in paths.
    pub name: Name,
    /// The kind that goes over the wire.
    pub kind: Gvk,
    /// What can be done, as in [`Resource::verbs`].
    pub verbs: Vec<Name>,
}

impl Resource {
    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    fn gvk(&self) -> Gvk {
        Gvk::new(self.group.clone(), self.version.clone(), self.kind.clone())
    }

    /// The full name of the type of its objects.
    fn type_name(&self) -> Option<String> {
        match &self.custom {
            Some(custom) => Some(custom.type_name(&self.gvk())),
            None => operations::type_name(&self.gvk()),
        }
    }

    /// The full name of the type of its lists.
    fn list_type_name(&self, object: &str) -> String {
        match &self.custom {
            Some(custom) => custom.list_type_name(&self.gvk()),
            None => format!("{object}List"),
        }
    }

    /// The type of what goes over the wire at a subresource.
    fn subresource_type_name(&self, subresource: &Subresource) -> Option<String> {
        if subresource.kind == self.gvk() {
            return self.type_name();
        }
        operations::type_name(&subresource.kind)
    }
}

impl Subresource {
    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|one| one == verb)
    }

    /// Whether the connection is handed through instead of answered.
    fn connects(&self) -> bool {
        matches!(&*self.name, "exec" | "attach" | "portforward" | "proxy")
    }
}

/// The OpenAPI v2 document of these resources, as JSON.
pub fn v2_document(resources: &[Resource]) -> Vec<u8> {
    encode(&v2::document(resources))
}

/// The OpenAPI v2 document of these resources, as protobuf.
pub fn v2_protobuf(resources: &[Resource]) -> Vec<u8> {
    gnostic::encode(&v2::document(resources))
}

/// An OpenAPI v2 document as protobuf, in the fields that this server's own documents use.
pub fn v2_as_protobuf(document: &serde_json::Value) -> Vec<u8> {
    gnostic::encode(document)
}

/// The OpenAPI v3 document of one group and version, as JSON. Resources of others are left out.
pub fn v3_document(group: &str, version: &str, resources: &[Resource]) -> Vec<u8> {
    encode(&v3::document(group, version, resources))
}

/// The OpenAPI v3 document of the lists of groups and versions, as JSON: `path` is `api`, `apis`, `apis/GROUP` or
/// `version`.
pub fn v3_index_document(path: &str) -> Vec<u8> {
    encode(&v3::index_document(path))
}

fn encode(document: &serde_json::Value) -> Vec<u8> {
    // A value built here has only string keys: its encoding cannot fail.
    serde_json::to_vec(document).unwrap_or_default()
}

#[cfg(test)]
#[path = "openapi/tests.rs"]
mod tests;
