//! PersistentVolumeClaims.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus,
};
use keelson_api::field::Errors;
use keelson_api::quantity::Amount;
use keelson_api::validation::dns1123_subdomain;
use serde_json::Value;

use super::pod::validation::resources;
use crate::registry::common::defaults::{drop_empty, fill, quantities};
use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules, selectors};
use crate::registry::strategy::{Column, Fields, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

/// How volumes may be used at the same time.
pub const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
/// How volumes appear in a container.
pub const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// The older way to name a storage class.
/// The class of a volume or a claim, as it was said once.
pub const OLD_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The kind's strategy.
pub struct PersistentVolumeClaimStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "PersistentVolumeClaim",
    plural: "persistentvolumeclaims",
    singular: "persistentvolumeclaim",
    short_names: &["pvc"],
    storage_prefix: "persistentvolumeclaims",
    subresources: &[SubresourceInfo::status("", "v1", "PersistentVolumeClaim")],
    ..ResourceInfo::base()
};

impl Strategy for PersistentVolumeClaimStrategy {
    type Object = PersistentVolumeClaim;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, claim: &mut PersistentVolumeClaim) {
        default_claim(claim);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, claim: &mut PersistentVolumeClaim) {
        claim.status = Some(PersistentVolumeClaimStatus {
            phase: Some("Pending".to_owned()),
            ..PersistentVolumeClaimStatus::default()
        });
        same_source(claim);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) {
        new.status.clone_from(&old.status);
        same_source(new);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) {
        new.spec.clone_from(&old.spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, claim: &PersistentVolumeClaim) -> Errors {
        validate(claim)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &PersistentVolumeClaim,
        old: &PersistentVolumeClaim,
    ) -> Errors {
        let mut errors = validate(new);
        unchanged(&mut errors, new, old);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Status", "Whether the claim has a volume."),
            Column::new("Volume", "The volume behind the claim."),
            Column::new("Capacity", "The size of the volume."),
            Column::new("Access Modes", "How the volume may be used at the same time."),
            Column::new("StorageClass", "The storage class the claim asks for."),
            Column::new(
                "VolumeAttributesClass",
                "The volume attributes class that is asked for.",
            ),
            Column::new("Age", "Time since the object was created."),
            Column::new(
                "VolumeMode",
                "Whether the volume is a file system or a block device.",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn cells(&self, claim: &PersistentVolumeClaim, now: Timestamp) -> Vec<Value> {
        let spec = claim.spec.as_ref();
        let status = claim.status.as_ref();
        let phase = match claim.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.and_then(|s| s.phase.as_deref()).unwrap_or(""),
        };
        let volume = spec.and_then(|s| s.volume_name.as_deref()).unwrap_or("");
        let bound = !volume.is_empty();
        let capacity = status
            .and_then(|s| s.capacity.as_ref())
            .and_then(|c| c.get("storage"));
        let capacity = if bound {
            capacity.map_or("0", |q| q.0.as_str())
        } else {
            ""
        };
        let modes = status.and_then(|s| s.access_modes.as_deref()).unwrap_or(&[]);
        let attributes = spec.and_then(|s| s.volume_attributes_class_name.as_deref());
        let mode = spec
            .and_then(|s| s.volume_mode.as_deref())
            .unwrap_or(cells::UNKNOWN);
        vec![
            cells::name(&claim.metadata),
            phase.into(),
            volume.into(),
            capacity.into(),
            if bound {
                access_modes(modes).into()
            } else {
                "".into()
            },
            storage_class(claim).into(),
            attributes.unwrap_or("<unset>").into(),
            cells::age(&claim.metadata, now),
            mode.into(),
        ]
    }

    fn selectable_fields(&self, _claim: &PersistentVolumeClaim) -> Fields {
        Vec::new()
    }
}

/// Defaults of a claim, also of one in a StatefulSet's template.
pub fn default_claim(claim: &mut PersistentVolumeClaim) {
    let spec = claim.spec.get_or_insert_default();
    fill(&mut spec.volume_mode, "Filesystem");
    drop_empty(&mut spec.volume_name);
    if let Some(resources) = &mut spec.resources {
        for list in [&mut resources.requests, &mut resources.limits]
            .into_iter()
            .flatten()
        {
            quantities(list);
        }
    }
    if let Some(status) = &mut claim.status
        && let Some(capacity) = &mut status.capacity
    {
        quantities(capacity);
    }
}

/// The modes in the letters administrators know.
pub fn access_modes(modes: &[String]) -> String {
    let known = [
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let short: Vec<&str> = known
        .iter()
        .filter(|(mode, _)| modes.iter().any(|m| m == mode))
        .map(|(_, short)| *short)
        .collect();
    short.join(",")
}

fn storage_class(claim: &PersistentVolumeClaim) -> String {
    let annotations = claim.metadata.annotations.as_ref().unwrap_or(&NONE);
    match annotations.get(OLD_CLASS) {
        Some(class) => class.clone(),
        None => claim
            .spec
            .as_ref()
            .and_then(|s| s.storage_class_name.clone())
            .unwrap_or_default(),
    }
}

/// The two ways to name where the data comes from say the same, where both can.
fn same_source(claim: &mut PersistentVolumeClaim) {
    use k8s_openapi::api::core::v1::{TypedLocalObjectReference, TypedObjectReference};
    let Some(spec) = &mut claim.spec else { return };
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(reference)) if reference.namespace.as_deref().unwrap_or("").is_empty() => {
            let group = reference.api_group.as_deref().unwrap_or("");
            let plain = reference.kind == "PersistentVolumeClaim" && group.is_empty()
                || reference.kind == "VolumeSnapshot" && group == "snapshot.storage.k8s.io";
            if plain {
                spec.data_source = Some(TypedLocalObjectReference {
                    api_group: reference.api_group.clone(),
                    kind: reference.kind.clone(),
                    name: reference.name.clone(),
                });
            }
        }
        _ => {}
    }
}

