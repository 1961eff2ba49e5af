//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: what may be written, and what becomes of it, said in CEL.
//!
//! | module | what lives there |
//! | --- | --- |
//! | [`policy`] | one policy and one binding, read |
//! | [`known`] | all of them, read anew only where they have changed |
//! | [`params`] | the objects a binding hands to its policy |
//! | [`invocation`] | which policies a request has to do with, and with which parameters |
//! | [`validations`], [`validating`] | policies that refuse |
//! | [`mutations`], [`mutating`] | policies that change |
//! | [`type_check`], [`status`] | what policies say held against the types they speak of |
//! | [`mutations`], [`mutating`] | policies that change |
//!
//! KEP-3488, KEP-3962.

pub mod invocation;
pub mod known;
pub mod mutating;
pub mod mutations;
pub mod params;
pub mod policy;
pub mod status;
pub mod type_check;
pub mod validating;
pub mod validations;

use crate::registry::info::ResourceInfo;

/// Whether policies have a say about a resource: not about themselves, nor about questions that are only answered.
fn concern(info: &ResourceInfo) -> bool {
    match info.group {
        "admissionregistration.k8s.io" => info.plural.ends_with("webhookconfigurations"),
        "authentication.k8s.io" | "authorization.k8s.io" => false,
        _ => true,
    }
}
