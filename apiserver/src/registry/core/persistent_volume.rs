//! PersistentVolumes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use keelson_api::field::Errors;
use keelson_api::quantity::Amount;
use serde_json::Value;

use super::persistent_volume_claim::{ACCESS_MODES, OLD_CLASS, VOLUME_MODES, access_modes};
use super::pod::validation::{resources, scheduling, volumes};
use crate::registry::common::defaults::{fill, quantities};
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

/// The kind's strategy.
pub struct PersistentVolumeStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "PersistentVolume",
    plural: "persistentvolumes",
    singular: "persistentvolume",
    short_names: &["pv"],
    scope: Scope::Cluster,
    storage_prefix: "persistentvolumes",
    subresources: &[SubresourceInfo::status("", "v1", "PersistentVolume")],
    ..ResourceInfo::base()
};

impl Strategy for PersistentVolumeStrategy {
    type Object = PersistentVolume;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, volume: &mut PersistentVolume) {
        let spec = volume.spec.get_or_insert_default();
        fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
        fill(&mut spec.volume_mode, "Filesystem");
        if let Some(capacity) = &mut spec.capacity {
            quantities(capacity);
        }
        if let Some(host_path) = &mut spec.host_path {
            host_path.type_.get_or_insert_with(String::new);
        }
        if let Some(iscsi) = &mut spec.iscsi {
            fill(&mut iscsi.iscsi_interface, "default");
        }
    }

    fn prepare_create(&self, ctx: &RequestContext<'_>, volume: &mut PersistentVolume) {
        volume.status = Some(PersistentVolumeStatus {
            phase: Some("Pending".to_owned()),
            last_phase_transition_time: Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                keelson_api::time::to_seconds(ctx.now),
            )),
            ..PersistentVolumeStatus::default()
        });
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut PersistentVolume, old: &PersistentVolume) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &mut PersistentVolume,
        old: &PersistentVolume,
    ) {
        new.spec.clone_from(&old.spec);
        let phase = |volume: &PersistentVolume| volume.status.as_ref().and_then(|s| s.phase.clone());
        if phase(new) != phase(old)
            && let Some(status) = &mut new.status
        {
            status.last_phase_transition_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                keelson_api::time::to_seconds(ctx.now),
            ));
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, volume: &PersistentVolume) -> Errors {
        validate(volume)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &PersistentVolume,
        old: &PersistentVolume,
    ) -> Errors {
        let mut errors = validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            let bare = |spec: &PersistentVolumeSpec| source_only(spec);
            if bare(new) != bare(old) {
                let detail = "spec.persistentvolumesource is immutable after creation";
                errors.push(Loc::new("spec.persistentvolumesource").forbidden(detail));
            }
            rules::immutable(
                &mut errors,
                &Loc::new("volumeMode"),
                &new.volume_mode,
                &old.volume_mode,
            );
            if old.node_affinity.is_some() {
                rules::immutable(
                    &mut errors,
                    &Loc::new("nodeAffinity"),
                    &new.node_affinity,
                    &old.node_affinity,
                );
            }
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Capacity", "The size of the volume."),
            Column::new("Access Modes", "How the volume may be used at the same time."),
            Column::new(
                "Reclaim Policy",
                "What becomes of the volume when its claim goes.",
            ),
            Column::new(
                "Status",
                "Whether the volume is available, bound, released or failed.",
            ),
            Column::new("Claim", "The claim that has the volume."),
            Column::new("StorageClass", "The storage class of the volume."),
            Column::new(
                "VolumeAttributesClass",
                "The volume attributes class of the volume.",
            ),
            Column::new("Reason", "Why the volume is in its state."),
            Column::new("Age", "Time since the object was created."),
            Column::new(
                "VolumeMode",
                "Whether the volume is a file system or a block device.",
            )
            .wide(),
        ];
        COLUMNS
    }

    fn cells(&self, volume: &PersistentVolume, now: Timestamp) -> Vec<Value> {
        let none = PersistentVolumeSpec::default();
        let spec = volume.spec.as_ref().unwrap_or(&none);
        let status = volume.status.as_ref();
        let claim = spec.claim_ref.as_ref().map(|c| {
            format!(
                "{}/{}",
                c.namespace.as_deref().unwrap_or(""),
                c.name.as_deref().unwrap_or("")
            )
        });
        let annotation = volume
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(OLD_CLASS));
        let class = annotation
            .or(spec.storage_class_name.as_ref())
            .map_or("", String::as_str);
        let phase = match volume.metadata.deletion_timestamp {
            Some(_) => "Terminating",
            None => status.and_then(|s| s.phase.as_deref()).unwrap_or(""),
        };
        vec![
            cells::name(&volume.metadata),
            spec.capacity
                .as_ref()
                .and_then(|c| c.get("storage"))
                .map_or("0", |q| q.0.as_str())
                .into(),
            access_modes(spec.access_modes.as_deref().unwrap_or(&[])).into(),
            spec.persistent_volume_reclaim_policy
                .as_deref()
                .unwrap_or("")
                .into(),
            phase.into(),
            claim.unwrap_or_default().into(),
            class.into(),
            spec.volume_attributes_class_name
                .as_deref()
                .unwrap_or("<unset>")
                .into(),
            status.and_then(|s| s.reason.as_deref()).unwrap_or("").into(),
            cells::age(&volume.metadata, now),
            spec.volume_mode.as_deref().unwrap_or(cells::UNKNOWN).into(),
        ]
    }
}

