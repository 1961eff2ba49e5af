//! Taints, and who puts up with them.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration covers a taint.
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let set = |text: &'_ Option<String>| text.clone().filter(|text| !text.is_empty());
    let effect_fits = set(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let key_fits = set(&toleration.key).is_none_or(|key| key == taint.key);
    let value = || toleration.value.as_deref().unwrap_or_default();
    effect_fits
        && key_fits
        && match toleration.operator.as_deref() {
            Some("Exists") => true,
            None | Some("" | "Equal") => value() == taint.value.as_deref().unwrap_or_default(),
            _ => false,
        }
}
