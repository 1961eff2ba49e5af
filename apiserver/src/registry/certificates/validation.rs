//! What a request and its status may look like.

use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest as Request, CertificateSigningRequestCondition,
};
use keelson_api::field::Errors;
use keelson_api::validation;

use super::{APPROVED, DENIED, FAILED, LEGACY_SIGNER, request};
use crate::registry::common::loc::Loc;
use crate::registry::common::rules;

/// Shorter certificates are refused, in seconds.
const MIN_SECONDS: i32 = 600;
/// A signer's path may be as long as this.
const SIGNER_PATH_MAX: usize = 571;
const USAGES: &[&str] = &[
    "signing",
    "digital signature",
    "content commitment",
    "key encipherment",
    "key agreement",
    "data encipherment",
    "cert sign",
    "crl sign",
    "encipher only",
    "decipher only",
    "any",
    "server auth",
    "client auth",
    "code signing",
    "email protection",
    "s/mime",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "timestamping",
    "ocsp signing",
    "microsoft sgc",
    "netscape sgc",
];

/// Which parts of the status a request through this path may set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// None.
    Nothing,
    /// Approved and Denied.
    Approve,
    /// The certificate and other conditions.
    Sign,
}

pub(super) fn create(new: &Request) -> Errors {
    let mut errors = spec(new);
    status(&mut errors, new, None);
    errors
}

pub(super) fn update(new: &Request, old: &Request, may: May) -> Errors {
    let mut errors = spec(new);
    status(&mut errors, new, Some(old));
    let at = Loc::new("status.conditions");
    let count = |of: &Request, kind: &str| conditions(of).iter().filter(|c| c.type_ == kind).count();
    for kind in [APPROVED, DENIED, FAILED] {
        if count(new, kind) < count(old, kind) {
            errors.push(at.forbidden(format!("updates may not remove a condition of type {kind:?}")));
        }
    }
    if may != May::Approve {
        for kind in [APPROVED, DENIED] {
            if count(new, kind) > count(old, kind) {
                errors.push(at.forbidden(format!("updates may not add a condition of type {kind:?}")));
            }
        }
    }
    let (before, after) = (certificate(old), certificate(new));
    if before != after {
        let at = Loc::new("status.certificate");
        if may != May::Sign {
            errors.push(at.forbidden("updates may not set certificate content"));
        } else if !before.is_empty() {
            errors.push(at.forbidden("updates may not modify existing certificate content"));
        }
    }
    errors
}

pub(super) fn conditions(of: &Request) -> &[CertificateSigningRequestCondition] {
    of.status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or(&[])
}

fn certificate(of: &Request) -> &[u8] {
    of.status
        .as_ref()
        .and_then(|status| status.certificate.as_ref())
        .map_or(&[], |bytes| &bytes.0)
}

fn spec(new: &Request) -> Errors {
    let mut errors = Errors::new();
    let (spec, at) = (&new.spec, Loc::new("spec"));
    if let Some(complaint) = request::complaint(&spec.request.0) {
        errors.push(
            at.child("request")
                .invalid(rules::shown(&spec.request), complaint),
        );
    }
    let usages = spec.usages.as_deref().unwrap_or(&[]);
    if usages.is_empty() {
        errors.push(at.child("usages").required("usages must be provided"));
    }
    for (i, usage) in usages.iter().enumerate() {
        let list = at.child("usages");
        let at = list.index(i);
        if !USAGES.contains(&usage.as_str()) {
            errors.push(at.not_supported(usage.as_str(), USAGES));
        }
        if usages[..i].contains(usage) {
            errors.push(at.duplicate(usage.as_str()));
        }
    }
    signer(&mut errors, &at.child("signerName"), &spec.signer_name);
    if let Some(seconds) = spec.expiration_seconds
        && seconds < MIN_SECONDS
    {
        errors.push(at.child("expirationSeconds").invalid(
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        ));
    }
    errors
}

