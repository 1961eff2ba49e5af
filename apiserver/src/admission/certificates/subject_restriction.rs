//! CertificateSubjectRestriction: nobody becomes an administrator through a certificate.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_api::status::ApiResult;

use super::concerns;
use crate::admission::refusal::forbidden;
use crate::admission::{Admission, Attributes, Operation};
use crate::authentication::MASTERS;
use crate::registry::certificates::{CLIENT_SIGNER, request};
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct CertificateSubjectRestriction;

#[async_trait]
impl Admission for CertificateSubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create && subresource.is_empty() && concerns(info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let Some(asked) = attributes.object::<CertificateSigningRequest>() else {
            return Ok(());
        };
        if asked.spec.signer_name != CLIENT_SIGNER
            || !request::organizations(&asked.spec.request.0)
                .iter()
                .any(|o| o == MASTERS)
        {
            return Ok(());
        }
        Err(forbidden(
            attributes,
            format_args!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed"),
        ))
    }
}
