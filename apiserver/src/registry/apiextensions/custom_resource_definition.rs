//! CustomResourceDefinitions: for now the truth that there are none.
//!
//! kubectl lists definitions before it believes that a kind does not exist. Creating one is refused with 405 until the
//! server can also serve its instances.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::cells;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy, Verb};

/// The kind's strategy.
pub struct CustomResourceDefinitionKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    scope: Scope::Cluster,
    verbs: &[Verb::Get, Verb::List, Verb::Watch],
    storage_prefix: "apiextensions.k8s.io/customresourcedefinitions",
    ..ResourceInfo::base()
};

impl Strategy for CustomResourceDefinitionKind {
    type Object = CustomResourceDefinition;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, _definition: &CustomResourceDefinition) -> Errors {
        Errors::new()
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        _new: &CustomResourceDefinition,
        _old: &CustomResourceDefinition,
    ) -> Errors {
        Errors::new()
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Created At", "Time the definition was created.").of("date"),
        ];
        COLUMNS
    }

    fn cells(&self, definition: &CustomResourceDefinition, _now: Timestamp) -> Vec<Value> {
        let created = definition.metadata.creation_timestamp.as_ref();
        vec![
            cells::name(&definition.metadata),
            created.map(|time| time.0.to_string()).into(),
        ]
    }
}
