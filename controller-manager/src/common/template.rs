//! Pods made from templates, and the hash that tells templates apart.

use std::fmt::Write as _;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keelson_api::labels::POD_TEMPLATE_HASH;

/// A pod after the template, owned by `owner`, named by the server after `<owner's name>-`.
#[must_use]
pub fn pod_from(template: &PodTemplateSpec, namespace: &str, owner: OwnerReference) -> Pod {
    let meta = template.metadata.as_ref();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name)),
            namespace: Some(namespace.to_owned()),
            labels: meta.and_then(|meta| meta.labels.clone()),
            annotations: meta.and_then(|meta| meta.annotations.clone()),
            finalizers: meta.and_then(|meta| meta.finalizers.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// A short hash of a template, in an alphabet that neither needs escaping nor spells words.
///
/// `collisions` makes another hash of the same template, for when a ReplicaSet of that name exists already.
#[must_use]
pub fn hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    // Serialised, so that the hash does not depend on memory layout; maps are ordered.
    let bytes = serde_json::to_vec(template).unwrap_or_default();
    let mut state = Fnv32a::default();
    state.write(&bytes);
    if let Some(collisions) = collisions {
        state.write(&i64::from(collisions).to_le_bytes());
    }
    safe_encode(&state.0.to_string())
}

/// Digits mapped to letters and digits that cannot form a word.
#[must_use]
pub fn safe_encode(text: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        let _ = encoded.write_char(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
    }
    encoded
}

/// Whether two templates are the same but for the hash label.
#[must_use]
pub fn equal_ignoring_hash(a: &PodTemplateSpec, b: &PodTemplateSpec) -> bool {
    a.spec == b.spec && normalised_meta(a) == normalised_meta(b)
}

fn normalised_meta(template: &PodTemplateSpec) -> ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(POD_TEMPLATE_HASH);
    }
    // Absent and empty are the same thing on the wire.
    meta.labels = meta.labels.filter(|labels| !labels.is_empty());
    meta.annotations = meta.annotations.filter(|annotations| !annotations.is_empty());
    meta.finalizers = meta.finalizers.filter(|finalizers| !finalizers.is_empty());
    meta.creation_timestamp = None;
    meta
}

/// FNV-1a, 32 bits.
struct Fnv32a(u32);

impl Default for Fnv32a {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv32a {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn template(labels: &[(&str, &str)]) -> PodTemplateSpec {
        let labels: BTreeMap<_, _> = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels),
                ..ObjectMeta::default()
            }),
            spec: None,
        }
    }

    #[test]
    fn the_hash_label_does_not_count() {
        let plain = template(&[("app", "a")]);
        let hashed = template(&[("app", "a"), (POD_TEMPLATE_HASH, "x")]);
        assert!(equal_ignoring_hash(&plain, &hashed));
        assert!(!equal_ignoring_hash(&plain, &template(&[("app", "b")])));
        assert!(equal_ignoring_hash(&PodTemplateSpec::default(), &template(&[])));
    }

    #[test]
    fn collisions_change_the_hash() {
        let plain = template(&[("app", "a")]);
        assert_eq!(hash(&plain, None), hash(&plain, None));
        assert_ne!(hash(&plain, None), hash(&plain, Some(1)));
        assert!(
            hash(&plain, Some(1))
                .chars()
                .all(|c| "bcdfghjklmnpqrstvwxz2456789".contains(c))
        );
    }
}
