//! gRPC statuses to API errors.

use keelson_api::status::{ApiError, reason};
use tonic::{Code, Status};

/// What the server refused, or why it could not be asked.
///
/// The server attaches the `metav1.Status` as the status details. Without one the failure is below the API: the
/// connection broke, nothing listens, a proxy answered.
pub(crate) fn from_grpc(status: &Status) -> ApiError {
    if let Some(error) = ApiError::from_json(status.details()) {
        return error;
    }
    let message = describe(status);
    match status.code() {
        Code::Unauthenticated => ApiError::unauthorized(message),
        Code::PermissionDenied => ApiError::new(403, reason::FORBIDDEN, message),
        Code::NotFound => ApiError::new(404, reason::NOT_FOUND, message),
        Code::Unimplemented => ApiError::new(405, reason::METHOD_NOT_ALLOWED, message),
        Code::ResourceExhausted => ApiError::too_many_requests(message, 1),
        Code::DeadlineExceeded => ApiError::timeout(message, 1),
        Code::InvalidArgument => ApiError::bad_request(message),
        _ => ApiError::service_unavailable(message),
    }
}

/// Whether the connection failed rather than the request: asking again may reach another server.
pub(crate) fn is_connection_trouble(status: &Status) -> bool {
    status.details().is_empty()
        && matches!(
            status.code(),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled
        )
}

/// The message with what caused it: tonic's own says only "transport error".
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_api::names::GroupResource;

    #[test]
    fn the_servers_own_status_wins() {
        let wanted = ApiError::not_found(&GroupResource::core("pods"), "a");
        let status = Status::with_details(Code::NotFound, "x", wanted.to_json().into());
        assert_eq!(from_grpc(&status), wanted);
        assert!(!is_connection_trouble(&status));
    }

    #[test]
    fn a_broken_connection_is_unavailable() {
        let status = Status::unavailable("connection refused");
        assert_eq!(
            (from_grpc(&status).code(), from_grpc(&status).reason()),
            (503, "ServiceUnavailable")
        );
        assert!(is_connection_trouble(&status));
    }
}
