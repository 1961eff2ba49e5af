//! PodTemplates.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodTemplate;
use keelson_api::field::Errors;
use serde_json::Value;

use super::pod::{defaults, validation};
use crate::registry::common::cells;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

/// The kind's strategy.
pub struct PodTemplateStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "PodTemplate",
    plural: "podtemplates",
    singular: "podtemplate",
    storage_prefix: "podtemplates",
    ..ResourceInfo::base()
};

impl Strategy for PodTemplateStrategy {
    type Object = PodTemplate;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, template: &mut PodTemplate) {
        defaults::pod_template(template.template.get_or_insert_default());
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, template: &mut PodTemplate) {
        meta::first_generation(&mut template.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut PodTemplate, old: &PodTemplate) {
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.template, &old.template),
        );
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, template: &PodTemplate) -> Errors {
        validate(template)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &PodTemplate, _old: &PodTemplate) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Containers", "Names of each container in the template."),
            Column::new("Images", "Images referenced by each container in the template."),
            Column::new("Pod Labels", "The labels of the pods made from the template."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, template: &PodTemplate, now: Timestamp) -> Vec<Value> {
        let inner = template.template.as_ref();
        let containers = inner
            .and_then(|t| t.spec.as_ref())
            .map(|s| s.containers.as_slice())
            .unwrap_or(&[]);
        let [names, images] = cells::containers(containers);
        let labels = inner
            .and_then(|t| t.metadata.as_ref())
            .and_then(|m| m.labels.as_ref());
        vec![
            cells::name(&template.metadata),
            names,
            images,
            cells::labels(labels).into(),
            cells::age(&template.metadata, now),
        ]
    }
}

fn validate(template: &PodTemplate) -> Errors {
    let mut errors = Errors::new();
    if let Some(inner) = &template.template {
        validation::pod_template(&mut errors, &Loc::new("template"), inner);
    }
    errors
}
