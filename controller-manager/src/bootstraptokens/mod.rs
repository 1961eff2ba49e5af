//! Bootstrap tokens: secrets of `kube-system` with which machines join.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`cleaner`] | removes those that have ended |
//! | [`signer`] | signs the config map machines learn the cluster from |
//!
//! Both run only when `--controllers` names them, as upstream's do.

pub mod cleaner;
pub mod signer;

use k8s_openapi::api::core::v1::Secret;

/// The type of the secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Where they are.
pub const NAMESPACE: &str = "kube-system";

/// A field of a secret as text, empty when it has none.
fn text<'s>(secret: &'s Secret, field: &str) -> &'s str {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(field))
        .and_then(|value| std::str::from_utf8(&value.0).ok())
        .unwrap_or_default()
}
