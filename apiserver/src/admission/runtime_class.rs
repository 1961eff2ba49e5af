//! RuntimeClass: a pod of a class costs what the class costs, and runs where the class can run.

use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use k8s_openapi::api::node::v1::RuntimeClass as Class;
use keelson_api::status::ApiResult;

use super::refusal::forbidden;
use super::{Admission, Attributes, Operation};
use crate::registry::info::ResourceInfo;

/// The plugin.
pub struct RuntimeClass;

#[async_trait]
impl Admission for RuntimeClass {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, operation: Operation, info: &ResourceInfo, subresource: &str) -> bool {
        operation == Operation::Create
            && info.group.is_empty()
            && info.plural == "pods"
            && subresource.is_empty()
    }

    async fn mutate(&self, attributes: &mut Attributes<'_>) -> ApiResult<()> {
        let ctx = attributes.ctx;
        let Some(spec) = attributes.object_mut::<Pod>().and_then(|pod| pod.spec.as_mut()) else {
            return Ok(());
        };
        let outcome = match spec.runtime_class_name.clone() {
            Some(name) => match find(ctx, &name).await {
                Some(class) => apply(spec, &class),
                None => Err(format!("pod rejected: RuntimeClass {name:?} not found")),
            },
            None if spec.overhead.as_ref().is_some_and(|o| !o.is_empty()) => Err(
                "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
                    .to_owned(),
            ),
            None => Ok(()),
        };
        outcome.map_err(|why| forbidden(attributes, why))
    }
}

async fn find(ctx: &crate::registry::strategy::RequestContext<'_>, name: &str) -> Option<Arc<Class>> {
    match ctx.server.cached("", name) {
        Some(class) => Some(class),
        None => ctx.server.fresh("", name).await.ok().map(Arc::new),
    }
}

fn apply(spec: &mut PodSpec, class: &Class) -> Result<(), String> {
    let overhead = class
        .overhead
        .as_ref()
        .and_then(|o| o.pod_fixed.as_ref())
        .filter(|o| !o.is_empty());
    match (&spec.overhead, overhead) {
        (Some(own), wanted) if !own.is_empty() && Some(own) != wanted => {
            return Err(
                "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned(),
            );
        }
        (_, wanted) => spec.overhead = wanted.cloned(),
    }
    let Some(scheduling) = &class.scheduling else {
        return Ok(());
    };
    for (key, value) in scheduling.node_selector.iter().flatten() {
        let own = spec
            .node_selector
            .get_or_insert_default()
            .entry(key.clone())
            .or_insert_with(|| value.clone());
        if own != value {
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {own}"
            ));
        }
    }
    for toleration in scheduling.tolerations.iter().flatten() {
        let own = spec.tolerations.get_or_insert_default();
        if !own.contains(toleration) {
            own.push(toleration.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_class_decides_cost_and_place() {
        let class: Class = serde_json::from_value(json!({"metadata": {"name": "c"}, "handler": "h",
            "overhead": {"podFixed": {"cpu": "10m"}}, "scheduling": {"nodeSelector": {"a": "b"}}}))
        .expect("a class");
        let mut spec = PodSpec::default();
        apply(&mut spec, &class).expect("a plain pod");
        assert_eq!(spec.overhead.as_ref().map(|o| o["cpu"].0.as_str()), Some("10m"));
        assert_eq!(spec.node_selector.as_ref().map(|s| s["a"].as_str()), Some("b"));
        spec.node_selector = Some([("a".to_owned(), "c".to_owned())].into());
        assert!(apply(&mut spec, &class).is_err());
    }
}
