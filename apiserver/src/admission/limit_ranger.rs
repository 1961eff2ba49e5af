//! LimitRanger: what the LimitRanges of a namespace fill in, and what they refuse.

use std::collections::BTreeMap;

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{
    Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, PodSpec, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use keelson_api::field::aggregate;
use keelson_api::quantity::Amount;
use keelson_api::status::ApiResult;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

type List = BTreeMap<String, Quantity>;

/// Where a pod is told what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub struct LimitRanger;

#[async_trait]
impl Admission for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        info.group.is_empty()
            && matches!(
                (info.plural, operation, subresource),
                ("pods", Operation::Create, "")
                    | ("pods", Operation::Update, "resize")
                    | (
                        "persistentvolumeclaims",
                        Operation::Create | Operation::Update,
                        ""
                    )
            )
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let ranges = attributes
            .ctx
            .server
            .cached_list::<LimitRange>(attributes.ctx.namespace);
        if let Some(pod) = attributes.object_mut::<Pod>() {
            for item in items(&ranges).filter(|item| item.type_ == "Container") {
                fill(pod, item);
            }
        }
        Ok(())
    }

    async fn validate(&self, attributes: &Attributes<'_>) -> ApiResult<()> {
        let ranges = attributes
            .ctx
            .server
            .cached_list::<LimitRange>(attributes.ctx.namespace);
        let mut complaints = Vec::new();
        for item in items(&ranges) {
            if let Some(spec) = attributes.object::<Pod>().and_then(|pod| pod.spec.as_ref()) {
                check_pod(&mut complaints, item, spec);
            }
            if item.type_ == "PersistentVolumeClaim"
                && let Some(claim) = attributes.object::<PersistentVolumeClaim>()
            {
                check_claim(&mut complaints, item, claim);
            }
        }
        if complaints.is_empty() {
            Ok(())
        } else {
            Err(forbidden(attributes, aggregate(&complaints)))
        }
    }
}

fn items(ranges: &[Arc<LimitRange>]) -> impl Iterator<Item = &LimitRangeItem> {
    ranges
        .iter()
        .flat_map(|range| range.spec.iter().flat_map(|spec| spec.limits.iter()))
}

fn fill(pod: &mut Pod, item: &LimitRangeItem) {
    let mut notes = Vec::new();
    if let Some(spec) = &mut pod.spec {
        for container in &mut spec.containers {
            complete(&mut notes, item, container, "container");
        }
        for container in spec.init_containers.iter_mut().flatten() {
            complete(&mut notes, item, container, "init container");
        }
    }
    if !notes.is_empty() {
        let text = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata
            .annotations
            .get_or_insert_default()
            .insert(ANNOTATION.to_owned(), text);
    }
}

fn complete(notes: &mut Vec<String>, item: &LimitRangeItem, container: &mut Container, what: &str) {
    let resources = container.resources.get_or_insert_default();
    for (sort, list, defaults) in [
        ("request", &mut resources.requests, &item.default_request),
        ("limit", &mut resources.limits, &item.default),
    ] {
        let missing: Vec<(&String, &Quantity)> = defaults
            .iter()
            .flatten()
            .filter(|(name, _)| list.as_ref().is_none_or(|list| !list.contains_key(*name)))
            .collect();
        if missing.is_empty() {
            continue;
        }
        let names: Vec<&str> = missing.iter().map(|(name, _)| name.as_str()).collect();
        notes.push(format!(
            "{} {sort} for {what} {}",
            names.join(", "),
            container.name
        ));
        let list = list.get_or_insert_default();
        list.extend(
            missing
                .into_iter()
                .map(|(name, quantity)| (name.clone(), quantity.clone())),
        );
    }
}

fn check_pod(complaints: &mut Vec<String>, item: &LimitRangeItem, spec: &PodSpec) {
    match item.type_.as_str() {
        "Container" => {
            let none = ResourceRequirements::default();
            for container in spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
            {
                let resources = container.resources.as_ref().unwrap_or(&none);
                bounds(
                    complaints,
                    item,
                    &amounts(&resources.requests),
                    &amounts(&resources.limits),
                );
            }
        }
        "Pod" => {
            let total = |of: fn(&ResourceRequirements) -> &Option<List>| sum(spec, of);
            bounds(complaints, item, &total(|r| &r.requests), &total(|r| &r.limits));
        }
        _ => {}
    }
}

type Amounts = BTreeMap<String, Amount>;

