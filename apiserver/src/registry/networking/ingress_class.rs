//! IngressClasses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::IngressClass;
use keelson_api::field::Errors;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

const CONTROLLER_MAX: usize = 250;

/// The kind's strategy.
pub struct IngressClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "networking.k8s.io",
    kind: "IngressClass",
    plural: "ingressclasses",
    singular: "ingressclass",
    scope: Scope::Cluster,
    storage_prefix: "ingressclasses",
    ..ResourceInfo::base()
};

impl Strategy for IngressClassKind {
    type Object = IngressClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, class: &mut IngressClass) {
        if let Some(parameters) = class.spec.as_mut().and_then(|s| s.parameters.as_mut()) {
            parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
        }
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, class: &mut IngressClass) {
        meta::first_generation(&mut class.metadata);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut IngressClass, old: &IngressClass) {
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &IngressClass) -> Errors {
        validate(class)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &IngressClass, old: &IngressClass) -> Errors {
        let mut errors = validate(new);
        let controller = |class: &IngressClass| class.spec.as_ref().and_then(|s| s.controller.clone());
        rules::immutable(
            &mut errors,
            &Loc::new("spec.controller"),
            &controller(new),
            &controller(old),
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Controller", "The controller that serves ingresses of the class"),
            Column::new("Parameters", "What holds further settings of the controller"),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, class: &IngressClass, now: Timestamp) -> Vec<Value> {
        let spec = class.spec.as_ref();
        let parameters = spec.and_then(|s| s.parameters.as_ref()).map_or_else(
            || cells::NONE.to_owned(),
            |p| match p.api_group.as_deref() {
                Some(group) if !group.is_empty() => format!("{}.{group}/{}", p.kind, p.name),
                _ => format!("{}/{}", p.kind, p.name),
            },
        );
        vec![
            cells::name(&class.metadata),
            spec.and_then(|s| s.controller.as_deref()).unwrap_or("").into(),
            parameters.into(),
            cells::age(&class.metadata, now),
        ]
    }
}

fn validate(class: &IngressClass) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let controller = class
        .spec
        .as_ref()
        .and_then(|s| s.controller.as_deref())
        .unwrap_or("");
    let at_controller = at.child("controller");
    if controller.len() > CONTROLLER_MAX {
        errors.push(at_controller.too_long(CONTROLLER_MAX));
    }
    if controller.is_empty() {
        errors.push(at_controller.required(""));
    } else if !controller.contains('/') {
        let detail = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        errors.push(at_controller.invalid(controller, detail));
    }
    if let Some(parameters) = class.spec.as_ref().and_then(|s| s.parameters.as_ref()) {
        let at = at.child("parameters");
        rules::not_empty(&mut errors, &at.child("kind"), Some(&parameters.kind));
        rules::not_empty(&mut errors, &at.child("name"), Some(&parameters.name));
        let scope = parameters.scope.as_deref();
        rules::one_of(&mut errors, &at.child("scope"), scope, &["Cluster", "Namespace"]);
        match (scope, parameters.namespace.as_deref()) {
            (Some("Namespace"), None | Some("")) => {
                let detail = "`parameters.scope` is set to 'Namespace'";
                errors.push(at.child("namespace").required(detail));
            }
            (Some("Cluster"), Some(_)) => {
                let detail = "`parameters.scope` is set to 'Cluster'";
                errors.push(at.child("namespace").forbidden(detail));
            }
            _ => {}
        }
    }
    errors
}
