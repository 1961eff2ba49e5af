//! LimitRanges.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::field::Errors;
use keelson_api::quantity::Amount;
use keelson_api::validation;
use serde_json::Value;

use super::pod::validation::resources;
use crate::registry::common::defaults::quantities;
use crate::registry::common::loc::Loc;
use crate::registry::common::{cells, rules};
use crate::registry::strategy::{Column, RequestContext, ResourceInfo, Strategy};

type List = BTreeMap<String, Quantity>;

/// The kind's strategy.
pub struct LimitRangeStrategy;

static INFO: ResourceInfo = ResourceInfo {
    kind: "LimitRange",
    plural: "limitranges",
    singular: "limitrange",
    short_names: &["limits"],
    storage_prefix: "limitranges",
    ..ResourceInfo::base()
};

impl Strategy for LimitRangeStrategy {
    type Object = LimitRange;

    fn info(&self) -> &'static ResourceInfo {
        &INFO
    }

    fn default(&self, range: &mut LimitRange) {
        for item in range.spec.iter_mut().flat_map(|s| s.limits.iter_mut()) {
            for list in [
                &mut item.default,
                &mut item.default_request,
                &mut item.max,
                &mut item.min,
                &mut item.max_limit_request_ratio,
            ]
            .into_iter()
            .flatten()
            {
                quantities(list);
            }
            if item.type_ == "Container" {
                container(item);
            }
        }
    }

    fn validate_create(&self, _ctx: &RequestContext<'_>, range: &LimitRange) -> Errors {
        validate(range)
    }

    fn validate_update(&self, _ctx: &RequestContext<'_>, new: &LimitRange, _old: &LimitRange) -> Errors {
        validate(new)
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            Column::name(),
            Column::new("Created At", "When the object was created.").of("date"),
        ];
        COLUMNS
    }

    fn cells(&self, range: &LimitRange, _now: Timestamp) -> Vec<Value> {
        let created = range
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|t| keelson_api::time::rfc3339(t.0));
        vec![cells::name(&range.metadata), created.unwrap_or_default().into()]
    }
}

/// Defaults of containers follow from their bounds: the limit from the maximum, the request from the limit, else from the
/// minimum.
fn container(item: &mut LimitRangeItem) {
    let fill = |into: &mut Option<List>, from: &Option<List>| {
        for (name, quantity) in from.iter().flatten() {
            into.get_or_insert_default()
                .entry(name.clone())
                .or_insert_with(|| quantity.clone());
        }
    };
    fill(&mut item.default, &item.max.clone());
    fill(&mut item.default_request, &item.default.clone());
    fill(&mut item.default_request, &item.min.clone());
}

fn validate(range: &LimitRange) -> Errors {
    let mut errors = Errors::new();
    let limits = range.spec.as_ref().map(|s| s.limits.as_slice()).unwrap_or(&[]);
    let all = Loc::new("spec.limits");
    for (i, item) in limits.iter().enumerate() {
        let at = all.index(i);
        if item.type_.is_empty() {
            errors.push(at.child("type").required(""));
        } else if !item.type_.contains('/')
            && !matches!(item.type_.as_str(), "Pod" | "Container" | "PersistentVolumeClaim")
        {
            let complaints = validation::qualified_name(&item.type_);
            rules::complain(&mut errors, &at.child("type"), &item.type_, complaints);
            errors.push(at.child("type").invalid(
                item.type_.as_str(),
                "must be a standard limit type or fully qualified",
            ));
        }
        if limits[..i].iter().any(|other| other.type_ == item.type_) {
            errors.push(at.child("type").duplicate(item.type_.as_str()));
        }
        item_bounds(&mut errors, &at, item);
    }
    errors
}

fn item_bounds(errors: &mut Errors, at: &Loc<'_>, item: &LimitRangeItem) {
    if item.type_ == "Pod" {
        for (field, list) in [
            ("default", &item.default),
            ("defaultRequest", &item.default_request),
        ] {
            if list.as_ref().is_some_and(|l| !l.is_empty()) {
                let detail = "may not be specified when `type` is 'Pod'";
                errors.push(at.child(field).forbidden(detail));
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim" {
        let has = |list: &Option<List>| list.as_ref().is_some_and(|l| l.contains_key("storage"));
        if !has(&item.min) && !has(&item.max) {
            let detail = "either minimum or maximum storage value is required, but neither was provided";
            errors.push(at.child("limits").required(detail));
        }
    }
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    for (field, list) in lists {
        let at = at.child(field);
        for (name, quantity) in list.iter().flatten() {
            resources::resource_name(errors, &at.key(name), name);
            rules::quantity(errors, &at.key(name), quantity);
        }
    }
    let amount = |list: &Option<List>, name: &str| {
        let quantity = list.as_ref()?.get(name)?;
        Some((quantity.0.clone(), Amount::try_from(quantity).ok()?))
    };
    // Each pair in the order that must hold: the first may not be above the second.
    let pairs = [
        ("min", &item.min, "min value", "max", &item.max, "max value"),
        (
            "defaultRequest",
            &item.default_request,
            "default request value",
            "default",
            &item.default,
            "default limit value",
        ),
        (
            "defaultRequest",
            &item.default_request,
            "default request value",
            "max",
            &item.max,
            "max value",
        ),
        (
            "default",
            &item.default,
            "default value",
            "max",
            &item.max,
            "max value",
        ),
    ];
    for (field, low, low_text, _, high, high_text) in pairs {
        let at = at.child(field);
        for name in low.iter().flatten().map(|(name, _)| name) {
            if let (Some((low, a)), Some((high, b))) = (amount(low, name), amount(high, name))
                && a > b
            {
                let detail = format!("{low_text} {low} is greater than {high_text} {high}");
                errors.push(at.key(name).invalid(low, detail));
            }
        }
    }
    let at_request = at.child("defaultRequest");
    for name in item.min.iter().flatten().map(|(name, _)| name) {
        for (at, list, text) in [
            (&at_request, &item.default_request, "default request value"),
            (&at.child("default"), &item.default, "default value"),
        ] {
            if let (Some((min, a)), Some((value, b))) = (amount(&item.min, name), amount(list, name))
                && a > b
            {
                let detail = format!("min value {min} is greater than {text} {value}");
                errors.push(at.key(name).invalid(value, detail));
            }
        }
    }
    let at_ratio = at.child("maxLimitRequestRatio");
    for (name, quantity) in item.max_limit_request_ratio.iter().flatten() {
        if Amount::of(quantity) < Amount::from_units(1) {
            let detail = format!("ratio {} is less than 1", quantity.0);
            errors.push(at_ratio.key(name).invalid(quantity.0.as_str(), detail));
        }
    }
}
