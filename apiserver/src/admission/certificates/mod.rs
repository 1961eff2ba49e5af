//! Who may ask for, approve and sign certificates of which signer.
//!
//! | module | plugin |
//! | --- | --- |
//! | [`approval`] | CertificateApproval |
//! | [`signing`] | CertificateSigning |
//! | [`subject_restriction`] | CertificateSubjectRestriction |

pub mod approval;
pub mod signing;
pub mod subject_restriction;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use keelson_api::status::ApiResult;

use super::Attributes;
use super::refusal::forbidden;
use crate::authorization::attributes::{Attributes as Wanted, Resource};
use crate::registry::certificates::GROUP;
use crate::registry::info::ResourceInfo;

fn concerns(info: &ResourceInfo) -> bool {
    info.group == GROUP && info.plural == "certificatesigningrequests"
}

/// Refuses users without a role that lets them do `verb` for the signer, or for all signers of its domain.
async fn check(attributes: &Attributes<'_>, verb: &str, refused: &str) -> ApiResult<()> {
    let Some(request) = attributes.old::<CertificateSigningRequest>() else {
        return Ok(());
    };
    let signer = request.spec.signer_name.as_str();
    let domain = signer.split('/').next().unwrap_or_default();
    for name in [signer, &format!("{domain}/*")] {
        let wanted = Wanted::resource(
            verb,
            Resource {
                group: GROUP,
                version: "*",
                resource: "signers",
                name,
                ..Resource::default()
            },
        );
        let ctx = attributes.ctx;
        if ctx.server.authorizer.authorize(ctx.user, &wanted).await.allowed() {
            return Ok(());
        }
    }
    let signer = keelson_api::text::quote(signer);
    Err(forbidden(
        attributes,
        format_args!("user not permitted to {refused} requests with signerName {signer}"),
    ))
}
