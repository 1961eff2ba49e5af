//! RuntimeClasses.

use jiff::Timestamp;
use k8s_openapi::api::node::v1::RuntimeClass;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::defaults::quantities;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::core::pod::validation::{resources, scheduling};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

/// The kind's strategy.
pub struct RuntimeClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "node.k8s.io",
    kind: "RuntimeClass",
    plural: "runtimeclasses",
    singular: "runtimeclass",
    scope: Scope::Cluster,
    storage_prefix: "runtimeclasses",
    ..ResourceInfo::base()
};

impl Strategy for RuntimeClassKind {
    type Object = RuntimeClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, class: &mut RuntimeClass) {
        if let Some(fixed) = class.overhead.as_mut().and_then(|o| o.pod_fixed.as_mut()) {
            quantities(fixed);
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &RuntimeClass) -> Errors {
        validate(class)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &RuntimeClass, old: &RuntimeClass) -> Errors {
        let mut errors = validate(new);
        rules::immutable(&mut errors, &Loc::new("handler"), &new.handler, &old.handler);
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Handler", "What the runtime calls the class."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &RuntimeClass, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&class.metadata),
            class.handler.as_str().into(),
            cells::age(&class.metadata, now),
        ]
    }
}

fn validate(class: &RuntimeClass) -> Errors {
    let mut errors = Errors::new();
    rules::label(&mut errors, &Loc::new("handler"), &class.handler);
    if let Some(fixed) = class.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()) {
        resources::list(&mut errors, &Loc::new("overhead.podFixed"), fixed);
    }
    if let Some(where_to) = &class.scheduling {
        let at = Loc::new("scheduling");
        if let Some(selector) = &where_to.node_selector {
            rules::labels(&mut errors, &at.child("nodeSelector"), selector);
        }
        let tolerations = where_to.tolerations.as_deref().unwrap_or(&[]);
        scheduling::tolerations(&mut errors, &at.child("tolerations"), tolerations);
    }
    errors
}
