//! HorizontalPodAutoscalers as autoscaling/v1 shows them: one number for CPU; the rest of the metrics, the behaviour and
//! the conditions lie in annotations.

use keelson_api::status::{ApiError, ApiResult};
use serde_json::{Map, Value, json};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

/// From v1 to v2.
pub fn to_storage(object: &mut Value) -> ApiResult<()> {
    let Some(fields) = object.as_object_mut() else {
        return Err(ApiError::bad_request(
            "a HorizontalPodAutoscaler must be a JSON object",
        ));
    };
    let mut take = |key: &str| -> Option<Value> {
        let annotations = fields
            .get_mut("metadata")?
            .get_mut("annotations")?
            .as_object_mut()?;
        serde_json::from_str(annotations.remove(key)?.as_str()?).ok()
    };
    let (metrics, behavior) = (take(METRICS), take(BEHAVIOR));
    let (current, conditions) = (take(CURRENT_METRICS), take(CONDITIONS));
    if let Some(spec) = fields.get_mut("spec").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = metrics.and_then(array).unwrap_or_default();
        if let Some(percent) = spec
            .remove("targetCPUUtilizationPercentage")
            .filter(|p| !p.is_null())
        {
            all.insert(
                0,
                cpu(
                    "target",
                    json!({"type": "Utilization", "averageUtilization": percent}),
                ),
            );
        }
        if !all.is_empty() {
            spec.insert("metrics".to_owned(), all.into());
        }
        if let Some(behavior) = behavior {
            spec.insert("behavior".to_owned(), behavior);
        }
    }
    if let Some(status) = fields.get_mut("status").and_then(Value::as_object_mut) {
        let mut all: Vec<Value> = current.and_then(array).unwrap_or_default();
        if let Some(percent) = status
            .remove("currentCPUUtilizationPercentage")
            .filter(|p| !p.is_null())
        {
            all.insert(
                0,
                cpu(
                    "current",
                    json!({"averageUtilization": percent, "averageValue": "0"}),
                ),
            );
        }
        if !all.is_empty() {
            status.insert("currentMetrics".to_owned(), all.into());
        }
        if let Some(conditions) = conditions {
            status.insert("conditions".to_owned(), conditions);
        }
    }
    Ok(())
}

fn array(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

fn cpu(field: &str, value: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu", field: value}})
}

/// From v2 to v1.
pub fn from_storage(object: &mut Value) {
    let mut kept: Vec<(&str, Value)> = Vec::new();
    if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
        let (percent, others) = split(spec, "metrics", "/resource/target/averageUtilization");
        if let Some(percent) = percent {
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        kept.extend(others.map(|others| (METRICS, others)));
        kept.extend(spec.remove("behavior").map(|behavior| (BEHAVIOR, behavior)));
    }
    if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
        let (percent, others) = split(status, "currentMetrics", "/resource/current/averageUtilization");
        if let Some(percent) = percent {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        kept.extend(others.map(|others| (CURRENT_METRICS, others)));
        kept.extend(
            status
                .remove("conditions")
                .map(|conditions| (CONDITIONS, conditions)),
        );
        status.entry("currentReplicas").or_insert_with(|| 0.into());
    }
    if kept.is_empty() {
        return;
    }
    if !object["metadata"]["annotations"].is_object() {
        object["metadata"]["annotations"] = json!({});
    }
    for (key, value) in kept {
        object["metadata"]["annotations"][key] = value.to_string().into();
    }
}

/// Takes the utilization of the CPU out of a list of metrics: the one thing v1 has a field for.
fn split(fields: &mut Map<String, Value>, list: &str, pointer: &str) -> (Option<Value>, Option<Value>) {
    let mut metrics = fields.remove(list).and_then(array).unwrap_or_default();
    let is_cpu = |metric: &Value| {
        metric.pointer("/resource/name").is_some_and(|name| name == "cpu")
            && metric.pointer(pointer).is_some()
    };
    let percent = metrics
        .iter()
        .position(is_cpu)
        .and_then(|i| metrics.remove(i).pointer(pointer).cloned());
    (percent, (!metrics.is_empty()).then(|| metrics.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_form_comes_back_as_it_went() {
        let old = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 5, "targetCPUUtilizationPercentage": 80,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
        let mut object = old.clone();
        to_storage(&mut object).expect("an autoscaler");
        assert_eq!(
            object["spec"]["metrics"],
            json!([{"type": "Resource", "resource": {"name": "cpu",
                "target": {"type": "Utilization", "averageUtilization": 80}}}])
        );
        from_storage(&mut object);
        assert_eq!(object, old);
    }

    #[test]
    fn what_the_older_form_cannot_say_is_kept() {
        let new = json!({"metadata": {"name": "h", "annotations": {}}, "spec": {"maxReplicas": 5,
            "metrics": [{"type": "Pods", "pods": {"metric": {"name": "x"}}}], "behavior": {"scaleUp": {}}}});
        let mut object = new.clone();
        from_storage(&mut object);
        assert!(object["spec"].get("metrics").is_none());
        to_storage(&mut object).expect("an autoscaler");
        assert_eq!(object, new);
    }
}
