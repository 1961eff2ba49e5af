//! Objects as tables and as metadata alone: what `kubectl get` shows and what controllers of everything watch.

use bytes::Bytes;
use jiff::Timestamp;
use keelson_api::status::{ApiError, ApiResult};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::handlers::list::ListAnswer;
use crate::registry::strategy::ErasedStrategy;

/// Which part of the object comes along with its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// From the query parameter.
    pub fn parse(text: &str) -> ApiResult<Self> {
        Ok(match text {
            "" | "Metadata" => Self::Metadata,
            "None" => Self::None,
            "Object" => Self::Object,
            other => {
                return Err(ApiError::bad_request(format!(
                    "unrecognized includeObject value: {other:?}; supported values: None, Metadata, Object"
                )));
            }
        })
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The object's metadata as a PartialObjectMetadata.
pub fn partial(object: &[u8]) -> ApiResult<Bytes> {
    let head: Head<'_> = serde_json::from_slice(object).map_err(ApiError::internal)?;
    Ok(Bytes::from(format!(
        r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{}}}"#,
        head.metadata.get()
    )))
}

fn columns(strategy: &dyn ErasedStrategy) -> Value {
    strategy
        .columns()
        .iter()
        .map(|c| {
            json!({
                "name": c.name, "type": c.kind, "format": c.format,
                "description": c.description, "priority": c.priority,
            })
        })
        .collect()
}

/// The row of an object.
pub fn row(
    strategy: &dyn ErasedStrategy,
    object: &[u8],
    include: IncludeObject,
    now: Timestamp,
    present: &dyn Fn(Bytes) -> Bytes,
) -> ApiResult<String> {
    let decoded = strategy.decode(object).map_err(ApiError::internal)?;
    let cells = Value::Array(strategy.cells(decoded.as_ref(), now));
    Ok(match include {
        IncludeObject::None => format!(r#"{{"cells":{cells},"object":null}}"#),
        IncludeObject::Metadata => {
            let partial = partial(object)?;
            format!(
                r#"{{"cells":{cells},"object":{}}}"#,
                String::from_utf8_lossy(&partial)
            )
        }
        IncludeObject::Object => {
            let whole = present(Bytes::copy_from_slice(object));
            format!(
                r#"{{"cells":{cells},"object":{}}}"#,
                String::from_utf8_lossy(&whole)
            )
        }
    })
}

/// A table of one object, as a watch or a get of one object shows it.
pub fn of_object(
    strategy: &dyn ErasedStrategy,
    object: &[u8],
    include: IncludeObject,
    with_columns: bool,
    present: &dyn Fn(Bytes) -> Bytes,
) -> ApiResult<Bytes> {
    let now = Timestamp::now();
    let version = version_of(object);
    let columns = if with_columns {
        columns(strategy)
    } else {
        Value::Null
    };
    let row = row(strategy, object, include, now, present)?;
    Ok(Bytes::from(format!(
        r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{{"resourceVersion":"{version}"}},"columnDefinitions":{columns},"rows":[{row}]}}"#
    )))
}

/// What a table of a list begins with, before its rows.
pub fn list_head(strategy: &dyn ErasedStrategy, list: &ListAnswer) -> String {
    format!(
        r#"{{"kind":"Table","apiVersion":"meta.k8s.io/v1","metadata":{},"columnDefinitions":{},"rows":["#,
        list_meta(list),
        columns(strategy)
    )
}

/// The metadata of a list.
pub fn list_meta(list: &ListAnswer) -> Value {
    let mut meta = json!({"resourceVersion": list.revision.to_string()});
    if let Some(token) = &list.continue_token {
        meta["continue"] = token.as_str().into();
    }
    if let Some(remaining) = list.remaining {
        meta["remainingItemCount"] = remaining.into();
    }
    meta
}

fn version_of(object: &[u8]) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        #[serde(default)]
        resource_version: String,
    }
    #[derive(Deserialize)]
    struct Object {
        metadata: Meta,
    }
    serde_json::from_slice::<Object>(object)
        .map(|o| o.metadata.resource_version)
        .unwrap_or_default()
}
