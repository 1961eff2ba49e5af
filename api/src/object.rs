//! Objects, typed and untyped, behind one trait.

use std::any::{Any, TypeId};
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::apply::Tree;
use crate::names::{GroupKind, GroupResource, Gvk, Gvr};
use crate::status::{ApiError, ApiResult};
use crate::{numbers, packed};

/// Which object of a kind: its namespace (empty if it lives in none) and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// The namespace; empty for objects of cluster scope.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl ObjectKey {
    /// An object in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// An object of cluster scope.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// The key of the object this metadata belongs to.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        )
    }
}

impl fmt::Display for ObjectKey {
    /// `namespace/name`, or the name alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl From<&ObjectMeta> for ObjectKey {
    fn from(meta: &ObjectMeta) -> Self {
        Self::of(meta)
    }
}

/// Any object of the API, whether its kind is known at compile time or not.
///
/// The method is `meta`, not `metadata`, so that it does not collide with [`k8s_openapi::Metadata`].
pub trait Object: Any + fmt::Debug + Send + Sync {
    /// Group, version and kind.
    fn gvk(&self) -> Gvk;
    /// The object's metadata.
    fn meta(&self) -> &ObjectMeta;
    /// The object's metadata, to change.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// JSON, with `apiVersion` and `kind`.
    fn encode(&self) -> ApiResult<Vec<u8>>;
    /// The object in the form field managers are worked out in.
    fn tree(&self) -> ApiResult<Tree> {
        Tree::of_object(&self.to_value()?).map_err(ApiError::internal)
    }

    /// The same of nothing but the metadata.
    fn tree_of_metadata(&self) -> ApiResult<Tree> {
        let metadata = packed::unmanaged_metadata(self.meta());
        Tree::of(&OfObject { metadata }).map_err(ApiError::internal)
    }

    /// The same as a value, to be looked at or changed field by field.
    fn to_value(&self) -> ApiResult<Value> {
        serde_json::from_slice(&self.encode()?).map_err(ApiError::internal)
    }
    /// The metadata as a value, without what is said of managers.
    fn unmanaged_metadata(&self) -> ApiResult<Value> {
        serde_json::to_value(packed::unmanaged_metadata(self.meta())).map_err(ApiError::internal)
    }

    /// The object without what is said of its managers.
    fn to_unmanaged_value(&self) -> ApiResult<Value> {
        let mut value = self.to_value()?;
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("managedFields");
        }
        Ok(value)
    }

    /// From JSON. The kind must fit.
    fn decode(bytes: &[u8]) -> ApiResult<Self>
    where
        Self: Sized;
    /// Becomes what the JSON says, of the same kind.
    fn become_decoded(&mut self, bytes: &[u8]) -> ApiResult<()>;
    /// For downcasting to the typed kind.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting to the typed kind.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// A copy behind the same trait.
    fn clone_box(&self) -> Box<dyn Object>;

    /// The name; empty before `generateName` has been resolved.
    fn name(&self) -> &str {
        self.meta().name.as_deref().unwrap_or_default()
    }

    /// The namespace; empty for objects of cluster scope.
    fn namespace(&self) -> &str {
        self.meta().namespace.as_deref().unwrap_or_default()
    }

    /// Namespace and name.
    fn key(&self) -> ObjectKey {
        ObjectKey::of(self.meta())
    }

    /// The uid; empty before the object has been created.
    fn uid(&self) -> &str {
        self.meta().uid.as_deref().unwrap_or_default()
    }

    /// The resource version; empty before the object has been stored.
    fn resource_version(&self) -> &str {
        self.meta().resource_version.as_deref().unwrap_or_default()
    }

    /// The generation of the spec.
    fn generation(&self) -> i64 {
        self.meta().generation.unwrap_or_default()
    }

    /// The labels.
    fn labels(&self) -> &BTreeMap<String, String> {
        self.meta().labels.as_ref().unwrap_or(&EMPTY)
    }

    /// The annotations.
    fn annotations(&self) -> &BTreeMap<String, String> {
        self.meta().annotations.as_ref().unwrap_or(&EMPTY)
    }
}