fn validate(claim: &PersistentVolumeClaim) -> Errors {
    let mut errors = Errors::new();
    let none = PersistentVolumeClaimSpec::default();
    validate_spec(
        &mut errors,
        &Loc::new("spec"),
        claim.spec.as_ref().unwrap_or(&none),
    );
    errors
}

/// The spec of a claim, also of one in a template.
pub fn validate_spec(errors: &mut Errors, at: &Loc<'_>, spec: &PersistentVolumeClaimSpec) {
    let modes = spec.access_modes.as_deref().unwrap_or(&[]);
    let at_modes = at.child("accessModes");
    if modes.is_empty() {
        errors.push(at_modes.required("at least 1 access mode is required"));
    }
    if let Some(selector) = &spec.selector {
        selectors::label_selector(errors, &at.child("selector"), selector);
    }
    for mode in modes {
        rules::optional_one_of(errors, &at_modes, Some(mode), ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        let detail = "may not use ReadWriteOncePod with other access modes";
        errors.push(at_modes.forbidden(detail));
    }
    let at_resources = at.child("resources");
    let storage = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"));
    match storage {
        None => errors.push(at_resources.key("storage").required("")),
        Some(quantity) => {
            let at_requests = at_resources.child("requests");
            let at = at_requests.key("storage");
            resources::amount(errors, &at, "storage", quantity);
            if Amount::try_from(quantity).is_ok_and(Amount::is_zero) {
                errors.push(at.invalid(quantity.0.as_str(), "must be greater than zero"));
            }
        }
    }
    for (field, class) in [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ] {
        if let Some(class) = class.as_deref()
            && !class.is_empty()
        {
            rules::complain(errors, &at.child(field), class, dns1123_subdomain(class));
        }
    }
    rules::optional_one_of(
        errors,
        &at.child("volumeMode"),
        spec.volume_mode.as_deref(),
        VOLUME_MODES,
    );
    if let Some(source) = &spec.data_source {
        let at = at.child("dataSource");
        rules::not_empty(errors, &at.child("name"), Some(&source.name));
        rules::not_empty(errors, &at.child("kind"), Some(&source.kind));
        let group = source.api_group.as_deref().unwrap_or("");
        if group.is_empty() && source.kind != "PersistentVolumeClaim" {
            errors.push(at.invalid(source.kind.as_str(), ""));
        }
    }
}

fn unchanged(errors: &mut Errors, new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) {
    const DETAIL: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
    let (Some(new_spec), Some(old_spec)) = (&new.spec, &old.spec) else {
        return;
    };
    let at = Loc::new("spec");
    let mut munged = new_spec.clone();
    // The volume is put in once, by whoever binds.
    if old_spec.volume_name.is_none() {
        munged.volume_name = None;
    }
    if old_spec.storage_class_name.is_none() && munged.storage_class_name.is_some() {
        munged.storage_class_name = None;
    }
    munged
        .volume_attributes_class_name
        .clone_from(&old_spec.volume_attributes_class_name);
    let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    let storage = |spec: &PersistentVolumeClaimSpec| {
        spec.resources
            .as_ref()
            .and_then(|r| r.requests.as_ref())
            .and_then(|r| r.get("storage"))
            .map(Amount::of)
    };
    if bound {
        if let (Some(new), Some(old)) = (&mut munged.resources, &old_spec.resources) {
            new.requests.clone_from(&old.requests);
        }
        let floor = old
            .status
            .as_ref()
            .and_then(|s| s.capacity.as_ref())
            .and_then(|c| c.get("storage"))
            .map(Amount::of);
        if let (Some(now), Some(before)) = (storage(new_spec), storage(old_spec))
            && now < before
            && floor.is_none_or(|floor| now < floor)
        {
            let detail = "field can not be less than status.capacity";
            errors.push(at.child("resources.requests.storage").forbidden(detail));
        }
    }
    if munged != *old_spec {
        errors.push(at.forbidden(DETAIL));
    }
}
