//! What the API answers when it refuses: one error type around `metav1.Status`.
//!
//! Codes, reasons and texts are upstream's, because clients branch on the first two and people search for the third.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Status, StatusCause, StatusDetails};

use crate::field;
use crate::names::{GroupKind, GroupResource};
use crate::text::quote;

/// The text every optimistic-locking conflict ends with.
pub const MODIFIED: &str =
    "the object has been modified; please apply your changes to the latest version and try again";

/// The machine-readable reasons a Status may give.
pub mod reason {
    /// 401: no identity, or one that is not accepted.
    pub const UNAUTHORIZED: &str = "Unauthorized";
    /// 403: the identity may not do this.
    pub const FORBIDDEN: &str = "Forbidden";
    /// 404: there is no such object or resource.
    pub const NOT_FOUND: &str = "NotFound";
    /// 409: there already is such an object.
    pub const ALREADY_EXISTS: &str = "AlreadyExists";
    /// 409: somebody else changed the object, or the request fits its state no longer.
    pub const CONFLICT: &str = "Conflict";
    /// 410: what was asked for existed once and does no more.
    pub const GONE: &str = "Gone";
    /// 422: the object breaks its kind's rules.
    pub const INVALID: &str = "Invalid";
    /// 500: the operation cannot be completed now; the client should retry.
    pub const SERVER_TIMEOUT: &str = "ServerTimeout";
    /// 504: the operation took too long.
    pub const TIMEOUT: &str = "Timeout";
    /// 429: too many requests; wait before the next.
    pub const TOO_MANY_REQUESTS: &str = "TooManyRequests";
    /// 400: the request makes no sense.
    pub const BAD_REQUEST: &str = "BadRequest";
    /// 405: the resource does not know this verb.
    pub const METHOD_NOT_ALLOWED: &str = "MethodNotAllowed";
    /// 406: none of the accepted media types can be given.
    pub const NOT_ACCEPTABLE: &str = "NotAcceptable";
    /// 413: the body is too large.
    pub const REQUEST_ENTITY_TOO_LARGE: &str = "RequestEntityTooLarge";
    /// 415: the body's media type is not understood.
    pub const UNSUPPORTED_MEDIA_TYPE: &str = "UnsupportedMediaType";
    /// 410: the resource version asked for has been compacted.
    pub const EXPIRED: &str = "Expired";
    /// 500: a fault of the server.
    pub const INTERNAL_ERROR: &str = "InternalError";
    /// 503: a part the server needs does not answer.
    pub const SERVICE_UNAVAILABLE: &str = "ServiceUnavailable";
}

/// A refusal as it goes over the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiError(Box<Status>);

