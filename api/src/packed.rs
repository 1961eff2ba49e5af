//! Objects whose managed fields stay text.
//!
//! `metadata.managedFields` is often half of an object, and hardly anybody looks into the sets of fields there. An
//! object that is read by [`decode`] or [`from_value`] holds each set as the JSON it was written in, a string in
//! [`FieldsV1`], instead of a tree of maps; [`whole`] and [`metadata`] write either form as what it is. The server keeps
//! its objects this way; whoever reads them with serde alone gets the usual form.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time,
};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::object::Kind;
use crate::time::rfc3339;

mod cut;
mod serializer;
mod watched;

pub use serializer::{unmanaged, whole};

/// JSON of a set of fields, whichever form it is in.
pub fn text(fields: &FieldsV1) -> Cow<'_, str> {
    match &fields.0 {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// A set of fields as text.
pub fn fields(json: String) -> FieldsV1 {
    FieldsV1(Value::String(json))
}

/// Bytes an object with this metadata usually takes.
pub fn usual_size(meta: &ObjectMeta) -> usize {
    let entries = meta.managed_fields.iter().flatten();
    let sets = entries.filter_map(|entry| entry.fields_v1.as_ref()?.0.as_str());
    sets.map(|set| set.len() + 200).sum::<usize>() + 2048
}

/// Reads an object from text that is known to be JSON. Errors are those of reading it with serde.
pub fn decode<K: Kind>(json: &[u8]) -> serde_json::Result<K> {
    let Some((rest, managed)) = cut::managed_fields(json) else {
        let mut object: K = watched::read(json)?;
        pack(object.meta_mut());
        return Ok(object);
    };
    let mut object: K = watched::read(&rest)?;
    object.meta_mut().managed_fields = match cut::entries(managed) {
        Some(entries) => Some(entries),
        None => unpacked(watched::read(managed)?),
    };
    Ok(object)
}

/// Reads an object from a text of which nothing would have to be said: it is JSON, no field is unknown or there twice,
/// and everything is spelled the way it is stored. `None` for all others; [`crate::strict`] finds out what it is.
pub fn plain<K: Kind>(json: &[u8]) -> Option<K> {
    let Some((rest, managed)) = cut::managed_fields(json) else {
        let mut object: K = watched::plain(json)?;
        pack(object.meta_mut());
        return Some(object);
    };
    let mut object: K = watched::plain(&rest)?;
    object.meta_mut().managed_fields = unpacked(watched::plain(managed)?);
    Some(object)
}

fn unpacked(entries: Option<Vec<Entry<'_>>>) -> Option<Vec<ManagedFieldsEntry>> {
    Some(entries?.into_iter().map(ManagedFieldsEntry::from).collect())
}

/// Reads an object from a value.
pub fn from_value<K: Kind>(value: Value) -> serde_json::Result<K> {
    let mut object: K = serde_json::from_value(value)?;
    pack(object.meta_mut());
    Ok(object)
}

/// Brings the sets of fields into the form of text.
pub fn pack(meta: &mut ObjectMeta) {
    for entry in meta.managed_fields.iter_mut().flatten() {
        if let Some(FieldsV1(fields)) = &mut entry.fields_v1
            && !fields.is_string()
        {
            *fields = Value::String(fields.to_string());
        }
    }
}

/// Metadata to be written as what it is.
pub fn metadata(meta: &ObjectMeta) -> impl Serialize + '_ {
    form(meta, true)
}

/// Metadata to be written without what is said of managers.
pub fn unmanaged_metadata(meta: &ObjectMeta) -> impl Serialize + '_ {
    form(meta, false)
}

/// Metadata to be written, with or without managed fields.
fn form(meta: &ObjectMeta, managers: bool) -> Metadata<'_> {
    let ObjectMeta {
        annotations,
        creation_timestamp,
        deletion_grace_period_seconds,
        deletion_timestamp,
        finalizers,
        generate_name,
        generation,
        labels,
        managed_fields,
        name,
        namespace,
        owner_references,
        resource_version,
        self_link,
        uid,
    } = meta;
    Metadata {
        annotations: annotations.as_ref(),
        creation_timestamp: creation_timestamp.as_ref().map(Moment),
        deletion_grace_period_seconds: *deletion_grace_period_seconds,
        deletion_timestamp: deletion_timestamp.as_ref().map(Moment),
        finalizers: finalizers.as_deref(),
        generate_name: generate_name.as_deref(),
        generation: *generation,
        labels: labels.as_ref(),
        managed_fields: managed_fields
            .as_ref()
            .filter(|_| managers)
            .map(|entries| entries.iter().map(Written).collect()),
        name: name.as_deref(),
        namespace: namespace.as_deref(),
        owner_references: owner_references.as_deref(),
        resource_version: resource_version.as_deref(),
        self_link: self_link.as_deref(),
        uid: uid.as_deref(),
    }
}

type Texts = std::collections::BTreeMap<String, String>;

/// [`ObjectMeta`], in the order and spelling of its own serialization.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    creation_timestamp: Option<Moment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_grace_period_seconds: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Moment<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finalizers: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generate_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a Texts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_fields: Option<Vec<Written<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_references: Option<&'a [OwnerReference]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    self_link: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
}

