//! Parameters and results of the verbs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use keelson_api::object::{Object, ObjectKey};
use keelson_api::status::ApiError;
use serde_json::Value;

/// Which objects of a collection to list, and how. Empty strings ask for the default.
#[derive(Clone, Debug, Default)]
pub struct ListParams {
    /// As in `kubectl -l`.
    pub label_selector: String,
    /// As in `kubectl --field-selector`.
    pub field_selector: String,
    /// How many at most; 0 is all.
    pub limit: i64,
    /// Where a previous page ended.
    pub continue_token: String,
    /// Empty: the most recent state.
    pub resource_version: String,
}

/// One list, or one page of it.
#[derive(Clone, Debug)]
pub struct ObjectList<K> {
    /// The objects, in key order.
    pub items: Vec<K>,
    /// The state the list shows; a watch from here misses nothing.
    pub resource_version: String,
    /// Not empty: there is another page.
    pub continue_token: String,
}

/// What to watch, and from where.
#[derive(Clone, Debug, Default)]
pub struct WatchParams {
    /// As in `kubectl -l`.
    pub label_selector: String,
    /// As in `kubectl --field-selector`.
    pub field_selector: String,
    /// Changes after this version are sent.
    pub resource_version: String,
    /// Ask for bookmarks, which keep the position fresh while nothing changes.
    pub bookmarks: bool,
    /// Send what exists first, then a bookmark that says so.
    pub send_initial_events: bool,
}

/// One change in a watched collection.
#[derive(Clone, Debug)]
pub enum WatchEvent<K> {
    /// An object is new, or newly fits the selectors.
    Added(K),
    /// An object changed.
    Modified(K),
    /// An object is gone, or no longer fits the selectors; its last state.
    Deleted(K),
    /// Nothing changed up to here.
    Bookmark {
        /// The position to resume from.
        resource_version: String,
        /// Whether everything that existed has now been sent.
        initial_events_end: bool,
    },
}

/// A partial change of an object.
#[derive(Clone, Debug)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7386.
    Merge(Value),
    /// Kubernetes' own: lists merge by their keys.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// Who owns the fields set.
        manager: String,
        /// Take over fields that others own.
        force: bool,
        /// The object with exactly the fields wanted.
        body: Value,
    },
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write<K> {
    /// Create an object.
    Create(K),
    /// Replace an object.
    Update(K),
    /// Replace an object's status.
    UpdateStatus(K),
    /// Create a subresource: `binding`, `eviction`.
    Subresource {
        /// The object.
        key: ObjectKey,
        /// The subresource's name.
        name: String,
        /// What to send.
        body: Value,
    },
    /// Patch an object, or with a subresource named that part of it.
    Patch {
        /// The object.
        key: ObjectKey,
        /// Empty, or `status`.
        subresource: String,
        /// The change.
        patch: Patch,
    },
    /// Delete an object.
    Delete {
        /// The object.
        key: ObjectKey,
        /// How.
        options: DeleteOptions,
    },
}

/// What the server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// Every resource it can tell of.
    pub resources: Vec<ApiResource>,
    /// Group versions, as `group/version`, of other servers that do not answer: what they serve is not known now.
    pub stale: Vec<String>,
}

/// A resource the server serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiResource {
    /// Empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind of its objects.
    pub kind: String,
    /// The plural name, as in URLs.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: Vec<String>,
}

impl<K: Object> ObjectList<K> {
    /// Reads items from the wire.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        self.items.push(K::decode(bytes)?);
        Ok(())
    }
}

impl Patch {
    /// How the body is labelled on the wire.
    pub(crate) fn content_type(&self) -> &'static str {
        match self {
            Patch::Json(_) => "application/json-patch+json",
            Patch::Merge(_) => "application/merge-patch+json",
            Patch::Strategic(_) => "application/strategic-merge-patch+json",
            Patch::Apply { .. } => "application/apply-patch+yaml",
        }
    }

    pub(crate) fn body(&self) -> &Value {
        match self {
            Patch::Json(body) | Patch::Merge(body) | Patch::Strategic(body) | Patch::Apply { body, .. } => {
                body
            }
        }
    }
}