fn amounts(list: &Option<List>) -> Amounts {
    list.iter()
        .flatten()
        .map(|(name, quantity)| (name.clone(), Amount::of(quantity)))
        .collect()
}

/// What the containers have together, or one init container alone if that is more.
fn sum(spec: &PodSpec, of: fn(&ResourceRequirements) -> &Option<List>) -> Amounts {
    let mut total = Amounts::new();
    for container in &spec.containers {
        for (name, amount) in container.resources.iter().flat_map(|r| amounts(of(r))) {
            let entry = total.entry(name).or_default();
            *entry = if entry.is_zero() { amount } else { *entry + amount };
        }
    }
    for container in spec.init_containers.iter().flatten() {
        for (name, amount) in container.resources.iter().flat_map(|r| amounts(of(r))) {
            let entry = total.entry(name).or_default();
            *entry = Amount::max(*entry, amount);
        }
    }
    total
}

fn bounds(complaints: &mut Vec<String>, item: &LimitRangeItem, requests: &Amounts, limits: &Amounts) {
    let kind = &item.type_;
    for (name, min) in item.min.iter().flatten() {
        let (least, text) = (
            Amount::of(min),
            format!("minimum {name} usage per {kind} is {}", min.0),
        );
        match requests.get(name) {
            None => complaints.push(format!("{text}.  No request is specified")),
            Some(request) if *request < least => complaints.push(format!("{text}, but request is {request}")),
            Some(_) => {}
        }
        if let Some(limit) = limits.get(name).filter(|limit| **limit < least) {
            complaints.push(format!("{text}, but limit is {limit}"));
        }
    }
    for (name, max) in item.max.iter().flatten() {
        let (most, text) = (
            Amount::of(max),
            format!("maximum {name} usage per {kind} is {}", max.0),
        );
        match limits.get(name) {
            None => complaints.push(format!("{text}.  No limit is specified")),
            Some(limit) if *limit > most => complaints.push(format!("{text}, but limit is {limit}")),
            Some(_) => {}
        }
        if let Some(request) = requests.get(name).filter(|request| **request > most) {
            complaints.push(format!("{text}, but request is {request}"));
        }
    }
    for (name, ratio) in item.max_limit_request_ratio.iter().flatten() {
        let text = format!("{name} max limit to request ratio per {kind} is {}, but", ratio.0);
        let positive = |list: &Amounts| list.get(name).map(|a| a.as_f64()).filter(|a| *a > 0.0);
        match (positive(requests), positive(limits)) {
            (None, _) => complaints.push(format!("{text} no request is specified or request is 0")),
            (_, None) => complaints.push(format!("{text} no limit is specified or limit is 0")),
            (Some(request), Some(limit)) if limit / request > Amount::of(ratio).as_f64() => {
                complaints.push(format!("{text} provided ratio is {:.6}", limit / request));
            }
            _ => {}
        }
    }
}

fn check_claim(complaints: &mut Vec<String>, item: &LimitRangeItem, claim: &PersistentVolumeClaim) {
    let requests = claim
        .spec
        .as_ref()
        .and_then(|s| s.resources.as_ref())
        .and_then(|r| r.requests.clone());
    let requests = amounts(&requests);
    // Claims have no limits: only what is asked for is held against the bounds.
    for (name, min) in item.min.iter().flatten() {
        if let Some(request) = requests.get(name).filter(|request| **request < Amount::of(min)) {
            let text = format!("minimum {name} usage per {} is {}", item.type_, min.0);
            complaints.push(format!("{text}, but request is {request}"));
        }
    }
    for (name, max) in item.max.iter().flatten() {
        if let Some(request) = requests.get(name).filter(|request| **request > Amount::of(max)) {
            let text = format!("maximum {name} usage per {} is {}", item.type_, max.0);
            complaints.push(format!("{text}, but request is {request}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn containers_get_defaults_and_keep_to_bounds() {
        let item: LimitRangeItem = serde_json::from_value(json!({"type": "Container",
            "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}, "max": {"cpu": "1"}, "min": {"cpu": "50m"}}))
        .expect("an item");
        let mut pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "a"}, {"name": "b", "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}}}]}}))
        .expect("a pod");
        fill(&mut pod, &item);
        assert_eq!(
            pod.metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(ANNOTATION))
                .map(String::as_str),
            Some("LimitRanger plugin set: cpu request for container a; cpu limit for container a")
        );
        let mut complaints = Vec::new();
        check_pod(&mut complaints, &item, pod.spec.as_ref().expect("a spec"));
        assert_eq!(
            complaints,
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 1, but limit is 2"
            ]
        );
    }
}
