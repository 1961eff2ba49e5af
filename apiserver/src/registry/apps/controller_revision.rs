//! ControllerRevisions.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ControllerRevision;
use keelson_api::field::Errors;
use keelson_api::owners;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct ControllerRevisionKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apps",
    kind: "ControllerRevision",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    storage_prefix: "controllerrevisions",
    ..ResourceInfo::base()
};

impl Strategy for ControllerRevisionKind {
    type Object = ControllerRevision;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, revision: &ControllerRevision) -> Errors {
        validate(revision)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ControllerRevision,
        old: &ControllerRevision,
    ) -> Errors {
        let mut errors = validate(new);
        rules::immutable(&mut errors, &Loc::new("data"), &new.data, &old.data);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Controller", "The controller the revision belongs to."),
            Column::new("Revision", "The number of the revision."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, revision: &ControllerRevision, now: Timestamp) -> Vec<Value> {
        let controller = owners::controller_ref(&revision.metadata).map_or_else(
            || cells::NONE.to_owned(),
            |owner| {
                let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
                let kind = owner.kind.to_lowercase();
                if group.is_empty() {
                    format!("{kind}/{}", owner.name)
                } else {
                    format!("{kind}.{group}/{}", owner.name)
                }
            },
        );
        vec![
            cells::name(&revision.metadata),
            controller.into(),
            revision.revision.into(),
            cells::age(&revision.metadata, now),
        ]
    }
}

fn validate(revision: &ControllerRevision) -> Errors {
    let mut errors = Errors::new();
    if revision.data.as_ref().is_none_or(|data| data.0.is_null()) {
        errors.push(Loc::new("data").required("data is mandatory"));
    }
    rules::not_negative(&mut errors, &Loc::new("revision"), Some(revision.revision));
    errors
}
