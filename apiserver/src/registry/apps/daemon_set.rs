//! DaemonSets.

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use keelson_api::field::Errors;
use serde_json::Value;

use super::{containers, selector, status, template};
use crate::registry::common::defaults::{drop_zero, fill};
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, Spec};
use crate::registry::common::{cells, rules};
use crate::registry::core::pod::defaults;
use crate::registry::extensions;
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

const HISTORY_LIMIT: i32 = 10;
/// Where the number of the template is kept since it has no field any more.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// The kind's strategy.
pub struct DaemonSetKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "apps",
    kind: "DaemonSet",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    storage_prefix: "daemonsets",
    subresources: &[status("DaemonSet")],
    aliases: &[extensions::DAEMON_SET],
    ..ResourceInfo::base()
};

impl Strategy for DaemonSetKind {
    type Object = DaemonSet;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, set: &mut DaemonSet) {
        let spec = set.spec.get_or_insert_default();
        drop_zero(&mut spec.min_ready_seconds);
        let strategy = spec.update_strategy.get_or_insert_default();
        fill(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        spec.revision_history_limit.get_or_insert(HISTORY_LIMIT);
        defaults::pod_template(&mut spec.template);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, set: &mut DaemonSet) {
        meta::first_generation(&mut set.metadata);
        set.status = Some(DaemonSetStatus::default());
        set_template_generation(set, 1);
    }

    fn prepare_update(&self, _ctx: &RequestContext<'_>, new: &mut DaemonSet, old: &DaemonSet) {
        new.status.clone_from(&old.status);
        let template = |set: &DaemonSet| set.spec.as_ref().map(|s| s.template.clone());
        let before = template_generation(old);
        let now = if template(new) == template(old) {
            before
        } else {
            before + 1
        };
        set_template_generation(new, now);
        meta::next_generation(
            &mut new.metadata,
            &old.metadata,
            Spec::compare(&new.spec, &old.spec),
        );
    }

    fn prepare_subresource_update(&self, _ctx: &RequestContext<'_>, new: &mut DaemonSet, old: &DaemonSet) {
        new.spec.clone_from(&old.spec);
        new.metadata.generation = old.metadata.generation;
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, set: &DaemonSet) -> Errors {
        validate(set)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &DaemonSet, old: &DaemonSet) -> Errors {
        let mut errors = validate(new);
        if let (Some(new), Some(old)) = (&new.spec, &old.spec) {
            rules::immutable(
                &mut errors,
                &Loc::new("spec.selector"),
                &new.selector,
                &old.selector,
            );
        }
        errors
    }

    fn validate_subresource_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &DaemonSet,
        _old: &DaemonSet,
    ) -> Errors {
        validate_status(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Desired", "The number of nodes that should run the pod.").of("integer"),
            Column::new("Current", "The number of nodes that run the pod and should.").of("integer"),
            Column::new("Ready", "The number of nodes whose pod is ready.").of("integer"),
            Column::new(
                "Up-to-date",
                "The number of nodes whose pod is of the present template.",
            )
            .of("integer"),
            Column::new(
                "Available",
                "The number of nodes whose pod has been ready for long enough.",
            )
            .of("integer"),
            Column::new(
                "Node Selector",
                "The labels of the nodes that should run the pod.",
            ),
            Column::new("Age", "Time since the object was created."),
            Column::new("Containers", "Names of each container in the template.").wide(),
            Column::new("Images", "Images referenced by each container in the template.").wide(),
            Column::new("Selector", "The labels of the pods that are counted.").wide(),
        ];
        COLUMNS
    }

    fn cells(&self, set: &DaemonSet, now: Timestamp) -> Vec<Value> {
        let spec = set.spec.as_ref();
        let status = set.status.as_ref();
        let count = |of: fn(&DaemonSetStatus) -> i32| Value::from(status.map_or(0, of));
        let [names, images] = cells::containers(spec.map(|s| containers(&s.template)).unwrap_or(&[]));
        let nodes = spec
            .and_then(|s| s.template.spec.as_ref())
            .and_then(|s| s.node_selector.as_ref());
        vec![
            cells::name(&set.metadata),
            count(|s| s.desired_number_scheduled),
            count(|s| s.current_number_scheduled),
            count(|s| s.number_ready),
            count(|s| s.updated_number_scheduled.unwrap_or(0)),
            count(|s| s.number_available.unwrap_or(0)),
            cells::labels(nodes).into(),
            cells::age(&set.metadata, now),
            names,
            images,
            cells::selector(spec.map(|s| &s.selector)).into(),
        ]
    }
}

