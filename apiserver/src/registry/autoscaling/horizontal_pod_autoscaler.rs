//! HorizontalPodAutoscalers: stored as autoscaling/v2, also served as autoscaling/v1.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, ResourceMetricSource,
};
use keelson_api::field::Errors;
use keelson_api::validation;
use serde_json::Value;

use super::v1;
use crate::registry::common::defaults::quantity;
use crate::registry::common::loc::Loc;
use crate::registry::common::meta::{self, spec_and_status};
use crate::registry::common::{cells, rules, selectors};
use crate::registry::strategy::{Alias, Column, RequestContext, ResourceInfo, Strategy, SubresourceInfo};

/// Percent of the requested CPU that pods shall use, if nothing is said.
const CPU_PERCENT: i32 = 80;
const PERIOD_SECONDS_MAX: i32 = 1800;
const WINDOW_SECONDS_MAX: i32 = 3600;
/// How many metrics a table shows.
const SHOWN_MAX: usize = 2;

/// The kind's strategy.
pub struct HorizontalPodAutoscalerKind;

static INFO: ResourceInfo = ResourceInfo {
    group: "autoscaling",
    version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    storage_prefix: "horizontalpodautoscalers",
    subresources: &[SubresourceInfo::status(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
    )],
    aliases: &[Alias {
        group: "autoscaling",
        version: "v1",
        to_storage: v1::to_storage,
        from_storage: v1::from_storage,
        field_names: &[],
        deprecation: None,
        discoverable: true,
    }],
    ..ResourceInfo::base()
};

impl Strategy for HorizontalPodAutoscalerKind {
    type Object = HorizontalPodAutoscaler;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, autoscaler: &mut HorizontalPodAutoscaler) {
        default(autoscaler);
    }

    fn prepare_create(&self, _ctx: &RequestContext<'_>, autoscaler: &mut HorizontalPodAutoscaler) {
        meta::first_generation(&mut autoscaler.metadata);
        autoscaler.status = Some(HorizontalPodAutoscalerStatus::default());
    }

    spec_and_status!();

    fn validate_create(&self, _ctx: &RequestContext<'_>, autoscaler: &HorizontalPodAutoscaler) -> Errors {
        validate(autoscaler)
    }

    fn validate_update(
        &self,
        _ctx: &RequestContext<'_>,
        new: &HorizontalPodAutoscaler,
        _old: &HorizontalPodAutoscaler,
    ) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Reference", "What is scaled."),
            Column::new("Targets", "What the metrics are, and what they should be."),
            Column::new("MinPods", "The fewest pods there may be."),
            Column::new("MaxPods", "The most pods there may be."),
            Column::new("Replicas", "How many pods there are."),
            Column::new("Age", "Time since the object was created."),
        ];
        COLUMNS
    }

    fn cells(&self, autoscaler: &HorizontalPodAutoscaler, now: Timestamp) -> Vec<Value> {
        let spec = &autoscaler.spec;
        let reference = &spec.scale_target_ref;
        let status = autoscaler.status.as_ref();
        let current = status.and_then(|s| s.current_metrics.as_deref()).unwrap_or(&[]);
        vec![
            cells::name(&autoscaler.metadata),
            format!("{}/{}", reference.kind, reference.name).into(),
            targets(spec.metrics.as_deref().unwrap_or(&[]), current).into(),
            spec.min_replicas
                .map_or("<unset>".into(), |min| Value::from(min.to_string())),
            spec.max_replicas.into(),
            status.and_then(|s| s.current_replicas).unwrap_or(0).into(),
            cells::age(&autoscaler.metadata, now),
        ]
    }
}

