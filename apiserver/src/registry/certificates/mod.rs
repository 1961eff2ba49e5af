//! The `certificates.k8s.io` group.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/>

pub mod certificate_signing_request;
pub mod request;
mod validation;

/// The group's name.
pub const GROUP: &str = "certificates.k8s.io";

/// Signs client certificates the apiserver believes, for anybody an administrator approves.
pub const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// The signer of the time before signers had names.
pub const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";

/// Somebody wants the request granted.
pub const APPROVED: &str = "Approved";
/// Somebody wants the request refused.
pub const DENIED: &str = "Denied";
/// The signer cannot or will not sign.
pub const FAILED: &str = "Failed";
