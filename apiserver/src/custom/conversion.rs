//! From one version of a custom resource to another by asking a webhook (`apiextensions.k8s.io/v1` ConversionReview).
//!
//! What the store holds stays in the version it was written in. It is converted where it is read, for the version asked
//! for, and remembered beside the entry it was made of: a change is converted once for all who watch.
//!
//! Source: "Versions in CustomResourceDefinitions", upstream's `webhook_converter.go`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::api::admissionregistration::v1::WebhookClientConfig;
use keelson_api::names::Gvk;
use keelson_api::status::{ApiError, ApiResult};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::state::Server;
use crate::webhook;

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Forms of the review this server speaks.
const REVIEWS: &[&str] = &["v1", "v1beta1"];
const GROUP: &str = "apiextensions.k8s.io";

/// A definition's webhook.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Converter {
    /// Where it is.
    #[serde(default)]
    client_config: WebhookClientConfig,
    /// Forms of the review it understands, best first.
    #[serde(default)]
    conversion_review_versions: Vec<String>,
}

impl Converter {
    /// The objects, in the same order, in the version wanted. Those that are in it already are not sent.
    ///
    /// # Errors
    /// 500 with what was wrong with the webhook or with its answer.
    pub async fn convert(
        &self,
        server: &Arc<Server>,
        mut objects: Vec<Value>,
        wanted: &str,
    ) -> ApiResult<Vec<Value>> {
        let sent: Vec<usize> = (0..objects.len())
            .filter(|index| objects[*index]["apiVersion"] != wanted)
            .collect();
        let Some(first) = sent.first() else {
            return Ok(objects);
        };
        let text = |field: &str| objects[*first][field].as_str().unwrap_or_default();
        let about = Gvk::from_api_version(text("apiVersion"), text("kind"));
        let failed = |why: String| ApiError::new(500, "", format!("conversion webhook for {about} {why}"));
        let Some(review) = self
            .conversion_review_versions
            .iter()
            .find(|version| REVIEWS.contains(&version.as_str()))
        else {
            return Err(ApiError::new(500, "", "no supported conversion review versions"));
        };
        let review = format!("{GROUP}/{review}");
        let uid = uuid::Uuid::new_v4().to_string();
        let question = json!({
            "kind": "ConversionReview",
            "apiVersion": review,
            "request": {
                "uid": uid,
                "desiredAPIVersion": wanted,
                "objects": sent.iter().map(|index| &objects[*index]).collect::<Vec<_>>(),
            },
        });
        let answer = webhook::post(
            server,
            &self.client_config,
            Bytes::from(question.to_string()),
            TIMEOUT,
        )
        .await
        .and_then(|answer| converted(&answer, &review, &uid))
        .map_err(|why| {
            failed(format!(
                "failed: {}",
                why.trim_start_matches("failed to call webhook: ")
            ))
        })?;
        if answer.len() != sent.len() {
            return Err(failed(format!(
                "returned {} objects, expected {}",
                answer.len(),
                sent.len()
            )));
        }
        for (number, (index, mut converted)) in sent.into_iter().zip(answer).enumerate() {
            let original = &objects[index];
            check(original, &converted, wanted).map_err(|why| {
                failed(format!(
                    "returned invalid converted object at index {number}: {why}"
                ))
            })?;
            restore_metadata(original, &mut converted).map_err(|why| {
                failed(format!(
                    "returned invalid metadata in object at index {number}: {why}"
                ))
            })?;
            objects[index] = converted;
        }
        Ok(objects)
    }
}

#[derive(Deserialize)]
struct Review {
    #[serde(default, rename = "apiVersion")]
    api_version: String,
    #[serde(default)]
    kind: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    converted_objects: Option<Vec<Value>>,
    #[serde(default)]
    result: Outcome,
}