/// What most functions of a server return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// A failure with a code, a reason (see [`reason`]) and a message.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            code: Some(i32::from(code)),
            details: None,
            message: Some(message.into()),
            metadata: ListMeta::default(),
            reason: (!reason.is_empty()).then(|| reason.to_owned()),
            status: Some("Failure".to_owned()),
        }))
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        let details = self.details_mut();
        details.group = (!group.is_empty()).then(|| group.to_owned());
        details.kind = (!kind.is_empty()).then(|| kind.to_owned());
        details.name = (!name.is_empty()).then(|| name.to_owned());
        self
    }

    /// The same failure with its details set.
    pub fn with_details(mut self, details: StatusDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// The same failure with one more cause.
    pub fn with_cause(mut self, cause: StatusCause) -> Self {
        self.details_mut().causes.get_or_insert_default().push(cause);
        self
    }

    /// The same failure, telling the client how long to wait.
    pub fn with_retry_after(mut self, seconds: i32) -> Self {
        self.details_mut().retry_after_seconds = (seconds > 0).then_some(seconds);
        self
    }

    /// The same failure, naming the object's uid.
    pub fn with_uid(mut self, uid: impl Into<String>) -> Self {
        self.details_mut().uid = Some(uid.into());
        self
    }

    fn details_mut(&mut self) -> &mut StatusDetails {
        self.0.details.get_or_insert_default()
    }

    /// 404: the object does not exist.
    pub fn not_found(gr: &GroupResource, name: &str) -> Self {
        Self::new(404, reason::NOT_FOUND, format!("{gr} {} not found", quote(name))).about(
            &gr.group,
            &gr.resource,
            name,
        )
    }

    /// 404: the path names nothing this server serves.
    pub fn no_such_resource() -> Self {
        Self::new(
            404,
            reason::NOT_FOUND,
            "the server could not find the requested resource",
        )
        .with_details(StatusDetails::default())
    }

    /// 409: there already is an object of this name.
    pub fn already_exists(gr: &GroupResource, name: &str) -> Self {
        Self::new(
            409,
            reason::ALREADY_EXISTS,
            format!("{gr} {} already exists", quote(name)),
        )
        .about(&gr.group, &gr.resource, name)
    }

    /// 409: `generateName` hit an existing name; trying again helps.
    pub fn generate_name_conflict(gr: &GroupResource, name: &str) -> Self {
        Self::new(
            409,
            reason::ALREADY_EXISTS,
            format!(
                "{gr} {} already exists, the server was not able to generate a unique name for the object",
                quote(name)
            ),
        )
        .about(&gr.group, &gr.resource, name)
        .with_retry_after(1)
    }

    /// 409: the object is not in the state the request supposes. [`MODIFIED`] is the usual message.
    pub fn conflict(gr: &GroupResource, name: &str, message: impl fmt::Display) -> Self {
        Self::new(
            409,
            reason::CONFLICT,
            format!("Operation cannot be fulfilled on {gr} {}: {message}", quote(name)),
        )
        .about(&gr.group, &gr.resource, name)
    }

    /// 409: another field manager owns fields that an apply wants to set.
    pub fn apply_conflict(causes: Vec<StatusCause>, message: impl Into<String>) -> Self {
        Self::new(409, reason::CONFLICT, message).with_details(StatusDetails {
            causes: Some(causes),
            ..StatusDetails::default()
        })
    }

    /// 422: the object breaks its kind's rules; every broken rule is a cause.
    pub fn invalid(gk: &GroupKind, name: &str, errors: &[field::Error]) -> Self {
        let mut message = format!("{gk} {} is invalid", quote(name));
        if !errors.is_empty() {
            message.push_str(": ");
            message.push_str(&field::aggregate(errors));
        }
        let mut refusal = Self::new(422, reason::INVALID, message).about(&gk.group, &gk.kind, name);
        if !errors.is_empty() {
            refusal.details_mut().causes = Some(errors.iter().map(field::Error::cause).collect());
        }
        refusal
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, reason::BAD_REQUEST, message)
    }

    /// 401: who is asking? An empty message becomes upstream's `Unauthorized`.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        let message = message.into();
        let message = if message.is_empty() {
            "Unauthorized".to_owned()
        } else {
            message
        };
        Self::new(401, reason::UNAUTHORIZED, message)
    }

    /// 403: the request is understood and refused. The name may be empty.
    pub fn forbidden(gr: &GroupResource, name: &str, message: impl fmt::Display) -> Self {
        let text = if gr.group.is_empty() && gr.resource.is_empty() {
            format!("forbidden: {message}")
        } else if name.is_empty() {
            format!("{gr} is forbidden: {message}")
        } else {
            format!("{gr} {} is forbidden: {message}", quote(name))
        };
        Self::new(403, reason::FORBIDDEN, text).about(&gr.group, &gr.resource, name)
    }

    /// 405: the resource does not know this verb.
    pub fn method_not_supported(gr: &GroupResource, action: &str) -> Self {
        Self::new(
            405,
            reason::METHOD_NOT_ALLOWED,
            format!(
                "{action} is not supported on resources of kind {}",
                quote(&gr.to_string())
            ),
        )
        .about(&gr.group, &gr.resource, "")
    }

    /// 406: the server can answer only in these media types.
    pub fn not_acceptable<S: AsRef<str>>(accepted: &[S]) -> Self {
        Self::new(
            406,
            reason::NOT_ACCEPTABLE,
            format!("only the following media types are accepted: {}", join(accepted)),
        )
    }

    /// 415: the server understands only bodies of these media types.
    pub fn unsupported_media_type<S: AsRef<str>>(accepted: &[S]) -> Self {
        Self::new(
            415,
            reason::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                join(accepted)
            ),
        )
    }

    /// 410: what was asked for existed once and does no more.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, reason::GONE, message)
    }

    /// 410: the resource version or continue token is too old; list again.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, reason::EXPIRED, message)
    }

    /// 429: wait `retry_after` seconds before trying again.
    pub fn too_many_requests(message: impl Into<String>, retry_after: i32) -> Self {
        Self::new(429, reason::TOO_MANY_REQUESTS, message)
            .with_details(StatusDetails::default())
            .with_retry_after(retry_after)
    }

    /// 504: the operation took too long.
    pub fn timeout(message: impl fmt::Display, retry_after: i32) -> Self {
        Self::new(504, reason::TIMEOUT, format!("Timeout: {message}"))
            .with_details(StatusDetails::default())
            .with_retry_after(retry_after)
    }

    /// 500: the operation cannot be completed now; trying again may help.
    pub fn server_timeout(gr: &GroupResource, operation: &str, retry_after: i32) -> Self {
        Self::new(
            500,
            reason::SERVER_TIMEOUT,
            format!(
                "The {operation} operation against {gr} could not be completed at this time, please try again."
            ),
        )
        .about(&gr.group, &gr.resource, "")
        .with_retry_after(retry_after)
    }

    /// 500: a fault of the server.
    pub fn internal(message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Self::new(
            500,
            reason::INTERNAL_ERROR,
            format!("Internal error occurred: {message}"),
        )
        .with_cause(StatusCause {
            field: None,
            message: Some(message),
            reason: None,
        })
    }

    /// 503: a part the server needs does not answer.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, reason::SERVICE_UNAVAILABLE, message)
    }

    /// 413: the body is too large.
    pub fn request_entity_too_large(message: impl fmt::Display) -> Self {
        Self::new(
            413,
            reason::REQUEST_ENTITY_TOO_LARGE,
            format!("Request entity too large: {message}"),
        )
    }

    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        self.0
            .code
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(500)
    }

    /// The machine-readable reason; empty if the server gave none.
    pub fn reason(&self) -> &str {
        self.0.reason.as_deref().unwrap_or_default()
    }

    /// The human-readable message.
    pub fn message(&self) -> &str {
        self.0.message.as_deref().unwrap_or_default()
    }

    /// The single broken rules and other causes.
    pub fn causes(&self) -> &[StatusCause] {
        self.0
            .details
            .as_ref()
            .and_then(|d| d.causes.as_deref())
            .unwrap_or_default()
    }

    /// How many seconds the client was asked to wait.
    pub fn retry_after_seconds(&self) -> Option<i32> {
        self.0.details.as_ref().and_then(|d| d.retry_after_seconds)
    }

    /// Whether the object or resource does not exist.
    pub fn is_not_found(&self) -> bool {
        self.reason() == reason::NOT_FOUND
    }

    /// Whether there already is such an object.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == reason::ALREADY_EXISTS
    }

    /// Whether reading the object again and retrying may help.
    pub fn is_conflict(&self) -> bool {
        self.reason() == reason::CONFLICT
    }

    /// Whether a list or watch must start anew.
    pub fn is_expired(&self) -> bool {
        matches!(self.reason(), reason::EXPIRED | reason::GONE)
    }

    /// Whether the object was refused as invalid.
    pub fn is_invalid(&self) -> bool {
        self.reason() == reason::INVALID
    }

    /// Whether the identity may not do this.
    pub fn is_forbidden(&self) -> bool {
        self.reason() == reason::FORBIDDEN
    }

    /// Whether the refusal is about load: wait and retry.
    pub fn is_too_many_requests(&self) -> bool {
        self.reason() == reason::TOO_MANY_REQUESTS || self.code() == 429
    }

    /// The Status inside.
    pub fn status(&self) -> &Status {
        &self.0
    }

    /// Takes the Status out.
    pub fn into_status(self) -> Status {
        *self.0
    }

    /// The Status as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        // A Status has only strings and numbers: its encoding cannot fail.
        serde_json::to_vec(&*self.0).unwrap_or_default()
    }

    /// Reads a Status that a server sent; `None` if the bytes are none, or tell of success.
    pub fn from_json(bytes: &[u8]) -> Option<Self> {
        let status: Status = serde_json::from_slice(bytes).ok()?;
        (status.status.as_deref() != Some("Success")).then(|| Self(Box::new(status)))
    }
}

