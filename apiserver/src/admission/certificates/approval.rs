//! CertificateApproval: approving takes the verb `approve` for the signer.

use async_trait::async_trait;
use keelson_api::status::ApiResult;

use super::{check, concerns};
use crate::admission::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct CertificateApproval;

#[async_trait]
impl Admission for CertificateApproval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Update && subresource == "approval" && concerns(info)
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        check(attributes, "approve", "approve").await
    }
}