#[derive(Deserialize, Default)]
struct Outcome {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

/// The objects out of a review that answers the question `uid`.
pub fn converted(answer: &[u8], review: &str, uid: &str) -> Result<Vec<Value>, String> {
    let answer: Review = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
    if answer.api_version != review || answer.kind != "ConversionReview" {
        let expected = Gvk::from_api_version(review, "ConversionReview");
        let given = Gvk::from_api_version(&answer.api_version, &answer.kind);
        return Err(format!("expected webhook response of {expected}, got {given}"));
    }
    let Some(response) = answer.response else {
        return Err("no response provided".to_owned());
    };
    if response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    let status = response.result.status.unwrap_or_default();
    if status != "Success" {
        return Err(match response.result.message.filter(|text| !text.is_empty()) {
            Some(message) => message,
            None => format!("response.result.status was '{status}', not 'Success'"),
        });
    }
    Ok(response.converted_objects.unwrap_or_default())
}

/// An object may change its form, but not which object it is.
pub fn check(original: &Value, converted: &Value, wanted: &str) -> Result<(), String> {
    let text = |object: &Value, pointer: &str| {
        let found = object.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let received = text(converted, "/apiVersion");
    if received != wanted {
        return Err(format!(
            "invalid groupVersion (expected {wanted}, received {received})"
        ));
    }
    let kinds = (text(original, "/kind"), text(converted, "/kind"));
    if kinds.0 != kinds.1 {
        return Err(format!(
            "invalid kind (expected {}, received {})",
            kinds.0, kinds.1
        ));
    }
    for (what, pointer) in [
        ("name", "/metadata/name"),
        ("namespace", "/metadata/namespace"),
        ("UID", "/metadata/uid"),
    ] {
        let (before, after) = (text(original, pointer), text(converted, pointer));
        if before != after {
            return Err(format!("must have the same {what}: {before} != {after}"));
        }
    }
    Ok(())
}

/// Of the metadata a webhook changes labels and annotations; everything else stays what it was.
pub fn restore_metadata(original: &Value, converted: &mut Value) -> Result<(), String> {
    let Some(given) = converted.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    let Some(given) = given.as_object() else {
        return Err(format!(
            "invalid metadata of type {} in converted object",
            go_type(given)
        ));
    };
    let mut metadata = original
        .get("metadata")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => drop(metadata.remove(field)),
            Some(Value::Object(map)) => {
                texts(map).map_err(|why| format!("invalid metadata.{field} in converted object: {why}"))?;
                metadata.insert(field.to_owned(), Value::Object(map.clone()));
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} in converted object: expected map[string]string, got {}",
                    go_type(other)
                ));
            }
        }
    }
    converted["metadata"] = Value::Object(metadata);
    Ok(())
}

fn texts(map: &Map<String, Value>) -> Result<(), String> {
    match map.iter().find(|(_, value)| !value.is_string()) {
        Some((key, value)) => Err(format!(
            "the value of {key:?} is not a string but {}",
            go_type(value)
        )),
        None => Ok(()),
    }
}

/// What upstream's messages call a value's type.
fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `apiVersion` of an object's JSON, looked for without reading all of it.
pub fn version_of(json: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Head {
        #[serde(rename = "apiVersion")]
        version: String,
    }
    serde_json::from_slice::<Head>(json).ok().map(|head| head.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> Value {
        json!({"apiVersion": format!("example.com/{version}"), "kind": "Ship", "metadata": {
            "name": "one", "namespace": "n", "uid": "u", "labels": {"a": "b"}, "finalizers": ["f"]}})
    }

    fn review(response: Value) -> Result<Vec<Value>, String> {
        let review = json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1", "response": response});
        converted(review.to_string().as_bytes(), "apiextensions.k8s.io/v1", "u1")
    }

    #[test]
    fn answers_are_held_to_their_questions() {
        assert_eq!(review(Value::Null).expect_err("none"), "no response provided");
        let other = review(json!({"uid": "u2", "result": {"status": "Success"}}));
        assert_eq!(
            other.expect_err("a mistake"),
            r#"expected response.uid="u1", got "u2""#
        );
        let failed = review(json!({"uid": "u1", "result": {"status": "Failed"}}));
        assert_eq!(
            failed.expect_err("a failure"),
            "response.result.status was 'Failed', not 'Success'"
        );
        let failed = review(json!({"uid": "u1", "result": {"status": "Failed", "message": "no way"}}));
        assert_eq!(failed.expect_err("a failure"), "no way");
        let fine = review(json!({"uid": "u1", "result": {"status": "Success"}, "convertedObjects": [{}]}));
        assert_eq!(fine.expect("objects").len(), 1);
        assert_eq!(
            converted(b"{}", "apiextensions.k8s.io/v1", "u1").expect_err("nothing"),
            "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /, Kind="
        );
    }

    #[test]
    fn an_object_stays_the_object_it_is() {
        let (before, mut after) = (object("v1"), object("v2"));
        assert_eq!(check(&before, &after, "example.com/v2"), Ok(()));
        assert_eq!(
            check(&before, &after, "example.com/v3").expect_err("a mistake"),
            "invalid groupVersion (expected example.com/v3, received example.com/v2)"
        );
        after["metadata"]["name"] = "two".into();
        assert_eq!(
            check(&before, &after, "example.com/v2").expect_err("a mistake"),
            "must have the same name: one != two"
        );
    }

    #[test]
    fn only_labels_and_annotations_may_change() {
        let (before, mut after) = (object("v1"), object("v2"));
        after["metadata"]["labels"] = json!({"c": "d"});
        after["metadata"]["finalizers"] = json!([]);
        after["metadata"]["generation"] = 7.into();
        restore_metadata(&before, &mut after).expect("good metadata");
        assert_eq!(
            after["metadata"],
            json!({"name": "one", "namespace": "n", "uid": "u", "labels": {"c": "d"},
            "finalizers": ["f"]})
        );
        after["metadata"]["labels"] = json!({"c": 1});
        assert!(restore_metadata(&before, &mut after).is_err());
        assert_eq!(
            restore_metadata(&before, &mut json!({})).expect_err("no metadata"),
            "missing metadata in converted object"
        );
    }
}