fn join<S: AsRef<str>>(items: &[S]) -> String {
    items.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.message() {
            "" => write!(f, "the server answered {} {}", self.code(), self.reason()),
            message => f.write_str(message),
        }
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        *error.0
    }
}

impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        Self(Box::new(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::{Error, Path};

    #[test]
    fn texts_are_upstreams() {
        let pods = GroupResource::core("pods");
        let deployments = GroupResource::new("apps", "deployments");
        assert_eq!(
            ApiError::not_found(&deployments, "x").message(),
            "deployments.apps \"x\" not found"
        );
        assert_eq!(
            ApiError::conflict(&pods, "x", MODIFIED).message(),
            "Operation cannot be fulfilled on pods \"x\": the object has been modified; please apply your changes \
             to the latest version and try again"
        );
        assert_eq!(
            ApiError::forbidden(&pods, "", "no").message(),
            "pods is forbidden: no"
        );
        assert_eq!(
            ApiError::forbidden(&pods, "x", "no").message(),
            "pods \"x\" is forbidden: no"
        );
        let spec = Path::new("spec");
        let one = ApiError::invalid(
            &GroupKind::new("", "Pod"),
            "x",
            &[Error::required(&spec.child("containers"), "")],
        );
        assert_eq!(
            one.message(),
            "Pod \"x\" is invalid: spec.containers: Required value"
        );
        assert_eq!(one.causes()[0].reason.as_deref(), Some("FieldValueRequired"));
        let two = ApiError::invalid(
            &GroupKind::new("apps", "Deployment"),
            "x",
            &[
                Error::required(&spec.child("a"), ""),
                Error::required(&spec.child("b"), "must be set"),
            ],
        );
        assert_eq!(
            two.message(),
            "Deployment.apps \"x\" is invalid: [spec.a: Required value, spec.b: Required value: must be set]"
        );
    }

    #[test]
    fn survives_the_wire() {
        let error = ApiError::not_found(&GroupResource::core("pods"), "x");
        let text = String::from_utf8(error.to_json()).expect("utf-8");
        assert!(
            text.contains("\"kind\":\"Status\"") && text.contains("\"status\":\"Failure\""),
            "{text}"
        );
        assert_eq!(ApiError::from_json(text.as_bytes()), Some(error));
        assert_eq!(
            ApiError::from_json(b"{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"status\":\"Success\"}"),
            None
        );
    }
}