/// The spec without everything that is not the source.
fn source_only(spec: &PersistentVolumeSpec) -> PersistentVolumeSpec {
    let mut bare = spec.clone();
    bare.access_modes = None;
    bare.capacity = None;
    bare.claim_ref = None;
    bare.mount_options = None;
    bare.node_affinity = None;
    bare.persistent_volume_reclaim_policy = None;
    bare.storage_class_name = None;
    bare.volume_attributes_class_name = None;
    bare.volume_mode = None;
    if let Some(csi) = &mut bare.csi {
        csi.controller_expand_secret_ref = None;
    }
    bare
}

fn sources(spec: &PersistentVolumeSpec) -> Vec<&'static str> {
    [
        ("hostPath", spec.host_path.is_some()),
        ("gcePersistentDisk", spec.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", spec.aws_elastic_block_store.is_some()),
        ("glusterfs", spec.glusterfs.is_some()),
        ("flocker", spec.flocker.is_some()),
        ("nfs", spec.nfs.is_some()),
        ("rbd", spec.rbd.is_some()),
        ("quobyte", spec.quobyte.is_some()),
        ("cephFS", spec.cephfs.is_some()),
        ("iscsi", spec.iscsi.is_some()),
        ("cinder", spec.cinder.is_some()),
        ("fc", spec.fc.is_some()),
        ("flexVolume", spec.flex_volume.is_some()),
        ("azureFile", spec.azure_file.is_some()),
        ("vsphereVolume", spec.vsphere_volume.is_some()),
        ("photonPersistentDisk", spec.photon_persistent_disk.is_some()),
        ("portworxVolume", spec.portworx_volume.is_some()),
        ("azureDisk", spec.azure_disk.is_some()),
        ("scaleIO", spec.scale_io.is_some()),
        ("local", spec.local.is_some()),
        ("storageos", spec.storageos.is_some()),
        ("csi", spec.csi.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

fn validate(volume: &PersistentVolume) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &volume.spec else {
        return vec![at.required("")];
    };
    let modes = spec.access_modes.as_deref().unwrap_or(&[]);
    let at_modes = at.child("accessModes");
    if modes.is_empty() {
        errors.push(at_modes.required(""));
    }
    for mode in modes {
        rules::optional_one_of(&mut errors, &at_modes, Some(mode), ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errors.push(at_modes.forbidden("may not use ReadWriteOncePod with other access modes"));
    }
    let at_capacity = at.child("capacity");
    match &spec.capacity {
        Some(capacity) if !capacity.is_empty() => {
            if capacity.len() > 1 || !capacity.contains_key("storage") {
                errors.push(at_capacity.not_supported(rules::shown(capacity), &["storage"]));
            }
            for (name, quantity) in capacity {
                let at = at_capacity.key(name);
                resources::amount(&mut errors, &at, name, quantity);
                if Amount::try_from(quantity).is_ok_and(Amount::is_zero) {
                    errors.push(at.invalid(quantity.0.as_str(), "must be greater than zero"));
                }
            }
        }
        _ => errors.push(at_capacity.required("")),
    }
    rules::optional_one_of(
        &mut errors,
        &at.child("persistentVolumeReclaimPolicy"),
        spec.persistent_volume_reclaim_policy.as_deref(),
        &["Delete", "Recycle", "Retain"],
    );
    rules::optional_one_of(
        &mut errors,
        &at.child("volumeMode"),
        spec.volume_mode.as_deref(),
        VOLUME_MODES,
    );
    if let Some(class) = spec.storage_class_name.as_deref()
        && !class.is_empty()
    {
        rules::subdomain(&mut errors, &at.child("storageClassName"), class);
    }
    source(&mut errors, &at, spec);
    if let Some(required) = spec.node_affinity.as_ref() {
        let at = at.child("nodeAffinity.required");
        match &required.required {
            Some(selector) => scheduling::node_selector(&mut errors, &at, selector),
            None => errors.push(at.required("must specify required node constraints")),
        }
    }
    errors
}

fn source(errors: &mut Errors, at: &Loc<'_>, spec: &PersistentVolumeSpec) {
    let sources = sources(spec);
    if sources.is_empty() {
        errors.push(at.required("must specify a volume type"));
    }
    for further in sources.iter().skip(1) {
        errors.push(
            at.child(further)
                .forbidden("may not specify more than 1 volume type"),
        );
    }
    if let Some(host_path) = &spec.host_path {
        volumes::host_path(errors, &at.child("hostPath"), host_path);
        if host_path.path == "/" && spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(at.child("persistentVolumeReclaimPolicy").forbidden(detail));
        }
    }
    if let Some(nfs) = &spec.nfs {
        volumes::nfs(errors, &at.child("nfs"), nfs);
    }
    if let Some(csi) = &spec.csi {
        let at = at.child("csi");
        volumes::driver_name(errors, &at.child("driver"), &csi.driver);
        rules::not_empty(errors, &at.child("volumeHandle"), Some(&csi.volume_handle));
    }
    if let Some(local) = &spec.local {
        let at_path = at.child("local.path");
        if local.path.is_empty() {
            errors.push(at_path.required(""));
        } else {
            rules::no_backsteps(errors, &at_path, &local.path);
        }
        if spec.node_affinity.is_none() {
            errors.push(Loc::new("metadata.annotations").required("Local volume requires node affinity"));
        }
    }
}