fn default(autoscaler: &mut HorizontalPodAutoscaler) {
    let spec = &mut autoscaler.spec;
    spec.min_replicas.get_or_insert(1);
    if spec.metrics.as_ref().is_none_or(Vec::is_empty) {
        spec.metrics = Some(vec![MetricSpec {
            type_: "Resource".to_owned(),
            resource: Some(ResourceMetricSource {
                name: "cpu".to_owned(),
                target: MetricTarget {
                    type_: "Utilization".to_owned(),
                    average_utilization: Some(CPU_PERCENT),
                    ..MetricTarget::default()
                },
            }),
            ..MetricSpec::default()
        }]);
    }
    for target in spec.metrics.iter_mut().flatten().filter_map(target_mut) {
        for amount in [&mut target.value, &mut target.average_value]
            .into_iter()
            .flatten()
        {
            quantity(amount);
        }
    }
    if let Some(behavior) = &mut spec.behavior {
        // Up: at once, by four pods or by doubling, whichever is more. Down: after five minutes' thought, as far as it goes.
        let policy = |type_: &str, value, period_seconds| HPAScalingPolicy {
            type_: type_.to_owned(),
            value,
            period_seconds,
        };
        let up = behavior.scale_up.get_or_insert_default();
        up.stabilization_window_seconds.get_or_insert(0);
        complete(up, vec![policy("Pods", 4, 15), policy("Percent", 100, 15)]);
        let down = behavior.scale_down.get_or_insert_default();
        complete(down, vec![policy("Percent", 100, 15)]);
    }
}

fn complete(rules: &mut HPAScalingRules, policies: Vec<HPAScalingPolicy>) {
    rules.select_policy.get_or_insert_with(|| "Max".to_owned());
    rules.policies.get_or_insert(policies);
}

fn target_mut(metric: &mut MetricSpec) -> Option<&mut MetricTarget> {
    match metric.type_.as_str() {
        "Resource" => metric.resource.as_mut().map(|m| &mut m.target),
        "ContainerResource" => metric.container_resource.as_mut().map(|m| &mut m.target),
        "Pods" => metric.pods.as_mut().map(|m| &mut m.target),
        "Object" => metric.object.as_mut().map(|m| &mut m.target),
        "External" => metric.external.as_mut().map(|m| &mut m.target),
        _ => None,
    }
}

fn validate(autoscaler: &HorizontalPodAutoscaler) -> Errors {
    let mut errors = Errors::new();
    let at = Loc::new("spec");
    let spec = &autoscaler.spec;
    let HorizontalPodAutoscalerSpec {
        min_replicas,
        max_replicas,
        ..
    } = spec;
    let metrics = spec.metrics.as_deref().unwrap_or(&[]);
    let min = min_replicas.unwrap_or(1);
    // To wake up from nothing something outside of the pods must be measured.
    let wakeable = metrics
        .iter()
        .any(|m| matches!(m.type_.as_str(), "Object" | "External"));
    let least = i32::from(!wakeable);
    if min < least {
        let detail = format!("must be greater than or equal to {least}");
        errors.push(at.child("minReplicas").invalid(min, detail));
    }
    if *max_replicas < 1 {
        errors.push(
            at.child("maxReplicas")
                .invalid(*max_replicas, "must be greater than 0"),
        );
    }
    if *max_replicas < min {
        let detail = "must be greater than or equal to `minReplicas`";
        errors.push(at.child("maxReplicas").invalid(*max_replicas, detail));
    }
    reference(&mut errors, &at.child("scaleTargetRef"), &spec.scale_target_ref);
    let all = at.child("metrics");
    for (i, one) in metrics.iter().enumerate() {
        metric(&mut errors, &all.index(i), one);
    }
    if let Some(behavior) = &spec.behavior {
        let at = at.child("behavior");
        for (field, given) in [
            ("scaleUp", &behavior.scale_up),
            ("scaleDown", &behavior.scale_down),
        ] {
            if let Some(given) = given {
                scaling(&mut errors, &at.child(field), given);
            }
        }
    }
    errors
}

fn reference(errors: &mut Errors, at: &Loc<'_>, reference: &CrossVersionObjectReference) {
    for (field, value) in [("kind", &reference.kind), ("name", &reference.name)] {
        if value.is_empty() {
            errors.push(at.child(field).required(""));
        } else {
            rules::complain(errors, &at.child(field), value, validation::path_segment(value));
        }
    }
}

