//! Namespaces.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{
    Column, Fields, NameRule, OtherFields, RequestContext, ResourceInfo, Scope, Strategy, SubresourceForm,
    SubresourceInfo, Verb,
};

/// The finalizer that keeps a namespace until what it holds is gone.
const FINALIZER: &str = "kubernetes";
/// The label by which namespaces can be selected by name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The kind's strategy.
pub struct NamespaceStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "Namespace",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    scope: Scope::Cluster,
    verbs: &[
        Verb::Create,
        Verb::Delete,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ],
    storage_prefix: "namespaces",
    name_rule: NameRule::Label,
    selectable_fields: &["status.phase"],
    other_fields: OtherFields::NotSupported,
    subresources: &[
        SubresourceInfo {
            name: "finalize",
            kind: "Namespace",
            group: "",
            version: "v1",
            verbs: &[Verb::Update],
            form: SubresourceForm::Object,
        },
        SubresourceInfo::status("", "v1", "Namespace"),
    ],
    ..ResourceInfo::base()
};

impl Strategy for NamespaceStrategy {
    type Object = Namespace;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, namespace: &mut Namespace) {
        label_with_name(namespace);
    }

    fn metadata_has_defaults(&self) -> bool {
        true
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, namespace: &mut Namespace) {
        label_with_name(namespace);
        let finalizers = namespace
            .spec
            .get_or_insert_default()
            .finalizers
            .get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
        namespace.status = Some(NamespaceStatus {
            phase: Some("Active".to_owned()),
            ..NamespaceStatus::default()
        });
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut Namespace, old: &Namespace) {
        new.spec.clone_from(&old.spec);
        new.status.clone_from(&old.status);
    }

    fn prepare_subresource_update(&self, ctx: &RequestContext<'_>, new: &mut Namespace, old: &Namespace) {
        if ctx.subresource == "status" {
            new.spec.clone_from(&old.spec);
        } else {
            new.status.clone_from(&old.status);
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, namespace: &Namespace) -> Errors {
        finalizers(namespace)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &Namespace, _old: &Namespace) -> Errors {
        finalizers(new)
    }

    fn validate_subresource_update(
        &self,
        ctx: &RequestContext<'_>,
        new: &Namespace,
        _old: &Namespace,
    ) -> Errors {
        if ctx.subresource == "status" {
            phase(new)
        } else {
            finalizers(new)
        }
    }

    fn selectable_fields(&self, namespace: &Namespace) -> Fields {
        vec![(
            "status.phase",
            namespace
                .status
                .as_ref()
                .and_then(|s| s.phase.clone())
                .unwrap_or_default(),
        )]
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Status", "The status of the namespace"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, namespace: &Namespace, now: Timestamp) -> Vec<Value> {
        let phase = namespace
            .status
            .as_ref()
            .and_then(|s| s.phase.as_deref())
            .unwrap_or("");
        vec![
            cells::name(&namespace.metadata),
            phase.into(),
            cells::age(&namespace.metadata, now),
        ]
    }

    fn begin_delete(&self, _ctx: &RequestContext<'_>, namespace: &mut Namespace) {
        namespace.status.get_or_insert_default().phase = Some("Terminating".to_owned());
    }

    fn finalizing(&self, namespace: &Namespace) -> bool {
        namespace
            .spec
            .as_ref()
            .and_then(|s| s.finalizers.as_ref())
            .is_some_and(|f| !f.is_empty())
    }
}

fn label_with_name(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone()
        && !name.is_empty()
    {
        namespace
            .metadata
            .labels
            .get_or_insert_default()
            .insert(NAME_LABEL.to_owned(), name);
    }
}

fn finalizers(namespace: &Namespace) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec.finalizers");
    for name in namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()) {
        rules::qualified_name(&mut errors, &at, name);
        if !name.contains('/') && name != FINALIZER {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(at.invalid(name.as_str(), detail));
        }
    }
    errors
}

fn phase(namespace: &Namespace) -> Errors {
    let phase = namespace
        .status
        .as_ref()
        .and_then(|s| s.phase.as_deref())
        .unwrap_or("");
    let at = Loc::new("status.Phase");
    let deleting = namespace.metadata.deletion_timestamp.is_some();
    match (deleting, phase) {
        (false, "Active") | (true, "Terminating") => Errors::new(),
        (false, _) => vec![at.invalid(phase, "may only be 'Active' if `deletionTimestamp` is empty")],
        (true, _) => vec![at.invalid(
            phase,
            "may only be 'Terminating' if `deletionTimestamp` is not empty",
        )],
    }
}