static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// An object of which nothing but the metadata is written.
#[derive(Serialize)]
struct OfObject<M> {
    metadata: M,
}

/// A kind known at compile time. Every `k8s-openapi` type with object metadata is one.
pub trait Kind:
    Object
    + Resource
    + Metadata<Ty = ObjectMeta>
    + Serialize
    + DeserializeOwned
    + Clone
    + fmt::Debug
    + Send
    + Sync
    + 'static
{
    /// Group, version and kind of the type.
    fn type_gvk() -> Gvk {
        Gvk::new(Self::GROUP, Self::VERSION, Self::KIND)
    }

    /// Group and kind of the type.
    fn group_kind() -> GroupKind {
        GroupKind::new(Self::GROUP, Self::KIND)
    }

    /// Group, version and resource of the type.
    fn gvr() -> Gvr {
        Gvr::new(Self::GROUP, Self::VERSION, Self::URL_PATH_SEGMENT)
    }

    /// Group and resource of the type.
    fn group_resource() -> GroupResource {
        GroupResource::new(Self::GROUP, Self::URL_PATH_SEGMENT)
    }

    /// Whether objects of the type live in namespaces.
    fn namespaced() -> bool {
        TypeId::of::<Self::Scope>() == TypeId::of::<NamespaceResourceScope>()
    }
}

impl<T> Kind for T where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static
{
}

impl<T> Object for T
where
    T: Resource
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + fmt::Debug
        + Send
        + Sync
        + 'static,
{
    fn gvk(&self) -> Gvk {
        Gvk::new(T::GROUP, T::VERSION, T::KIND)
    }

    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }

    fn encode(&self) -> ApiResult<Vec<u8>> {
        let mut json = Vec::with_capacity(packed::usual_size(self.metadata()));
        match serde_json::to_writer(&mut json, &packed::whole(self)) {
            Ok(()) => Ok(json),
            Err(e) => Err(ApiError::internal(format_args!("cannot encode {}: {e}", T::KIND))),
        }
    }

    fn tree(&self) -> ApiResult<Tree> {
        Tree::of_object(self).map_err(ApiError::internal)
    }

    fn to_value(&self) -> ApiResult<Value> {
        serde_json::to_value(packed::whole(self))
            .map_err(|e| ApiError::internal(format_args!("cannot encode {}: {e}", T::KIND)))
    }

    fn to_unmanaged_value(&self) -> ApiResult<Value> {
        serde_json::to_value(packed::unmanaged(self))
            .map_err(|e| ApiError::internal(format_args!("cannot encode {}: {e}", T::KIND)))
    }

    fn decode(bytes: &[u8]) -> ApiResult<Self> {
        serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("cannot decode {}: {e}", T::KIND)))
    }

    fn become_decoded(&mut self, bytes: &[u8]) -> ApiResult<()> {
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

impl Clone for Box<dyn Object> {
    fn clone(&self) -> Self {
        (**self).clone_box()
    }
}

impl dyn Object {
    /// The typed object inside, if it is of that kind.
    pub fn downcast_ref<K: Kind>(&self) -> Option<&K> {
        self.as_any().downcast_ref()
    }

    /// The typed object inside, if it is of that kind, to change.
    pub fn downcast_mut<K: Kind>(&mut self) -> Option<&mut K> {
        self.as_any_mut().downcast_mut()
    }
}

/// An object whose kind is known only at run time: typed metadata around a JSON map.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Unstructured {
    /// `apiVersion`.
    pub api_version: String,
    /// `kind`.
    pub kind: String,
    /// `metadata`.
    pub metadata: ObjectMeta,
    /// Everything else: `spec`, `status`, `data`, …
    pub fields: Map<String, Value>,
}

impl Unstructured {
    /// An empty object of a kind.
    pub fn new(gvk: &Gvk) -> Self {
        Self {
            api_version: gvk.api_version().into_owned(),
            kind: gvk.kind.to_string(),
            ..Self::default()
        }
    }

