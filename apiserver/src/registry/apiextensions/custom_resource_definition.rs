//! CustomResourceDefinitions.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceConversion, CustomResourceDefinition, CustomResourceDefinitionCondition,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use keelson_api::field::Errors;
use serde_json::Value;

use super::validation;
use crate::custom::definition::CLEANUP;
use crate::registry::common::cells;
use crate::registry::strategy::{
    Column, GET_PATCH_UPDATE, RequestContext, ResourceInfo, Scope, Strategy, SubresourceForm, SubresourceInfo,
};

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
    storage_prefix: crate::custom::definition::PREFIX,
    subresources: &[SubresourceInfo {
        name: "status",
        kind: "CustomResourceDefinition",
        group: "apiextensions.k8s.io",
        version: "v1",
        verbs: GET_PATCH_UPDATE,
        form: SubresourceForm::Object,
    }],
    ..ResourceInfo::base()
};

/// The version objects are stored in joins those they may be stored in.
fn note_storage_version(definition: &mut CustomResourceDefinition) {
    let Some(version) = definition.spec.versions.iter().find(|version| version.storage) else {
        return;
    };
    let stored = definition
        .status
        .get_or_insert_default()
        .stored_versions
        .get_or_insert_default();
    if !stored.contains(&version.name) {
        stored.push(version.name.clone());
    }
}

impl Strategy for CustomResourceDefinitionKind {
    type Object = CustomResourceDefinition;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, definition: &mut CustomResourceDefinition) {
        let spec = &mut definition.spec;
        let names = &mut spec.names;
        if names.singular.as_deref().unwrap_or_default().is_empty() {
            names.singular = Some(names.kind.to_lowercase());
        }
        if names.list_kind.as_deref().unwrap_or_default().is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let conversion = spec.conversion.get_or_insert_with(|| CustomResourceConversion {
            strategy: "None".into(),
            webhook: None,
        });
        let client = conversion
            .webhook
            .as_mut()
            .and_then(|webhook| webhook.client_config.as_mut());
        if let Some(service) = client.and_then(|client| client.service.as_mut()) {
            service.port.get_or_insert(443);
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, definition: &mut CustomResourceDefinition) {
        definition.status = Some(CustomResourceDefinitionStatus::default());
        definition.metadata.generation = Some(1);
        note_storage_version(definition);
    }

    fn prepare_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) {
        new.status.clone_from(&old.status);
        if new.spec != old.spec {
            new.metadata.generation = Some(old.metadata.generation.unwrap_or_default() + 1);
        }
        note_storage_version(new);
    }

    fn prepare_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &mut CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) {
        new.spec.clone_from(&old.spec);
        let meta = &mut new.metadata;
        meta.labels.clone_from(&old.metadata.labels);
        meta.owner_references.clone_from(&old.metadata.owner_references);
        meta.generation = old.metadata.generation;
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, definition: &CustomResourceDefinition) -> Errors {
        validation::create(definition)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &CustomResourceDefinition,
        old: &CustomResourceDefinition,
    ) -> Errors {
        validation::update(new, old)
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &CustomResourceDefinition,
        _old: &CustomResourceDefinition,
    ) -> Errors {
        validation::status(new)
    }

    fn warnings(
        &self,
        definition: &CustomResourceDefinition,
        _old: Option<&CustomResourceDefinition>,
    ) -> Vec<String> {
        validation::warnings(definition)
    }

    fn begin_delete(&self, ctx: &RequestContext<'_>, definition: &mut CustomResourceDefinition) {
        let finalizers = definition.metadata.finalizers.get_or_insert_default();
        if !finalizers.iter().any(|name| name == CLEANUP) {
            finalizers.push(CLEANUP.to_owned());
        }
        let conditions = definition
            .status
            .get_or_insert_default()
            .conditions
            .get_or_insert_default();
        conditions.retain(|condition| condition.type_ != "Terminating");
        conditions.push(CustomResourceDefinitionCondition {
            type_: "Terminating".into(),
            status: "True".into(),
            reason: Some("InstanceDeletionPending".into()),
            message: Some(
                "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
                    .into(),
            ),
            last_transition_time: Some(Time(ctx.now)),
            observed_generation: None,
        });
    }

    fn finalizing(&self, definition: &CustomResourceDefinition) -> bool {
        // Every definition waits for its instances, also one whose deletion has not begun.
        let finalizers = definition.metadata.finalizers.as_deref().unwrap_or_default();
        definition.metadata.deletion_timestamp.is_none() || finalizers.iter().any(|name| name == CLEANUP)
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new(
                "Created At",
                "CreationTimestamp is a timestamp representing the server time when this object was created.",
            )
            .of("date"),
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
