//! `application/vnd.kubernetes.protobuf`: objects as the Go components send and want them.
//!
//! What is stored and passed around is JSON; here it is turned into protobuf and back, led by the field numbers in
//! [`crate::schema`], without a second set of structs. An object on the wire is four magic bytes and an `Unknown`
//! message: apiVersion and kind beside the object's own message.
//!
//! Protobuf as Go writes it has no absent numbers, booleans and strings, only zero ones. Reading drops a zero where
//! it means absent, which the table knows field by field.

use serde_json::{Map, Value};

mod decode;
mod encode;
pub(crate) mod wire;

use crate::schema::{self, Definition, Type};
use crate::status::{ApiError, ApiResult};
use wire::{Reader, Wire, Writer};

/// The media type of an object.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";
/// The media type of a watch's frames.
pub const STREAM_TYPE: &str = "application/vnd.kubernetes.protobuf;stream=watch";

const MAGIC: &[u8] = b"k8s\0";

/// Deeper messages are refused.
const MAX_DEPTH: usize = 100;

/// Whether objects of the kind have a protobuf form. Custom resources and tables have none.
pub fn supports(group: &str, version: &str, kind: &str) -> bool {
    schema::by_kind(group, version, kind).is_some()
}

/// Whether bytes are an object in protobuf.
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Turns an object's JSON into protobuf.
pub fn encode(json: &[u8]) -> ApiResult<Vec<u8>> {
    let object: Map<String, Value> = serde_json::from_slice(json)
        .map_err(|e| ApiError::internal(format_args!("cannot read the object to encode: {e}")))?;
    encode_object(&object)
}

fn encode_object(object: &Map<String, Value>) -> ApiResult<Vec<u8>> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let definition = definition_of(api_version, kind)
        .ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))?;
    let mut raw = Writer::default();
    encode::message(definition, object, &mut raw);
    let mut whole = unknown(api_version, kind, raw.len());
    whole.message(2, &raw);
    end_unknown(&mut whole);
    Ok(whole.into_bytes())
}

/// A list that is made item by item.
#[derive(Debug)]
pub struct ListForm {
    definition: &'static Definition,
    item: &'static Definition,
    /// The number of the field `items`.
    tag: u32,
    api_version: String,
    kind: String,
}

impl ListForm {
    /// Of a list's kind.
    ///
    /// # Errors
    /// 406 when it has no protobuf form.
    pub fn of(api_version: &str, kind: &str) -> ApiResult<Self> {
        let form = definition_of(api_version, kind).and_then(|definition| {
            let items = definition.field("items")?;
            let Type::List(element) = items.ty() else {
                return None;
            };
            let Type::Named(item) = element.as_ref() else {
                return None;
            };
            Some(Self {
                definition,
                item: item.get(),
                tag: items.tags().next()?,
                api_version: api_version.to_owned(),
                kind: kind.to_owned(),
            })
        });
        form.ok_or_else(|| ApiError::not_acceptable(&["application/json", "application/yaml"]))
    }

    /// One item as it stands in the list.
    ///
    /// # Errors
    /// When the JSON is not an object's.
    pub fn item(&self, json: &[u8]) -> ApiResult<Vec<u8>> {
        let object: Map<String, Value> = serde_json::from_slice(json)
            .map_err(|e| ApiError::internal(format_args!("cannot read the object to encode: {e}")))?;
        let mut item = Writer::default();
        encode::message(self.item, &object, &mut item);
        let mut field = Writer::with_capacity(item.len() + 8);
        field.message(self.tag, &item);
        Ok(field.into_bytes())
    }

    /// What comes before and after items of so many bytes, in a list with that metadata.
    pub fn around(&self, metadata: &Value, items: usize) -> (Vec<u8>, Vec<u8>) {
        let rest = Map::from_iter([("metadata".to_owned(), metadata.clone())]);
        let mut own = Writer::default();
        encode::message(self.definition, &rest, &mut own);
        let mut head = unknown(&self.api_version, &self.kind, own.len());
        head.opening(2, own.len() + items);
        head.raw(&own.into_bytes());
        let mut tail = Writer::default();
        end_unknown(&mut tail);
        (head.into_bytes(), tail.into_bytes())
    }
}

/// The beginning of an `Unknown`, up to the object's own message.
fn unknown(api_version: &str, kind: &str, capacity: usize) -> Writer {
    let mut type_meta = Writer::default();
    type_meta.string(1, api_version);
    type_meta.string(2, kind);
    let mut unknown = Writer::with_capacity(capacity + 64);
    unknown.raw(MAGIC);
    unknown.message(1, &type_meta);
    unknown
}

/// Encoding and type of the contents: always written, always empty.
fn end_unknown(unknown: &mut Writer) {
    unknown.bytes(3, b"");
    unknown.bytes(4, b"");
}

/// Turns an object in protobuf into its JSON.
pub fn decode(bytes: &[u8]) -> ApiResult<Vec<u8>> {
    let value = decode_value(bytes).map_err(ApiError::bad_request)?;
    serde_json::to_vec(&value).map_err(ApiError::internal)
}

fn decode_value(bytes: &[u8]) -> Result<Value, String> {
    let bytes = bytes
        .strip_prefix(MAGIC)
        .ok_or("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader::new(bytes);
    while let Some((field, wire)) = reader.next()? {
        match (field, wire) {
            (1, Wire::Bytes(message)) => {
                let mut reader = Reader::new(message);
                while let Some((field, wire)) = reader.next()? {
                    match field {
                        1 => api_version = wire.text()?,
                        2 => kind = wire.text()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => raw = message,
            _ => {}
        }
    }
    let definition = definition_of(&api_version, &kind).ok_or_else(|| {
        format!("no kind \"{kind}\" is registered for version \"{api_version}\" with a protobuf form")
    })?;
    let mut object = decode::message(definition, raw, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(object.into())
}

fn definition_of(api_version: &str, kind: &str) -> Option<&'static Definition> {
    let (group, version) = crate::names::split_api_version(api_version);
    let version = match (group, version, kind) {
        // The list of the API's versions belongs to none of them, and is sent without one.
        ("", "", "APIVersions") => "v1",
        // The one kind of its version that is still taken, with the fields of the next.
        ("policy", "v1beta1", "Eviction") => "v1",
        _ => version,
    };
    schema::by_kind(group, version, kind)
}

/// One frame of a watch: its length in four bytes, most significant first, and a `WatchEvent` around an object that
/// is already in protobuf.
pub fn watch_frame(event: &str, object: &[u8]) -> Vec<u8> {
    let mut extension = Writer::with_capacity(object.len() + 8);
    extension.bytes(1, object);
    let mut message = Writer::with_capacity(object.len() + 32);
    message.string(1, event);
    message.message(2, &extension);
    let message = message.into_bytes();
    let mut frame = Vec::with_capacity(message.len() + 4);
    // A frame is one object: far below four gigabytes.
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&message);
    frame
}

#[cfg(test)]
#[path = "protobuf/tests.rs"]
mod tests;
