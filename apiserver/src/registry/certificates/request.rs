//! PKCS #10 requests (RFC 2986), as they come in `spec.request`.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;

/// Says what is wrong with a request, if anything: not PEM, not a request, or not signed by the key it is about.
pub fn complaint(pem: &[u8]) -> Option<String> {
    with_request(pem, |request| {
        request
            .verify_signature()
            .err()
            .map(|_| "the signature does not fit the public key".to_owned())
    })
    .unwrap_or_else(Some)
}

/// The organizations a request's subject names.
pub fn organizations(pem: &[u8]) -> Vec<String> {
    with_request(pem, |request| {
        let subject = &request.certification_request_info.subject;
        subject
            .iter_organization()
            .filter_map(|organization| organization.as_str().ok().map(str::to_owned))
            .collect()
    })
    .unwrap_or_default()
}

fn with_request<T>(pem: &[u8], look: impl FnOnce(&X509CertificationRequest<'_>) -> T) -> Result<T, String> {
    let block = Pem::iter_from_buffer(pem).next();
    let Some(Ok(block)) = block else {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    };
    if block.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".into());
    }
    match X509CertificationRequest::from_der(&block.contents) {
        Ok(([], request)) => Ok(look(&request)),
        Ok(_) => Err("asn1: syntax error: trailing data".into()),
        Err(error) => Err(format!("asn1: {error}")),
    }
}

/// Says what is wrong with a chain of certificates, if anything.
pub fn chain_complaint(pem: &[u8]) -> Option<String> {
    let mut found = false;
    for block in Pem::iter_from_buffer(pem) {
        let Ok(block) = block else {
            return Some("no PEM blocks could be read".into());
        };
        if block.label != "CERTIFICATE" {
            return Some(format!(
                "only CERTIFICATE PEM blocks are allowed, found {}",
                keelson_api::text::quote(&block.label)
            ));
        }
        if let Err(error) = block.parse_x509() {
            return Some(error.to_string());
        }
        found = true;
    }
    (!found).then(|| "must contain at least one CERTIFICATE PEM block".into())
}
