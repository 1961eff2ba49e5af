//! ResourceClaimTemplates: claims that are made for each pod that names the template.

use jiff::Timestamp;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use keelson_api::field::Errors;
use serde_json::Value;

use super::claim;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct ResourceClaimTemplateKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "resource.k8s.io",
    kind: "ResourceClaimTemplate",
    plural: "resourceclaimtemplates",
    singular: "resourceclaimtemplate",
    storage_prefix: "resourceclaimtemplates",
    ..ResourceInfo::base()
};

impl Strategy for ResourceClaimTemplateKind {
    type Object = ResourceClaimTemplate;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, template: &mut ResourceClaimTemplate) {
        claim::default(&mut template.spec.spec);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, template: &ResourceClaimTemplate) -> Errors {
        let mut errors = Errors::new();
        claim::validate(&mut errors, &Loc::new("spec.spec"), &template.spec.spec);
        if let Some(metadata) = &template.spec.metadata {
            let at = Loc::new("spec.metadata");
            if let Some(labels) = &metadata.labels {
                rules::labels(&mut errors, &at.child("labels"), labels);
            }
            if let Some(annotations) = &metadata.annotations {
                rules::annotations(&mut errors, &at.child("annotations"), annotations);
            }
        }
        errors
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &ResourceClaimTemplate,
        old: &ResourceClaimTemplate,
    ) -> Errors {
        let mut errors = Errors::new();
        rules::immutable(&mut errors, &Loc::new("spec"), &new.spec, &old.spec);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, template: &ResourceClaimTemplate, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&template.metadata),
            cells::age(&template.metadata, now),
        ]
    }
}