    /// From a JSON object.
    pub fn from_value(value: Value) -> ApiResult<Self> {
        let Value::Object(mut fields) = value else {
            return Err(ApiError::bad_request(
                "an object of the API must be a JSON object",
            ));
        };
        let mut text = |key: &str| match fields.remove(key) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let metadata = match fields.remove("metadata") {
            None | Some(Value::Null) => ObjectMeta::default(),
            Some(value) => serde_json::from_value(value)
                .map_err(|e| ApiError::bad_request(format!("cannot decode the metadata: {e}")))?,
        };
        Ok(Self {
            api_version,
            kind,
            metadata,
            fields,
        })
    }

    /// The whole object as JSON.
    pub fn to_value(&self) -> Value {
        let mut map = self.fields.clone();
        map.insert("apiVersion".into(), self.api_version.clone().into());
        map.insert("kind".into(), self.kind.clone().into());
        // Metadata has string keys and plain values: its encoding cannot fail.
        map.insert(
            "metadata".into(),
            serde_json::to_value(packed::metadata(&self.metadata)).unwrap_or_default(),
        );
        Value::Object(map)
    }

    /// The value at a path of field names.
    pub fn get(&self, path: &[&str]) -> Option<&Value> {
        let (first, rest) = path.split_first()?;
        rest.iter()
            .try_fold(self.fields.get(*first)?, |value, name| value.get(name))
    }
}

impl Object for Unstructured {
    fn gvk(&self) -> Gvk {
        Gvk::from_api_version(&self.api_version, &self.kind)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn encode(&self) -> ApiResult<Vec<u8>> {
        numbers::to_json(self)
            .map_err(|e| ApiError::internal(format_args!("cannot encode {}: {e}", self.kind)))
    }

    fn tree(&self) -> ApiResult<Tree> {
        Tree::of_object(self).map_err(ApiError::internal)
    }

    fn decode(bytes: &[u8]) -> ApiResult<Self> {
        serde_json::from_slice(bytes)
            .map_err(|e| ApiError::bad_request(format!("cannot decode the object: {e}")))
    }

    fn become_decoded(&mut self, bytes: &[u8]) -> ApiResult<()> {
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

impl Serialize for Unstructured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a, M> {
            #[serde(rename = "apiVersion")]
            api_version: &'a str,
            kind: &'a str,
            metadata: M,
            #[serde(flatten)]
            fields: &'a Map<String, Value>,
        }
        Wire {
            api_version: &self.api_version,
            kind: &self.kind,
            metadata: packed::metadata(&self.metadata),
            fields: &self.fields,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Unstructured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(value).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::Deployment;
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::json;

    #[test]
    fn kinds_know_their_names() {
        assert!(Pod::namespaced() && !Node::namespaced());
        assert_eq!(Deployment::gvr().to_string(), "apps/v1, Resource=deployments");
        let pod = Pod::decode(br#"{"metadata":{"name":"a","namespace":"b"}}"#).expect("a pod");
        assert_eq!(pod.key().to_string(), "b/a");
        let erased: Box<dyn Object> = Box::new(pod);
        assert_eq!(erased.clone().name(), "a");
        assert!(erased.downcast_ref::<Pod>().is_some() && erased.downcast_ref::<Node>().is_none());
    }

    #[test]
    fn unstructured_keeps_what_it_does_not_know() {
        let value =
            json!({"apiVersion": "x.io/v1", "kind": "Thing", "metadata": {"name": "a"}, "spec": {"n": 1}});
        let thing = Unstructured::decode(value.to_string().as_bytes()).expect("a thing");
        assert_eq!(thing.get(&["spec", "n"]), Some(&json!(1)));
        assert_eq!(thing.gvk().to_string(), "x.io/v1, Kind=Thing");
        let bytes = thing.encode().expect("bytes");
        assert_eq!(serde_json::from_slice::<Value>(&bytes).expect("json"), value);
        assert_eq!(thing.to_value(), value);
    }
}