/// A time to be written: as its own serialization does it, without a pattern that is read each time.
struct Moment<'a>(&'a Time);

impl Serialize for Moment<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct("Time", &rfc3339(self.0.0))
    }
}

/// An entry to be written.
struct Written<'a>(&'a ManagedFieldsEntry);

impl Serialize for Written<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ManagedFieldsEntry {
            api_version,
            fields_type,
            fields_v1,
            manager,
            operation,
            subresource,
            time,
        } = self.0;
        let fields_v1 = match fields_v1 {
            Some(FieldsV1(Value::String(text))) => Some(Fields::Text(Verbatim(text))),
            Some(FieldsV1(other)) => Some(Fields::Value(other)),
            None => None,
        };
        Form {
            api_version: api_version.as_deref(),
            fields_type: fields_type.as_deref(),
            fields_v1,
            manager: manager.as_deref(),
            operation: operation.as_deref(),
            subresource: subresource.as_deref(),
            time: time.as_ref().map(Moment),
        }
        .serialize(serializer)
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Fields<'a> {
    Text(Verbatim<'a>),
    Value(&'a Value),
}

/// JSON to be written as it stands. [`RawValue`] is that, too, but reads through the text before it is one.
struct Verbatim<'a>(&'a str);

impl Serialize for Verbatim<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        /// The name by which serde_json's serializers know a [`RawValue`].
        const TOKEN: &str = "$serde_json::private::RawValue";
        let mut raw = serializer.serialize_struct(TOKEN, 1)?;
        raw.serialize_field(TOKEN, self.0)?;
        raw.end()
    }
}

/// [`ManagedFieldsEntry`], in the order and spelling of its own serialization.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Form<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields_v1: Option<Fields<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    manager: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subresource: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Moment<'a>>,
}

/// An entry being read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    api_version: Option<String>,
    fields_type: Option<String>,
    #[serde(borrow)]
    fields_v1: Option<&'a RawValue>,
    manager: Option<String>,
    operation: Option<String>,
    subresource: Option<String>,
    time: Option<Time>,
}

impl From<Entry<'_>> for ManagedFieldsEntry {
    fn from(entry: Entry<'_>) -> Self {
        Self {
            api_version: entry.api_version,
            fields_type: entry.fields_type,
            fields_v1: entry.fields_v1.map(|json| fields(json.get().to_owned())),
            manager: entry.manager,
            operation: entry.operation,
            subresource: entry.subresource,
            time: entry.time,
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::object::Object;

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "annotations": {"a": "managedFields"}, "creationTimestamp": "2026-01-02T03:04:05Z",
                "deletionGracePeriodSeconds": 3, "deletionTimestamp": "2026-01-02T03:04:06Z", "finalizers": ["x/y"],
                "generateName": "p-", "generation": 4, "labels": {"l": "\"m\""},
                "managedFields": [
                    {"apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:metadata": {"f:labels": {"f:l": {}}}},
                     "manager": "m", "operation": "Update", "subresource": "status", "time": "2026-01-02T03:04:05Z"},
                    {"manager": "n"},
                ],
                "name": "p", "namespace": "n", "resourceVersion": "7", "selfLink": "s", "uid": "u",
                "ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "o", "uid": "v"}],
            },
            "spec": {"containers": []},
        })
    }

    #[test]
    fn comes_back_as_serde_alone_writes_it() {
        let usual: Pod = serde_json::from_value(pod()).expect("a pod");
        let plain = serde_json::to_string(&usual).expect("json");
        for json in [plain.clone(), serde_json::to_string_pretty(&usual).expect("json")] {
            let pod: Pod = decode(json.as_bytes()).expect("a pod");
            let first = &pod.metadata.managed_fields.as_ref().expect("entries")[0];
            assert!(
                first
                    .fields_v1
                    .as_ref()
                    .is_some_and(|fields| fields.0.is_string())
            );
            let written: Value = serde_json::from_slice(&pod.encode().expect("json")).expect("json");
            assert_eq!(written, super::tests::pod());
            assert_eq!(pod.to_value().expect("a value"), super::tests::pod());
            let mut unmanaged = super::tests::pod();
            unmanaged["metadata"]
                .as_object_mut()
                .expect("metadata")
                .remove("managedFields");
            assert_eq!(pod.to_unmanaged_value().expect("a value"), unmanaged);
        }
        let packed: Pod = decode(plain.as_bytes()).expect("a pod");
        assert_eq!(
            String::from_utf8(packed.encode().expect("json")).expect("text"),
            plain
        );
        assert_eq!(
            String::from_utf8(usual.encode().expect("json")).expect("text"),
            plain
        );
        let from_value: Pod = super::from_value(pod()).expect("a pod");
        assert_eq!(from_value, packed);
    }

    #[test]
    fn what_is_not_an_entry_is_refused() {
        for managed in [json!({}), json!([1]), json!([{"operation": 1}]), json!("x")] {
            let mut value = pod();
            value["metadata"]["managedFields"] = managed;
            assert!(decode::<Pod>(value.to_string().as_bytes()).is_err(), "{value}");
        }
        let mut value = pod();
        value["metadata"]["managedFields"] = Value::Null;
        let pod: Pod = decode(value.to_string().as_bytes()).expect("a pod");
        assert_eq!(pod.metadata.managed_fields, None);
    }
}
