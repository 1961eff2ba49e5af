//! CertificateSigning: setting the certificate, or giving up, takes the verb `sign` for the signer.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_api::status::ApiResult;

use super::{check, concerns};
use crate::admission::{Admission, Attributes, Operation};
use crate::registry::certificates::FAILED;
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct CertificateSigning;

#[async_trait]
impl Admission for CertificateSigning {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Update && subresource == "status" && concerns(info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        type Request = CertificateSigningRequest;
        let outcome = |request: &Request| {
            let status = request.status.clone().unwrap_or_default();
            let failures: Vec<_> = status
                .conditions
                .into_iter()
                .flatten()
                .filter(|c| c.type_ == FAILED)
                .collect();
            (status.certificate, failures)
        };
        match (attributes.object::<Request>(), attributes.old::<Request>()) {
            (Some(new), Some(old)) if outcome(new) != outcome(old) => check(attributes, "sign", "sign").await,
            _ => Ok(()),
        }
    }
}