fn metric(errors: &mut Errors, at: &Loc<'_>, metric: &MetricSpec) {
    const TYPES: &[&str] = &["ContainerResource", "External", "Object", "Pods", "Resource"];
    if metric.type_.is_empty() {
        errors.push(at.child("type").required("must specify a metric source type"));
        return;
    }
    rules::optional_one_of(errors, &at.child("type"), Some(&metric.type_), TYPES);
    let fields = [
        ("Object", "object", metric.object.is_some()),
        ("External", "external", metric.external.is_some()),
        ("Pods", "pods", metric.pods.is_some()),
        ("Resource", "resource", metric.resource.is_some()),
        (
            "ContainerResource",
            "containerResource",
            metric.container_resource.is_some(),
        ),
    ];
    for (kind, field, set) in fields {
        if kind == metric.type_ && !set {
            errors.push(
                at.child(field)
                    .required("must populate information for the given metric source"),
            );
        } else if kind != metric.type_ && set {
            let detail = "must populate the given metric source only";
            errors.push(at.child(field).forbidden(detail));
        }
    }
    if let Some(object) = &metric.object {
        let at = at.child("object");
        reference(errors, &at.child("describedObject"), &object.described_object);
        identifier(errors, &at.child("metric"), &object.metric);
        target(
            errors,
            &at.child("target"),
            &object.target,
            &["Value", "AverageValue"],
        );
    }
    if let Some(external) = &metric.external {
        let at = at.child("external");
        identifier(errors, &at.child("metric"), &external.metric);
        target(
            errors,
            &at.child("target"),
            &external.target,
            &["Value", "AverageValue"],
        );
    }
    if let Some(pods) = &metric.pods {
        let at = at.child("pods");
        identifier(errors, &at.child("metric"), &pods.metric);
        target(errors, &at.child("target"), &pods.target, &["AverageValue"]);
    }
    if let Some(resource) = &metric.resource {
        let at = at.child("resource");
        rules::not_empty(errors, &at.child("name"), Some(&resource.name));
        target(
            errors,
            &at.child("target"),
            &resource.target,
            &["Utilization", "AverageValue"],
        );
    }
    if let Some(resource) = &metric.container_resource {
        let at = at.child("containerResource");
        rules::not_empty(errors, &at.child("name"), Some(&resource.name));
        rules::not_empty(errors, &at.child("container"), Some(&resource.container));
        target(
            errors,
            &at.child("target"),
            &resource.target,
            &["Utilization", "AverageValue"],
        );
    }
}

fn identifier(errors: &mut Errors, at: &Loc<'_>, metric: &MetricIdentifier) {
    if metric.name.is_empty() {
        errors.push(at.child("name").required(""));
    } else {
        rules::complain(
            errors,
            &at.child("name"),
            &metric.name,
            validation::path_segment(&metric.name),
        );
    }
    if let Some(selector) = &metric.selector {
        selectors::label_selector(errors, &at.child("selector"), selector);
    }
}

/// A target of one of the sorts that make sense for the metric.
fn target(errors: &mut Errors, at: &Loc<'_>, target: &MetricTarget, sorts: &[&str]) {
    if target.type_.is_empty() {
        errors.push(at.child("type").required("must specify a metric target type"));
    } else {
        rules::optional_one_of(
            errors,
            &at.child("type"),
            Some(&target.type_),
            &["AverageValue", "Utilization", "Value"],
        );
    }
    if let Some(percent) = target.average_utilization
        && percent < 1
    {
        errors.push(
            at.child("averageUtilization")
                .invalid(percent, "must be greater than 0"),
        );
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(value) = value
            && let Some(amount) = rules::quantity(errors, &at.child(field), value)
            && amount.is_zero()
        {
            errors.push(at.child(field).invalid(value.0.as_str(), "must be positive"));
        }
    }
    let set = |sort: &&str| match *sort {
        "Value" => target.value.is_some(),
        "AverageValue" => target.average_value.is_some(),
        _ => target.average_utilization.is_some(),
    };
    let count = sorts.iter().filter(|sort| set(sort)).count();
    let name = |sort: &str| match sort {
        "Value" => "value",
        "AverageValue" => "averageValue",
        _ => "averageUtilization",
    };
    let names: Vec<&str> = sorts.iter().map(|sort| name(sort)).collect();
    if count == 0 {
        let detail = match names.as_slice() {
            [one] => format!("must specify a positive target {one}"),
            _ => format!("must set either {}", names.join(" or ")),
        };
        errors.push(
            at.child(names.last().copied().unwrap_or("value"))
                .required(detail),
        );
    } else if count > 1 {
        let detail = format!("may not set both {}", names.join(" and "));
        errors.push(at.child(names[0]).forbidden(detail));
    }
}

