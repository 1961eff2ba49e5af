//! Pods with an identity: an ordinal, a name, a host name, and claims of their own.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use keelson_api::labels::CONTROLLER_REVISION_HASH;
use keelson_api::object::Object as _;
use keelson_api::owners::new_controller_ref;

use crate::common::template;

/// The pod's own name, as a label: a service may select one pod.
pub const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// The pod's ordinal, as a label.
pub const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The name of the pod with an ordinal.
#[must_use]
pub fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.name())
}

/// The ordinal of a pod of the set, from its name.
#[must_use]
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let rest = pod.name().strip_prefix(set.name())?.strip_prefix('-')?;
    rest.parse()
        .ok()
        .filter(|ordinal| *ordinal >= 0 && rest == format!("{ordinal}"))
}

/// The first ordinal.
#[must_use]
pub fn first(set: &StatefulSet) -> i32 {
    let ordinals = set.spec.as_ref().and_then(|spec| spec.ordinals.as_ref());
    ordinals.and_then(|ordinals| ordinals.start).unwrap_or_default()
}

/// The claims of the pod with an ordinal, by the volume they are for.
#[must_use]
pub fn claims(set: &StatefulSet, ordinal: i32) -> BTreeMap<String, PersistentVolumeClaim> {
    let Some(spec) = &set.spec else {
        return BTreeMap::new();
    };
    spec.volume_claim_templates
        .iter()
        .flatten()
        .map(|template| {
            let mut claim = template.clone();
            let volume = claim.name().to_owned();
            claim.metadata.name = Some(format!("{volume}-{}", pod_name(set, ordinal)));
            claim.metadata.namespace = set.metadata.namespace.clone();
            let labels = claim.metadata.labels.get_or_insert_default();
            labels.extend(spec.selector.match_labels.clone().unwrap_or_default());
            claim.status = None;
            (volume, claim)
        })
        .collect()
}

/// The pod with an ordinal, of a revision.
#[must_use]
pub fn new_pod(set: &StatefulSet, template: &PodTemplateSpec, revision: &str, ordinal: i32) -> Pod {
    let mut pod = template::pod_from(template, set.namespace(), new_controller_ref(set));
    let name = pod_name(set, ordinal);
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME.into(), name.clone());
    labels.insert(POD_INDEX.into(), ordinal.to_string());
    labels.insert(CONTROLLER_REVISION_HASH.into(), revision.to_owned());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name);
    spec.subdomain = set
        .spec
        .as_ref()
        .and_then(|spec| spec.service_name.clone())
        .filter(|name| !name.is_empty());
    let claims = claims(set, ordinal);
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| !claims.contains_key(&volume.name));
    volumes.extend(claims.into_iter().map(|(name, claim)| Volume {
        name,
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.metadata.name.unwrap_or_default(),
            read_only: None,
        }),
        ..Volume::default()
    }));
    pod
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::apps::v1::StatefulSetSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    #[test]
    fn a_pod_has_its_name_and_its_claims() {
        let claim = PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some("data".into()),
                ..ObjectMeta::default()
            },
            ..PersistentVolumeClaim::default()
        };
        let set = StatefulSet {
            metadata: ObjectMeta {
                name: Some("db".into()),
                ..ObjectMeta::default()
            },
            spec: Some(StatefulSetSpec {
                service_name: Some("peers".into()),
                volume_claim_templates: Some(vec![claim]),
                ..StatefulSetSpec::default()
            }),
            status: None,
        };
        let pod = new_pod(&set, &PodTemplateSpec::default(), "db-abc", 2);
        assert_eq!((pod.name(), ordinal(&set, &pod)), ("db-2", Some(2)));
        let spec = pod.spec.as_ref().expect("a spec");
        assert_eq!(
            (spec.hostname.as_deref(), spec.subdomain.as_deref()),
            (Some("db-2"), Some("peers"))
        );
        let claimed = spec
            .volumes
            .iter()
            .flatten()
            .filter_map(|volume| volume.persistent_volume_claim.as_ref());
        assert_eq!(
            claimed.map(|claim| claim.claim_name.as_str()).collect::<Vec<_>>(),
            ["data-db-2"]
        );
        let other = Pod {
            metadata: ObjectMeta {
                name: Some("db-02".into()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        };
        assert_eq!(ordinal(&set, &other), None);
    }
}
