//! How objects are adopted by controllers and released again.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use keelson_api::owners::controller_ref;
use serde_json::json;

use super::patches;

/// The merge patch that makes `owner` the controller of the object with `uid`.
///
/// It carries the uid so that it cannot hit another object of the same name.
#[must_use]
pub fn adoption(meta: &ObjectMeta, owner: OwnerReference) -> serde_json::Value {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|existing| existing.uid != owner.uid);
    owners.push(owner);
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": patches::list(&owners),
    }})
}

/// The merge patch that takes the references to the owners with `uids` away.
#[must_use]
pub fn release(meta: &ObjectMeta, uids: &[&str]) -> serde_json::Value {
    let mut owners = meta.owner_references.clone().unwrap_or_default();
    owners.retain(|owner| !uids.contains(&owner.uid.as_str()));
    json!({"metadata": {
        "uid": meta.uid,
        "resourceVersion": meta.resource_version,
        "ownerReferences": patches::list(&owners),
    }})
}

/// What becomes of an object that a controller might own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// It is the controller's.
    Own,
    /// It is nobody's and fits: take it.
    Adopt,
    /// It is the controller's but does not fit any more: let it go.
    Release,
    /// It is none of the controller's business.
    Ignore,
}

/// Decides on one object: `owner` is the controller's metadata, `matches` whether its selector selects the object.
#[must_use]
pub fn claim(owner: &ObjectMeta, object: &ObjectMeta, matches: bool) -> Claim {
    let owner_goes = owner.deletion_timestamp.is_some();
    match controller_ref(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Ignore,
        Some(_) if matches => Claim::Own,
        Some(_) if owner_goes => Claim::Ignore,
        Some(_) => Claim::Release,
        None if owner_goes || !matches || object.deletion_timestamp.is_some() => Claim::Ignore,
        None => Claim::Adopt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(uid: &str, owner: Option<&str>) -> ObjectMeta {
        ObjectMeta {
            uid: Some(uid.into()),
            owner_references: owner.map(|uid| {
                vec![OwnerReference {
                    uid: uid.into(),
                    controller: Some(true),
                    ..OwnerReference::default()
                }]
            }),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn claims() {
        let owner = meta("rs", None);
        assert_eq!(claim(&owner, &meta("p", Some("rs")), true), Claim::Own);
        assert_eq!(claim(&owner, &meta("p", Some("rs")), false), Claim::Release);
        assert_eq!(claim(&owner, &meta("p", Some("other")), true), Claim::Ignore);
        assert_eq!(claim(&owner, &meta("p", None), true), Claim::Adopt);
        assert_eq!(claim(&owner, &meta("p", None), false), Claim::Ignore);
        let going = ObjectMeta {
            deletion_timestamp: Some(keelson_api::time::now()),
            ..owner
        };
        assert_eq!(claim(&going, &meta("p", None), true), Claim::Ignore);
    }
}
