//! VolumeAttachments: the wish that a volume be attached to a node, and what became of it.

use jiff::Timestamp;
use k8s_openapi::api::storage::v1::{VolumeAttachment, VolumeAttachmentStatus, VolumeError};
use keelson_api::field::Errors;
use serde_json::Value;

use super::driver_name;
use crate::registry::common::loc::Loc;
use crate::registry::common::{NONE, cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, SubresourceInfo};

const METADATA_SIZE_MAX: usize = 256 * 1024;
const MESSAGE_MAX: usize = 1024;

/// The kind's strategy.
pub struct VolumeAttachmentKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "storage.k8s.io",
    kind: "VolumeAttachment",
    plural: "volumeattachments",
    singular: "volumeattachment",
    scope: Scope::Cluster,
    storage_prefix: "volumeattachments",
    subresources: &[SubresourceInfo::status(
        "storage.k8s.io",
        "v1",
        "VolumeAttachment",
    )],
    ..ResourceInfo::base()
};

impl Strategy for VolumeAttachmentKind {
    type Object = VolumeAttachment;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, attachment: &mut VolumeAttachment) {
        attachment.status = Some(VolumeAttachmentStatus::default());
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut VolumeAttachment, old: &VolumeAttachment) {
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut VolumeAttachment,
        old: &VolumeAttachment,
    ) {
        new.spec.clone_from(&old.spec);
        new.metadata.labels.clone_from(&old.metadata.labels);
        new.metadata.annotations.clone_from(&old.metadata.annotations);
        new.metadata.finalizers.clone_from(&old.metadata.finalizers);
        new.metadata
            .owner_references
            .clone_from(&old.metadata.owner_references);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, attachment: &VolumeAttachment) -> Errors {
        validate(attachment)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &VolumeAttachment,
        old: &VolumeAttachment,
    ) -> Errors {
        let mut errors = validate(new);
        rules::immutable(&mut errors, &Loc::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &VolumeAttachment,
        _old: &VolumeAttachment,
    ) -> Errors {
        validate(new)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Attacher", "The driver that attaches.").formatted("name"),
            Column::new("PV", "The volume."),
            Column::new("Node", "The node it is attached to."),
            Column::new("Attached", "Whether it is attached.").of("boolean"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, attachment: &VolumeAttachment, now: Timestamp) -> Vec<Value> {
        let spec = &attachment.spec;
        vec![
            cells::name(&attachment.metadata),
            spec.attacher.as_str().into(),
            spec.source.persistent_volume_name.as_deref().unwrap_or("").into(),
            spec.node_name.as_str().into(),
            attachment.status.as_ref().is_some_and(|s| s.attached).into(),
            cells::age(&attachment.metadata, now),
        ]
    }
}

fn validate(attachment: &VolumeAttachment) -> Errors {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let spec = &attachment.spec;
    driver_name(&mut errors, &at.child("attacher"), &spec.attacher);
    let at_source = at.child("source");
    match (
        &spec.source.inline_volume_spec,
        &spec.source.persistent_volume_name,
    ) {
        (None, None) => errors.push(at_source.required(ONE)),
        (Some(_), Some(_)) => errors.push(at_source.forbidden(ONE)),
        (None, Some(name)) if name.is_empty() => {
            errors.push(
                at_source
                    .child("persistentVolumeName")
                    .required("must specify non empty persistentVolumeName"),
            );
        }
        (None, Some(name)) => rules::subdomain(&mut errors, &at_source.child("persistentVolumeName"), name),
        (Some(_), None) => {}
    }
    rules::subdomain(&mut errors, &at.child("nodeName"), &spec.node_name);
    if let Some(status) = &attachment.status {
        validate_status(&mut errors, status);
    }
    errors
}

fn validate_status(errors: &mut Errors, status: &VolumeAttachmentStatus) {
    let at = Loc::new("status");
    let metadata = status.attachment_metadata.as_ref().unwrap_or(&NONE);
    let at_metadata = at.child("attachmentMetadata");
    if metadata.keys().any(String::is_empty) {
        errors.push(at_metadata.invalid("", "field can not be empty."));
    }
    let size: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > METADATA_SIZE_MAX {
        errors.push(at_metadata.too_long(METADATA_SIZE_MAX));
    }
    let mut volume_error = |field: &str, error: &Option<VolumeError>| {
        let at = at.child(field);
        let message = error.as_ref().and_then(|e| e.message.as_deref()).unwrap_or("");
        if message.len() > MESSAGE_MAX {
            errors.push(at.child("message").too_long(MESSAGE_MAX));
        }
    };
    volume_error("attachError", &status.attach_error);
    volume_error("detachError", &status.detach_error);
}
