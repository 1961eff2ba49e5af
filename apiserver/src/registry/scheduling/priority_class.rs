//! PriorityClasses.

use jiff::Timestamp;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use keelson_api::field::Errors;
use keelson_api::object::Object;
use serde_json::Value;

use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, meta, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Scope, Strategy};

/// Classes that are always there: name, value, description.
pub const SYSTEM_CLASSES: &[(&str, i32, &str)] = &[
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
];
/// Higher values are the system's.
const USER_MAX: i32 = 1_000_000_000;
const PREEMPT: &str = "PreemptLowerPriority";

/// The kind's strategy.
pub struct PriorityClassKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    short_names: &["pc"],
    scope: Scope::Cluster,
    storage_prefix: "priorityclasses",
    ..ResourceInfo::base()
};

impl Strategy for PriorityClassKind {
    type Object = PriorityClass;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, class: &mut PriorityClass) {
        class.preemption_policy.get_or_insert_with(|| PREEMPT.to_owned());
        // The value is not optional: a class without one has none to give.
        class.value.get_or_insert(0);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, class: &mut PriorityClass) {
        meta::first_generation(&mut class.metadata);
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, class: &PriorityClass) -> Errors {
        validate(class)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &PriorityClass, old: &PriorityClass) -> Errors {
        let mut errors = Errors::new();
        if new.value != old.value {
            errors.push(Loc::new("value").forbidden("may not be changed in an update."));
        }
        rules::immutable(
            &mut errors,
            &Loc::new("preemptionPolicy"),
            &new.preemption_policy,
            &old.preemption_policy,
        );
        errors
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Value", "The priority of pods of the class.").of("integer"),
            Column::new("Global-Default", "Whether pods without a class are of this one.").of("boolean"),
            Column::new("Age", "Time since the object was created."),
            Column::new(
                "PreemptionPolicy",
                "Whether pods of the class make others give way.",
            ),
        ];
        COLUMNS
    }

    fn cells(&self, class: &PriorityClass, now: Timestamp) -> Vec<Value> {
        vec![
            cells::name(&class.metadata),
            class.value.unwrap_or(0).into(),
            class.global_default.unwrap_or(false).into(),
            cells::age(&class.metadata, now),
            class.preemption_policy.as_deref().unwrap_or("").into(),
        ]
    }
}

fn validate(class: &PriorityClass) -> Errors {
    const RESERVED: &str = "priority class names with 'system-' prefix are reserved for system use only";
    let mut errors = Errors::new();
    let name = class.name();
    let value = class.value.unwrap_or(0);
    if name.starts_with("system-") {
        let at = Loc::new("metadata.name");
        match SYSTEM_CLASSES.iter().find(|(known, ..)| *known == name) {
            None => {
                let detail = format!("{RESERVED}. error: {name} is not a known system priority class");
                errors.push(at.forbidden(detail));
            }
            Some((_, known, _)) if *known != value => {
                let detail = format!("{RESERVED}. error: value of {name} PriorityClass must be {known}");
                errors.push(at.forbidden(detail));
            }
            Some(_) if class.global_default == Some(true) => {
                let detail =
                    format!("{RESERVED}. error: globalDefault of {name} PriorityClass must be false");
                errors.push(at.forbidden(detail));
            }
            Some(_) => {}
        }
    } else if value > USER_MAX {
        let detail = format!("maximum allowed value of a user defined priority is {USER_MAX}");
        errors.push(Loc::new("value").forbidden(detail));
    }
    rules::optional_one_of(
        &mut errors,
        &Loc::new("preemptionPolicy"),
        class.preemption_policy.as_deref(),
        &[PREEMPT, "Never"],
    );
    errors
}