fn signer(errors: &mut Errors, at: &Loc<'_>, name: &str) {
    if name.is_empty() {
        return errors.push(at.required(""));
    }
    if name == LEGACY_SIGNER {
        return errors.push(at.invalid(name, "the legacy signerName is not allowed via this API version"));
    }
    let mut segments = name.split('/');
    let (Some(domain), Some(path), None) = (segments.next(), segments.next(), segments.next()) else {
        return errors.push(at.invalid(
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ));
    };
    if domain.split('.').count() < 2 {
        errors.push(at.invalid(
            domain,
            "should be a domain with at least two segments separated by dots",
        ));
    }
    for segment in domain.split('.') {
        rules::complain(errors, at, segment, validation::dns1123_label(segment));
    }
    rules::complain(errors, at, path, validation::dns1123_subdomain(path));
    if name.len() > SIGNER_PATH_MAX {
        errors.push(at.too_long(SIGNER_PATH_MAX));
    }
}

fn status(errors: &mut Errors, new: &Request, old: Option<&Request>) {
    let list = Loc::new("status.conditions");
    let all = conditions(new);
    for (i, condition) in all.iter().enumerate() {
        let at = list.index(i);
        let kind = condition.type_.as_str();
        if kind.is_empty() {
            errors.push(at.child("type").required(""));
        } else if all[..i].iter().any(|other| other.type_ == kind) {
            errors.push(at.duplicate(kind));
        }
        match condition.status.as_str() {
            "" => errors.push(at.child("status").required("")),
            "True" => {}
            other if matches!(kind, APPROVED | DENIED | FAILED) => {
                errors.push(at.child("status").not_supported(other, &["True"]));
            }
            "False" | "Unknown" => {}
            other => errors.push(
                at.child("status")
                    .not_supported(other, &["False", "True", "Unknown"]),
            ),
        }
        let opposite = match kind {
            APPROVED => DENIED,
            DENIED => APPROVED,
            _ => continue,
        };
        if all[..i].iter().any(|other| other.type_ == opposite) {
            errors.push(
                at.child("type")
                    .invalid(kind, "Approved and Denied conditions are mutually exclusive"),
            );
        }
    }
    let chain = certificate(new);
    if !chain.is_empty()
        && old.is_none_or(|old| certificate(old) != chain)
        && let Some(complaint) = request::chain_complaint(chain)
    {
        errors.push(Loc::new("status.certificate").invalid("<certificate data>", complaint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn new(signer: &str, conditions: serde_json::Value) -> Request {
        serde_json::from_value(json!({
            "metadata": {"name": "r"},
            "spec": {"request": "bm90IFBFTQ==", "signerName": signer, "usages": ["client auth", "client auth", "cooking"]},
            "status": {"conditions": conditions},
        }))
        .expect("a request")
    }

    #[test]
    fn requests_and_their_conditions_are_checked() {
        let texts = |errors: Errors| -> Vec<String> { errors.iter().map(ToString::to_string).collect() };
        let errors = texts(create(&new("nodots/x", json!([]))));
        assert!(
            errors[0].contains("PEM block type must be CERTIFICATE REQUEST"),
            "{errors:?}"
        );
        assert!(errors[1].starts_with("spec.usages[1]: Duplicate value: \"client auth\""));
        assert!(errors[2].starts_with("spec.usages[2]: Unsupported value: \"cooking\""));
        assert!(errors[3].contains("at least two segments"));
        let approved = json!([{"type": "Approved", "status": "True"}]);
        let (old, approved) = (new("a.b/x", json!([])), new("a.b/x", approved));
        let last = |errors: Errors| texts(errors).pop().unwrap_or_default();
        assert!(
            last(update(&approved, &old, May::Sign)).contains("may not add a condition of type \"Approved\"")
        );
        assert!(!last(update(&approved, &old, May::Approve)).contains("condition"));
        assert!(
            last(update(&old, &approved, May::Approve))
                .contains("may not remove a condition of type \"Approved\"")
        );
        let both = new(
            "a.b/x",
            json!([{"type": "Approved", "status": "True"}, {"type": "Denied", "status": "True"}]),
        );
        assert!(last(create(&both)).contains("mutually exclusive"));
    }
}