fn scaling(errors: &mut Errors, at: &Loc<'_>, given: &HPAScalingRules) {
    if let Some(seconds) = given.stabilization_window_seconds {
        let at = at.child("stabilizationWindowSeconds");
        rules::not_negative(errors, &at, Some(seconds));
        if seconds > WINDOW_SECONDS_MAX {
            let detail = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            errors.push(at.invalid(seconds, detail));
        }
    }
    rules::optional_one_of(
        errors,
        &at.child("selectPolicy"),
        given.select_policy.as_deref(),
        &["Disabled", "Max", "Min"],
    );
    let all = at.child("policies");
    let policies = given.policies.as_deref().unwrap_or(&[]);
    if policies.is_empty() {
        errors.push(all.required("must specify at least one Policy"));
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = all.index(i);
        rules::optional_one_of(
            errors,
            &at.child("type"),
            Some(&policy.type_),
            &["Percent", "Pods"],
        );
        if policy.value <= 0 {
            errors.push(
                at.child("value")
                    .invalid(policy.value, "must be greater than zero"),
            );
        }
        let at = at.child("periodSeconds");
        if policy.period_seconds <= 0 {
            errors.push(at.invalid(policy.period_seconds, "must be greater than zero"));
        } else if policy.period_seconds > PERIOD_SECONDS_MAX {
            let detail = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
            errors.push(at.invalid(policy.period_seconds, detail));
        }
    }
}

/// `cpu: 12%/80%, <unknown>/10 (avg)`.
fn targets(wanted: &[MetricSpec], current: &[MetricStatus]) -> String {
    const UNKNOWN: &str = "<unknown>";
    if wanted.is_empty() {
        return cells::NONE.to_owned();
    }
    let percent = |value: Option<i32>| value.map_or_else(|| UNKNOWN.to_owned(), |v| format!("{v}%"));
    let text = |i: usize, metric: &MetricSpec| -> String {
        let now = current.get(i);
        match metric.type_.as_str() {
            "Resource" | "ContainerResource" => {
                let of_pod = metric.resource.as_ref().map(|m| (&m.name, &m.target));
                let of_container = metric.container_resource.as_ref().map(|m| (&m.name, &m.target));
                let Some((name, target)) = of_pod.or(of_container) else {
                    return UNKNOWN.to_owned();
                };
                let value = now.and_then(|n| {
                    let pod = n.resource.as_ref().map(|m| &m.current);
                    pod.or(n.container_resource.as_ref().map(|m| &m.current))
                });
                match &target.average_value {
                    Some(wanted) => {
                        let value = value
                            .and_then(|v| v.average_value.as_ref())
                            .map_or(UNKNOWN, |q| q.0.as_str());
                        format!("{name}: {value}/{}", wanted.0)
                    }
                    None => {
                        let wanted = match target.average_utilization {
                            Some(wanted) => format!("{wanted}%"),
                            None => "<auto>".to_owned(),
                        };
                        format!(
                            "{name}: {}/{wanted}",
                            percent(value.and_then(|v| v.average_utilization))
                        )
                    }
                }
            }
            _ => {
                let target = metric
                    .pods
                    .as_ref()
                    .map(|m| &m.target)
                    .or(metric.object.as_ref().map(|m| &m.target))
                    .or(metric.external.as_ref().map(|m| &m.target));
                let value = now.and_then(|n| {
                    let pods = n.pods.as_ref().map(|m| &m.current);
                    pods.or(n.object.as_ref().map(|m| &m.current))
                        .or(n.external.as_ref().map(|m| &m.current))
                });
                match target {
                    Some(MetricTarget {
                        average_value: Some(wanted),
                        ..
                    }) => {
                        let value = value
                            .and_then(|v| v.average_value.as_ref())
                            .map_or(UNKNOWN, |q| q.0.as_str());
                        let note = if metric.type_ == "Pods" { "" } else { " (avg)" };
                        format!("{value}/{}{note}", wanted.0)
                    }
                    Some(MetricTarget {
                        value: Some(wanted), ..
                    }) => {
                        let value = value
                            .and_then(|v| v.value.as_ref())
                            .map_or(UNKNOWN, |q| q.0.as_str());
                        format!("{value}/{}", wanted.0)
                    }
                    _ => UNKNOWN.to_owned(),
                }
            }
        }
    };
    let shown: Vec<String> = wanted
        .iter()
        .take(SHOWN_MAX)
        .enumerate()
        .map(|(i, metric)| text(i, metric))
        .collect();
    let list = shown.join(", ");
    if wanted.len() > SHOWN_MAX {
        format!("{list} + {} more...", wanted.len() - SHOWN_MAX)
    } else {
        list
    }
}
