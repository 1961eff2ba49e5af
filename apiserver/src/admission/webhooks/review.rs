//! The question and the answer: `AdmissionReview` of `admission.k8s.io/v1`.

use base64::Engine as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use keelson_api::status::ApiError;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admission::matching::Shown;
use crate::admission::{Attributes, request};

/// A question and the id its answer has to carry.
pub struct Question {
    /// The id.
    pub uid: String,
    /// The review.
    pub body: Value,
}

/// The question a request gives rise to.
pub fn question(attributes: &Attributes<'_>, shown: &Shown) -> Question {
    let uid = uuid::Uuid::new_v4().to_string();
    let mut request = request::describe(attributes, &shown.served);
    request["uid"] = uid.as_str().into();
    request["object"] = shown.object.clone();
    request["oldObject"] = shown.old.clone();
    let body = json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request});
    Question { uid, body }
}

/// What a webhook says.
#[derive(Debug, Default)]
pub struct Answer {
    /// Whether the request may go on.
    pub allowed: bool,
    /// Why not.
    pub status: Option<Status>,
    /// A JSON patch.
    pub patch: Option<Vec<u8>>,
    /// For the caller.
    pub warnings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    response: Option<Response>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    allowed: bool,
    status: Option<Status>,
    patch: Option<String>,
    patch_type: Option<String>,
    #[serde(default)]
    warnings: Option<Vec<String>>,
}

/// Reads an answer. One that breaks the rules is as bad as none.
pub fn answer(body: &[u8], uid: &str) -> Result<Answer, String> {
    let review: Review = serde_json::from_slice(body)
        .map_err(|error| format!("couldn't decode the webhook's response: {error}"))?;
    let expected = "admission.k8s.io/v1, Kind=AdmissionReview";
    if review.kind != "AdmissionReview" || review.api_version != "admission.k8s.io/v1" {
        return Err(format!(
            "expected webhook response of {expected}, got {}, Kind={}",
            review.api_version, review.kind
        ));
    }
    let Some(response) = review.response else {
        return Err("webhook response was absent".to_owned());
    };
    if response.uid != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response.uid));
    }
    let patch = match (response.patch, response.patch_type.as_deref()) {
        (None, None) => None,
        (None, Some(_)) => {
            return Err("webhook returned response.patchType but not response.patch".to_owned());
        }
        (Some(patch), Some("JSONPatch")) => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(patch);
            Some(decoded.map_err(|error| format!("response.patch is not base64: {error}"))?)
        }
        (Some(_), _) => {
            return Err("webhook returned invalid response.patchType, must be JSONPatch".to_owned());
        }
    };
    Ok(Answer {
        allowed: response.allowed,
        status: response.status,
        patch,
        warnings: response.warnings.unwrap_or_default(),
    })
}

/// Refusals are at least bad requests.
const CODE_MIN: i32 = 400;

impl Answer {
    /// The refusal, if it is one.
    pub fn denied(&self, webhook: &str) -> Option<ApiError> {
        if self.allowed {
            return None;
        }
        let mut status = self.status.clone().unwrap_or_default();
        let by = format!("admission webhook {webhook:?} denied the request");
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        status.message = Some(match (text(&status.message), text(&status.reason)) {
            (Some(message), _) => format!("{by}: {message}"),
            (None, Some(reason)) => format!("{by}: {reason}"),
            (None, None) => format!("{by} without explanation"),
        });
        status.code = Some(status.code.unwrap_or(CODE_MIN).max(CODE_MIN));
        status.status = Some("Failure".to_owned());
        Some(ApiError::from(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(response: Value) -> Result<Answer, String> {
        let review =
            json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
        answer(review.to_string().as_bytes(), "u")
    }

    #[test]
    fn refusals_name_the_webhook() {
        let denied = |response| {
            read(response)
                .expect("an answer")
                .denied("w.example.com")
                .expect("a refusal")
        };
        let error = denied(json!({"uid": "u", "allowed": false, "status": {"message": "no", "code": 403}}));
        assert_eq!(
            (error.code(), error.message()),
            (403, "admission webhook \"w.example.com\" denied the request: no")
        );
        let error = denied(json!({"uid": "u", "allowed": false}));
        assert_eq!(
            (error.code(), error.message()),
            (
                400,
                "admission webhook \"w.example.com\" denied the request without explanation"
            )
        );
        let allowed = read(json!({"uid": "u", "allowed": true, "warnings": ["careful"]})).expect("an answer");
        assert!(allowed.denied("w").is_none() && allowed.warnings == ["careful"]);
    }

    #[test]
    fn answers_that_break_the_rules_are_none() {
        assert!(read(json!({"uid": "other", "allowed": true})).is_err());
        assert!(read(json!({"uid": "u", "allowed": true, "patch": "W10="})).is_err());
        assert!(answer(b"{}", "u").is_err() && answer(b"<html>", "u").is_err());
        let patched = read(json!({"uid": "u", "allowed": true, "patch": "W10=", "patchType": "JSONPatch"}));
        assert_eq!(patched.expect("an answer").patch.as_deref(), Some(&b"[]"[..]));
    }
}
