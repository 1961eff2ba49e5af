//! Who owns an object, and who controls it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::object::Kind;

/// The reference to the controller, if the object has one.
pub fn controller_ref(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
}

/// Whether the owner of this uid controls the object.
pub fn is_controlled_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    controller_ref(meta).is_some_and(|owner| owner.uid == owner_uid)
}

/// Whether the object of this uid is among the owners.
pub fn is_owned_by(meta: &ObjectMeta, owner_uid: &str) -> bool {
    meta.owner_references
        .iter()
        .flatten()
        .any(|owner| owner.uid == owner_uid)
}

/// A reference that makes `owner` the controller and holds up its foreground deletion.
pub fn new_controller_ref<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        controller: Some(true),
        block_owner_deletion: Some(true),
        ..new_owner_ref(owner)
    }
}

/// A plain reference to an owner.
pub fn new_owner_ref<K: Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.name().to_owned(),
        uid: owner.uid().to_owned(),
        controller: None,
        block_owner_deletion: None,
    }
}

/// Whether a reference names a kind of this group, whatever its version.
pub fn refers_to(owner: &OwnerReference, group: &str, kind: &str) -> bool {
    owner.kind == kind && crate::names::split_api_version(&owner.api_version).0 == group
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::ReplicaSet;

    #[test]
    fn finds_the_controller() {
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some("a".into()),
                uid: Some("u".into()),
                ..ObjectMeta::default()
            },
            ..ReplicaSet::default()
        };
        let owner = new_controller_ref(&set);
        assert!(refers_to(&owner, "apps", "ReplicaSet") && !refers_to(&owner, "", "ReplicaSet"));
        let meta = ObjectMeta {
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        assert!(is_controlled_by(&meta, "u") && is_owned_by(&meta, "u") && !is_controlled_by(&meta, "v"));
    }
}
