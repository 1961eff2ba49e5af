//! The API's OpenAPI documents, made from what is served when somebody first asks.

use crate::discovery::Document;
use crate::registry::catalog::Catalog;

/// The documents, once they have been asked for.
#[derive(Default)]
pub struct Documents {}

impl Documents {
    /// `/openapi/v2`, as JSON or in protobuf.
    pub fn v2(&self, _catalog: &Catalog, _protobuf: bool) -> Option<Document> {
        None
    }

    /// `/openapi/v3`: which group versions there are.
    pub fn v3_index(&self, _catalog: &Catalog) -> Option<Document> {
        None
    }

    /// `/openapi/v3/apis/apps/v1`.
    pub fn v3(&self, _catalog: &Catalog, _root: &str) -> Option<Document> {
        None
    }
}