fn template_generation(set: &DaemonSet) -> i64 {
    let annotations = set.metadata.annotations.as_ref();
    annotations
        .and_then(|a| a.get(TEMPLATE_GENERATION))
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    let annotations = set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn validate(set: &DaemonSet) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let Some(spec) = &set.spec else {
        return vec![at.required("")];
    };
    let DaemonSetSpec {
        min_ready_seconds,
        revision_history_limit,
        update_strategy,
        ..
    } = spec;
    selector(&mut errors, &at.child("selector"), &spec.selector, "daemonset");
    template(
        &mut errors,
        &at.child("template"),
        &spec.template,
        &spec.selector,
        "DaemonSet",
    );
    rules::not_negative(&mut errors, &at.child("minReadySeconds"), *min_ready_seconds);
    if let Some(strategy) = update_strategy {
        self::strategy(&mut errors, &at.child("updateStrategy"), strategy);
    }
    rules::not_negative(
        &mut errors,
        &at.child("revisionHistoryLimit"),
        *revision_history_limit,
    );
    errors
}

fn strategy(errors: &mut Errors, at: &Loc<'_>, strategy: &DaemonSetUpdateStrategy) {
    let at_rolling = at.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or(""), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errors.push(at_rolling.required("")),
        ("RollingUpdate", Some(rolling)) => {
            let zero = IntOrString::Int(0);
            let unavailable = rolling.max_unavailable.as_ref().unwrap_or(&zero);
            let surge = rolling.max_surge.as_ref().unwrap_or(&zero);
            let (at_unavailable, at_surge) =
                (at_rolling.child("maxUnavailable"), at_rolling.child("maxSurge"));
            rules::count_or_percent(errors, &at_unavailable, unavailable);
            rules::count_or_percent(errors, &at_surge, surge);
            let (has_unavailable, has_surge) =
                (rules::count_of(unavailable) != 0, rules::count_of(surge) != 0);
            if has_unavailable && has_surge {
                let detail = "may not be set when maxUnavailable is non-zero";
                errors.push(at_surge.invalid(rules::shown(surge), detail));
            }
            if !has_unavailable && !has_surge {
                errors.push(at_unavailable.required("cannot be 0 when maxSurge is 0"));
            }
            rules::at_most_hundred_percent(errors, &at_unavailable, unavailable);
            rules::at_most_hundred_percent(errors, &at_surge, surge);
        }
        (other, _) => errors.push(
            at.child("type")
                .not_supported(other, &["RollingUpdate", "OnDelete"]),
        ),
    }
}

fn validate_status(set: &DaemonSet) -> Errors {
    let mut errors = Errors::new();
    let Some(status) = &set.status else { return errors };
    let at = Loc::new("status");
    for (field, value) in [
        ("currentNumberScheduled", status.current_number_scheduled),
        ("numberMisscheduled", status.number_misscheduled),
        ("desiredNumberScheduled", status.desired_number_scheduled),
        ("numberReady", status.number_ready),
        (
            "updatedNumberScheduled",
            status.updated_number_scheduled.unwrap_or(0),
        ),
        ("numberAvailable", status.number_available.unwrap_or(0)),
        ("numberUnavailable", status.number_unavailable.unwrap_or(0)),
        ("collisionCount", status.collision_count.unwrap_or(0)),
    ] {
        rules::not_negative(&mut errors, &at.child(field), Some(value));
    }
    errors
}
