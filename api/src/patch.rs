//! The patches a request may carry: JSON patch, merge patch, strategic merge patch.
//!
//! Each changes a JSON document in place; what becomes of it (decoding, defaulting, validation) is the server's
//! business. A document may be half changed when a patch fails: patch a copy.

pub mod json;
pub mod merge;
pub mod strategic;

use crate::status::{ApiError, reason};

/// The most operations a JSON patch may have.
pub const MAX_OPERATIONS: usize = 10_000;

/// Why a patch was not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not what it claims to be: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit the document: 422.
    #[error("{0}")]
    DoesNotApply(String),
    /// The patch asks for too much: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl From<PatchError> for ApiError {
    fn from(error: PatchError) -> Self {
        match error {
            PatchError::Malformed(message) => Self::bad_request(message),
            // Upstream's text for this code tells nothing; the reason goes into the causes for those who look.
            PatchError::DoesNotApply(message) => Self::new(
                422,
                reason::INVALID,
                "the server rejected our request due to an error in our request",
            )
            .with_cause(k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause {
                field: None,
                message: Some(message),
                reason: Some("UnexpectedServerResponse".to_owned()),
            }),
            PatchError::TooLarge(message) => Self::request_entity_too_large(message),
        }
    }
}
