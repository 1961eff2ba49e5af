//! Reads request bodies strictly: what is unknown, what is there twice, what is of a wrong type.
//!
//! One streaming pass over the bytes, led by the schema, builds nothing but the list of complaints. It also notices
//! what the API accepts but spells differently (`cpu: 1`, `0.5Gi`, base64 with line breaks); only then is the body
//! rewritten, so that typed decoding sees the canonical form.

use std::borrow::Cow;

use serde_json::Value;

mod check;
mod duplicates;
mod normalize;

pub use duplicates::duplicates;

use crate::schema::Definition;
use crate::status::ApiError;

/// How a request wants unknown and duplicate fields treated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

impl FieldValidation {
    /// From the request's parameter; `None` if there is no such value.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Ignore" => Self::Ignore,
            "" | "Warn" => Self::Warn,
            "Strict" => Self::Strict,
            _ => return None,
        })
    }
}

/// A body that can be decoded, and what was odd about it.
#[derive(Debug, PartialEq)]
pub struct Checked<'a> {
    /// The body, rewritten if it had to be.
    pub json: Cow<'a, [u8]>,
    /// Unknown and duplicate fields: `unknown field "spec.foo"`, `duplicate field "spec.bar"`.
    pub complaints: Vec<String>,
}

impl Checked<'_> {
    /// Whether the body did not have to be rewritten.
    pub fn as_it_was(&self) -> bool {
        matches!(self.json, Cow::Borrowed(_))
    }
}

/// Checks the body of an object of this type. The error is what is wrong with the JSON or its types, in words.
pub fn check<'a>(definition: &'static Definition, body: &'a [u8]) -> Result<Checked<'a>, String> {
    let outcome = check::text(definition, body)?;
    let json = if outcome.needs_rewrite {
        let mut value = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        normalize::object(definition, &mut value);
        Cow::Owned(serde_json::to_vec(&value).map_err(|e| e.to_string())?)
    } else {
        Cow::Borrowed(body)
    };
    Ok(Checked {
        json,
        complaints: outcome.complaints,
    })
}

/// The refusal of a body that is not an object of the kind, as upstream words it.
pub fn cannot_be_handled(kind: &str, version: &str, why: &str) -> ApiError {
    ApiError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"
    ))
}

/// Checks a body and applies the request's wish: refusals come back as errors, warnings beside the body.
pub fn decode<'a>(
    definition: &'static Definition,
    version: &str,
    body: &'a [u8],
    validation: FieldValidation,
) -> Result<(Cow<'a, [u8]>, Vec<String>), ApiError> {
    let checked =
        check(definition, body).map_err(|why| cannot_be_handled(definition.short_name(), version, &why))?;
    let warnings = judge(definition, version, checked.complaints, validation)?;
    Ok((checked.json, warnings))
}

/// As [`decode`], for what is a value already; it is rewritten in place if it has to be.
pub fn decode_value(
    definition: &'static Definition,
    version: &str,
    value: &mut Value,
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    let outcome = check::value(definition, value)
        .map_err(|why| cannot_be_handled(definition.short_name(), version, &why))?;
    if outcome.needs_rewrite {
        normalize::object(definition, value);
    }
    judge(definition, version, outcome.complaints, validation)
}

/// What becomes of complaints: nothing, warnings or a refusal.
fn judge(
    definition: &Definition,
    version: &str,
    complaints: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, ApiError> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(complaints),
        FieldValidation::Strict if complaints.is_empty() => Ok(complaints),
        FieldValidation::Strict => {
            let why = format!("strict decoding error: {}", complaints.join(", "));
            Err(cannot_be_handled(definition.short_name(), version, &why))
        }
    }
}

#[cfg(test)]
#[path = "strict/tests.rs"]
mod tests;
