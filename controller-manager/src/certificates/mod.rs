//! Certificates for those who ask: requests are approved, signed and cleaned up.
//!
//! ```text
//! recognize.rs   is this a kubelet that asks for its client certificate?
//! approving.rs   approves those requests, for those who may have them
//! sign.rs        from a request to a certificate
//! signing.rs     signs what has been approved
//! cleaner.rs     removes requests that have been dealt with
//! ```
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>

pub mod approving;
pub mod cleaner;
pub mod recognize;
mod sign;
pub mod signing;

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const APPROVED: &str = "Approved";
const DENIED: &str = "Denied";
const FAILED: &str = "Failed";

/// Client certificates for people and programs.
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
/// Client certificates for kubelets.
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
/// Serving certificates for kubelets.
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let status = request.status.as_ref()?;
    status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
}

fn issued(request: &CertificateSigningRequest) -> bool {
    let certificate = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_ref());
    certificate.is_some_and(|bytes| !bytes.0.is_empty())
}

fn add_condition(request: &mut CertificateSigningRequest, kind: &str, reason: &str, message: String) {
    let now = Time(jiff::Timestamp::now());
    let status = request.status.get_or_insert_default();
    status
        .conditions
        .get_or_insert_default()
        .push(CertificateSigningRequestCondition {
            type_: kind.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_update_time: Some(now.clone()),
            last_transition_time: Some(now),
        });
}
