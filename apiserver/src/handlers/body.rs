//! From a request's bytes to an object of the resource's kind.

use bytes::Bytes;
use keelson_api::object::Object;
use keelson_api::status::{ApiError, ApiResult};
use keelson_api::strict::{self, FieldValidation};
use keelson_daemon::yaml;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

use super::Call;
use crate::registry::strategy::Request;

#[derive(Deserialize, Default)]
struct TypeMeta<'a> {
    #[serde(borrow, default, rename = "apiVersion")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

/// Reads an object of the call's resource from JSON in the version asked for.
pub fn decode_object(call: &Call<'_>, json: &[u8]) -> ApiResult<Box<dyn Object>> {
    let info = call.info();
    // Most are: one pass, and nothing to be said about it.
    if call.served.alias.is_none()
        && call.served.definition().is_some()
        && let Some(object) = call.strategy().plain(json)
    {
        return Ok(object);
    }
    let (version, kind) = (call.served.version(), info.kind);
    let head: TypeMeta<'_> = serde_json::from_slice(json).map_err(|error| {
        ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse \
             error: {error} ({})",
            summary(json)
        ))
    })?;
    let expected = call.served.api_version();
    let given_kind = head.kind.as_deref().filter(|k| !k.is_empty());
    let given_version = head.api_version.as_deref().filter(|v| !v.is_empty());
    if let Some(given) = given_version
        && given != expected
    {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    if let Some(given) = given_kind
        && given != kind
    {
        return Err(ApiError::bad_request(format!(
            "{given} in version {version:?} cannot be handled as a {kind}: no kind {given:?} is registered for \
             version {expected:?} in this resource"
        )));
    }
    if call.served.custom_version().is_some() {
        let unreadable = |why: String| strict::cannot_be_handled(kind, version, &why);
        let twice = match call.options.field_validation {
            FieldValidation::Ignore => Vec::new(),
            _ => strict::duplicates(json).map_err(unreadable)?,
        };
        let value = serde_json::from_slice(json).map_err(|error| unreadable(error.to_string()))?;
        return read(call, value, twice);
    }
    if call.served.alias.is_some() || given_kind.is_none() || given_version.is_none() {
        let unreadable = |error| strict::cannot_be_handled(kind, version, &format!("{error}"));
        let value: Value = serde_json::from_slice(json).map_err(unreadable)?;
        return from_value(call, value);
    }
    decode(call, json)
}

/// Reads an object of the call's resource from a value in the version asked for.
pub fn from_value(call: &Call<'_>, value: Value) -> ApiResult<Box<dyn Object>> {
    read_value(call, value, true)
}

/// The same from an object that a plain patch was laid over: what the patch says is all that might be wrong with it.
pub fn from_plain(call: &Call<'_>, value: Value) -> ApiResult<Box<dyn Object>> {
    read_value(call, value, false)
}

/// Whether nothing would have to be said of this part of an object of a built-in kind, which is spelled as it is stored.
pub fn is_plain(call: &Call<'_>, part: &[u8]) -> bool {
    call.served.as_stored()
        && call.served.definition().is_some_and(|definition| {
            strict::check(definition, part)
                .is_ok_and(|checked| checked.complaints.is_empty() && checked.as_it_was())
        })
}

fn read_value(call: &Call<'_>, mut value: Value, check: bool) -> ApiResult<Box<dyn Object>> {
    if !value.is_object() {
        return Err(strict::cannot_be_handled(
            call.info().kind,
            call.served.version(),
            "it is not a JSON object",
        ));
    }
    value["apiVersion"] = call.served.api_version().into();
    value["kind"] = call.info().kind.into();
    if call.served.custom_version().is_some() {
        return read(call, value, Vec::new());
    }
    call.served.to_storage(&mut value)?;
    let (info, version) = (call.info(), call.served.version());
    if let Some(definition) = call.served.definition().filter(|_| check) {
        strict::decode_value(definition, version, &mut value, call.options.field_validation)?
            .into_iter()
            .for_each(|text| call.warn(text));
    }
    call.strategy()
        .decode_value(value)
        .map_err(|error| strict::cannot_be_handled(info.kind, version, &error.to_string()))
}

/// An object of a custom resource; `twice` are the fields its JSON had more than once.
fn read(call: &Call<'_>, value: Value, twice: Vec<String>) -> ApiResult<Box<dyn Object>> {
    let (kind, version) = (call.info().kind, call.served.version());
    let refused = |why: String| strict::cannot_be_handled(kind, version, &why);
    let Request { object, complaints } = call.strategy().read(value).map_err(refused)?;
    let complaints: Vec<String> = twice.into_iter().chain(complaints).collect();
    match call.options.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => complaints.into_iter().for_each(|text| call.warn(text)),
        FieldValidation::Strict if complaints.is_empty() => {}
        FieldValidation::Strict => {
            return Err(refused(format!(
                "strict decoding error: {}",
                complaints.join(", ")
            )));
        }
    }
    Ok(object)
}

/// From the stored version. Unknown and duplicate fields are dropped, mentioned or refused, as the caller wishes.
fn decode(call: &Call<'_>, json: &[u8]) -> ApiResult<Box<dyn Object>> {
    let (info, version) = (call.info(), call.served.version());
    let checked;
    let json = match call.served.definition() {
        Some(definition) => {
            let (json, warnings) = strict::decode(definition, version, json, call.options.field_validation)?;
            warnings.into_iter().for_each(|text| call.warn(text));
            checked = json;
            &*checked
        }
        None => json,
    };
    call.strategy()
        .decode(json)
        .map_err(|error| strict::cannot_be_handled(info.kind, version, &error.to_string()))
}

/// The beginning of something that could not be read.
fn summary(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(30)]);
    if body.len() > 30 {
        format!("{text} ...")
    } else {
        text.into_owned()
    }
}

/// YAML of one document as JSON. Numbers, booleans and merges are read as kubectl reads them.
pub fn yaml_to_json(yaml: &[u8]) -> ApiResult<Bytes> {
    let bad =
        |e: &dyn std::fmt::Display| ApiError::bad_request(format!("error converting YAML to JSON: {e}"));
    let text = std::str::from_utf8(yaml).map_err(|e| bad(&e))?;
    let value: Value = yaml::from_str(text).map_err(|e| bad(&e))?;
    serde_json::to_vec(&value).map(Bytes::from).map_err(|e| bad(&e))
}
