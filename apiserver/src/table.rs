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
                    "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be \
                     'Metadata', 'Object', 'None', or empty"
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
    let conditions = match strategy.row_conditions(decoded.as_ref()) {
        none if none.is_empty() => String::new(),
        some => format!(r#","conditions":{}"#, Value::Array(some)),
    };
    let part = match include {
        IncludeObject::None => Bytes::from_static(b"null"),
        IncludeObject::Metadata => partial(object)?,
        IncludeObject::Object => present(Bytes::copy_from_slice(object)),
    };
    let part = String::from_utf8_lossy(&part);
    Ok(format!(r#"{{"cells":{cells}{conditions},"object":{part}}}"#))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry;

    fn cell(kind: &str, column: &str, object: Value) -> Value {
        let strategies = registry::all();
        let strategy = strategies.iter().find(|s| s.info().kind == kind).expect("a kind");
        let bytes = object.to_string();
        let object = strategy.decode(bytes.as_bytes()).expect("an object");
        let index = strategy.columns().iter().position(|c| c.name == column);
        let cells = strategy.cells(object.as_ref(), Timestamp::UNIX_EPOCH);
        cells[index.expect("a column")].clone()
    }

    #[test]
    fn cells_say_what_upstreams_say() {
        let rules = |hosts: &[&str]| -> Value {
            let rule = |host: &&str| match *host {
                "" => json!({}),
                host => json!({"host": host}),
            };
            json!({"spec": {"rules": hosts.iter().map(rule).collect::<Vec<_>>()}})
        };
        let addresses =
            json!([{"ip": "10.0.0.2"}, {"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}, {"hostname": "h"}]);
        let class = |key: &str| json!({"metadata": {"annotations": {key: "true"}}, "driverName": "d"});
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [
            {"key": "k", "operator": "In", "values": ["v", "w"]}]});
        let subsets = json!([{"notReadyAddresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 1}]}]);
        let available = |status: &str, reason: &str| json!({"status": {"conditions": [{"type": "Available", "status": status, "reason": reason}]}});
        let series = json!({"reportingComponent": "c", "reportingInstance": "i", "series": {"count": 3}});
        for (kind, column, object, wanted) in [
            ("Ingress", "Hosts", rules(&[]), json!("*")),
            ("Ingress", "Hosts", rules(&["a", "", "c"]), json!("a,c")),
            ("Ingress", "Hosts", rules(&["a", "b", "c"]), json!("a,b,c")),
            (
                "Ingress",
                "Hosts",
                rules(&["a", "b", "c", ""]),
                json!("a,b,c + 1 more..."),
            ),
            (
                "Ingress",
                "Hosts",
                rules(&["a", "", "b", "c", "d"]),
                json!("a,b,c + 2 more..."),
            ),
            (
                "Ingress",
                "Address",
                json!({"status": {"loadBalancer": {"ingress": addresses}}}),
                json!("10.0.0.1,10.0.0.2,h"),
            ),
            (
                "Ingress",
                "Class",
                json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}}),
                json!("<none>"),
            ),
            ("Endpoints", "Endpoints", json!({"subsets": subsets}), json!("")),
            ("Endpoints", "Endpoints", json!({}), json!("<none>")),
            (
                "EndpointSlice",
                "Ports",
                json!({"addressType": "IPv4", "endpoints": [], "ports": [{"name": ""}]}),
                json!("<unset>"),
            ),
            (
                "PersistentVolumeClaim",
                "VolumeAttributesClass",
                json!({"spec": {"volumeAttributesClassName": "fast"}}),
                json!("fast"),
            ),
            (
                "PersistentVolume",
                "StorageClass",
                json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "old"}},
                    "spec": {"storageClassName": "new"}}),
                json!("old"),
            ),
            (
                "VolumeAttributesClass",
                "Name",
                class("volumeattributesclass.alpha.kubernetes.io/is-default-class"),
                json!(" (default)"),
            ),
            (
                "ValidatingAdmissionPolicyBinding",
                "ParamRef",
                json!({"spec": {"paramRef": {"name": "n"}}}),
                json!("*/n"),
            ),
            (
                "MutatingAdmissionPolicyBinding",
                "ParamRef",
                json!({"spec": {"paramRef": {"namespace": "x", "selector": selector}}}),
                json!(
                    "&LabelSelector{MatchLabels:map[string]string{a: b,},MatchExpressions:[]LabelSelectorRequirement{\
                     LabelSelectorRequirement{Key:k,Operator:In,Values:[v w],},},}"
                ),
            ),
            (
                "PriorityLevelConfiguration",
                "NominalConcurrencyShares",
                json!({"spec": {"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0}}}),
                json!("<none>"),
            ),
            ("Event", "Source", series.clone(), json!("c, i")),
            ("Event", "Count", series.clone(), json!(3)),
            ("Event", "Last Seen", series, json!("<unknown>")),
            ("APIService", "Available", json!({}), json!("Unknown")),
            ("APIService", "Available", available("False", ""), json!("False")),
            (
                "APIService",
                "Available",
                available("False", "Gone"),
                json!("False (Gone)"),
            ),
            (
                "ResourceSlice",
                "Node",
                json!({"spec": {"allNodes": true, "driver": "d", "pool": {"name": "p"}}}),
                json!(""),
            ),
        ] {
            assert_eq!(cell(kind, column, object.clone()), wanted, "{kind} {object}");
        }
    }
}
